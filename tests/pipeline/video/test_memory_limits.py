"""A small file that claims to be a giant takes no memory; what takes too much is refused and the process goes on."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.video import child
from pipeline.video.decoder import request_of
from pipeline.video.folder_frames import read_image
from pipeline.video.messages import DecodeRefusal, answer_from_bytes
from pipeline.video.rejects import Reject
from tests.pipeline.video.asking import file, settings

ROOT = Path(__file__).resolve().parents[3]


def claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is larger."""
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_a_giant_by_its_header_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: decoded.append(1))
    (tmp_path / "0.jpg").write_bytes(claiming(65500, 65500))
    with pytest.raises(Reject, match=r"too_large: .*0.jpg is 65500x65500 px by its header") as caught:
        read_image(tmp_path / "0.jpg")
    assert not decoded and caught.value.reason == "too_large"


def test_a_giant_png_is_not_decoded(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(stream, "png")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", 12_000, 12_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "0.png").write_bytes(data)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(Reject, match="12000x12000 px by its header"):
        read_image(tmp_path / "0.png")


def test_a_decoding_process_cannot_take_more_than_it_is_allowed() -> None:
    script = (
        "import numpy as np; from pipeline.video.child import limit_address_space as limit\n"
        "limit(2 << 30)\n"
        "try: np.empty(3 << 30, np.uint8)\n"
        "except MemoryError: limit(8 << 30); np.empty(3 << 30, np.uint8); print('refused, then allowed')"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == "refused, then allowed", said.stderr


def test_a_video_that_takes_too_much_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def decode(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(child, "decode", decode)
    monkeypatch.setattr(child, "limit_address_space", limits.append)
    ours, theirs = Pipe()
    wanted = settings(image_size=96, flow_size=48)
    for name in ("one", "two"):
        ours.send_bytes(request_of(file(Path(f"/videos/{name}.mp4")), [0, 1], wanted).to_bytes())
    with socket.socket(fileno=os.dup(ours.fileno())) as end:
        end.shutdown(socket.SHUT_WR)
    child.serve(theirs, -1)
    assert ours.recv_bytes() == b"ready"
    refusals = [answer_from_bytes(ours.recv_bytes()) for _ in range(2)]
    assert all(isinstance(refusal, DecodeRefusal) and refusal.reason == "too_large" for refusal in refusals)
    assert "/videos/two.mp4" in str(refusals[1]) and min(limits) > child.BASE_ADDRESS_SPACE_BYTES
