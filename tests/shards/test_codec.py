"""The flow codec: error bounds, refusals, damage, golden bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import codec
from shards.codec import FlowCodecError, FlowRangeError, NonFiniteFlowError, decode_flow, encode_flow


def smooth(seed: int, height: int, width: int, scale_px: float, shift_px: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    a = generator.normal(size=(2, 5))[..., None, None]
    flow = (
        a[:, 0] * x
        + a[:, 1] * y
        + np.sin(6 * a[:, 2] * x + 5 * a[:, 3] * y)
        + 0.05 * generator.normal(size=(2, height, width))
    )
    flow[:, : height // 2, : width // 3] += a[:, 4]
    return (scale_px * flow + shift_px).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    scale_px=st.floats(0, 400) | st.floats(0, 0.3),
    shift_px=st.floats(-400, 400),
)
def test_error_is_at_most_half_the_quantum(
    seed: int, height: int, width: int, scale_px: float, shift_px: float
) -> None:
    flow = smooth(seed, height, width, scale_px, shift_px)
    decoded = decode_flow(encode_flow(flow), (height, width))
    assert decoded.values_chw.shape == flow.shape and decoded.values_chw.dtype == np.int16
    assert decoded.quantum_px <= 1 / 16
    error = np.abs(decoded.values_chw.astype(np.float64) * decoded.quantum_px - flow)
    assert error.max() <= decoded.quantum_px / 2


@settings(max_examples=60, deadline=None)
@given(values=st.integers(0, 2**31), side=st.integers(1, 40))
def test_any_int16_field_survives(values: int, side: int) -> None:
    """White noise over the whole range: every residual is an escape, and the sums wrap around."""
    field = np.random.default_rng(values).integers(-32768, 32768, (2, side, side + 3), dtype=np.int64).astype(np.int16)
    assert np.array_equal(codec.unpack(codec.pack(field, -4)).values_chw, field)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (7, 5)])
def test_residuals_and_escapes_are_where_the_specification_puts_them(height: int, width: int) -> None:
    """Column by column, channel after channel, against the formula written out."""
    field = np.random.default_rng(height).integers(-40, 40, (2, height, width)).astype(np.int16)
    field[0, 0, 0], field[1, -1, -1] = -32768, 32767
    padded = np.pad(field.astype(np.int64), ((0, 0), (1, 0), (1, 0)))
    residual = padded[:, 1:, 1:] - padded[:, 1:, :-1] - padded[:, :-1, 1:] + padded[:, :-1, :-1]
    residual = residual.astype(np.int16).transpose(0, 2, 1).reshape(2, -1)
    escaped = abs(residual.astype(np.int64)) > 7
    nibbles = np.where(escaped, codec.ESCAPE, residual) & 15
    escapes = residual[escaped]
    expected = (nibbles[1] << 4 | nibbles[0]).astype(np.uint8).tobytes()
    expected += ((escapes >> 8) & 255).astype(np.uint8).tobytes() + (escapes & 255).astype(np.uint8).tobytes()
    assert codec.pack(field, -4)[codec.HEADER.size :] == expected


@pytest.mark.parametrize("value", [-400.0, 0.0, 1e-4, 400.0, 2047.9375, -2047.9375])
def test_constant_flow(value: float) -> None:
    flow = np.full((2, 24, 40), value, np.float32)
    decoded = decode_flow(encode_flow(flow))
    assert np.abs(decoded.values_chw * decoded.quantum_px - flow).max() <= decoded.quantum_px / 2


@pytest.mark.parametrize(
    ("std_px", "peak_px", "expected"),
    [
        (10.0, 50.0, -4),  # fast pairs: never coarser than 1/16 px
        (0.5, 5.0, -4),
        (0.49, 5.0, -5),  # the largest power of two below std/8
        (0.02, 1.0, -9),
        (0.0, 0.0, -9),  # never finer than 1/512 px
        (0.02, 64.1, -8),  # range wins: 16 bits reach ±64 px at 1/512 px
        (0.02, 400.0, -6),
    ],
)
def test_quantum_rule(std_px: float, peak_px: float, expected: int) -> None:
    assert codec.quantum_exponent(std_px, peak_px) == expected


def test_relative_error_above_the_noise_floor() -> None:
    """With q ≤ max(std/8, 1/512 px), the rms of rounding q/√12 is at most 3.6 % of a channel's std, 2.9 % at the 0.02 px floor."""
    for std_px in (0.02, 0.05, 0.1, 0.3, 1.0, 5.0):
        flow = np.random.default_rng(0).normal(0, std_px, (2, 224, 224)).astype(np.float32)
        decoded = decode_flow(encode_flow(flow))
        relative = (decoded.values_chw * decoded.quantum_px - flow).std(axis=(1, 2)) / flow.std(axis=(1, 2))
        assert relative.max() < 0.037


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused_by_name(bad: float) -> None:
    flow = np.zeros((2, 8, 8), np.float32)
    flow[1, 3, 4] = bad
    with pytest.raises(NonFiniteFlowError, match="1 non-finite values of 128"):
        encode_flow(flow)


def test_out_of_range_is_refused_by_name() -> None:
    flow = np.zeros((2, 8, 8), np.float32)
    flow[0, 0, 0] = -2048.0
    with pytest.raises(FlowRangeError, match=r"2048\.0 px"):
        encode_flow(flow)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8), (2, 0, 8), (2, 5000, 1)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FlowCodecError, match=r"\[2, H, W\]"):
        encode_flow(np.zeros(shape, np.float32))


def test_every_flipped_bit_is_found() -> None:
    """zstd's checksum covers the content, our header checks the rest: no flip may yield another flow."""
    flow = smooth(1, 16, 12, 2.0, 0.0)
    data = encode_flow(flow)
    truth = decode_flow(data)
    silent = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_flow(bytes(damaged), (16, 12))
        except FlowCodecError:
            continue
        silent += not (np.array_equal(found.values_chw, truth.values_chw) and found.quantum_px == truth.quantum_px)
    assert silent == 0


def test_truncation_and_trailing_bytes_are_found() -> None:
    data = encode_flow(smooth(2, 16, 16, 2.0, 0.0))
    for cut in range(len(data)):
        with pytest.raises(FlowCodecError):
            decode_flow(data[:cut])
    with pytest.raises(FlowCodecError, match="damaged"):
        decode_flow(data + b"\0")


def test_a_declared_size_is_checked_before_anything_is_allocated() -> None:
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(b"\0" * 100_000_000)
    with pytest.raises(FlowCodecError, match="declares 100000000 bytes"):
        decode_flow(bomb, (16, 16))


def test_another_size_is_refused() -> None:
    with pytest.raises(FlowCodecError, match="16x12, 12x16 expected"):
        decode_flow(encode_flow(np.zeros((2, 16, 12), np.float32)), (12, 16))


def test_out_buffer_is_filled() -> None:
    flow = smooth(3, 33, 47, 4.0, -20.0)
    out = np.empty((2, 33, 47), np.int16)
    decoded = decode_flow(encode_flow(flow), out=out)
    assert decoded.values_chw is out
    assert np.array_equal(out, decode_flow(encode_flow(flow)).values_chw)


def test_golden_payload_by_hand() -> None:
    """A field small enough to do on paper pins header, order, nibbles and escapes."""
    values = np.array([[[5, 7, 7], [5, 6, 40]], [[1, 1, 1], [1, 1, 1]]], np.int16)
    # Residuals dx: 5 2 0 / 0 -1 34; dy: 1 0 0 / 0 0 0. Column by column: (5,0) (2,-1) (0,34) and (1,0) (0,0) (0,0).
    expected = b"FFL1" + (2).to_bytes(2, "little") + (3).to_bytes(2, "little") + (-4).to_bytes(1, "little", signed=True)
    expected += b"\x02\x00\x00" + (1).to_bytes(4, "little")
    expected += bytes([0x15, 0x00, 0x02, 0x0F, 0x00, 0x08]) + bytes([0]) + bytes([34])
    assert codec.pack(values, -4) == expected
    assert np.array_equal(codec.unpack(expected).values_chw, values)


GOLDEN_FRAME = bytes.fromhex(
    "28b52ffd647403950a00a2491e259045e9e0222adcc545efce3ef14edd7e7961ee99dff9422376823aed71b67963ad5fec9701e8e03ca820"
    "80100e816100398a8751104629a56c99adb516cfb35b291d69581bd092a55ff207b05d5e8e47b77f7da5f9d2c79f755f9f3d4d0b59dea59c"
    "646d07ed3291524ae9ce6c20312314d8c2188f49d30476a851b6dba44686394002e5e0500f12803621e7b4335512b4280586fd5a0308fc5a"
    "7a68f59c6a0003d1b4f759fbb8aa41a9292508b84a938803c50f3c692f8442832bb44a96162ebadf8eaafd0504a61e73715bce2c318ba754"
    "63a5cbd8ad3ded002b74c21ece8041aa46041bf9861af684d7969e3ff7ff9504bc3d6a17f6f0ef3fb802c320be2e22a3aa221989bdca159d"
    "3a28043348e382996f21852ef6454ea67a78943c92abce52983823e2177040232f6199cb0c5b50584e4735dbccd0ff7fae7005eb76c48ddf"
    "552045eca243144b7ece9f55b8a959ee"
)
GOLDEN_SHA256 = "48c2a54e3136815b8260add92c07aa13f3f6a6d6e4fc223a39db3e79f316660e"


def golden_field() -> np.ndarray:
    """Integer arithmetic only, so that every machine makes the same one: ramps, an edge, some escapes."""
    y, x = np.mgrid[0:24, 0:20]
    dx = (3 * x * y) % 37 + np.where((x > 8) & (y > 10), 60, 0)
    dy = (x * x - 5 * y) % 23 - 11
    return np.stack([dx, dy]).astype(np.int16)


def test_golden_frame() -> None:
    """A member written by the first release must decode for ever; its payload must be written the same for ever."""
    field = golden_field()
    assert hashlib.sha256(codec.pack(field, -5)).hexdigest() == GOLDEN_SHA256
    decoded = decode_flow(GOLDEN_FRAME, (24, 20))
    assert np.array_equal(decoded.values_chw, field) and decoded.quantum_px == 1 / 32
