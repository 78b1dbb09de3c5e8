"""The depth head: stored values of bins, losses and gradient, closed forms, and mutants."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from probes.heads import depth
from tests.data import parity_weights
from tests.probes.mutants import Check, noticed

DATA = Path(__file__).resolve().parents[2] / "data"
RTOL = 1e-4


def fixture() -> dict[str, np.ndarray]:
    with np.load(DATA / "parity_depth_metrics_losses.npz") as archive:
        return {name: archive[name] for name in archive.files}


def check_parity_of_losses(module: ModuleType) -> None:
    stored = fixture()
    truth, prediction = torch.from_numpy(stored["gt"]), torch.from_numpy(stored["pred"]).requires_grad_()
    loss = module.depth_loss(prediction, truth)
    loss.backward()
    assert prediction.grad is not None
    for got, name in (
        (loss, "depth_loss"),
        (prediction.grad.norm(), "depth_loss_gradnorm"),
        (module.sigma_loss(prediction, truth), "sig_loss"),
        (module.gradient_loss(prediction, truth), "gradient_loss"),
        (module.scale_invariant_loss(prediction, truth), "si_loss_eigen_variant"),
    ):
        assert got.item() == pytest.approx(float(stored[name]), rel=RTOL), name


def check_parity_of_bins(module: ModuleType) -> None:
    stored = fixture()
    meta = json.loads(str(stored["meta"]))
    assert module.DepthBins(256, 0.001, 10.0, "linear") == module.NYU_BINS
    bins = (meta["n_bins"], meta["min_depth"], meta["max_depth"])
    logits = 2 * parity_weights.normals(meta["seed"] + 4, meta["b"], bins[0], meta["h"] // 4, meta["w"] // 4)
    for normalisation in ("linear", "softmax", "sigmoid"):
        got = module.DepthBins(*bins, normalisation).depth_from_logits(torch.from_numpy(logits))
        assert np.allclose(got.numpy(), stored[f"bins_UD_{normalisation}"], rtol=RTOL, atol=0), normalisation


def check_closed_forms(module: ModuleType) -> None:
    """A prediction k times the truth has g = log k everywhere: sig = sqrt(0.15) log k, grad = 0."""
    truth = torch.rand(2, 1, 20, 24, dtype=torch.float64) * 5 + 2
    twice = 2 * truth + 1e-3  # (2 truth + 1e-3) + 1e-3 = 2 (truth + 1e-3)
    assert module.sigma_loss(twice, truth).item() == pytest.approx(0.15**0.5 * np.log(2))
    assert module.gradient_loss(twice, truth).item() == pytest.approx(0, abs=1e-12)
    # g grows by 0.1 per row on a truth of 1 - 1e-3: at stride s, (h_s - 2) w_s differences of 0.2 s over h_s w_s pixels
    flat = torch.full((1, 1, 20, 24), 1 - 1e-3, dtype=torch.float64)
    ramp = torch.exp(0.1 * torch.arange(20.0, dtype=torch.float64))[None, None, :, None].expand_as(flat) - 1e-3
    rows = {s: -(-20 // s) for s in (1, 2, 4, 6)}
    expected = sum(0.2 * s * (rows[s] - 2) / rows[s] for s in rows)
    assert module.gradient_loss(ramp, flat).item() == pytest.approx(expected)
    assert module.gradient_loss(ramp.mT, flat.mT).item() == pytest.approx(expected)
    far_away = torch.where(torch.arange(20)[:, None] == 7, 10.5, flat)
    assert module.sigma_loss(ramp, far_away).item() != pytest.approx(module.sigma_loss(ramp, flat).item())
    at_the_limit = torch.full_like(flat, 10.0)
    assert module.sigma_loss(at_the_limit * 2 + 1e-3, at_the_limit).item() == pytest.approx(0.15**0.5 * np.log(2))


def check_bins_by_hand(module: ModuleType) -> None:
    bins = module.DepthBins(bins=3, nearest_m=1, farthest_m=5)
    logits = torch.tensor([0.4, -7.0, 0.9])[None, :, None, None]
    assert bins.depth_from_logits(logits).item() == pytest.approx((0.5 * 1 + 0.1 * 3 + 1.0 * 5) / 1.6)
    assert bins.depth_from_logits(logits).shape == (1, 1, 1, 1)


def check_odd_batches_have_finite_gradients(module: ModuleType) -> None:
    """No valid pixel at all; an exact prediction; predictions of 0 and below where nothing was measured."""
    nothing, some = torch.zeros(1, 1, 14, 14), torch.zeros(1, 1, 14, 14)
    some[..., :7] = 2.0
    wild = torch.where(some > 0, 3.0, -5.0)
    for start, truth, expected in (
        (torch.ones_like(some), nothing, 0.0),
        (some.clone(), some, 0.0),
        (wild, some, None),
    ):
        for loss_of in (module.depth_loss, module.scale_invariant_loss):
            prediction = start.clone().requires_grad_()
            loss = loss_of(prediction, truth)
            loss.backward()
            assert prediction.grad is not None
            assert bool(torch.isfinite(loss)) and bool(torch.isfinite(prediction.grad).all())
            assert expected is None or loss.item() == expected


CHECKS = (
    check_parity_of_losses, check_parity_of_bins, check_closed_forms, check_bins_by_hand,
    check_odd_batches_have_finite_gradients,
)  # fmt: skip

MUTATIONS = [
    ("LOG_OFFSET_M = 1e-3", "LOG_OFFSET_M = 0.0"),
    ("VARIANCE_FOCUS = 0.85", "VARIANCE_FOCUS = 0.5"),
    ("STRIDES = (1, 2, 4, 6)", "STRIDES = (1, 2, 4, 8)"),
    ("bins: int = 256", "bins: int = 255"),
    ("nearest_m: float = 0.001", "nearest_m: float = 0.0"),
    ("torch.relu(logits_bnhw) + 0.1", "torch.relu(logits_bnhw) + 0.01"),
    ("torch.relu(logits_bnhw) + 0.1", "torch.relu(logits_bnhw + 0.1)"),
    (" / weights.sum(dim=1, keepdim=True)", ""),
    ("torch.sigmoid(logits_bnhw)", "torch.sigmoid(-logits_bnhw)"),
    ("logits_bnhw.softmax(dim=1)", "logits_bnhw.softmax(dim=2)"),
    ("(truth > 0) & (truth <= farthest_m)", "truth > 0"),
    ("(truth > 0) & (truth <= farthest_m)", "(truth > 0) & (truth < farthest_m)"),
    ("torch.where(valid, depth, 1.0)", "depth"),
    ("- torch.log(truth + offset_m)", "- torch.log(truth)"),
    ("g.square().mean() - VARIANCE_FOCUS * g.mean().square()", "g.square().mean() - VARIANCE_FOCUS * g.mean()"),
    ("torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)", "squared"),
    ("torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)", "squared.sqrt()"),
    ("strided[..., 2:, :] - strided[..., :-2, :]", "strided[..., 2:, :] - strided[..., 1:-1, :]"),
    ("(usable[..., 2:] & usable[..., :-2])", "(usable[..., 2:] | usable[..., :-2])"),
    ("(down.sum() + across.sum())", "(down.sum())"),
    ("usable.sum().clamp(min=1)", "valid.sum().clamp(min=1)"),
    ("usable.sum().clamp(min=1)", "usable.sum()"),
    ("10 * sigma_loss", "sigma_loss"),
    ("0.5 * gradient_loss", "gradient_loss"),
    ("offset_m=0.0)", "offset_m=LOG_OFFSET_M)"),
    ("return 10 * torch.stack([_sigma(one[where]) for one, where in zip(g, valid, strict=True)]).mean()", "return 10 * _sigma(g[valid])"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_depth_head(check: Check) -> None:
    check(depth)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(depth, old, new, CHECKS)


def test_logits_for_other_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="27 logits for 256 bins"):
        depth.NYU_BINS.depth_from_logits(torch.zeros(1, 27, 2, 2))
