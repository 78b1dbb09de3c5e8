"""MACs against closed forms, peak memory against what tensors are known to live at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from probes.metrics.cost import macs, peak_bytes, seconds
from trainer import FlowFeat

CPU = torch.device("cpu")


@torch.no_grad()
def test_macs_of_layers_are_the_textbooks() -> None:
    image = torch.zeros(2, 3, 20, 12)
    assert macs(lambda: nn.Conv2d(3, 8, 5, padding=2)(image)) == 2 * 8 * 3 * 25 * 20 * 12
    assert macs(lambda: nn.Conv2d(3, 8, 4, 4)(image)) == 2 * 8 * 3 * 16 * 5 * 3
    assert macs(lambda: nn.ConvTranspose2d(3, 8, 2, 2)(image)) == 2 * 3 * 8 * 4 * 20 * 12
    assert macs(lambda: nn.Linear(12, 7)(image)) == 2 * 3 * 20 * 12 * 7
    heads = torch.zeros(2, 4, 10, 6)
    assert macs(lambda: F.scaled_dot_product_attention(heads, heads, heads)) == 2 * 4 * (10 * 10 * 6) * 2
    assert macs(lambda: image * 2) == 0


def test_macs_of_the_papers_encoder_and_decoder() -> None:
    """FlowFeat's Table 7 counts them for DINO2-S14 (23.43 G); for DINO-S16 the closed form is 4.60 G + 15.11 G."""
    model = FlowFeat.create("dino_vits16", init="random").eval().to("meta")
    image = torch.zeros(1, 3, 224, 224, device="meta")
    assert macs(lambda: model(image)) / 1e9 == pytest.approx(19.71, abs=0.005)
    assert macs(lambda: model.encode(image)) / 1e9 == pytest.approx(4.60, abs=0.005)


@torch.no_grad()
def test_peak_memory_is_what_lives_at_once() -> None:
    mb = 2**20
    start = torch.zeros(mb // 4)

    def chain() -> torch.Tensor:
        x = start
        for _ in range(5):
            x = x + 1  # the one before dies with each step
        return x

    assert peak_bytes(chain, CPU) == 2 * mb
    assert peak_bytes(lambda: torch.stack([start + i for i in range(3)]), CPU) == 6 * mb
    assert peak_bytes(lambda: start.view(2, -1).t().mul_(1), CPU) == 0, "views and changes in place take nothing"
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 1))
    image = torch.zeros(1, 3, 64, 64)
    assert peak_bytes(lambda: layers(image), CPU) == 2 * 8 * 64 * 64 * 4


def test_time_is_a_median_and_a_slow_call_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 9.0, 99.0])
    monkeypatch.setattr("probes.metrics.cost.time.perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert seconds(lambda: calls.append(1), CPU) == 9.0 and len(calls) == 1
    quick = iter([0.0, 0.0, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9, 1.0, 1.0])
    monkeypatch.setattr("probes.metrics.cost.time.perf_counter", lambda: next(quick))
    assert seconds(lambda: None, CPU) == pytest.approx(0.1), "the first, which warms up, does not count"
