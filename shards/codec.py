"""Flow field ↔ bytes: fixed point, plane residual, nibbles, zstd.

Where data comes from: an estimator's float32 flow of one frame pair. Where it goes: one
`.flow` member of a shard, and back from there into the training loop as int16 plus a
quantum. The bytes are specified normatively in shards/README.md, "Flow member".

    flow (px) ── round(flow / quantum) ──▶ int16 ── v - up - left + upleft ──▶ residual
    residual ── 4 bits each, escapes apart ──▶ payload ── zstd with checksum ──▶ member

Why a quantum per pair: the training loss standardises every flow, so what counts is the
error relative to the motion; a fixed step starves slow pairs and wastes bytes on fast ones.
Why residuals are stored column by column: the inverse is a running sum along both axes, and
numpy sums whole rows at once several times faster than along them. Decoding therefore sums
over columns in the stored layout, transposes once, and sums over rows.

Shape legend: C = 2 channels (dx right, dy down), H rows, W columns.
"""

from __future__ import annotations

import math
import struct
import threading
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

MAGIC = b"FFL1"
HEADER = struct.Struct("<4sHHbBHI")  # magic, height, width, quantum exponent, channels, reserved, escapes
QUANTUM_EXPONENT_MAX = -4  # 1/16 px
QUANTUM_EXPONENT_MIN = -9  # 1/512 px
STD_PER_QUANTUM = 8.0
VALUE_MAX = 32767
RANGE_MAX_PX = VALUE_MAX * 2.0**QUANTUM_EXPONENT_MAX
ESCAPE = -8
ZSTD_LEVEL = 3
MAX_SIDE = 4096
_SUM_GROUP = 16


class FlowCodecError(ValueError):
    """A flow that cannot be stored, or bytes that are not an undamaged flow member."""


class NonFiniteFlowError(FlowCodecError):
    """The flow holds NaN or infinity."""


class FlowRangeError(FlowCodecError):
    """The flow leaves the range that 16 bits hold at the coarsest quantum."""


class DecodedFlow(NamedTuple):
    """values_chw: [2, H, W] int16; flow in pixels of the stored grid is values_chw * quantum_px."""

    values_chw: NDArray[np.int16]
    quantum_px: float


def _checked(flow_chw: NDArray[np.float32]) -> NDArray[np.float32]:
    if flow_chw.ndim != 3 or flow_chw.shape[0] != 2 or 0 in flow_chw.shape or max(flow_chw.shape) > MAX_SIDE:
        raise FlowCodecError(f"a flow is [2, H, W] with sides of 1..{MAX_SIDE}; got {list(flow_chw.shape)}")
    flow_chw = np.asarray(flow_chw, np.float32)
    if not np.isfinite(flow_chw).all():
        bad = int((~np.isfinite(flow_chw)).sum())
        raise NonFiniteFlowError(f"flow has {bad} non-finite values of {flow_chw.size}; such a pair is never stored")
    return flow_chw


def channel_mean_std_px(flow_chw: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, standard deviation in its population form) of each channel over all pixels, [2] float64 each, in pixels.

    Bit by bit what numpy's `mean` and `std` give with dtype float64, with the mean computed once.
    """
    flat = flow_chw.reshape(2, -1)
    mean = np.add.reduce(flat, axis=1, dtype=np.float64) / flat.shape[1]
    squares = flat - mean[:, None]
    squares *= squares
    return mean, np.sqrt(np.add.reduce(squares, axis=1) / flat.shape[1])


def channel_std_px(flow_chw: NDArray[np.float32]) -> NDArray[np.float64]:
    """The second of `channel_mean_std_px`."""
    return channel_mean_std_px(flow_chw)[1]


def quantum_exponent(std_px: float, peak_px: float) -> int:
    """Exponent e of the step 2^e px: the largest with 2^e ≤ 1/16 and 2^e ≤ std/8, no finer than 1/512 px.

    std_px is the smaller channel's standard deviation, peak_px the largest |component|. Where 16 bits
    do not reach peak_px at that step, the step is the finest that does. Raises FlowRangeError when
    even 1/16 px does not reach it (beyond ±2047.9375 px).
    """
    if peak_px > RANGE_MAX_PX:
        raise FlowRangeError(f"flow reaches {peak_px:.1f} px, beyond the ±{RANGE_MAX_PX} px that the format holds")
    wanted = math.floor(math.log2(std_px / STD_PER_QUANTUM)) if std_px > 0 else QUANTUM_EXPONENT_MIN
    exponent = min(QUANTUM_EXPONENT_MAX, max(QUANTUM_EXPONENT_MIN, wanted))
    while peak_px > VALUE_MAX * 2.0**exponent:
        exponent += 1
    return exponent


def pair_exponent(flow_chw: NDArray[np.float32]) -> int:
    """Exponent e of the step 2^e px that `encode_flow` chooses for a finite [2, H, W] flow."""
    return quantum_exponent(float(channel_std_px(flow_chw).min()), float(np.abs(flow_chw).max()))


def _residual(values_chw: NDArray[np.int16]) -> NDArray[np.int16]:
    """Plane residual v - left - up + upleft modulo 2^16, [2, H, W]."""
    width = values_chw.shape[2]
    across, residual = np.empty_like(values_chw), np.empty_like(values_chw)
    values, steps = values_chw.reshape(-1), across.reshape(-1)
    np.subtract(values[1:], values[:-1], out=steps[1:])  # in one run; what it finds at the left border is not used
    across[..., 0] = values_chw[..., 0]
    np.subtract(steps[width:], steps[:-width], out=residual.reshape(-1)[width:])
    residual[:, 0] = across[:, 0]
    return residual


def _running_sum(values: NDArray[np.int16]) -> None:
    """In place cumulative sum of [C, L, M] along L, modulo 2^16.

    Rows are added in groups of _SUM_GROUP, all groups at once, on a copy that holds what is added together side by side: numpy
    then adds few long runs instead of many short ones (3 times as fast at 224 x 224). Row l = i * _SUM_GROUP + j of `values`
    is [j, i] of the copy; the last group may be partly unused, and what lies there is added to nothing that is used.
    """
    channels, length, width = values.shape
    whole, rest = divmod(length, _SUM_GROUP)
    sums, carried = _scratch.sums(_SUM_GROUP, whole + bool(rest), channels, width)
    grouped = values[:, : length - rest].reshape(channels, whole, _SUM_GROUP, width).transpose(2, 1, 0, 3)
    assert not grouped.size or np.shares_memory(grouped, values)
    tail = values[:, length - rest :].transpose(1, 0, 2)
    sums[:, :whole] = grouped
    sums[:rest, -1] = tail  # nothing where the length is a whole number of groups
    for before, row in pairwise(sums):
        np.add(row, before, row)
    carried[...] = sums[-1, :-1]
    for before, row in pairwise(carried):
        np.add(row, before, row)
    np.add(sums[:, 1:], carried, sums[:, 1:])
    grouped[...] = sums[:, :whole]
    tail[...] = sums[:rest, -1]


def pack(values_chw: NDArray[np.int16], exponent: int) -> bytes:
    """The payload before compression: header, one byte per pixel (dx residual low, dy high nibble), escapes."""
    _, height, width = values_chw.shape
    residual = _residual(np.ascontiguousarray(values_chw))
    narrow = residual.astype(np.int8).reshape(2, -1)
    # Below -7 or above 7 in one comparison: what is added wraps around.
    escaped = np.flatnonzero((residual + np.int16(7)).view(np.uint16) > 14)
    narrow.reshape(-1)[escaped] = ESCAPE
    nibbles = narrow[1] * np.int8(16)  # numpy multiplies bytes much faster than it shifts them left
    nibbles |= narrow[0] & 15
    channel, row, column = np.unravel_index(escaped, residual.shape)
    escapes = residual.reshape(-1)[escaped[np.lexsort((row, column, channel))]]
    header = HEADER.pack(MAGIC, height, width, exponent, 2, 0, escapes.size)
    low, high = (escapes & 255).astype(np.uint8), (escapes >> 8).astype(np.int8)
    return b"".join((header, nibbles.reshape(height, width).T.tobytes(), high.tobytes(), low.tobytes()))


class _Scratch(threading.local):
    """Per thread: zstd contexts and the intermediate planes of the last size seen.

    Fresh arrays of this size come from the kernel page by page; reusing them makes decoding 1.5 times as fast.
    """

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self.zstd = zstandard.ZstdDecompressor()
        self.size = (0, 0)
        self.grouped: dict[tuple[int, ...], tuple[NDArray[np.int16], NDArray[np.int16]]] = {}

    def planes(self, height: int, width: int) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
        if self.size != (height, width):
            self.narrow = np.empty((2, height * width), np.int8)
            self.columns = np.empty((2, width, height), np.int16)
            self.size = (height, width)
            self.grouped.clear()
        return self.narrow, self.columns

    def sums(self, group: int, groups: int, *rest: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """[group, groups, ...] and [groups - 1, ...]: rows being summed, and what is carried from group to group."""
        shape = (group, groups, *rest)
        if shape not in self.grouped:
            self.grouped[shape] = np.zeros(shape, np.int16), np.empty((groups - 1, *rest), np.int16)
        return self.grouped[shape]


_scratch = _Scratch()


def unpack(payload: bytes, size: tuple[int, int] | None = None, out: NDArray[np.int16] | None = None) -> DecodedFlow:
    """Inverse of `pack`; fills `out` ([2, H, W] int16, C-contiguous) when given.

    Raises FlowCodecError when the payload is not exactly what its header says, or is not of `size` (H, W).
    """
    height, width, exponent, n_escapes = _read_header(payload)
    if size is not None and (height, width) != size:
        raise FlowCodecError(f"flow member is {height}x{width}, {size[0]}x{size[1]} expected")
    pixels = height * width
    body = np.frombuffer(payload, np.uint8, offset=HEADER.size)
    if body.size != pixels + 2 * n_escapes:
        raise FlowCodecError(f"flow payload has {body.size} bytes after its header, {pixels + 2 * n_escapes} expected")
    narrow, columns = _scratch.planes(height, width)
    packed = body[:pixels].view(np.int8)
    np.multiply(
        packed, 16, out=narrow[0]
    )  # the low nibble moved up: numpy multiplies bytes much faster than it shifts them left
    np.right_shift(narrow[0], 4, out=narrow[0])
    np.right_shift(packed, 4, out=narrow[1])
    residual = columns.reshape(-1)
    residual[:] = narrow.reshape(-1)
    escaped = np.flatnonzero(narrow.reshape(-1) == ESCAPE)
    if escaped.size != n_escapes:
        raise FlowCodecError(f"flow payload marks {escaped.size} escapes and carries {n_escapes}")
    high = body[pixels : pixels + n_escapes].view(np.int8).astype(np.int16)
    residual[escaped] = (high << 8) | body[pixels + n_escapes :]
    _running_sum(columns)
    values = np.empty((2, height, width), np.int16) if out is None else out
    values[...] = columns.transpose(0, 2, 1)
    _running_sum(values)
    return DecodedFlow(values, 2.0**exponent)


def _read_header(payload: bytes) -> tuple[int, int, int, int]:
    if len(payload) < HEADER.size:
        raise FlowCodecError(f"flow payload of {len(payload)} bytes is shorter than its {HEADER.size}-byte header")
    magic, height, width, exponent, channels, reserved, n_escapes = HEADER.unpack_from(payload)
    if magic != MAGIC:
        raise FlowCodecError(f"flow payload starts with {magic!r} instead of {MAGIC!r}: not format 1")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and channels == 2 and reserved == 0):
        raise FlowCodecError(
            f"flow header is out of bounds: {height}x{width}, {channels} channels, reserved {reserved}"
        )
    if not QUANTUM_EXPONENT_MIN <= exponent <= QUANTUM_EXPONENT_MAX:
        raise FlowCodecError(
            f"flow header has quantum 2^{exponent} px, outside 2^{QUANTUM_EXPONENT_MIN}..2^{QUANTUM_EXPONENT_MAX}"
        )
    return height, width, exponent, n_escapes


def encode_flow(flow_chw: NDArray[np.float32]) -> bytes:
    """One `.flow` member from a flow field.

    flow_chw: [2, H, W] float, pixels, finite. |decoded - flow| ≤ quantum/2 everywhere, quantum ≤ 1/16 px.
    Raises NonFiniteFlowError or FlowRangeError (both FlowCodecError) for what must not be stored.
    """
    flow_chw = _checked(flow_chw)
    return encode_at(flow_chw, pair_exponent(flow_chw))


def encode_at(flow_chw: NDArray[np.float32], exponent: int) -> bytes:
    """`encode_flow` for whoever has checked the flow and computed its `quantum_exponent` already."""
    # Scaling by a power of two is exact in float32, so the only error is the rounding to an integer.
    scaled = flow_chw * np.float32(2.0**-exponent)
    values = np.rint(scaled, out=scaled).astype(np.int16)
    return _scratch.compressor.compress(pack(values, exponent))


def decode_flow(data: bytes, size: tuple[int, int] | None = None, out: NDArray[np.int16] | None = None) -> DecodedFlow:
    """The flow of one `.flow` member, into `out` ([2, H, W] int16, C-contiguous) when given.

    size: (H, W) that the caller expects; the frame's declared size is checked against it before anything is
    allocated. Raises FlowCodecError when the bytes are damaged, are not format 1, or have another size.
    """
    height, width = size or (MAX_SIDE, MAX_SIDE)
    bound = HEADER.size + height * width * 5
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared > bound:
            raise FlowCodecError(
                f"flow member declares {declared} bytes, more than the {bound} that {height}x{width} can need"
            )
        payload = _scratch.zstd.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FlowCodecError(f"flow member is damaged: {error}") from error
    return unpack(payload, size, out)
