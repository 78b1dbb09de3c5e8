"""Confidence-weighted ridge and losses: closed forms in float64, and what equal weights must leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.runs import config_for, lines, run
from tests.trainer.training_set import write_training_set
from trainer.distill import fit_linear_map, flow_loss, gradient_loss
from trainer.objectives import objective_of

B, D, H, W = 2, 5, 6, 7
KINDS: tuple[Literal["l1", "l2", "smooth_l1", "huber"], ...] = ("l1", "l2", "smooth_l1", "huber")


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(seed: int = 9) -> Tensor:
    return torch.rand((B, 1, H, W), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, U, V = normals(B, D, H, W, seed=1), normals(B, 2, H, W, seed=2), normals(B, 2, H, W, seed=3)
ONES = torch.ones(B, 1, H, W, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [1.0, 1e-3])
def test_the_weighted_map_is_the_closed_form(alpha: float) -> None:
    w = weights()
    found = fit_linear_map(X, U, alpha, w)
    assert found.dtype == torch.float64
    for i in range(B):
        design = np.concatenate([X[i].flatten(1).numpy().T, np.ones((H * W, 1))], axis=1)
        share = w[i].flatten().numpy() / float(w[i].sum())
        left = design.T @ (share[:, None] * design) + alpha * np.eye(D + 1)
        right = design.T @ (share[:, None] * U[i].flatten(1).numpy().T)
        np.testing.assert_allclose(found[i].numpy(), np.linalg.solve(left, right), rtol=1e-10, atol=1e-12)


def test_a_pixel_of_weight_zero_is_as_if_it_were_not_there() -> None:
    """Weights of 0 and 1 give what the plain map of the kept pixels gives."""
    kept = torch.zeros(H, W, dtype=torch.bool)
    kept[1:4, 2:6] = True
    wild = torch.where(kept, U, 1e3)
    found = fit_linear_map(X, wild, 0.5, kept.expand(B, 1, H, W).double())
    alone = fit_linear_map(X[..., 1:4, 2:6], U[..., 1:4, 2:6], 0.5)
    torch.testing.assert_close(found.float(), alone, atol=1e-6, rtol=1e-5)


def test_equal_weights_change_nothing() -> None:
    for value in (1.0, 0.25):
        torch.testing.assert_close(
            fit_linear_map(X.float(), U.float(), 1.0, value * ONES.float()),
            fit_linear_map(X.float(), U.float(), 1.0),
            atol=1e-6,
            rtol=1e-6,
        )
        for kind in KINDS:
            torch.testing.assert_close(
                flow_loss(V, U, kind, value * ONES), flow_loss(V, U, kind), atol=1e-12, rtol=1e-12
            )
        torch.testing.assert_close(
            gradient_loss(V, U, 0.1, weights_b1hw=value * ONES), gradient_loss(V, U, 0.1), atol=1e-12, rtol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_term_is_a_weighted_mean_per_image(kind: Literal["l1", "l2", "smooth_l1", "huber"]) -> None:
    w, error = weights().numpy()[:, 0], (V - U).numpy()
    each = {"l1": np.abs(error).sum(1), "l2": (error**2).mean(1)}
    rounded = np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5).mean(1)
    expected = np.mean([np.average(each.get(kind, rounded)[i], weights=w[i]) for i in range(B)])
    assert float(flow_loss(V, U, kind, weights())) == pytest.approx(expected, rel=1e-12)


def test_a_difference_counts_as_much_as_both_its_pixels() -> None:
    w, u, v = weights().numpy()[:, 0], U.numpy(), V.numpy()
    expected = 0.0
    for axis in (-1, -2):
        a, b = np.abs(np.diff(u, axis=axis)), np.abs(np.diff(v, axis=axis))
        both = (w[:, :, 1:] * w[:, :, :-1] if axis == -1 else w[:, 1:] * w[:, :-1])[:, None]
        focal = (1 - np.exp(-a / 0.1)) * both
        focal /= focal.sum((-2, -1), keepdims=True)
        expected += (focal * np.abs(b - a)).sum((-2, -1)).mean()
    assert float(gradient_loss(V, U, 0.1, weights_b1hw=weights())) == pytest.approx(expected, rel=1e-12)


def test_an_image_that_is_trusted_nowhere_contributes_nothing() -> None:
    nowhere = torch.cat((torch.zeros_like(ONES[:1]), ONES[1:]))
    found = fit_linear_map(X, U, 1.0, nowhere)
    assert (found[0] == 0).all() and found.isfinite().all()
    assert float(flow_loss(V, U, "l1", nowhere)) == pytest.approx(float(flow_loss(V[1:], U[1:])) / B)
    assert float(gradient_loss(V, U, 0.1, weights_b1hw=nowhere)) == pytest.approx(
        float(gradient_loss(V[1:], U[1:], 0.1)) / B
    )


def test_a_run_reads_confidence_and_learns_something_else_with_it(tmp_path: Path) -> None:
    shards = write_training_set(tmp_path / "set", optional=True)
    plain, weighted = (
        run(shards, tmp_path / name, *more) for name, more in (("a", ()), ("b", ("loss.confidence=true",)))
    )
    losses = [[line["loss"] for line in lines(tmp_path / name, "step")] for name in ("a", "b")]
    assert len(losses[0]) == len(losses[1]) == 6 and all(a != b for a, b in zip(*losses, strict=True))
    assert plain.model_file is not None and weighted.model_file is not None
    assert objective_of(config_for(shards, "loss.confidence=true")).members == {"frame", "flow", "confidence"}


def test_a_set_without_confidence_and_the_naive_objective_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extract it with --keep-confidence"):
        run(shards, tmp_path / "run", "loss.confidence=true")
    with pytest.raises(ValueError, match=r'loss\.confidence = true is for objective\.name = "flowfeat", not .naive.'):
        config_for(shards, "loss.confidence=true", "objective.name=naive")
