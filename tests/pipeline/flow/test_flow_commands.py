"""The commands about flow: `flow`, `weights`, `compare-precision`, and mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from common.flow_colors import flow_to_color
from pipeline.flow.cli import commands
from pipeline.flow.dis import DisChoice, DisFlow
from pipeline.flow.files import read_flow
from pipeline.flow.weights.catalogue import KNOWN
from pipeline.window import Window, WindowFlow
from tests.pipeline.flow.flow_stand_in import moving_pair


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def two_pictures(folder: Path) -> tuple[Path, Path]:
    for name, frame in zip("ab", moving_pair(140, 200, 5), strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
    return folder / "a.png", folder / "b.png"


def a_video(path: Path, frames: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128))
    for frame in [f for seed in range(frames // 2) for f in moving_pair(128, 160, seed)]:
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> int:
    capture, frames = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        frames += 1
    return frames


def test_flow_command_on_pictures(tmp_path: Path) -> None:
    sources = two_pictures(tmp_path)
    done = run("flow", *sources, "--flow", "dis", "--out", tmp_path / "flow.png")
    assert done.exit_code == 0 and "px on average" in done.output
    drawn = cv2.imread(str(tmp_path / "flow.png"))
    assert drawn is not None
    assert drawn.shape == (140, 200, 3) and drawn.std() > 5
    assert run("flow", *sources, "--flow", "dis", "--out", tmp_path / "flow.flo").exit_code == 0
    full, _ = read_flow(tmp_path / "flow.flo")
    assert run("flow", *sources, "--flow", "dis", "--max-side", 150, "--out", tmp_path / "small.flo").exit_code == 0
    small, _ = read_flow(tmp_path / "small.flo")
    assert small.shape == full.shape
    assert np.linalg.norm(small - full, axis=0).mean() < 0.5, "shrinking keeps flow in pixels of the full size"
    net = run("flow", *sources, "--flow", "sea-raft-s", "--weights", "random:0", "--out", tmp_path / "net.kitti.png")
    assert net.exit_code == 0, net.output
    assert read_flow(tmp_path / "net.kitti.png")[0].shape == (2, 140, 200)


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    sources = two_pictures(tmp_path)
    before = [source.read_bytes() for source in sources]
    done = run("flow", *sources, "--out", tmp_path / "." / "b.png")
    assert done.exit_code == 1 and "give --out another name" in done.output
    assert [source.read_bytes() for source in sources] == before


def test_flow_command_on_a_video(tmp_path: Path) -> None:
    a_video(tmp_path / "in.avi")
    done = run("flow", tmp_path / "in.avi", "--flow", "dis", "--out", tmp_path / "out.mp4", "--max-frames", 10)
    assert done.exit_code == 0 and "10 pairs" in done.output
    assert frames_of(tmp_path / "out.mp4") == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flow", "a.png", "b.png", "--flow", "dis", "--out", "x.png"), "no image at a.png"),
        (("flow", "a.mp4", "--flow", "dis", "--out", "x.mp4"), "no video at a.mp4"),
        (("flow", "a.mp4", "--flow", "dis", "--out", "x.png"), "a video becomes a video"),
        (("flow", "a.png", "--flow", "dis", "--out", "x.png"), "two images or one video"),
        (
            (
                "flow",
                "a.png",
                "b.png",
                "--flow",
                "raft",
                "--weights",
                "random:0",
                "--flow-option",
                "x",
                "--out",
                "x.png",
            ),
            "NAME=VALUE",
        ),
        (("flow", "a.png", "b.png", "--flow", "rafd", "--out", "x.png"), "did you mean raft"),
        (
            ("flow", "a.png", "b.png", "--flow", "raft", "--weights", "/no.pth", "--out", "x.png"),
            "no weights file at /no.pth",
        ),
        (("weights", "get", "raft-sintl"), "did you mean raft-sintel"),
        (("weights", "convert-smurf", "nowhere"), "no TensorFlow checkpoint"),
        (("compare-precision", "--flow", "raft-small", "--weights", "random"), "random:SEED"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output
    assert done.output.count("\n") == 1


def test_weights_command_lists_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "raft_small_C_T_V1-ad48884c.pth").write_bytes(b"x")
    listed = {entry["name"]: entry for entry in json.loads(run("weights", "--json").stdout)}
    assert listed["raft-small-things"]["present"] and not listed["raft-sintel"]["present"]
    assert listed["sea-raft-m-spring"]["url"].startswith("https://") and listed["raft-sintel"]["licence"]
    table = run("weights").output
    assert all(name in table for name in ("sea-raft-m-spring", "0b8c9e55", "BSD-3-Clause", "smurf-kitti"))


def test_compare_precision_command() -> None:
    done = run("compare-precision", "--flow", "raft-small", "--weights", "random:0", "--side", 128, "--json")
    assert done.exit_code == 0, done.output
    rows = {row["mode"]: row for row in json.loads(done.stdout)}
    assert rows["fp32"]["max_epe_px"] == 0
    assert rows["fp32 channels_last"]["max_epe_px"] < 1e-3 < rows["bf16"]["max_epe_px"]
    assert rows["bf16"]["mean_epe_px"] < 0.1 * rows["bf16"]["mean_motion_px"]


def test_flow_needs_nothing_but_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimator is extraction's default; the result lies in the current directory, under the source's name."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    done = run("flow", *two_pictures(there))
    assert done.exit_code == 0 and done.output.startswith("a-flow.png: motion"), done.output
    done = run("flow", a_video(there / "clip.avi"), "--max-frames", 2)
    assert done.exit_code == 0 and done.output.startswith("clip-flow.mp4: 2 pairs"), done.output
    assert sorted(path.name for path in here.iterdir()) == ["a-flow.png", "clip-flow.mp4"]
    assert sorted(path.name for path in there.iterdir()) == ["a.png", "b.png", "clip.avi"]


class Failing(DisFlow):
    """Fails at the second batch of a video."""

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        if windows[0].anchor_index > 0:
            raise ValueError("the network fell over")
        return super().estimate(windows)


def test_a_broken_run_leaves_no_half_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DisChoice, "build", lambda self: Failing())
    source, out = a_video(tmp_path / "in.avi"), tmp_path / "results" / "out.mp4"
    out.parent.mkdir()
    done = run("flow", source, "--out", out)
    assert done.exit_code == 1 and "fell over" in done.output
    assert list(out.parent.iterdir()) == []
    out.write_bytes(b"an earlier video")
    assert run("flow", source, "--out", out).exit_code == 1
    assert out.read_bytes() == b"an earlier video" and len(list(out.parent.iterdir())) == 1


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.flo", "out.kitti.png"])
def test_results_are_renamed_into_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are made; a rename that fails leaves the earlier result."""
    out = tmp_path / "new" / name
    sources = two_pictures(tmp_path)
    assert run("flow", *sources, "--out", out).exit_code == 0
    before = out.read_bytes()

    def no_rename(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", no_rename)
    done = run("flow", *sources, "--out", out, "--flow-option", "preset=fast")
    assert done.exit_code == 1 and "Input/output error" in done.output
    assert out.read_bytes() == before and [path.name for path in out.parent.iterdir()] == [name]


def test_a_drawn_picture_is_the_colour_wheel(tmp_path: Path) -> None:
    sources = two_pictures(tmp_path)
    for name in ("out.png", "out.flo"):
        assert run("flow", *sources, "--out", tmp_path / name).exit_code == 0
    drawn = cv2.imread(str(tmp_path / "out.png"))
    assert drawn is not None
    assert np.array_equal(drawn[..., ::-1], flow_to_color(read_flow(tmp_path / "out.flo")[0]))


def test_the_list_of_weights_fits_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "raft-chairs.pth").write_bytes(b"x")
    shown = {}
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        shown[columns] = run("weights").output
    lines = shown["80"].splitlines()
    assert shown["200"] == shown["80"] and max(map(len, lines[1:])) <= 80, "the first line names the cache directory"
    for entry in KNOWN:
        (row,) = [line for line in lines if line.split()[:1] == [entry.name]]
        assert f"{entry.about_mb:g}" in row and entry.trained_on in row
        assert ("yes" in row.split()) == (entry.name == "raft-chairs-official")
    assert "sea-raft-m-spring" in shown["80"] and "huggingface.co" in shown["80"]
