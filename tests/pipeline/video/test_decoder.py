"""The decoder as its caller sees it: windows, rejects, and a child process that may hang or die."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.video import windows as child_side
from pipeline.video.datasets import Video
from pipeline.video.decoder import REJECT_REASONS, DecodedAnchor, Decoder, Reject
from pipeline.video.geometry import centre_square, shrink_square
from pipeline.video.messages import Request
from pipeline.video.sampling import draw_anchor
from tests.pipeline.video.numbered_videos import HEIGHT, WIDTH, numbered_frame, read_number, write_audio, write_video

OFFSETS = (-2, -1, 1, 2)
ROOT = Path(__file__).resolve().parents[3]


def file(path: Path) -> Video:
    return Video(path.stem, path, "file")


def ask(decoder: Decoder, video: Video, passes: list[int] | None = None, **options: object) -> list[DecodedAnchor]:
    settings = {"seed": 0, "offsets": OFFSETS, "image_size": 96, "flow_size": 48, "deadline_s": 300.0} | options
    return list(decoder.windows(video, passes or [0], **settings).anchors)  # type: ignore[arg-type]


def reject(decoder: Decoder, video: Video, passes: list[int] | None = None, **options: object) -> Reject:
    with pytest.raises(Reject) as caught:
        ask(decoder, video, passes, **options)
    assert caught.value.reason in REJECT_REASONS and "\n" not in caught.value.detail
    return caught.value


@pytest.fixture(scope="module")
def decoder() -> object:
    with Decoder() as one:
        yield one


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 40, options={"g": "12", "bf": "2"})


def test_windows_hold_the_frames_that_they_name(decoder: Decoder, clip: Path) -> None:
    decoded = decoder.windows(
        file(clip), range(12), seed=3, offsets=OFFSETS, image_size=448, flow_size=224, keep_neighbours=True
    )
    assert (decoded.n_frames, decoded.n_anchors, decoded.width, decoded.height, decoded.engine) == (
        40,
        36,
        WIDTH,
        HEIGHT,
        "decord",
    )
    assert decoded.fps == pytest.approx(25, abs=0.01) and decoded.duration_s == pytest.approx(1.6, abs=0.01)
    anchors = list(decoded.anchors)
    assert [anchor.pass_index for anchor in anchors] == list(range(12))
    for anchor in anchors:
        window = anchor.window
        assert window.anchor_index == 2 + draw_anchor(3, "clip", anchor.pass_index, 36)
        assert window.neighbour_indices == tuple(window.anchor_index + k for k in OFFSETS)
        assert window.anchor_time_s == pytest.approx(window.anchor_index / 25, abs=1e-4)
        assert window.neighbour_times_s == pytest.approx([i / 25 for i in window.neighbour_indices], abs=1e-4)
        assert anchor.image_hwc.shape == (448, 448, 3) and window.anchor_hwc.shape == (224, 224, 3)
        assert window.neighbours_khwc.shape == (4, 224, 224, 3) and anchor.neighbour_images_khwc is not None
        of = (WIDTH, HEIGHT)
        assert read_number(anchor.image_hwc, of) == read_number(window.anchor_hwc, of) == window.anchor_index
        assert tuple(read_number(square, of) for square in window.neighbours_khwc) == window.neighbour_indices
        assert tuple(read_number(square, of) for square in anchor.neighbour_images_khwc) == window.neighbour_indices
        assert np.array_equal(shrink_square(anchor.image_hwc, 224), window.anchor_hwc)


def test_a_pass_is_the_same_alone_in_any_company_and_in_another_process(decoder: Decoder, clip: Path) -> None:
    together = {a.pass_index: a for a in ask(decoder, file(clip), [0, 3, 5, 9])}
    with Decoder() as other:
        for p in (9, 3):
            (alone,) = ask(other, file(clip), [p])
            assert alone.window.anchor_index == together[p].window.anchor_index
            assert alone.image_hwc.tobytes() == together[p].image_hwc.tobytes()
            assert alone.window.neighbours_khwc.tobytes() == together[p].window.neighbours_khwc.tobytes()
            assert alone.neighbour_images_khwc is None


def test_more_passes_than_anchors(decoder: Decoder, tmp_path: Path) -> None:
    video = file(write_video(tmp_path / "v.mp4", 6))
    drawn = [anchor.window.anchor_index for anchor in ask(decoder, video, list(range(6)))]
    assert sorted(drawn[:2]) == sorted(drawn[2:4]) == sorted(drawn[4:]) == [2, 3]


def test_variable_rate_neighbours_are_chosen_by_time(decoder: Decoder, tmp_path: Path) -> None:
    """25 frames per second with every second frame of the later part missing: no window may span the gap at double speed."""
    times_ms = [40 * i for i in range(40)] + [1600 + 80 * i for i in range(10)]
    video = file(write_video(tmp_path / "v.mp4", 50, times_ms=times_ms))
    for anchor in ask(decoder, video, list(range(36))):
        gaps_s = np.asarray(anchor.window.neighbour_times_s) - anchor.window.anchor_time_s
        assert np.allclose(gaps_s, np.asarray(OFFSETS) * 0.04, atol=0.0201)
        assert anchor.window.anchor_index <= 40


def test_frame_folders(decoder: Decoder, tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(numbered_frame(i)).save(tmp_path / f"{i:05d}.jpg", quality=95)
    (anchor,) = ask(decoder, Video("seq", tmp_path, "frames", 24.0), image_size=64, flow_size=64)
    square_hwc = centre_square(np.asarray(Image.open(tmp_path / f"{anchor.window.anchor_index:05d}.jpg")), 64)
    assert np.array_equal(anchor.image_hwc, square_hwc) and np.array_equal(anchor.window.anchor_hwc, square_hwc)
    (tmp_path / "00005.jpg").write_bytes(b"\xff\xd8\xff broken")
    refused = reject(decoder, Video("seq", tmp_path, "frames", None), passes=[0, 1, 2, 3])
    assert refused.reason == "broken_frame" and "00005.jpg" in refused.detail


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    clip = write_video(folder / "clip.mp4", 30, options={"g": "12"}, size=(320, 240)).read_bytes()
    made = {
        "empty_file": b"",
        "not_a_video text": b"this is no video\n" * 50,
        "not_a_video html": b"<!DOCTYPE html><html>404</html>",
        "not_a_video lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "not_a_video noise": np.random.default_rng(0).bytes(5000),
        "not_a_video jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
        "corrupt truncated": clip[: len(clip) // 2],
        "corrupt zeroed": clip[:2000] + bytes(len(clip) // 3) + clip[2000 + len(clip) // 3 :],
    }
    cases: dict[str, tuple[Path, str]] = {}
    for number, (name, data) in enumerate(made.items()):
        path = folder / f"bad{number}.mp4"
        path.write_bytes(data)
        cases[name] = (path, name.split()[0])
    cases["missing"] = (folder / "gone.mp4", "missing")
    cases["too_short"] = (write_video(folder / "short.mp4", 4), "too_short")
    cases["too_small"] = (write_video(folder / "tiny.avi", 9, codec="mpeg4", size=(8, 8)), "too_small")
    cases["one pixel"] = (write_video(folder / "pixel.avi", 9, codec="ffv1", size=(2, 2)), "too_small")
    cases["no_video_stream"] = (write_audio(folder / "sound.mp4"), "no_video_stream")
    cases["directory"] = (folder, "not_a_video")
    fifo = folder / "pipe.mp4"
    os.mkfifo(fifo)
    cases["fifo"] = (fifo, "not_a_video")
    return cases


def test_bad_input_is_told_apart(decoder: Decoder, tmp_path: Path, clip: Path) -> None:
    for name, (path, reason) in _bad_files(tmp_path).items():
        refused = reject(decoder, file(path))
        assert refused.reason == reason, (name, refused)
        assert str(path) in refused.detail and 0 <= refused.seconds < 60
    assert len(ask(decoder, file(clip))) == 1


def test_damage_near_the_end_is_found_whatever_the_passes_are(decoder: Decoder, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mp4", 200, options={"g": "12"}, size=(320, 240))
    data = whole.read_bytes()
    media = data.index(b"mdat")
    assert len(ask(decoder, file(whole), [0])) == 1
    end = media + int.from_bytes(data[media - 4 : media], "big") - 4
    whole.write_bytes(data[: end - 400] + b"\xff" * 400 + data[end:])
    for p in range(6):
        assert reject(decoder, file(whole), passes=[p]).reason == "corrupt"


def test_without_pyav_the_reasons_stay_apart(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = _bad_files(tmp_path)
    cases["transport stream"] = (write_video(tmp_path / "v.ts", 20, codec="mpeg2video"), "unsupported_codec")
    cases["av1"] = (
        write_video(tmp_path / "av1.mp4", 9, codec="libsvtav1", options={"preset": "12"}),
        "unsupported_codec",
    )
    real_import = builtins.__import__

    def no_av(name: str, *args: object, **kwargs: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_av)
    for name, (path, reason) in cases.items():
        request = Request("v", str(path), "file", None, (0,), 0, OFFSETS, 64, 64, False)
        with pytest.raises(Reject) as caught:
            child_side.decode(request)
        assert caught.value.reason == reason, (name, caught.value)
        assert ("pip install av" in caught.value.detail) == (reason == "unsupported_codec")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(decoder: Decoder, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 9)
    path.chmod(0)
    assert reject(decoder, file(path)).reason == "unreadable"


def hanging(folder: Path) -> Video:
    """A frame folder whose pictures are pipes without a writer: opening one blocks for ever."""
    folder.mkdir()
    for i in range(5):
        os.mkfifo(folder / f"{i}.jpg")
    return Video("hanging", folder, "frames", 24.0)


def test_a_hang_ends_at_the_deadline_and_the_next_video_works(tmp_path: Path, clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        first = decoder.child_pid
        refused = reject(decoder, hanging(tmp_path / "pipes"), deadline_s=0.5)
        assert refused.reason == "timeout" and "0.5 s" in refused.detail and refused.seconds >= 0.5
        assert decoder.child_pid is None and first is not None and not psutil.pid_exists(first)
        assert len(ask(decoder, file(clip))) == 1
        assert decoder.children_started == 2


def test_a_crash_is_reported_and_the_next_video_works(tmp_path: Path, clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        pid = decoder.child_pid
        assert pid is not None
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGSEGV))
        killer.start()
        refused = reject(decoder, hanging(tmp_path / "pipes"), deadline_s=60)
        killer.join()
        assert refused.reason == "decoder_crashed" and "SIGSEGV" in refused.detail
        assert len(ask(decoder, file(clip))) == 1


def test_a_child_that_died_between_videos_is_replaced_silently(clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        assert decoder.child_pid is not None
        os.kill(decoder.child_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while decoder.child_pid is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(ask(decoder, file(clip))) == 1


def test_the_child_is_replaced_after_its_share_of_videos(clip: Path) -> None:
    with Decoder(max_videos_per_child=3) as decoder:
        for _ in range(7):
            ask(decoder, file(clip))
        assert decoder.children_started == 3


def test_unread_anchors_do_not_leak_into_the_next_video(clip: Path, tmp_path: Path) -> None:
    other = file(write_video(tmp_path / "other.mp4", 9))
    with Decoder() as decoder:
        decoded = decoder.windows(file(clip), range(6), seed=0, offsets=OFFSETS)
        next(decoded.anchors)
        (anchor,) = ask(decoder, other)
        assert anchor.window.video_id == "other"
        with pytest.raises(RuntimeError, match="before the decoder's next call"):
            next(decoded.anchors)


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    hanging(tmp_path / "pipes")
    script = (
        "import sys, threading, time\nfrom pathlib import Path\n"
        "from pipeline.video.decoder import Decoder\nfrom pipeline.video.datasets import Video\n"
        "decoder = Decoder()\n"
        "def tell():\n    while decoder.child_pid is None: time.sleep(0.01)\n    time.sleep(0.3); print(decoder.child_pid, flush=True)\n"
        "threading.Thread(target=tell).start()\n"
        "decoder.windows(Video('h', Path(sys.argv[1]), 'frames', 24.0), [0], seed=0, offsets=(1,), deadline_s=60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "pipes")], stdout=subprocess.PIPE, text=True, env=env
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_arguments_that_make_no_sense(decoder: Decoder, clip: Path) -> None:
    for options, message in (
        ({"offsets": (0, 1)}, "offsets"),
        ({"image_size": 100, "flow_size": 200}, "flow_size"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"passes": [-1]}, "passes"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(decoder, file(clip), **options)


def test_every_odd_real_file_ends_as_windows_or_a_reject(decoder: Decoder, shared_dir: Path) -> None:
    expected = {
        "empty.mp4": "empty_file",
        "html_named_mp4.mp4": "not_a_video",
        "jpeg_named_mp4.mp4": "not_a_video",
        "random_bytes.mp4": "not_a_video",
        "depthcrafter__gitlfs_pointer_example_01.mp4": "not_a_video",
        "truncated_moov_end_60pct.mp4": "corrupt",
        "truncated_moov_front_60pct.mp4": "corrupt",
        "bitrot_5pct_middle.mp4": "corrupt",
        "decord__corrupted.mp4": "corrupt",
        "datumaro__video_1.avi": "too_small",
        "decord__video_180.mov": "too_short",
        "mediabunny__ac3.mp4": "no_video_stream",
        "torchcodec__sine_mono_s16.wav": "no_video_stream",
        "torchcodec__av1_video.mkv": "pyav",
        "moviepy__no_duration.webm": "pyav",
        "torchcodec__nasa_13013_rotated.mp4": "decord",
        "truncated_webm_50pct.webm": "decord",
    }
    everything = sorted(path for path in (shared_dir / "data" / "odd_videos").rglob("*") if path.is_file())
    paths = [
        path for path in everything if path.stat().st_size < 500_000 or path.name in expected
    ]  # the large ones take long
    ended: dict[str, str] = {}
    for path in paths:
        try:
            decoded = decoder.windows(Video(path.name, path, "file"), [0], seed=0, offsets=OFFSETS, deadline_s=300)
            assert len(list(decoded.anchors)) == 1
            ended[path.name] = decoded.engine
        except Reject as refused:
            ended[path.name] = refused.reason
    assert len(ended) == len(paths) >= 80
    assert {name: ended[name] for name in expected} == expected
    assert not {"timeout", "decoder_crashed"} & set(ended.values())


def test_real_clips_decode(decoder: Decoder, shared_dir: Path) -> None:
    """One in six, to save time."""
    paths = sorted((shared_dir / "data" / "videos").iterdir())[::6]
    assert len(paths) >= 9
    for path in paths:
        assert len(ask(decoder, file(path), [0, 1], deadline_s=300.0)) == 2


def test_memory_stays_flat(clip: Path) -> None:
    with Decoder(max_videos_per_child=10_000) as decoder:
        resident: list[int] = []
        for number in range(160):
            ask(decoder, file(clip), image_size=224, flow_size=112)
            if number % 40 == 39:
                assert decoder.child_pid is not None
                resident.append(psutil.Process(decoder.child_pid).memory_info().rss)
        assert decoder.children_started == 1
        assert resident[-1] - resident[0] < 8 * 2**20, resident
