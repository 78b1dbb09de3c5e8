"""Published encoder files: what becomes of a name, its hash and a missing network, and the check that a file is the encoder asked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.common.download_server import HASTY, Server, serving
from tests.trainer.model_fixtures import OFFICIAL, TINY, encoder_state, random_state
from trainer import ENCODERS, FlowFeat
from trainer import encoder_weights as weights
from trainer.encoder_weights import Published, fetch_encoder, read_encoder_file


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    torch.save({"model": encoder_state("tiny_mae16")}, tmp_path / "published.pth")
    server.content = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setitem(weights.PUBLISHED, "tiny_mae16", Published(server.url))
    return tmp_path / "cache"


def test_a_name_becomes_a_model_and_its_hash_is_kept(cache: Path, server: Server) -> None:
    model = FlowFeat.create("tiny_mae16", init="pretrained")
    assert torch.equal(model.encoder.norm.weight, encoder_state("tiny_mae16")["norm.weight"])
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert (cache / "weights.pth.sha256").read_text() == f"{sha256}  weights.pth\n"
    assert model.encoder_source == f"weights.pth sha256:{sha256}"
    fetch_encoder("tiny_mae16")
    assert len(server.ranges) == 1


def test_a_file_that_changed_is_refused(cache: Path) -> None:
    path = fetch_encoder("tiny_mae16")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"not [0-9a-f]{64} as recorded: delete it"):
        fetch_encoder("tiny_mae16")


def test_a_known_hash_is_demanded_of_the_download(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.PUBLISHED, "tiny_mae16", Published(server.url, "0" * 64))
    with pytest.raises(ValueError, match="not 0000"):
        fetch_encoder("tiny_mae16")
    assert not (cache / "weights.pth.sha256").exists()


def test_processes_that_start_together_download_once(cache: Path, server: Server) -> None:
    threads = [threading.Thread(target=fetch_encoder, args=("tiny_mae16",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ranges) == 1


def test_being_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    monkeypatch.setitem(weights.PUBLISHED, "tiny_dino8", Published("http://127.0.0.1:9/w.pth"))
    with pytest.raises(OSError) as caught:
        fetch_encoder("tiny_dino8", patience=HASTY)
    for part in (
        "tiny_dino8",
        "fetch http://127.0.0.1:9/w.pth by hand",
        str(tmp_path / "w.pth"),
        "init=PATH",
        "init='random'",
    ):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="demo_vit8 has no published weights"):
        fetch_encoder("demo_vit8")


def test_every_official_variant_has_an_address() -> None:
    assert set(weights.PUBLISHED) == set(OFFICIAL)
    assert all(
        source.url.startswith("https://") and source.url.endswith(".pth") for source in weights.PUBLISHED.values()
    )


def as_published(family: str, seed: int = 1) -> dict[str, object]:
    tensors = encoder_state(TINY[family], seed)
    return {"model": tensors} if family == "mae" else tensors


@pytest.mark.parametrize("family", list(TINY))
def test_published_layouts_are_read_unchanged(family: str, tmp_path: Path) -> None:
    wanted = encoder_state(TINY[family], seed=1)
    torch.save(as_published(family), tmp_path / "e.pth")
    save_file(wanted, tmp_path / "e.safetensors")
    torch.save(as_published(family), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("e.pth", "e.safetensors", "old.pth"):
        model = FlowFeat.create(TINY[family], init=tmp_path / name)
        assert all(torch.equal(value, wanted[key]) for key, value in model.encoder.state_dict().items())


def test_the_reconstruction_decoder_of_mae_is_dropped(tmp_path: Path) -> None:
    extras = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 48),
        "decoder_pos_embed": torch.zeros(1),
    }
    torch.save({"model": {**encoder_state("tiny_mae16"), **extras}}, tmp_path / "e.pth")
    assert set(read_encoder_file(tmp_path / "e.pth", ENCODERS["tiny_mae16"], "tiny_mae16")) == set(
        encoder_state("tiny_mae16")
    )


@pytest.mark.parametrize(("asked", "given"), list(permutations(TINY, 2)))
def test_a_file_of_the_wrong_family_is_named(asked: str, given: str, tmp_path: Path) -> None:
    torch.save(as_published(given), tmp_path / "e.pth")
    with pytest.raises(
        ValueError, match=rf"e\.pth is not {TINY[asked]}: it looks like {TINY[given]} \(.*\); .*patch_embed"
    ):
        FlowFeat.create(TINY[asked], init=tmp_path / "e.pth")


def test_dino_and_mae_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    """ViT-B/16 has the same keys and shapes in both families: nothing but the position table and the nesting differs."""
    mae = ENCODERS["tiny_mae16"]
    twin = replace(mae, family="dino")
    torch.save(encoder_state("tiny_mae16"), tmp_path / "mae.pth")
    learned = dict(FlowFeat.create(twin, init="random").encoder.state_dict())
    torch.save(learned, tmp_path / "dino.pth")
    torch.save({"model": learned}, tmp_path / "nested.pth")
    read_encoder_file(tmp_path / "dino.pth", twin, "twin")
    read_encoder_file(tmp_path / "mae.pth", mae, "tiny_mae16")
    for name, spec, sign in (
        ("mae.pth", twin, "looks like tiny_mae16 .its position embedding is fixed"),
        ("dino.pth", mae, "looks like a dino ViT of dim 48, depth 4, patch 16 .it is a flat file"),
        ("nested.pth", twin, "nested under"),
    ):
        with pytest.raises(ValueError, match=sign):
            read_encoder_file(tmp_path / name, spec, "asked")


def test_other_files_in_place_of_an_encoder(tmp_path: Path) -> None:
    spec = ENCODERS["tiny_dino8"]
    with pytest.raises(FileNotFoundError, match=r"no encoder file .*none\.pth for dino_vits16: fetch it from https://"):
        read_encoder_file(tmp_path / "none.pth", ENCODERS["dino_vits16"], "dino_vits16")
    torch.save(random_state("tiny_dino8"), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"FlowFeat\.from_pretrained"):
        read_encoder_file(tmp_path / "whole.pth", spec, "tiny_dino8")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"no ViT of these families, .*first keys: conv1\.weight"):
        read_encoder_file(tmp_path / "resnet.pth", spec, "tiny_dino8")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged: .*; delete it and get it again"):
        read_encoder_file(tmp_path / "cut.pth", spec, "tiny_dino8")
    smaller = {key: value for key, value in encoder_state("tiny_dino8").items() if not key.startswith("blocks.3.")}
    torch.save(smaller, tmp_path / "short.pth")
    with pytest.raises(
        ValueError, match=r"looks like a dino ViT of dim 48, depth 3, patch 8 .*12 missing \(blocks\.3\.norm1\.weight"
    ):
        read_encoder_file(tmp_path / "short.pth", spec, "tiny_dino8")
