"""Tracked videos: the benchmark's pickle, files of arrays, frames in folders, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.synth import exact_tracks, write_davis
from pipeline.synth.scene import Scene
from pipeline.synth.write import HELD_OUT
from probes.data.rgbd import open_pairs
from probes.data.tracks import open_tracks


def arrays(frames: int = 4, points: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "video": rng.integers(0, 255, (frames, 16, 24, 3), dtype=np.uint8),
        "points": rng.random((points, frames, 2), dtype=np.float32),
        "occluded": rng.random((points, frames)) < 0.3,
    }


def write_frames(folder: Path, video: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")


def test_every_form_gives_the_same_video(tmp_path: Path) -> None:
    one = arrays()
    forms = {name: tmp_path / name for name in ("whole", "beside", "davis")}
    for root in forms.values():
        root.mkdir()
    (tmp_path / "tapvid.pkl").write_bytes(pickle.dumps({"goat": one}))
    np.savez(forms["whole"] / "goat.npz", **one)
    tracks_alone = {name: one[name] for name in ("points", "occluded")}
    np.savez(forms["beside"] / "goat.npz", **tracks_alone)
    write_frames(forms["beside"] / "goat", one["video"])
    (forms["davis"] / "Tracks").mkdir()
    np.savez(forms["davis"] / "Tracks/goat.npz", **tracks_alone)
    write_frames(forms["davis"] / "JPEGImages/480p/goat", one["video"])
    for root in (tmp_path / "tapvid.pkl", *forms.values()):
        (video,) = open_tracks(root)
        assert (video.name, video.frames) == ("goat", 4)
        assert np.array_equal(video.points_nt2, one["points"].astype(np.float64))
        assert np.array_equal(video.visible_nt, ~one["occluded"])
        frames = video.open()
        assert all(np.array_equal(np.asarray(frames(index)), one["video"][index]) for index in range(4))


def test_what_the_generator_writes_is_read(tmp_path: Path) -> None:
    write_davis(tmp_path, 1, 5, frames=3, size=(64, 80))
    (video,) = open_tracks(tmp_path)
    scene = Scene.create(5 + HELD_OUT, 0, size=(64, 80), frames=3)
    places, occluded = exact_tracks(scene)
    assert np.array_equal(video.visible_nt, ~occluded)
    assert np.abs(video.points_nt2 - places)[~occluded].max() < 1e-6
    assert video.open()(2).size == (80, 64)
    pairs = open_pairs(tmp_path, 1000)
    assert [pair.picture.name for pair in pairs] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert np.abs(pairs[1].depth_m() - scene.depth(1)[:, 8:72]).max() < 0.001


def test_fingerprint_follows_the_points(tmp_path: Path) -> None:
    one = arrays()
    np.savez(tmp_path / "a.npz", **one)
    one["points"][0, 0] += 0.01
    np.savez(tmp_path / "b.npz", **one)
    one["occluded"][0, 0] ^= True
    np.savez(tmp_path / "c.npz", **one)
    assert len({video.fingerprint() for video in open_tracks(tmp_path)}) == 3


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("true",)


def test_a_pickle_may_hold_arrays_only(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"goat": {"points": 1}}))
    with pytest.raises(ValueError, match="video 'goat' has no array video"):
        open_tracks(path)
    for content in (pickle.dumps({"x": Harmful()}), b"no pickle", b"", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"bad.pkl cannot be read as tracked videos .*expected tapvid_davis.pkl.*/tapnet"
        ):
            open_tracks(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("points", np.zeros((3, 4, 3)), r"points \(3, 4, 3\) and occluded \(3, 4\)"),
        ("points", np.full((3, 4, 2), 100.0), "shares of width and height, not pixels"),
        ("occluded", np.zeros((3, 5), bool), r"occluded \(3, 5\)"),
        ("occluded", None, "lacks points or occluded"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, name: str, value: np.ndarray | None, message: str) -> None:
    one: dict[str, Any] = {**arrays(), name: value}
    one["occluded"] = np.zeros((3, 4), bool) if name == "points" else one["occluded"]
    np.savez(tmp_path / "goat.npz", **{key: array for key, array in one.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        open_tracks(tmp_path)


def test_missing_and_unfitting_frames_are_refused(tmp_path: Path) -> None:
    one = arrays()
    np.savez(tmp_path / "goat.npz", points=one["points"], occluded=one["occluded"])
    with pytest.raises(ValueError, match=r"has no array video, and .*goat is not a directory"):
        open_tracks(tmp_path)
    write_frames(tmp_path / "goat", one["video"][:3])
    with pytest.raises(ValueError, match=r"over 4 frames and .* holds 3"):
        open_tracks(tmp_path)
    np.savez(tmp_path / "goat.npz", points=one["points"], occluded=one["occluded"], video=one["video"][:3])
    (video,) = open_tracks(tmp_path)
    with pytest.raises(ValueError, match="for 4 frames"):
        video.open()
    (tmp_path / "goat.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"no readable .npz file"):
        open_tracks(tmp_path)


def test_nothing_there_names_the_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not exist: expected tapvid_davis.pkl.*/tapnet"):
        open_tracks(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no tracked video: expected"):
        open_tracks(tmp_path)
