"""The official models by name: what is fetched, from where, what is told, and what happens without a network."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch

from tests.common.download_server import HASTY, Server
from tests.trainer.model_fixtures import random_state
from trainer import FlowFeat, official_models
from trainer.encoder_table import ENCODERS
from trainer.official_models import OFFICIAL_MODELS, fetch_official, licence_of, variant_of
from trainer.published import Published

NAME = "tiny_dinov2_14_yt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    """A tiny model published under an official name's pattern, as the authors' flat files are."""
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    torch.save(random_state("tiny_dinov2_14"), tmp_path / "published.pth")
    server.content = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setitem(official_models.OFFICIAL_MODELS, NAME, Published(server.url))
    return tmp_path / "cache"


def test_a_name_becomes_a_model_and_is_fetched_once(
    cache: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.plan = ["closes early"]
    with caplog.at_level(logging.WARNING):
        model = FlowFeat.from_pretrained(NAME)
    expected = random_state("tiny_dinov2_14")
    assert model.variant == "tiny_dinov2_14"
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert len(server.ranges) == 2 and server.ranges[1] is not None  # the transfer went on where it broke
    digest = hashlib.sha256(server.content).hexdigest()
    assert model.encoder_source == f"official model {NAME} sha256:{digest}"
    assert (cache / "models/weights.pth.sha256").read_text() == f"{digest}  weights.pth\n"
    assert f"{NAME}: licence Apache-2.0" in caplog.text

    caplog.clear()
    server.always = "503"  # from now on offline
    FlowFeat.from_pretrained(NAME)
    assert len(server.ranges) == 2 and "licence" not in caplog.text


def test_a_file_that_changed_is_refused(cache: Path) -> None:
    path = fetch_official(NAME).path
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"not [0-9a-f]{64} as recorded: delete it"):
        FlowFeat.from_pretrained(NAME)


def test_a_pinned_hash_is_demanded(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(official_models.OFFICIAL_MODELS, NAME, Published(server.url, "0" * 64))
    with pytest.raises(ValueError, match="not 0000"):
        FlowFeat.from_pretrained(NAME)


def test_a_file_of_another_encoder_is_refused(cache: Path, server: Server, tmp_path: Path) -> None:
    torch.save(random_state("tiny_dino8"), tmp_path / "other.pth")
    server.content = (tmp_path / "other.pth").read_bytes()
    with pytest.raises(ValueError, match="does not fit tiny_dinov2_14"):
        FlowFeat.from_pretrained(NAME)


def test_being_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    monkeypatch.setitem(official_models.OFFICIAL_MODELS, NAME, Published("http://127.0.0.1:9/w.pth"))
    with pytest.raises(OSError) as caught:
        fetch_official(NAME, patience=HASTY)
    for part in (
        NAME,
        "fetch http://127.0.0.1:9/w.pth by hand",
        str(tmp_path / "models/w.pth"),
        "from_pretrained(PATH)",
    ):
        assert part in str(caught.value)
    assert str(caught.value).count(str(tmp_path)) == 1, "said once"
    assert "0 bytes" not in str(caught.value)


def test_an_unknown_name_names_near_ones_and_a_path_stays_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="did you mean dinov2_vits14_yt"):
        FlowFeat.from_pretrained("dinov2_vits14_y")
    for missing in ("dinov2_vits14_yt.pth", str(tmp_path / "dinov2_vits14_yt"), Path("dinov2_vits14_yt")):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            FlowFeat.from_pretrained(missing)
    monkeypatch.chdir(tmp_path)
    torch.save(random_state("tiny_dino8"), tmp_path / "dinov2_vits14_yt")
    assert FlowFeat.from_pretrained("dinov2_vits14_yt").variant == "tiny_dino8"


def test_the_seven_official_names() -> None:
    assert len(OFFICIAL_MODELS) == 7
    for name, source in OFFICIAL_MODELS.items():
        assert variant_of(name) in ENCODERS
        assert source.url.startswith("https://") and source.url.endswith(f"_flowfeat_{name[-2:]}.pth")
        assert ("no commercial use" in licence_of(name)) == name.startswith("mae")
    assert len({source.url for source in OFFICIAL_MODELS.values()}) == 7
