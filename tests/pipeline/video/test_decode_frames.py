"""Frame sources: the frame that comes out is the one whose index and time were asked for."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.video.decord_frames import DecordFrames
from pipeline.video.decord_library import decord
from pipeline.video.edit_list import shown_until_s
from pipeline.video.folder_frames import FolderFrames, read_image
from pipeline.video.frame_source import EngineFailure, RepeatedFrames, presentation_times_s
from pipeline.video.pyav_frames import PyAVFrames, upright
from pipeline.video.rejects import Reject, check_file
from tests.pipeline.video.numbered_videos import cut_by_edit_list, numbered_frame, read_number, write_video

decord.logging.set_level(decord.logging.QUIET)

OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
CODINGS = {
    "h264 in mp4": ("mp4", "libx264", {"g": "12", "bf": "3"}),
    "h264 open group in mp4": ("mp4", "libx264", OPEN_GOP),
    "h264 open group in mkv": ("mkv", "libx264", OPEN_GOP),
    "h264 in flv": ("flv", "libx264", {"g": "12", "bf": "3"}),
    "h265 open group in mp4": (
        "mp4",
        "libx265",
        {"x265-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:log-level=none"},
    ),
    "mpeg4 with b-frames in mov": ("mov", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4 with b-frames in avi": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2 with b-frames in mkv": ("mkv", "mpeg2video", {"g": "12", "bf": "2"}),
    "vp9 in webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "av1 in mkv": ("mkv", "libsvtav1", {"preset": "12", "g": "12"}),
    "only key frames in mov": ("mov", "mpeg4", {"g": "1"}),
}


def head_of(path: Path) -> bytes:
    return check_file(path)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("engine", [DecordFrames, PyAVFrames])
def test_sweeps_return_the_frames_asked_for(
    tmp_path: Path, coding: str, engine: type[DecordFrames] | type[PyAVFrames]
) -> None:
    extension, codec, options = CODINGS[coding]
    path = write_video(tmp_path / f"v.{extension}", 70, codec=codec, options=options)
    for seed, count in enumerate((2, 8, 30)):
        source = engine(path, head_of(path))
        assert np.allclose(source.times_s, np.arange(70) / 25, atol=1.1e-3)
        wanted = sorted(random.Random(seed).sample(range(70), count))
        got = [(index, read_number(frame_hwc)) for index, frame_hwc in source.fetch(wanted)]
        assert got == [(i, i) for i in wanted]


@pytest.mark.parametrize("extension", ["ts", "mpg"])
def test_containers_in_which_decord_loses_count_go_to_pyav(tmp_path: Path, extension: str) -> None:
    path = write_video(tmp_path / f"v.{extension}", 40, codec="mpeg2video", options={"g": "12", "bf": "2"})
    with pytest.raises(EngineFailure, match="loses count"):
        DecordFrames(path, head_of(path))
    wanted = [0, 13, 14, 39]
    assert [read_number(frame) for _, frame in PyAVFrames(path, head_of(path)).fetch(wanted)] == wanted


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_variable_rate_stamps(tmp_path: Path, extension: str) -> None:
    rng = np.random.default_rng(0)
    times_ms = np.cumsum(rng.integers(10, 120, 60)).tolist()
    path = write_video(tmp_path / f"v.{extension}", 60, times_ms=times_ms, options={"g": "12", "bf": "2"})
    expected_s = (np.asarray(times_ms) - times_ms[0]) / 1000
    for engine in (DecordFrames, PyAVFrames):
        source = engine(path, head_of(path))
        assert np.allclose(source.times_s, expected_s, atol=2e-3)
        assert [read_number(frame) for _, frame in source.fetch([5, 31, 59])] == [5, 31, 59]


@pytest.mark.parametrize(("skip_s", "shown_s"), [(0.0, 1.6), (0.8, 1.2), (0.36, 5.0)])
def test_frames_hidden_by_an_edit_list_are_neither_counted_nor_returned(
    tmp_path: Path, skip_s: float, shown_s: float
) -> None:
    path = write_video(tmp_path / "v.mp4", 75, options={"g": "25", "bf": "2"})
    cut_by_edit_list(path, skip_s=skip_s, shown_s=shown_s)
    assert shown_until_s(path) == pytest.approx(shown_s)
    truth = PyAVFrames(path, head_of(path))
    shown = [read_number(frame) for _, frame in truth.fetch(range(len(truth.times_s)))]
    assert shown[0] == round(skip_s * 25) and len(shown) < 75

    source = DecordFrames(path, head_of(path))
    assert source.counted
    assert np.allclose(source.times_s, truth.times_s, atol=1e-3)
    wanted = sorted({0, 3, len(shown) // 2, len(shown) // 2 + 1, len(shown) - 1})
    assert [read_number(frame) for _, frame in source.fetch(wanted)] == [shown[i] for i in wanted]


def test_the_last_frame_is_never_repeated(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 50, options={"g": "25", "bf": "2"})
    cut_by_edit_list(path, skip_s=0.0, shown_s=1.0)
    source = DecordFrames(path, head_of(path))
    assert len(source.times_s) == 25
    with pytest.raises(RepeatedFrames):
        list(source.fetch([40, 45]))


def test_no_edit_list_in_other_containers(tmp_path: Path) -> None:
    assert shown_until_s(write_video(tmp_path / "v.mkv", 5)) is None
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 20 + b"\0\0\xff\xffmoov\0\0\0\x10trak")
    assert shown_until_s(tmp_path / "broken.mp4") is None


def test_long_jumps_seek_and_keep_windows_together(tmp_path: Path) -> None:
    """After a long jump decord's count may be off by the reordered frames, but by as much for every frame of a window."""
    for name, options in {
        "closed": {"g": "50", "bf": "2"},
        "open": {"x264-params": "open-gop=1:keyint=50:bframes=3:scenecut=0"},
    }.items():
        path = write_video(
            tmp_path / f"{name}.mp4", 2000, options=options | {"preset": "ultrafast"} if name == "closed" else options
        )
        wanted = [10, 11, 12, 1500, 1501, 1502, 1700, 1702]
        got = [read_number(frame) for _, frame in DecordFrames(path, head_of(path)).fetch(wanted)]
        assert got[:3] == [10, 11, 12]
        shift = got[3] - 1500
        assert abs(shift) <= 3 and (name == "open" or shift == 0)
        assert got[3:] == [i + shift for i in wanted[3:]]


def test_a_long_jump_lands_on_the_key_frame_before_the_last_one(tmp_path: Path) -> None:
    """What a seek garbles is over within one group of pictures, so a whole group lies between the landing and the window."""
    path = write_video(tmp_path / "v.mp4", 1000, options={"g": "50", "bf": "2", "preset": "ultrafast"})
    source = DecordFrames(path, head_of(path))
    keyframes = source._reader.get_key_indices()
    sought: list[int] = []
    seek = source._reader.seek_accurate

    def noted(index: int) -> None:
        sought.append(index)
        seek(index)

    source._reader.seek_accurate = noted
    target = next(index for index in keyframes if index > 700)
    got = [read_number(frame) for _, frame in source.fetch([10, target, target + 1])]
    assert got == [10, target, target + 1]
    assert sought == [keyframes[keyframes.index(target) - 1]]


@pytest.mark.parametrize("width", [16, 18, 24, 32, 48, 50, 72, 96])
def test_narrow_frames_whose_rows_decord_pads(tmp_path: Path, width: int) -> None:
    path = write_video(tmp_path / "v.mp4", 6, size=(width, 64), options={"g": "3"})
    ours = dict(DecordFrames(path, head_of(path)).fetch([0, 4]))
    theirs = dict(PyAVFrames(path, head_of(path)).fetch([0, 4]))
    for index, frame_hwc in ours.items():
        assert frame_hwc.shape == (64, width, 3)
        assert np.array_equal(frame_hwc, theirs[index])


def test_a_title_that_is_no_text_is_no_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 6, title="a title")
    path.write_bytes(path.read_bytes().replace(b"a title", b"\xff\xfe\xf0tle!"))
    assert [index for index, _ in PyAVFrames(path, head_of(path)).fetch(range(6))] == list(range(6))


def test_times_without_meaning_become_a_constant_rate() -> None:
    for bad in ([-9.2e17] * 4, [0.0, 0.2, 0.1, 0.3], [0.0, np.nan, 1.0, 2.0]):
        assert presentation_times_s(np.asarray(bad), 10.0).tolist() == [0.0, 0.1, 0.2, 0.3]
    assert presentation_times_s(np.asarray([0.0, -1.0]), 0.0).tolist() == [0.0, 0.04]
    assert presentation_times_s(np.asarray([2.0, 2.5]), 10.0).tolist() == [0.0, 0.5]


def test_upright() -> None:
    frame_hwc = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert upright(frame_hwc, 90).shape == (4, 2, 3) and np.array_equal(upright(frame_hwc, 90)[-1, 0], frame_hwc[0, 0])
    assert np.array_equal(upright(frame_hwc, -180), frame_hwc[::-1, ::-1])
    for angle in (0, 360, 17, -(2**31)):
        assert np.array_equal(upright(frame_hwc, angle), upright(frame_hwc, 0)) or angle % 90 == 0
    assert np.array_equal(upright(frame_hwc, 17), frame_hwc)


@pytest.mark.parametrize(
    "name",
    ["odd_videos/torchcodec__nasa_13013_rotated.mp4", "odd_videos/decord__video_180.mov", "odd_videos/decord__video_270.mov",
     "videos/clip-video-encode__vid2.mp4", "videos/co-tracker__pillow.mp4", "videos/vid2vid-zero__skateboard-dog.avi"],
)  # fmt: skip
def test_engines_agree_on_real_files(shared_dir: Path, name: str) -> None:
    """Rotated, cut by an edit list, without presentation times: equal stamps and equal pixels from both engines."""
    path = shared_dir / "data" / name
    ours, theirs = DecordFrames(path, head_of(path)), PyAVFrames(path, head_of(path))
    assert np.allclose(ours.times_s, theirs.times_s, atol=1e-3)
    wanted = sorted(random.Random(0).sample(range(len(ours.times_s)), min(9, len(ours.times_s))))
    for (_, one), (_, other) in zip(ours.fetch(wanted), theirs.fetch(wanted), strict=True):
        assert np.array_equal(one, other)


def folder_of(path: Path, names: list[str], size: tuple[int, int] = (96, 64)) -> Path:
    path.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(numbered_frame(number, *size)).save(path / name, quality=95)
    return path


def test_folder_order_times_and_equality_with_pillow(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "seq", [f"{i}.jpg" for i in range(12)], (192, 128))
    (folder / "notes.txt").write_text("x")
    source = FolderFrames(folder, 24.0)
    assert np.allclose(source.times_s, np.arange(12) / 24)
    frames = dict(source.fetch([0, 2, 10, 11]))
    assert [read_number(frame) for frame in frames.values()] == [0, 2, 10, 11]
    assert np.array_equal(frames[10], np.asarray(Image.open(folder / "10.jpg")))


def test_folder_of_png_grey_and_cmyk(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "seq", ["00000.png", "00001.png"])
    assert [frame.shape for _, frame in FolderFrames(folder, 6.0).fetch([0, 1])] == [(64, 96, 3)] * 2
    Image.new("L", (96, 64), 77).save(tmp_path / "grey.jpg")
    Image.new("CMYK", (96, 64)).save(tmp_path / "cmyk.jpg")
    assert (
        read_image(tmp_path / "grey.jpg").shape == (64, 96, 3)
        and abs(int(read_image(tmp_path / "grey.jpg")[0, 0, 0]) - 77) <= 1
    )
    assert read_image(tmp_path / "cmyk.jpg").shape == (64, 96, 3)


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "seq", [f"{i:05d}.jpg" for i in range(6)], (192, 128))
    whole = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8))
    for content, message in (
        (b"", "is empty"),
        (whole[:2000], "cannot be decoded"),
        (b"not a jpeg", "cannot be decoded"),
    ):
        (folder / "00003.jpg").write_bytes(content)
        with pytest.raises(Reject, match=f"00003.jpg {message}") as caught:
            list(FolderFrames(folder, 24.0).fetch([2, 3]))
        assert caught.value.reason == "broken_frame"
    Image.new("RGB", (100, 100)).save(folder / "00003.jpg")
    with pytest.raises(Reject, match=r"00003.jpg is 100x100 px, frames before it are 192x128"):
        list(FolderFrames(folder, 24.0).fetch([2, 3]))
    (folder / "00003.jpg").unlink()
    (folder / "00003.jpg").mkdir()
    with pytest.raises(Reject, match="cannot be decoded"):
        list(FolderFrames(folder, 24.0).fetch([3]))


def test_folders_without_frames(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, reason in (("empty", "too_short"), ("gone", "missing"), ("file", "not_a_video")):
        with pytest.raises(Reject) as caught:
            FolderFrames(tmp_path / name, 24.0)
        assert caught.value.reason == reason
