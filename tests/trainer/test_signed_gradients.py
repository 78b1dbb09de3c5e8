"""The two gradient terms: what each asks of a prediction, and that one of them pays for textures."""

from __future__ import annotations

import torch

from trainer.distill import gradient_loss

STEP = torch.zeros(1, 2, 16, 16)
STEP[..., 8:] = 1.0  # one edge, half way across
SAW = (
    (torch.arange(16) % 2).float().expand(1, 2, 16, 16)
)  # as steep as the edge everywhere, in both directions by turns


def test_a_texture_satisfies_magnitudes_without_knowing_where_the_edge_is() -> None:
    """The cause of the patch lattice: away from edges nothing is asked, and on an edge any difference as strong will do."""
    assert float(gradient_loss(SAW, STEP, 0.1, "magnitude")) == 0
    assert float(gradient_loss(torch.zeros_like(STEP), STEP, 0.1, "magnitude")) > 0.9


def test_signed_differences_make_such_a_texture_no_better_than_nothing_on_average() -> None:
    flat = float(gradient_loss(torch.zeros_like(STEP), STEP, 0.1, "signed"))
    either = [float(gradient_loss(sign * SAW, STEP, 0.1, "signed")) for sign in (1, -1)]
    assert sum(either) / 2 >= flat > 0.9 and max(either) > flat
    assert float(gradient_loss(STEP + 5, STEP, 0.1, "signed")) == 0
    assert float(gradient_loss(-STEP, STEP, 0.1, "signed")) == 2 * flat
    assert float(gradient_loss(-STEP, STEP, 0.1, "magnitude")) == 0


def test_signed_gradients_agree_with_direct_computation() -> None:
    draw = torch.Generator().manual_seed(0)
    u, v = (torch.randn(2, 2, 5, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for i in range(2):
        for c in range(2):
            for axis in (0, 1):
                a, b = u[i, c].diff(dim=axis), v[i, c].diff(dim=axis)
                w = 1 - torch.exp(-a.abs() / 0.3)
                expected += float((w * (b - a).abs()).sum() / w.sum()) / 4
    assert abs(float(gradient_loss(v, u, 0.3, "signed")) - expected) < 1e-12
