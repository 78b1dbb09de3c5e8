"""Flow fields in the files that benchmarks use: Middlebury .flo, KITTI 16-bit .png, .pfm.

Each reader returns flow in pixels, [2, H, W] float32 (dx right, dy down), and which pixels are
known, [H, W] bool; unknown pixels hold 0. Sizes are checked against the file before anything is allocated.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.files import write_atomic

Flow = NDArray[np.float32]
Valid = NDArray[np.bool_]

_FLO_MAGIC = b"PIEH"  # 202021.25 as a little-endian float
_UNKNOWN_PX = 1e9  # Middlebury writes 1666666752 where nothing is known
_KITTI_SCALE, _KITTI_ZERO = 64.0, 1 << 15
FORMATS = (".flo", ".png", ".pfm")


def read_flow(path: Path) -> tuple[Flow, Valid]:
    """Read any of FORMATS by its suffix. Raises ValueError naming the file and what is wrong with it."""
    readers = {".flo": _read_flo, ".png": _read_kitti_png, ".pfm": _read_pfm}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: flow files end in {', '.join(FORMATS)}")
    if not path.is_file():
        raise ValueError(f"no flow file at {path}")
    return _without_unknown(*reader(path))


def write_flow(path: Path, flow_chw: NDArray[np.floating], valid_hw: Valid | None = None) -> None:
    """Write one of FORMATS by its suffix. .png keeps 1/64 px and ±512 px and raises ValueError beyond; unknown pixels need .flo or .png."""
    flow = np.asarray(flow_chw, np.float32)
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"a flow field has shape [2, H, W], not {list(flow.shape)}")
    finite: Valid = np.isfinite(flow[0]) & np.isfinite(flow[1])
    valid: Valid = finite if valid_hw is None else finite & valid_hw
    suffix = path.suffix.lower()
    if suffix == ".flo":
        content = _flo_bytes(flow, valid)
    elif suffix == ".png":
        content = _kitti_png_bytes(path, flow, valid)
    elif suffix == ".pfm":
        content = _pfm_bytes(path, flow, valid)
    else:
        raise ValueError(f"{path}: flow files end in {', '.join(FORMATS)}")
    write_atomic(path, content)


def _without_unknown(flow_chw: Flow, valid_hw: Valid) -> tuple[Flow, Valid]:
    known = valid_hw & (np.abs(np.nan_to_num(flow_chw, nan=np.inf)) < _UNKNOWN_PX).all(axis=0)
    return np.where(known, flow_chw, np.float32(0)), known


def _read_flo(path: Path) -> tuple[Flow, Valid]:
    data = path.read_bytes()
    if len(data) < 12 or data[:4] != _FLO_MAGIC:
        raise ValueError(f"{path} is no .flo file: it does not start with {_FLO_MAGIC.decode()}")
    width, height = struct.unpack("<ii", data[4:12])
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{path} says {width}×{height} px, which does not go with its {len(data)} bytes")
    flow_hwc = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    return np.ascontiguousarray(flow_hwc.transpose(2, 0, 1), np.float32), np.ones((height, width), np.bool_)


def _flo_bytes(flow_chw: Flow, valid_hw: Valid) -> bytes:
    known = np.where(valid_hw, flow_chw, np.float32(1666666752.0))
    height, width = valid_hw.shape
    return _FLO_MAGIC + struct.pack("<ii", width, height) + known.transpose(1, 2, 0).astype("<f4").tobytes()


def _read_kitti_png(path: Path) -> tuple[Flow, Valid]:
    """Channels as stored: u, v, valid; value = (stored - 2^15) / 64."""
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"{path} is no KITTI flow: it must be a PNG of three 16-bit channels")
    valid_u8, v, u = (stored[..., i] for i in range(3))  # OpenCV reverses the channels
    flow_chw = (np.stack((u, v)).astype(np.float32) - _KITTI_ZERO) / np.float32(_KITTI_SCALE)
    return flow_chw, valid_u8 > 0


def _kitti_png_bytes(path: Path, flow_chw: Flow, valid_hw: Valid) -> bytes:
    stored = np.round(np.where(valid_hw, flow_chw, 0).astype(np.float64) * _KITTI_SCALE) + _KITTI_ZERO
    if stored.min() < 0 or stored.max() > 0xFFFF:
        raise ValueError(f"{path}: KITTI's PNG holds motion up to ±512 px; write .flo instead")
    u, v = np.where(valid_hw, stored, 0).astype(np.uint16)
    done, encoded = cv2.imencode(".png", np.stack((valid_hw.astype(np.uint16), v, u), axis=-1))
    assert done, "encoding an array of the right type into memory cannot fail"
    return encoded.tobytes()


def _read_pfm(path: Path) -> tuple[Flow, Valid]:
    """Three channels (u, v, unused), rows from the bottom up; a negative scale says little-endian."""
    data = path.read_bytes()
    header = re.match(rb"PF\s+(\d+)\s+(\d+)\s+(-?\d+(?:\.\d*)?)\s", data)
    if header is None:
        raise ValueError(
            f"{path} is no flow .pfm: it must be one of three channels, starting with PF, width, height, scale"
        )
    width, height, scale = int(header[1]), int(header[2]), float(header[3])
    if width < 1 or height < 1 or len(data) - header.end() != 12 * width * height:
        raise ValueError(f"{path} says {width}×{height} px, which does not go with its {len(data)} bytes")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end()).reshape(height, width, 3)
    flow_chw = values[::-1, :, :2].transpose(2, 0, 1)
    return np.ascontiguousarray(flow_chw, np.float32), np.ones((height, width), np.bool_)


def _pfm_bytes(path: Path, flow_chw: Flow, valid_hw: Valid) -> bytes:
    if not valid_hw.all():
        raise ValueError(f"{path}: .pfm cannot say that a pixel is unknown; write .flo or .png instead")
    height, width = valid_hw.shape
    values = np.zeros((height, width, 3), "<f4")
    values[..., :2] = flow_chw.transpose(1, 2, 0)
    return f"PF\n{width} {height}\n-1.0\n".encode() + values[::-1].tobytes()
