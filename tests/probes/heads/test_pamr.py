"""Refinement: stored values of PAMR and of the reading of FlowFeat++, closed forms, memory, and mutants."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from probes.heads import pamr
from tests.data import parity_weights
from tests.probes.largest_tensor import LargestTensor
from tests.probes.mutants import Check, noticed

DATA = Path(__file__).resolve().parents[2] / "data"


def fixture() -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    with np.load(DATA / "parity_pamr.npz") as archive:
        stored = {name: archive[name] for name in archive.files}
    meta = json.loads(str(stored["meta"]))
    seed, b, c, k, h, w = (meta[name] for name in ("seed", "b", "c", "k", "h", "w"))
    noise = torch.from_numpy(parity_weights.normals(seed + 1, b, k, h, w))
    padded = torch.nn.functional.pad(noise, (1, 1, 1, 1), mode="replicate")
    low = torch.from_numpy(parity_weights.normals(seed + 2, b, c, h // 2, w // 2))
    full = 2 * torch.from_numpy(parity_weights.normals(seed + 3, b, c, h, w))
    inputs = {
        "image": torch.from_numpy(parity_weights.image(seed, b, h, w)),
        "features": 2 * torch.nn.functional.avg_pool2d(padded, 3, stride=1),
        "low": low.softmax(dim=1),
        "full_logits": full,
        "full": full.softmax(dim=1),
    }
    return stored, inputs


def check_parity_with_upstream(module: ModuleType) -> None:
    stored, inputs = fixture()
    for name, settings in {
        "official_k3_1it": module.Refinement.pamr(),
        "official_k3_10it": module.Refinement.pamr((1,), 10),
        "official_wsss": module.Refinement.pamr((1, 2, 4, 8, 12, 24), 10),
    }.items():
        got = module.refine(inputs["low"], inputs["image"], settings)
        assert np.abs(got.numpy() - stored[name]).max() < 1e-5, name


def check_parity_with_the_reading_of_the_paper(module: ModuleType) -> None:
    stored, inputs = fixture()
    usual = module.FLOWFEAT_PLUS_PLUS
    for name, settings in {
        "pp_default": usual,
        "pp_1it": dataclasses.replace(usual, iterations=1),
        "pp_center": dataclasses.replace(usual, offsets=module.window_offsets(11, centre=True)),
        "pp_k5_3it": dataclasses.replace(usual, offsets=module.window_offsets(5), iterations=3),
        "pp_stdscale": dataclasses.replace(usual, local_deviation=True, centre_samples=1),
    }.items():
        for dtype, tolerance in ((torch.float32, 3e-5), (torch.float64, 1e-6)):
            got = module.refine(inputs["full"].to(dtype), inputs["features"].to(dtype), settings)
            assert np.abs(got.numpy() - stored[name]).max() < tolerance, (name, dtype)
    got = module.flowfeat_plus_plus(inputs["full_logits"], inputs["features"])
    assert np.abs(got.numpy() - stored["pp_default"]).max() < 3e-5


def check_a_wall_in_the_guide_is_not_crossed(module: ModuleType) -> None:
    """Two flat halves far apart in the guide: each half takes the mean of its own labels, none of the other's."""
    guide = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    guide[..., 4:] = 10
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4] = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    settings = dataclasses.replace(module.FLOWFEAT_PLUS_PLUS, iterations=200)
    refined = module.refine(mask, guide, settings)
    assert refined[..., 4:].abs().max() < 1e-12
    left = refined[..., :4]
    assert left.std() < 1e-9  # diffusion has reached its limit: constant on the half, and none of it leaked
    assert 0.2 < left.mean() < 0.3


def check_affinities_of_a_flat_guide(module: ModuleType) -> None:
    """A constant guide makes every neighbour equal, whatever the deviation: the mean over the window, borders replicated."""
    ramp = torch.arange(9.0)[None, None, None, :].expand(1, 1, 9, 9)
    for settings in (dataclasses.replace(module.FLOWFEAT_PLUS_PLUS, iterations=1), module.Refinement.pamr()):
        assert torch.allclose(
            module.affinities(torch.ones(1, 3, 9, 9), settings), torch.tensor(1 / len(settings.offsets))
        )
    mean = module.refine(ramp, torch.ones(1, 3, 9, 9), module.Refinement.pamr())[0, 0, 4]
    assert torch.allclose(mean[1:-1], ramp[0, 0, 4, 1:-1])
    assert torch.allclose(mean[[0, -1]], torch.tensor([3 / 8, 8 - 3 / 8]))


def check_given_affinities_move_the_map(module: ModuleType) -> None:
    """All weight on the neighbour 2 below and 1 to the left: after two steps, the value of 4 below and 2 to the left."""
    ramp = torch.arange(80.0).reshape(1, 1, 8, 10)
    affinities = torch.tensor([0.0, 1.0])[None, :, None, None].expand(1, 2, 8, 10)
    moved = module.diffuse(ramp, affinities, ((1, 1), (2, -1)), 2)
    assert torch.equal(moved[..., :4, 2:], ramp[..., 4:, :8])
    assert torch.equal(moved[..., 7, 0], ramp[..., 7, 0])  # replicated at the corner


def check_offsets(module: ModuleType) -> None:
    assert len(module.window_offsets(11)) == 120 and len(module.window_offsets(11, centre=True)) == 121
    assert set(module.ring_offsets((1,))) == set(module.window_offsets(3))
    assert len(module.ring_offsets((1, 2, 4))) == 24 and (4, -4) in module.ring_offsets((1, 2, 4))


def check_bands_do_not_show_and_bound_the_temporaries(module: ModuleType) -> None:
    guide = torch.randn(1, 64, 40, 30)
    for settings in (module.Refinement(module.window_offsets(3), 1), module.Refinement.pamr((1, 2))):
        whole = module.affinities(guide, settings)
        with pytest.MonkeyPatch.context() as patch, LargestTensor() as largest:
            patch.setattr(module, "BAND_BYTES", 3 * 64 * 30 * 4)
            banded = module.affinities(guide, settings)
            assert [b.stop - b.start for b in module._bands(40, 64 * 30 * 4)] == [3] * 13 + [1]
            assert len(list(module._bands(40, 10**9))) == 40
        assert torch.allclose(banded, whole, atol=1e-6)
        affinities, padded = whole.numel() * 4, 64 * (40 + 4) * (30 + 4) * 4
        assert largest.bytes <= max(affinities, padded)


CHECKS = (
    check_parity_with_upstream, check_parity_with_the_reading_of_the_paper, check_a_wall_in_the_guide_is_not_crossed,
    check_affinities_of_a_flat_guide, check_given_affinities_move_the_map, check_offsets,
    check_bands_do_not_show_and_bound_the_temporaries,
)  # fmt: skip

MUTATIONS = [
    ("window_offsets(11), iterations=10", "window_offsets(9), iterations=10"),
    ("window_offsets(11), iterations=10", "window_offsets(11), iterations=9"),
    ("window_offsets(11), iterations=10", "window_offsets(11, centre=True), iterations=10"),
    ("scale: float = 0.1", "scale: float = 0.2"),
    ('mode="replicate"', 'mode="constant"'),
    ("out=difference).abs_()", "out=difference).square_()"),
    ("difference.mean(dim=1).neg_()", "difference.sum(dim=1).neg_()"),
    ("difference.mean(dim=1).neg_()", "difference.mean(dim=1)"),
    ("(samples - 1)", "samples"),
    ("len(settings.offsets) + settings.centre_samples", "len(settings.offsets)"),
    ("centre_samples=len(dilations)", "centre_samples=1"),
    ("total.square_() / samples", "0 * total"),
    (".clamp_(min=0)", ".neg_()"),
    ("if not settings.local_deviation:", "if True:"),
    (".add_(1e-8)", ""),
    ("settings) if settings.local_deviation else", "settings) if not settings.local_deviation else"),
    ("logits_bnhw.softmax(dim=1)", "logits_bnhw.exp()"),
    ("mode=\"bilinear\", align_corners=True", "mode=\"bilinear\", align_corners=False"),
    ("logits_bchw.softmax(dim=1), decoder", "logits_bchw, decoder"),
    ("for _ in range(iterations):", "for _ in range(1):"),
    ("(y * d, x * d)", "(y * d, x)"),
    ("self.down + offset[0]", "self.down - offset[0]"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_refinement(check: Check) -> None:
    check(pamr)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(pamr, old, new, CHECKS)


def test_an_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="odd size, not 10"):
        pamr.window_offsets(10)
