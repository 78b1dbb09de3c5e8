"""What decord brings into the decoding process, and what arrives from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.video.decord_frames import DecordFrames
from pipeline.video.frame_source import EngineFailure
from pipeline.video.rejects import check_file

ROOT = Path(__file__).resolve().parents[3]


def test_no_cuda_library_is_loaded(tmp_path: Path) -> None:
    """Beside a CUDA build of torch, decord2 loads all that lies below nvidia/ unless it is kept from it."""
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    script = (
        "import sys\nloaded = []\n"
        "sys.addaudithook(lambda event, what: loaded.append(str(what[0])) if event == 'ctypes.dlopen' else None)\n"
        "import {module}\n"
        "print(any('libcudart' in name for name in loaded), 'nvidia' in sys.modules)"
    )
    said = {}
    for module in ("decord", "pipeline.video.decord_library"):
        done = subprocess.run(
            [sys.executable, "-c", script.format(module=module)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])},
            capture_output=True,
            text=True,
        )
        said[module] = done.stdout.strip(), done.stderr
    assert said["decord"][0].startswith("True"), f"{said}: decord2 no longer does this: the hiding may go"
    assert said["pipeline.video.decord_library"] == ("False False", "")


def test_ffmpeg_of_decord_is_not_lent_to_others() -> None:
    """Else PyAV, imported after it, runs on decord's FFmpeg: its log level becomes decord's."""
    script = (
        "import ctypes, pipeline.video.decord_library\n"
        "try: ctypes.CDLL(None).av_log_get_level\n"
        "except AttributeError: print('kept')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "kept", done


class Pictures:
    """In the place of decord's frames."""

    def __init__(self, *shapes: tuple[int, ...], dtype: type = np.uint8) -> None:
        self._frames: list[np.ndarray] = [np.zeros(shape, dtype) for shape in shapes]

    def asnumpy(self) -> np.ndarray:
        return self._frames.pop(0)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (Pictures((8, 16, 1), (8, 16, 1)), r"uint8 \(8, 16, 1\)"),
        (Pictures((8, 16, 3), (8, 16, 3), dtype=np.uint16), "uint16"),
        (Pictures((8, 16, 3), (16, 8, 3)), r"changes from \(8, 16\) to \(16, 8\)"),
    ],
)
def test_what_arrives_is_checked(clip: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures, message: str) -> None:
    monkeypatch.setattr(DecordFrames, "_read", lambda *_: pictures)
    with pytest.raises(EngineFailure, match=message):
        list(DecordFrames(clip, check_file(clip)).fetch([0, 1]))
