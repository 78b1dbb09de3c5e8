"""Statistics of a pair: bit by bit what plain numpy gives in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.extract.encode import encode_pair
from shards import schema
from shards.codec import encode_flow, pair_exponent


def flow_of(kind: str) -> NDArray[np.float32]:
    generator = np.random.default_rng(5)
    flow_chw = generator.normal(size=(2, 224, 224)).astype(np.float32)
    if kind == "alike":  # many vectors whose lengths fp32 cannot tell apart
        angle = np.linspace(0, 2 * np.pi, 224 * 224)
        flow_chw = (3 * np.stack([np.cos(angle), np.sin(angle)])).reshape(2, 224, 224).astype(np.float32)
    if kind == "tiny":  # squares below what fp32 holds
        flow_chw *= np.float32(1e-22)
    if kind == "large":
        flow_chw = flow_chw * np.float32(150) + np.array([500, -900], np.float32)[:, None, None]
    if kind == "zero":
        flow_chw[...] = 0
    return np.ascontiguousarray(flow_chw)


@pytest.mark.parametrize("kind", ["any", "alike", "tiny", "large", "zero"])
def test_statistics_are_numpys(kind: str) -> None:
    flow_chw = flow_of(kind)
    _, found = encode_pair(flow_chw, None, 0.1)
    flat = flow_chw.reshape(2, -1)
    mean, std = flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)
    assert (found.mean_dx_px, found.mean_dy_px, found.std_dx_px, found.std_dy_px) == (*mean, *std)
    assert found.max_px == np.sqrt(np.square(flow_chw, dtype=np.float64).sum(axis=0).max())


@pytest.mark.parametrize("peak_px", [-63.3, 63.4, -63.9, 63.99, 64.1, 127.9, -128.2, 2047.9])
def test_slow_flow_with_one_fast_vector_gets_the_quantum_that_holds_it(peak_px: float) -> None:
    flow_chw = flow_of("any") * np.float32(0.01)
    flow_chw[1, 100, 7] = peak_px
    data, found = encode_pair(flow_chw, None, 0.1)
    assert data == encode_flow(flow_chw) and found.quantum_exponent == pair_exponent(flow_chw)
    assert found.max_px == np.sqrt(np.square(flow_chw, dtype=np.float64).sum(axis=0).max())


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([np.nan], schema.NON_FINITE),
        ([-np.inf], schema.NON_FINITE),
        ([np.inf, -np.inf], schema.NON_FINITE),
        ([np.nan, 1e9], schema.NON_FINITE),
        ([-5000.0], schema.OUT_OF_RANGE),
        ([5000.0], schema.OUT_OF_RANGE),
        ([-2000.0], schema.STORED),
    ],
)
def test_what_cannot_be_stored_is_told_by_its_extremes(values: list[float], status: str) -> None:
    flow_chw = flow_of("any")
    flow_chw[1, 100, : len(values)] = values
    data, found = encode_pair(flow_chw, None, 0.1)
    assert found.status == status and (data is None) == (status != schema.STORED)
