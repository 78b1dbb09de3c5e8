"""Label propagation: the stored values of DINO's script, a loop over cells, shifts with a known answer, and mutants of it all."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from probes.heads import label_propagation
from probes.heads.label_propagation import PropagationSettings
from tests.data import parity_weights
from tests.probes.largest_tensor import LargestTensor
from tests.probes.mutants import Check, noticed

DATA = Path(__file__).resolve().parents[2] / "data"


def check_parity(lp: ModuleType) -> None:
    with np.load(DATA / "parity_knn.npz") as fixture:
        meta = json.loads(str(fixture["meta"]))
        soft, up_last, pred, first = (fixture[name] for name in ("soft", "up_last", "pred", "first"))
    seed, h, w, frames, d = (meta[name] for name in ("seed", "h", "w", "T", "dim"))
    tokens = parity_weights.normals(seed, frames, h * w, d) + 1.5 * parity_weights.normals(seed + 1, 1, h * w, d)
    features = torch.from_numpy(tokens).transpose(1, 2).unflatten(2, (h, w))
    annotation = parity_weights.rng(seed + 2).integers(0, meta["C"], (h, w))
    annotation[0, 0] = meta["C"] - 1
    labels = lp.first_labels(annotation.astype(np.uint8), (h, w))
    assert np.array_equal(labels.numpy(), first)
    rules = dataclasses.replace(
        lp.DINO480,
        radius=meta["rad"], neighbors=meta["topk"], context_frames=meta["nlast"], temperature=meta["temperature"],
    )  # fmt: skip
    size = (h * meta["patch"], w * meta["patch"])
    maps = list(lp.propagate_video(([frame] for frame in features), labels, rules))
    assert len(maps) == frames - 1
    for t, got in enumerate(maps):
        assert np.abs(got.numpy() - soft[t]).max() < meta["atol"]
        assert np.array_equal(lp.label_map(got, size, tuple(meta["ori"]), rules), pred[t])
    assert np.abs(lp.upsampled(maps[-1], size, rules).numpy() - up_last).max() < meta["atol"]


def propagated_by_loops(
    target: np.ndarray, context: np.ndarray, labels: np.ndarray, rules: PropagationSettings
) -> np.ndarray:
    """The module docstring's formula, cell by cell in float64."""
    _, g, f = target.shape
    out = np.zeros((labels.shape[1], g, f))
    for y in range(g):
        for x in range(f):
            found = []
            for t in range(len(context)):
                for v in range(g):
                    for u in range(f):
                        apart = (v - y, u - x)
                        inside = max(map(abs, apart)) if rules.window == "square" else math.hypot(*apart)
                        if inside <= rules.radius:
                            found.append((float(target[:, y, x] @ context[t, :, v, u]), labels[t, :, v, u]))
            found.sort(key=lambda pair: -pair[0])
            best = found[: rules.neighbors]
            weights = np.exp(np.array([cosine for cosine, _ in best]) / rules.temperature)
            out[:, y, x] = weights @ np.array([label for _, label in best]) / weights.sum()
    return out


def check_loops(lp: ModuleType) -> None:
    for rules, (g, f) in ((lp.DINO480, (22, 7)), (lp.DINOV3_960, (5, 17))):
        rules = dataclasses.replace(rules, radius=3, neighbors=4)
        random = np.random.default_rng(g)
        features = F.normalize(torch.from_numpy(random.normal(size=(3, 6, g, f))), dim=1)
        labels = torch.from_numpy(random.dirichlet(np.ones(3), size=(2, g, f))).movedim(-1, 1)
        got = lp.propagate(features[2], features[:2], labels, rules)
        expected = propagated_by_loops(features[2].numpy(), features[:2].numpy(), labels.numpy(), rules)
        assert np.abs(got.numpy() - expected).max() < 1e-12


def check_published_settings(lp: ModuleType) -> None:
    first, second = lp.SETTINGS["dino480"], lp.SETTINGS["dinov3-960"]
    got = [
        (s.window, s.radius, s.temperature, s.neighbors, s.context_frames, s.upsampling, s.resize)
        for s in (first, second)
    ]
    assert got[0] == ("square", 12, 0.1, 5, 7, "bilinear", "bilinear")
    assert got[1] == ("circle", 12, 0.2, 5, 7, "nearest", "bicubic")
    assert (first.pixel_std, second.pixel_std) == ((0.228, 0.224, 0.225), (0.229, 0.224, 0.225))
    assert (first.short_side_px, second.short_side_px) == (480, 960)
    assert first.input_size(480, 854, 16) == first.input_size(480, 854, 32) == (480, 832)
    assert first.input_size(480, 854, 28) == (476, 840)
    assert first.input_size(480, 845, 28) == (476, 840)
    assert first.input_size(1920, 1080, 32) == (832, 480)
    assert second.input_size(480, 854, 16) == (960, 1712)
    assert second.input_size(854, 480, 28) == (1764, 980)


def check_ties_are_kept(lp: ModuleType) -> None:
    """Two sources equal to the target, one neighbour asked for: both are kept, so the label is half and half."""
    rules = dataclasses.replace(lp.DINO480, neighbors=1)
    target = F.normalize(torch.tensor([[1.0], [2.0]])[:, :, None], dim=0)
    context = torch.stack([target, target])
    labels = torch.eye(2)[:, :, None, None]
    assert lp.propagate(target, context, labels, rules).flatten().tolist() == [0.5, 0.5]


def check_a_shift_is_followed(lp: ModuleType) -> None:
    """Distinct features that move by (2, 3) cells take their labels along; beyond the radius they can't."""
    random = torch.Generator().manual_seed(5)
    features = torch.randn(64, 20, 21, generator=random)
    annotation = np.zeros((20, 21), np.uint8)
    annotation[5:9, 6:11], annotation[12:15, 3:5] = 1, 2
    labels = lp.first_labels(annotation, (20, 21))
    moved = features.roll((2, 3), (1, 2))
    for radius, same in ((3, True), (2, False)):
        rules = dataclasses.replace(lp.DINO480, neighbors=1, radius=radius)
        soft = lp.LabelPropagator(features, labels, rules).step(moved)
        found = soft.argmax(dim=0).numpy()[2:, 3:]
        assert np.array_equal(found, annotation[:-2, :-3]) == same


def check_maps_are_averaged_and_kept_apart(lp: ModuleType) -> None:
    random = torch.Generator().manual_seed(1)
    one, two = torch.randn(4, 5, 6, 6, generator=random), torch.randn(4, 3, 6, 6, generator=random)
    labels = lp.first_labels(np.arange(36, dtype=np.uint8).reshape(6, 6) % 3, (6, 6))
    both = list(lp.propagate_video(zip(one, two, strict=True), labels, lp.DINO480))
    alone = [list(lp.propagate_video(([x] for x in maps), labels, lp.DINO480)) for maps in (one, two)]
    for got, a, b in zip(both, *alone, strict=True):
        assert torch.allclose(got, (a + b) / 2, atol=1e-6)


def check_first_labels(lp: ModuleType) -> None:
    random = np.random.default_rng(2)
    annotation = random.integers(0, 4, (25, 37)).astype(np.uint8)
    annotation[5:8] = 255
    expected = np.array(
        Image.fromarray(np.where(annotation == 255, 0, annotation)).resize((7, 6), Image.Resampling.NEAREST)
    )
    got = lp.first_labels(annotation, (6, 7))
    assert got.shape == (4, 6, 7)
    assert np.array_equal(got.argmax(dim=0).numpy(), expected)
    assert bool((got.sum(dim=0) == 1).all())


def check_labels_of_constant_channels(lp: ModuleType) -> None:
    everything_is_object_one = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 3, 4)
    for rules in (lp.DINO480, lp.DINOV3_960):
        assert (lp.label_map(everything_is_object_one, (12, 16), (13, 15), rules) == 1).all()


def check_nearest_output(lp: ModuleType) -> None:
    """DINOv3's output: the cell's label for every pixel of the original, after each channel is stretched to [0, 1]."""
    soft = torch.tensor([[[0.9, 0.8], [0.7, 0.6]], [[0.1, 0.2], [0.3, 0.4]]])
    cells = np.array([[0, 0], [1, 1]])  # stretched: 1, 2/3, 1/3, 0 against 0, 1/3, 2/3, 1
    assert np.array_equal(lp.label_map(soft, (32, 32), (6, 10), lp.DINOV3_960), np.kron(cells, np.ones((3, 5))))


def check_grids(lp: ModuleType) -> None:
    fine = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert lp.on_grid(fine, (2, 3))[0, 0].tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    thirds = torch.tensor([[[[3.0, 0.0, 0.0, 0.0, 6.0, 0.0]]]])
    assert lp.on_grid(thirds, (1, 2)).flatten().tolist() == [1.0, 2.0]
    assert lp.on_grid(thirds.mT, (2, 1)).flatten().tolist() == [1.0, 2.0]
    coarse = lp.on_grid(torch.tensor([[[[0.0, 4.0]]]]), (1, 4))
    assert coarse.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def check_tiles_do_not_show(lp: ModuleType) -> None:
    random = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(3, 8, 21, 34, generator=random), dim=1)
    labels = torch.rand(2, 3, 21, 34, generator=random)
    rules = dataclasses.replace(lp.DINOV3_960, radius=4)
    whole = lp.propagate(features[2], features[:2], labels, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lp, "TILE", 5)
        assert torch.allclose(lp.propagate(features[2], features[:2], labels, rules), whole, atol=1e-6)


CHECKS = (
    check_parity, check_loops, check_published_settings, check_ties_are_kept, check_a_shift_is_followed,
    check_maps_are_averaged_and_kept_apart, check_first_labels, check_labels_of_constant_channels, check_nearest_output,
    check_grids,
    check_tiles_do_not_show,
)  # fmt: skip

MUTATIONS = [
    ("torch.maximum(down, across) <= rules.radius", "torch.maximum(down, across) < rules.radius"),
    ("torch.maximum(down, across) <= rules.radius", "torch.minimum(down, across) <= rules.radius"),
    ("down**2 + across**2 <= rules.radius**2", "down**2 + across**2 < rules.radius**2"),
    ("down**2 + across**2 <= rules.radius**2", "down + across <= rules.radius"),
    ('rules.window == "square"', 'rules.window != "square"'),
    ("min(rows.stop + rules.radius, g)", "min(rows.stop + rules.radius - 1, g)"),
    ("max(columns.start - rules.radius, 0)", "max(columns.start - rules.radius + 1, 0)"),
    ("div_(rules.temperature)", "mul_(rules.temperature)"),
    (".div_(rules.temperature)", ""),
    ("min(rules.neighbors, cosine_np.shape[1])", "min(rules.neighbors + 1, cosine_np.shape[1])"),
    ("cosine_np < last_kept", "cosine_np <= last_kept"),
    ("masked_fill_(~window_ns", "masked_fill_(window_ns"),
    ("(F.normalize(first_dgf, dim=0), first", "(first_dgf, first"),
    ("target = F.normalize(features_dgf, dim=0)", "target = features_dgf"),
    ("context = [self._first, *self._recent]", "context = [*self._recent] or [self._first]"),
    ("deque(maxlen=rules.context_frames)", "deque(maxlen=rules.context_frames + 1)"),
    (
        "self._recent.append((target, soft_cgf))",
        "self._recent.append((target, (soft_cgf == soft_cgf.amax(0)).float()))",
    ),
    ("torch.stack(soft).mean(dim=0)", "torch.stack(soft).amax(dim=0)"),
    ('mode="area"', 'mode="nearest"'),
    ('size=grid, mode="bilinear", align_corners=False', 'size=grid, mode="bilinear", align_corners=True'),
    ("Image.Resampling.NEAREST", "Image.Resampling.BOX"),
    ("(size[1], size[0])", "(size[0], size[1])"),
    ("annotation_hw == IGNORED, 0", "annotation_hw == IGNORED, 1"),
    ("int(labels.max()) + 1", "int(cells.max()) + 2"),
    ("torch.where(span > 0, (soft_chw - least) / span, soft_chw)", "soft_chw"),
    ("(soft_chw - least) / span, soft_chw)", "(soft_chw - least) / span, 0 * soft_chw)"),
    ("(soft_chw - least) / span", "soft_chw / (span + least)"),
    ("(rules.upsampling, False)", "(rules.upsampling, True)"),
    ('size = input_size if rules.upsampling == "bilinear"', 'size = original_size if rules.upsampling == "bilinear"'),
    ("math.ceil(long * new_short / short / multiple)", "math.floor(long * new_short / short / multiple)"),
    ("self.short_side_px * long // (short * step)", "new_short * long // (short * step)"),
    ("if height <= width else", "if height > width else"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_label_propagation(check: Check) -> None:
    check(label_propagation)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(label_propagation, old, new, CHECKS)


def test_memory_is_bounded_whatever_the_size_of_the_picture() -> None:
    """A grid of 96x96 cells, 8 context frames: the dense affinity would be 2.7 GB; no tensor exceeds the stated 13 MB."""
    features, labels = torch.randn(8, 4, 96, 96), torch.rand(8, 2, 96, 96)
    with LargestTensor() as largest:
        label_propagation.propagate(features[0], features, labels, label_propagation.DINO480)
    assert largest.bytes <= 16 * 16 * 8 * 40 * 40 * 4


def test_bad_features_are_refused() -> None:
    propagator = label_propagation.LabelPropagator(torch.ones(2, 3, 3), torch.ones(1, 3, 3), label_propagation.DINO480)
    with pytest.raises(ValueError, match="not finite"):
        propagator.step(torch.full((2, 3, 3), torch.nan))
    with pytest.raises(ValueError, match="the first frame had"):
        propagator.step(torch.ones(2, 3, 4))
