"""Published encoder files: what becomes of a name, its hash and a missing network."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import pytest
import torch

from common import download
from shards.files import sha256_of
from tests.common.download_server import HASTY, Server
from tests.trainer.model_fixtures import OFFICIAL, encoder_state, vit_of
from trainer import FlowFeat, flowfeat
from trainer import encoder_weights as weights
from trainer.encoder_weights import fetch_encoder
from trainer.published import Published


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    torch.save({"model": encoder_state("tiny_mae16")}, tmp_path / "published.pth")
    server.content = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setitem(weights.PUBLISHED, "tiny_mae16", Published(server.url))
    return tmp_path / "cache"


def test_a_name_becomes_a_model_and_its_hash_is_kept(cache: Path, server: Server) -> None:
    model = FlowFeat.create("tiny_mae16", init="pretrained")
    assert torch.equal(vit_of(model).norm.weight, encoder_state("tiny_mae16")["norm.weight"])
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert (cache / "weights.pth.sha256").read_text() == f"{sha256}  weights.pth\n"
    assert model.encoder_source == f"weights.pth sha256:{sha256}"
    fetch_encoder("tiny_mae16")
    assert len(server.ranges) == 1


def test_a_file_is_hashed_once_to_be_checked_and_recorded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_encoder("tiny_mae16")
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(download, "sha256_of", counted)
    monkeypatch.setattr(flowfeat, "sha256_of", counted)
    model = FlowFeat.create("tiny_mae16", init="pretrained")
    assert hashed == [cache / "weights.pth"] and sha256_of(cache / "weights.pth") in model.encoder_source
    FlowFeat.create("tiny_mae16", init=cache / "weights.pth")
    assert len(hashed) == 2


@pytest.mark.parametrize(
    ("variant", "told"),
    [("dinov2_vits14", "dinov2_vits14: licence Apache-2.0"), ("mae_vitb16", "licence CC-BY-NC-4.0: no commercial use")],
)
def test_the_licence_is_told_when_weights_are_fetched(
    variant: str,
    told: str,
    cache: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(weights.PUBLISHED, variant, Published(server.url))
    with caplog.at_level(logging.WARNING):
        fetch_encoder(variant)
        assert caplog.text.count(told) == 1
        server.always = "503"  # offline from now on
        fetch_encoder(variant)
    assert caplog.text.count("licence") == 1


def test_a_file_that_changed_is_refused(cache: Path) -> None:
    path = fetch_encoder("tiny_mae16").path
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
    registers = {f"dinov2_vit{size}14_reg" for size in "sbl"}
    assert set(weights.PUBLISHED) == {*OFFICIAL, *registers, *(f"dinov3_vit{size}16" for size in "sbl")}
    assert all(
        source.url.startswith("https://") and source.url.endswith(".pth") for source in weights.PUBLISHED.values()
    )
