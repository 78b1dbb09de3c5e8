"""Features of pictures and videos of one's own: panels, names, colours, damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.clip import VideoFile, frames_in, write_clip
from common.progress import ProgressDisplay
from probes.cli import main
from probes.sources.flowfeat import Checkpoint
from probes.visualize import Seen, Strips, draw, find_inputs


def _write(path: Path) -> None:
    pixels = np.random.default_rng(ord(path.name[0])).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_visualize_writes_three_panels(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.png")
    with ProgressDisplay("", "pictures") as display:
        files = find_inputs(tmp_path)
        written = draw(Strips(tiny_checkpoint, 48), files, tmp_path / "out", joint=True, display=display)
    assert [path.name for path in written] == ["a_features.png", "b_features.png"]
    with Image.open(written[0]) as picture:
        assert picture.size == (3 * 64 + 2 * 6, 48)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"two pictures in .* are called 'a'"):
        find_inputs(tmp_path)


def test_a_picture_is_turned_as_its_camera_was_held(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    upright = np.full((96, 64, 3), 60, np.uint8)
    upright[:40] = (30, 200, 90)
    stored = Image.fromarray(np.rot90(upright).copy())
    exif = stored.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    stored.save(tmp_path / "held.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "plain.png")
    with ProgressDisplay("", "pictures") as display:
        files = [tmp_path / "held.png", tmp_path / "plain.png"]
        turned, plain = draw(Strips(tiny_checkpoint, 96), files, tmp_path / "out", display=display)
    assert Image.open(turned).size == (3 * 64 + 2 * 6, 96)
    assert turned.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("joint", [[], ["--joint"]])
def test_a_broken_picture_is_named_and_the_others_are_drawn(checkpoint: Path, tmp_path: Path, joint: list[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "c.jpg", "d.png"):
        _write(pictures / name)
    (pictures / "c.jpg").write_bytes((pictures / "c.jpg").read_bytes()[:300])
    (pictures / "a.png").write_bytes(b"no picture")
    (pictures / "b.png").write_bytes((pictures / "d.png").read_bytes())
    given = ["--model", str(checkpoint), "--out", str(tmp_path / "out"), "--height", "48", *joint]
    result = CliRunner().invoke(main, ["visualize", str(pictures), *given])
    assert result.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b_features.png", "d_features.png"]
    for name in ("a.png", "c.jpg"):
        assert sum(name in line and "skipped" in line for line in result.stderr.splitlines()) == 1
    assert result.stderr.splitlines()[-1] == "Error: 2 of 4 pictures could not be read"
    assert "2 pictures in" in result.stdout


def _clip(path: Path, frames: list[np.ndarray]) -> Path:
    write_clip(path, frames, 12.0)
    return path


def _squares(count: int, height: int = 51, width: int = 77) -> list[np.ndarray]:
    """A bright square that moves, in frames of odd sides; the first frame is black, as of a video that fades in."""
    frames = [np.full((height, width, 3), 60, np.uint8) for _ in range(count)]
    for place, frame in enumerate(frames):
        frame[8:28, 6 + 6 * place : 30 + 6 * place] = (30, 200, 90)
    frames[0][:] = 0
    return frames


def _run(*given: object) -> Result:
    return CliRunner().invoke(main, ["visualize", *map(str, given)])


def test_a_video_becomes_an_mp4_of_as_many_frames_and_the_same_rate(checkpoint: Path, tmp_path: Path) -> None:
    source = _clip(tmp_path / "clip.mp4", _squares(5))
    result = _run(source, "--model", checkpoint, "--out", tmp_path / "out", "--height", 48)
    assert result.exit_code == 0, result.output
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == "clip_features.mp4" and frames_in(made) == 5
    assert VideoFile(made).fps() == pytest.approx(12.0)
    assert next(VideoFile(made).frames()).shape == (48, 3 * 64 + 2 * 6, 3)
    assert "1 videos in" in result.stdout


def test_a_clip_has_one_basis_that_of_its_middle_frame(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[np.ndarray] = []
    fit_colors = Strips.fit_colors

    def counted(self: Strips, seen: Seen) -> None:
        fitted.append(np.asarray(seen.image))
        fit_colors(self, seen)

    monkeypatch.setattr(Strips, "fit_colors", counted)
    source = _clip(tmp_path / "clip.mp4", _squares(5))
    with ProgressDisplay("", "frames") as display:
        draw(Strips(tiny_checkpoint, 48), [source], tmp_path / "out", display=display)
    (middle,) = fitted
    assert (middle == list(VideoFile(source).frames())[2]).all()


@pytest.mark.parametrize("labelled", [[], ["--labels"]])
def test_a_broken_video_is_one_line(checkpoint: Path, tmp_path: Path, labelled: list[str]) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    Image.fromarray(np.ones((50, 76), np.uint8)).save(tmp_path / "labels.png")
    given = [*labelled, *([tmp_path / "labels.png"] if labelled else [])]
    result = _run(tmp_path / "bad.mp4", "--model", checkpoint, "--out", tmp_path / "out", "--height", 48, *given)
    assert result.exit_code == 1 and "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if "Error:" in line]
    assert lines == [
        f"Error: cannot decode the video {tmp_path / 'bad.mp4'}; the label map belongs to this one"
        if labelled
        else "Error: 1 of 1 files could not be read"
    ]
    assert not list(tmp_path.glob("out/*"))


def test_a_video_that_ends_early_is_drawn_as_far_as_it_goes(checkpoint: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "cut.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12, (128, 96))
    for frame in np.random.default_rng(0).integers(0, 255, (9, 96, 128, 3), dtype=np.uint8):
        writer.write(frame)
    writer.release()
    whole = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 6 // 10])
    result = _run(tmp_path / "cut.avi", "--model", checkpoint, "--out", tmp_path / "out", "--height", 48)
    assert result.exit_code == 0, result.output
    done = frames_in(tmp_path / "out" / "cut_features.mp4")
    assert 0 < done < 9
    assert f"{done} frames could be read of 9 that it claims to have" in result.stderr


def test_labels_of_the_first_picture_are_found_again(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    frames = _squares(4)[1:]
    labels = (frames[0][..., 1] == 200).astype(np.uint8)
    strips = Strips(tiny_checkpoint, 48, labels)
    panels = []
    for frame in frames:
        seen = strips.look(Image.fromarray(frame))
        if not strips.bases:
            strips.fit_colors(seen)
        panels.append(np.asarray(strips.draw(seen)).astype(int))
    assert panels[0].shape == (48, 4 * 64 + 3 * 6, 3)
    tinted = panels[2][:, 3 * (64 + 6) :] - panels[2][:, :64]
    moved = np.asarray(Image.fromarray((frames[2][..., 1] == 200).astype(np.uint8) * 255).resize((64, 48))) > 127
    changed = np.abs(tinted).max(axis=2) > 20
    assert (changed & moved).sum() / (changed | moved).sum() > 0.6
    with pytest.raises(ValueError, match="the label map is 70x50, the first picture 77x51"):
        other = Strips(tiny_checkpoint, 48, np.ones((50, 70), np.uint8))
        seen = other.look(Image.fromarray(frames[0]))
        other.fit_colors(seen)
        other.draw(seen)


def test_an_input_is_never_written_over(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a_features.png"):
        _write(tmp_path / name)
    before = (tmp_path / "a_features.png").read_bytes()
    result = _run(tmp_path, "--model", checkpoint, "--out", tmp_path, "--height", 48)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: {tmp_path / 'a_features.png'} is one of the files given: choose another --out"
    )
    assert (tmp_path / "a_features.png").read_bytes() == before
