"""Videos that yield nothing: every reason is told apart, whatever is installed and whatever is asked for."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.video import windows as child_side
from pipeline.video.datasets import Video
from pipeline.video.decoder import Decoder
from pipeline.video.messages import DecodeRequest
from pipeline.video.rejects import Reject
from tests.pipeline.video.asking import OFFSETS, ask, file, reject, settings
from tests.pipeline.video.numbered_videos import write_audio, write_video


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
    Image.new("RGB", (64, 64)).save(tmp_path / "v.gif")
    cases["gif"] = (tmp_path / "v.gif", "unsupported_codec")
    av1 = write_video(tmp_path / "av1.mp4", 9, codec="libsvtav1", options={"preset": "12"})
    real_import = builtins.__import__

    def no_av(name: str, *args: object, **kwargs: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_av)
    for name, (path, reason) in cases.items():
        request = DecodeRequest("v", str(path), "file", None, (0,), 0, OFFSETS, 64, 64, False)
        with pytest.raises(Reject) as caught:
            child_side.decode(request)
        assert caught.value.reason == reason, (name, caught.value)
        assert ("pip install av" in caught.value.detail) == (reason == "unsupported_codec")
    header, _ = child_side.decode(DecodeRequest("v", str(av1), "file", None, (0,), 0, OFFSETS, 64, 64, False))
    assert (header.facts.engine, header.facts.n_frames) == ("decord", 9)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(decoder: Decoder, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 9)
    path.chmod(0)
    assert reject(decoder, file(path)).reason == "unreadable"


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
        "torchcodec__av1_video.mkv": "decord",
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
            decoded = decoder.windows(Video(path.name, path, "file"), [0], settings(), deadline_s=300)
            assert len(list(decoded.anchors)) == 1
            ended[path.name] = decoded.facts.engine
        except Reject as refused:
            ended[path.name] = refused.reason
    assert len(ended) == len(paths) >= 80
    assert {name: ended[name] for name in expected} == expected
    assert not {"timeout", "decoder_crashed"} & set(ended.values())
