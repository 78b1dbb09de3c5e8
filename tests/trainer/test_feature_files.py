"""python -m trainer features: every format holds the model's own features, a video keeps its colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from common.feature_colors import ColorBasis
from trainer import Extracted, FlowFeat
from trainer import feature_files as files
from trainer.cli import main
from trainer.model_file import export_model

MODEL = "tiny_dino8"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    export_model(FlowFeat.create(MODEL, init="random"), path, {})
    return path


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["features", *(str(a) for a in arguments)])


def write_video(path: Path, frames: int = 5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, (70, 50))
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for number in range(frames):
        writer.write(np.roll(picture, 2 * number, axis=1))
    writer.release()


def test_npz_and_safetensors_hold_both_maps(model_file: Path, tmp_path: Path) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    image = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(image).save(photo)
    seen = np.array(Image.fromarray(image).resize((64, 48), Image.Resampling.BILINEAR))
    expected = FlowFeat.from_pretrained(model_file).extract(seen)
    for file_format in ("npy", "npz", "safetensors"):
        done = invoke("--model", model_file, "--out", out, "--size", 48, "--format", file_format, photo)
        assert done.exit_code == 0, done.output
    npz = np.load(out / "photo.npz")
    tensors = load_file(out / "photo.safetensors")
    for name, value in (("high", expected.high.half()), ("low", expected.low.half())):
        assert torch.equal(tensors[name], value) and np.array_equal(npz[name], value.numpy())
    assert np.array_equal(np.load(out / "photo.npy"), npz["high"])


def test_a_video_becomes_a_video_in_the_colors_of_its_first_frame(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip)
    fitted: list[torch.Tensor] = []
    fit = ColorBasis.fit

    def noted(high: torch.Tensor) -> ColorBasis:
        fitted.append(high)
        return fit(high)

    monkeypatch.setattr(files.ColorBasis, "fit", staticmethod(noted))
    out = tmp_path / "out"
    done = invoke("--model", model_file, "--out", out, "--size", 48, "--keep-every", 2, clip)
    assert done.exit_code == 0 and "5 frames" in done.output, done.output
    assert sorted(p.name for p in out.iterdir()) == [
        "clip-000000.npy",
        "clip-000002.npy",
        "clip-000004.npy",
        "clip.mp4",
    ]
    assert len(fitted) == 1
    assert np.array_equal(np.load(out / "clip-000000.npy"), fitted[0].half().numpy())
    drawn = cv2.VideoCapture(str(out / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 64 and drawn.get(cv2.CAP_PROP_FRAME_HEIGHT) == 48
    more, first = drawn.read()
    expected = fit(fitted[0]).colors(fitted[0])
    assert more and np.abs(first[..., ::-1].astype(int) - expected).mean() < 25  # as far as the codec keeps it


def test_what_cannot_be_read_leaves_nothing(model_file: Path, tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.mp4", tmp_path / "good.png"
    broken.write_bytes(b"no video")
    Image.new("RGB", (50, 50)).save(good)
    out = tmp_path / "out"
    done = invoke("--model", model_file, "--out", out, "--size", 48, broken, good)
    assert done.exit_code == 1 and "broken.mp4 cannot be read as a video" in done.output and "1 of 2" in done.output
    assert sorted(p.name for p in out.iterdir()) == ["good.npy", "good.png"]


def test_coloring_a_large_map_copies_a_band_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    high = torch.randn(16, 48, 64, generator=torch.Generator().manual_seed(0))
    basis, bands = ColorBasis.fit(high), []
    colors = ColorBasis.colors

    def noted(self: ColorBasis, map_chw: torch.Tensor) -> Any:
        bands.append(map_chw.shape[1])
        return colors(self, map_chw)

    monkeypatch.setattr(ColorBasis, "colors", noted)
    whole = files.colored_in_bands(basis, high)
    assert bands == [48] and np.array_equal(whole, colors(basis, high))
    monkeypatch.setattr(files, "BAND_PIXELS", 10 * 64)
    banded = files.colored_in_bands(basis, high)
    assert bands[1:] == [10, 10, 10, 10, 8] and banded.shape == (48, 64, 3)
    assert np.abs(banded.astype(int) - whole).max() <= 1  # the product may be rounded otherwise


def test_a_source_is_never_written_over(model_file: Path, tmp_path: Path) -> None:
    photo, clip = tmp_path / "photo.png", tmp_path / "clip.mp4"
    Image.new("RGB", (50, 50)).save(photo)
    write_video(clip)
    before = photo.read_bytes(), clip.read_bytes()
    for path in (photo, clip):
        done = invoke("--model", model_file, "--out", tmp_path, path)
        assert done.exit_code == 1 and f"{path} is one of the files given" in done.output
    assert (photo.read_bytes(), clip.read_bytes()) == before


def test_a_video_that_was_not_written_whole_is_an_error(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV says nothing when a frame does not reach the disk."""
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    write_video(clip)

    class Forgetful:
        def __init__(self, writer: cv2.VideoWriter) -> None:
            self.writer, self.frames, self.release = writer, 0, writer.release

        def write(self, frame: np.ndarray) -> None:
            self.frames += 1
            if self.frames < 3:
                self.writer.write(frame)

    honest = files._video_writer
    monkeypatch.setattr(files, "_video_writer", lambda *arguments: Forgetful(honest(*arguments)))
    with pytest.raises(OSError, match="2 of 5 frames"):
        files.draw_video(FlowFeat.from_pretrained(model_file), clip, out, 48, each=_ignored)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def _ignored(number: int, claimed: int, found: Extracted) -> None:
    """Nothing is to be done with a frame."""


def test_an_official_name_is_a_model_for_the_command_too(tmp_path: Path) -> None:
    done = invoke("--model", "dinov2_vits14_y", "--out", tmp_path / "out", tmp_path / "a.png")
    assert done.exit_code == 1 and "did you mean dinov2_vits14_yt" in done.output
