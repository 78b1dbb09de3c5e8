"""What can be read of one sample, and how its JPEG members become pixels.

`shards.reader` (by index) and `shards.stream` (in tar order) hand samples out in these types; `shards.verify` decodes with
the same functions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shards.codec import DecodedFlow
from shards.offsets import offset_label

OptionalMember = Literal["neighbour", "confidence", "reverse"]
"""What a set may hold of one neighbour beside the flow to it: its frame, the flow's confidence, the flow back to the anchor."""

Member = Literal["frame", "flow", "neighbour", "confidence"]
"""What can be read of one sample and one of its neighbours: the anchor frame, the flow to the neighbour, the neighbour's own
frame, the confidence of the flow. A set holds the last two only where extraction was told to keep them."""


class Sample(NamedTuple):
    """image_hwc: [S, S, 3] uint8 RGB anchor. flow_chw: [2, F, F] int16; pixels of the flow grid = flow_chw * quantum_px.

    offset: signed nominal distance of the neighbour that the flow points to. neighbour_hwc: that neighbour's frame, like
    the anchor; confidence_hw: [F, F] uint8, 255 is certain; reverse: flow from the neighbour back to the anchor, on the neighbour's grid;
    each None where it was not asked for.
    """

    key: str
    image_hwc: NDArray[np.uint8]
    flow_chw: NDArray[np.int16]
    quantum_px: float
    offset: int
    neighbour_hwc: NDArray[np.uint8] | None = None
    confidence_hw: NDArray[np.uint8] | None = None
    reverse: DecodedFlow | None = None


class Buffers(NamedTuple):
    """Where `ShardSet.read_into` puts the members of one sample, shaped like a Sample's; what has no buffer is not read."""

    image_hwc: NDArray[np.uint8] | None = None
    flow_chw: NDArray[np.int16] | None = None
    neighbour_hwc: NDArray[np.uint8] | None = None
    confidence_hw: NDArray[np.uint8] | None = None


class StoredMember(NamedTuple):
    """One member of a sample as the index has it. name: the suffix in the tar ("jpg", "p1.flow", "p1.conf.jpg")."""

    name: str
    offset: int
    size: int
    crc32: int


def decode_image(data: bytes, side: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """[side, side, 3] uint8 RGB from JPEG bytes. Raises ValueError when damaged or of another size (checked before decoding)."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    if (height, width) != (side, side):
        raise ValueError(f"image is {height}x{width}, the set says {side}x{side}")
    if out is None:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    return out


def decode_confidence(data: bytes, side: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """[side, side] uint8 from a grey JPEG, 255 is certain. Raises ValueError when damaged, of another size or in colour."""
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if (height, width) != (side, side) or colorspace.lower() != "gray":
        raise ValueError(f"confidence is {height}x{width} {colorspace}, the set says {side}x{side} grey")
    buffer = None if out is None else out[..., None]
    return np.asarray(simplejpeg.decode_jpeg(data, "GRAY", buffer=buffer))[..., 0]


_SUFFIX: dict[OptionalMember, str] = {"neighbour": "jpg", "confidence": "conf.jpg", "reverse": "reverse"}
OPTIONAL_MEMBERS = tuple(_SUFFIX)


def optional_name(member: OptionalMember, offset: int) -> str:
    """Suffix of an optional member in the tar: ("reverse", 1) → "p1.reverse"."""
    return f"{offset_label(offset)}.{_SUFFIX[member]}"
