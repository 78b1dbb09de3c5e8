"""--model: a file, or the name of an official model; what is wrong with it ends in one line that names the nearest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from probes.cli import main
from probes.sources.flowfeat import open_checkpoint
from tests.common.download_server import Server, serving
from trainer import FlowFeat, official_models
from trainer.published import Published

CPU = torch.device("cpu")


@pytest.fixture
def published(tiny: FlowFeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """`tiny` under the official name tiny_dino8_yt."""
    torch.save(tiny.state_dict(), tmp_path / "published.pth")
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        server.content = (tmp_path / "published.pth").read_bytes()
        monkeypatch.setitem(official_models.OFFICIAL_MODELS, "tiny_dino8_yt", Published(server.url))
        yield server


def test_an_official_name_is_fetched_once(published: Server, tiny: FlowFeat) -> None:
    first = open_checkpoint(Path("tiny_dino8_yt"), device=CPU)
    published.always = "503"
    again = open_checkpoint(Path("tiny_dino8_yt"), device=CPU)
    for checkpoint in (first, again):
        assert checkpoint.sha256 == hashlib.sha256(published.content).hexdigest()
        assert checkpoint.settings()["variant"] == "tiny_dino8"
        state = checkpoint.model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in tiny.state_dict().items())


def test_a_file_of_that_name_goes_first(
    published: Server, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_dino8_yt").write_bytes(checkpoint.read_bytes())
    assert open_checkpoint(Path("tiny_dino8_yt"), device=CPU).path == Path("tiny_dino8_yt")
    assert not published.ranges


@pytest.mark.parametrize("command", [["visualize", "."], ["homography", "--images", "."]])
def test_the_nearest_name_is_told_by_every_command(command: list[str], tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.png")
    place = [str(tmp_path) if word == "." else word for word in command]
    done = CliRunner().invoke(main, [*place, "--model", "dinov2_vits14_y", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "no official model is called 'dinov2_vits14_y'" in done.output
    assert "did you mean dinov2_vits14_yt" in done.output


def test_a_model_that_is_not_finite_is_named_before_anything_is_measured(tiny: FlowFeat, tmp_path: Path) -> None:
    tensors = {key: value.clone() for key, value in tiny.state_dict().items()}
    tensors["decoder.norm.norm.bias"][3] = float("nan")
    torch.save(tensors, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth holds NaN or infinity, first in decoder\.norm\.norm\.bias"):
        open_checkpoint(tmp_path / "nan.pth", device=CPU)
