"""Matching: reading between cells, finding a shifted picture, reaching the ceiling of the grid, and mutants."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from probes.heads import matching
from probes.metrics import tracking
from tests.probes.largest_tensor import LargestTensor
from tests.probes.mutants import Check, noticed


def check_reading_between_cells(module: ModuleType) -> None:
    """A map that grows linearly: at a point it has the point's own coordinates; at the border the outermost cell's."""
    y, x = torch.meshgrid((torch.arange(4.0) + 0.5) * 25, (torch.arange(8.0) + 0.5) * 20, indexing="ij")
    ramp = torch.stack([x, y])
    points = torch.tensor([[10.0, 12.5], [33.0, 51.0], [150.0, 87.5], [0.0, 0.0], [200.0, 99.0]])
    expected = [[10, 12.5], [33, 51], [150, 87.5], [10, 12.5], [150, 87.5]]
    assert torch.allclose(module.features_at(ramp, points, (100, 160)), torch.tensor(expected), atol=1e-4)


def check_best_cell_by_cosine(module: ModuleType) -> None:
    """The longest vector isn't the best one; the grid has 2 rows and 3 columns on a picture of 60 x 30 pixels."""
    cells = torch.tensor([[[1.0, 9.0, 0.0], [0.0, 2.0, 0.0]], [[0.0, 9.0, 1.0], [3.0, 1.0, -5.0]]])
    found = module.best_cells(torch.tensor([[2.0, 0.0], [0.0, 7.0], [2.0, 1.1], [0.1, -1.0]]), cells, (30, 60))
    assert found[0].tolist() == [10, 7.5]
    assert found[1].tolist() in ([50, 7.5], [10, 22.5])
    assert found[2].tolist() == [30, 22.5]
    assert found[3].tolist() == [50, 22.5]


def check_a_shift_is_found_up_to_the_ceiling(module: ModuleType) -> None:
    """Distinct features that move by whole cells are followed as well as the grid allows, and no better."""
    features = torch.randn(64, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = [features.roll((step, 2 * step), (1, 2)) for step in range(4)]
    start = np.random.default_rng(0).uniform(8, 180, (60, 1, 2))
    tracks = start + np.arange(4)[None, :, None] * np.array([16.0, 8.0])
    asked = tracking.queries(np.ones((60, 4), dtype=bool), "first")
    cells = tracking.nearest_cell_centers(asked.positions(tracks), (32, 32))
    queries = module.features_at(maps[0], torch.from_numpy(cells), (256, 256))
    score = tracking.score_tracks(module.track(queries, maps, (256, 256)).numpy(), tracks, asked)
    limit = tracking.ceiling(tracks, asked, (32, 32))
    assert limit is not None and score == limit
    assert 0 < limit.delta[0] < 0.2 and limit.delta[3] == 1


CHECKS = (check_reading_between_cells, check_best_cell_by_cosine, check_a_shift_is_found_up_to_the_ceiling)

MUTATIONS = [
    ("2 * points_n2 / extent - 1", "points_n2 / extent - 1"),
    ("[size[1], size[0]])", "[size[0], size[1]])"),
    ("align_corners=False", "align_corners=True"),
    ('padding_mode="border"', 'padding_mode="zeros"'),
    ("F.normalize(map_dgf.flatten(1), dim=0)", "map_dgf.flatten(1)"),
    ("argmax(dim=1)", "argmin(dim=1)"),
    ("best_n % f, best_n // f", "best_n // f, best_n % f"),
    ("best_n % f, best_n // f", "best_n % g, best_n // g"),
    ("cells + 0.5", "cells"),
    ("size[1] / f, size[0] / g", "size[1] / g, size[0] / f"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_matching(check: Check) -> None:
    check(matching)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(matching, old, new, CHECKS)


def test_memory_is_bounded() -> None:
    with LargestTensor() as largest:
        matching.best_cells(torch.randn(2000, 2), torch.randn(2, 64, 64), (256, 256))
    assert largest.bytes <= 4 * matching.CHUNK * 64 * 64


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        matching.best_cells(torch.ones(1, 2), torch.full((2, 3, 3), torch.inf), (9, 9))
