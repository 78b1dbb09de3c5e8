"""The lattice's share against closed forms, and where it is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import lines, run
from trainer.lattice import LatticeSums, lattice_share

P = 4


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def upsampled(patches: torch.Tensor) -> torch.Tensor:
    return patches.repeat_interleave(P, -1).repeat_interleave(P, -2)


def test_features_that_are_constant_inside_patches_have_none() -> None:
    assert lattice_share(upsampled(noise(2, 3, 5, 6)), P) == 0


def test_the_same_pattern_in_every_patch_is_all_lattice_whatever_the_patches_mean() -> None:
    pattern = noise(2, 3, P, P, seed=1).repeat(1, 1, 5, 6)  # one of its own for each image and channel
    assert lattice_share(pattern, P) == pytest.approx(1)
    assert lattice_share(pattern + 7 * upsampled(noise(2, 3, 5, 6)), P) == pytest.approx(1, abs=1e-5)


def test_patterns_that_cancel_over_the_patches_have_none() -> None:
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(3, 3)[None, None]
    assert lattice_share(noise(1, 2, P, P).repeat(1, 1, 6, 6) * upsampled(sign), P) == pytest.approx(0, abs=1e-12)


def test_a_mixture_has_the_share_of_its_parts_and_noise_one_in_the_number_of_patches() -> None:
    """Orthogonal parts: a common pattern of within-patch variance a, one of alternating sign of variance b: a / (a + b)."""
    pattern = noise(1, 1, P, P)
    pattern -= pattern.mean()
    common = pattern.repeat(1, 1, 6, 6)
    alternating = common * upsampled(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(3, 3)[None, None])
    assert lattice_share(2 * common + 3 * alternating, P) == pytest.approx(4 / (4 + 9), rel=1e-6)
    assert lattice_share(noise(4, 8, 10 * P, 10 * P), P) == pytest.approx(1 / 100, rel=0.1)


def test_batches_add_up_and_rows_beyond_whole_patches_are_left_out() -> None:
    features = noise(4, 3, 5 * P + 3, 6 * P + 1)
    sums = LatticeSums(P)
    sums.add(features[:1])
    sums.add(features[1:])
    assert sums.share() == pytest.approx(lattice_share(features, P), rel=1e-6)
    assert sums.share() == pytest.approx(lattice_share(features[..., : 5 * P, : 6 * P], P), rel=1e-6)
    assert LatticeSums(P).share() == 0


def test_the_held_out_figures_of_a_run_hold_it(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "data.holdout=0.4", "log.holdout_every=2", "train.steps=2")
    figures = [line["lattice"] for line in lines(tmp_path / "run", "holdout")]
    assert len(figures) == 2 and all(0 < share < 1 for share in figures) and figures[0] != figures[1]
