"""Networks from a hub repository: each argument order and each kind of result arrives as declared, and nothing is fetched unasked."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from probes.sources import hub_table
from probes.sources.adapter import Call, Order
from probes.sources.features import Features, Source, features_of
from probes.sources.flowfeat import Checkpoint
from probes.sources.hub import hub_source
from probes.sources.hub_table import HUB, HubEntry
from probes.sources.request import SourceRequest
from probes.sources.table import check_names, create_sources, title_of
from tests.probes.sources.hub_repository import upsampler, write_repository
from trainer import FlowFeat

ORDERS: tuple[Order, ...] = ("image, features", "features, image", "image, features, size")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("hub") / "theirs")


@pytest.fixture
def allowed(tiny_checkpoint: Checkpoint, repository: Path) -> Checkpoint:
    """The tiny checkpoint beside a checkout of the repository."""
    return replace(tiny_checkpoint, request=SourceRequest(checkouts={"theirs": repository}))


def _images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _entry(entry: str, call: Call, **arguments: str | int | float | bool) -> HubEntry:
    return HubEntry("theirs", "Theirs", "somebody/up", entry, call, "MIT", tuple(arguments.items()))


def _features(source: Source) -> Features:
    ((_, features),) = features_of([source], _images())
    return features


@pytest.mark.parametrize("order", ORDERS)
def test_an_upsampler_gets_its_arguments_in_its_order(tiny: FlowFeat, allowed: Checkpoint, order: Order) -> None:
    source = hub_source(upsampler(order), allowed)
    assert source.encoder is allowed.encoder, "it stands on the checkpoint's encoder"
    features = _features(source)
    images = tiny.normalise(_images())
    low = tiny(images)[0]
    expected = F.interpolate(low, size=(32, 48), mode="bilinear") * images.mean()
    assert torch.equal(features.low_bdgf, low) and features.dense_alone
    assert features.high_bkhw is not None and torch.allclose(features.high_bkhw, expected, atol=1e-6)


def test_an_upsampler_of_plain_rgb_gets_it(tiny: FlowFeat, allowed: Checkpoint) -> None:
    plain, normalised = (
        _features(hub_source(upsampler("image, features", normalisation=kind), allowed)).high_bkhw
        for kind in ("unit", "imagenet")
    )
    assert plain is not None and normalised is not None
    ratio = float(_images().float().mean() / 255 / tiny.normalise(_images()).mean())
    assert torch.allclose(plain, normalised * ratio, rtol=1e-3)


def test_encoders_of_every_kind_give_the_same_tokens(allowed: Checkpoint) -> None:
    kinds = [
        _entry(
            "tokens",
            Call(patch=8, method="get_intermediate_layers", arguments=(("n", 1), ("reshape", True)), path=(0,)),
        ),
        _entry("tokens", Call("image", "imagenet", "tokens", 8, prefix_tokens=5), prefix=5),
        _entry("tokens", Call(result="tokens", method="forward_features", path=("x_norm_patchtokens",))),
        replace(_entry("two", Call(result="tokens", patch=8, frames=2), frames=2), part=0),
    ]
    maps = [_features(hub_source(entry, allowed)) for entry in kinds]
    for features in maps:
        assert features.low_bdgf.shape == (2, 12, 4, 6) and features.high_bkhw is None
        assert torch.allclose(features.low_bdgf, maps[0].low_bdgf, atol=1e-6)
    plain = _entry("tokens", Call(normalisation="unit", arguments=(("feature_fmt", "NCHW"),), path=(1,)))
    assert not torch.allclose(_features(hub_source(plain, allowed)).low_bdgf, maps[0].low_bdgf, atol=1e-2)
    small = _entry("tokens", Call(patch=8, result="tokens", side_px=16))
    assert _features(hub_source(small, allowed)).low_bdgf.shape == (2, 12, 2, 2), "pictures are brought to its one size"


def test_networks_with_a_backbone_bring_tokens_and_a_dense_map(allowed: Checkpoint) -> None:
    call = Call(result="dense", patch=8, tokens_module="model", dense_size="any")
    features = _features(hub_source(_entry("with_backbone", call), allowed))
    assert features.low_bdgf.shape == (2, 6, 4, 6) and features.dense_alone
    assert features.high_bkhw is not None and features.high_bkhw.shape == (2, 6, 32, 48), "resized to the picture"
    means = _features(hub_source(_entry("with_backbone", replace(call, tokens_module="")), allowed))
    assert torch.allclose(means.low_bdgf, features.low_bdgf, atol=1e-6), "means of cells where it gives no tokens"
    pair = _features(hub_source(_entry("pair", Call(result="tokens and dense", patch=8, multiple=16)), allowed))
    assert pair.high_bkhw is not None and pair.high_bkhw.shape == (2, 4, 32, 48) and not pair.dense_alone


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("in place", "changes its input in place"),
        ("image in place", "changes its input in place"),
        ("size", "a map of 31x48 instead of 32x48"),
        ("nan", "NaN or infinity"),
        ("channels", "gives 47 channels instead of 48"),
        ("batch", r"gives \[48, 32, 48\] for 2 pictures"),
        ("list", "gives a list of 1 instead of a tensor"),
    ],
)
def test_a_module_that_breaks_its_promise_is_named(allowed: Checkpoint, broken: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^theirs .*{message}"):
        _features(hub_source(upsampler("image, features", broken), allowed))


def test_other_wrong_results_are_named(allowed: Checkpoint) -> None:
    coarse = upsampler("image, features", "coarse", dense_size="any")
    wrong = {
        "a map of 1x1 instead of 32x48 or less, no coarser": coarse,
        "fails on .*these are no pictures": replace(upsampler("image, features"), call=Call("features, image")),
        r"instead of tokens \[2, 24, c\]: 0 and 4x6 of patch 8": _entry(
            "tokens", Call("image", "imagenet", "tokens", 8), prefix=1
        ),
        "without 'x_norm_patchtokens'": _entry("tokens", Call(path=("x_norm_patchtokens",))),
        "instead of 2x3": _entry("tokens", Call(patch=16, method="map")),
        "is a int instead of an nn.Module": _entry("number", Call()),
        "cannot be made: TypeError": _entry("pair", Call(), unknown=1),
        "gives no item 3": replace(_entry("two", Call()), part=3),
        "upsamples features of dinov2_vits14, and the model's encoder is": upsampler(
            "image, features", backbones=("dinov2_vits14",)
        ),
    }
    for message, entry in wrong.items():
        with pytest.raises(ValueError, match=message) as error:
            _features(hub_source(entry, allowed))
        assert str(error.value).startswith("theirs") and "\n" not in str(error.value)


def test_nothing_is_fetched_unasked(
    allowed: Checkpoint, tiny_checkpoint: Checkpoint, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        ValueError, match=r"needs the repository somebody/up \(MIT\): --allow-download .*--hub-checkout theirs=DIR"
    ):
        hub_source(upsampler("image, features"), tiny_checkpoint)
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    fetching = _entry("fetching", Call(result="tokens"), port=server.getsockname()[1])
    with pytest.raises(ValueError, match=r"would connect to 127\.0\.0\.1.*--allow-download"):
        hub_source(fetching, allowed)
    with pytest.raises(TimeoutError):
        server.accept()
    asked = replace(allowed, request=replace(allowed.request, allow_download=True))
    assert _features(hub_source(fetching, asked)).low_bdgf.shape[1] == 12
    server.accept()[0].close()
    server.close()
    fetched = tmp_path / "somebody_up_main"
    fetched.symlink_to(repository)
    hub_source(upsampler("image, features"), tiny_checkpoint)  # what torch.hub fetched earlier is taken


def test_weights_that_must_be_brought_are_asked_for(allowed: Checkpoint, tmp_path: Path) -> None:
    entry = replace(_entry("weighted", Call(result="tokens")), weights_argument="weights", needs_weights=True)
    with pytest.raises(ValueError, match="--hub-weights theirs=FILE"):
        hub_source(entry, allowed)
    (tmp_path / "file").write_text("0.0")
    asked = replace(allowed, request=replace(allowed.request, weights={"theirs": tmp_path / "file"}))
    assert float(_features(hub_source(entry, asked)).low_bdgf.std(dim=(0, 2, 3)).max()) == 0
    with pytest.raises(ValueError, match="takes no file of weights"):
        hub_source(upsampler("image, features"), asked)


def test_adding_a_source_is_one_table_entry(allowed: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_table, "HUB", (*HUB, upsampler("features, image")))
    assert check_names(["theirs", "encoder"]) == ["encoder", "theirs"] and title_of("theirs") == "theirs"
    encoder, theirs = create_sources(["encoder", "theirs"], allowed)
    assert encoder.encoder is theirs.encoder and _features(theirs).high_bkhw is not None


def test_the_table_is_consistent() -> None:
    names = [entry.name for entry in HUB]
    assert len(set(names)) == len(names) and not any("," in name or ":" in name for name in names)
    repositories = " ".join(entry.repository for entry in HUB).lower()
    for expected in (
        "featup",
        "loftup",
        "anyup",
        "naf",
        "uplift",
        "dinov2",
        "dinov3",
        "vjepa2",
        "franca",
        "radio",
        "flowfeat",
    ):
        assert expected in repositories
    for entry in HUB:
        assert entry.licence and entry.repository.count("/") == 1
        assert not (entry.call.backbones and not entry.call.takes_features)
