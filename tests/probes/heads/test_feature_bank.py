"""The feature bank: shares and answers by hand and by loops, what the capacity keeps, memory, and mutants."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from probes.heads import feature_bank
from tests.probes.largest_tensor import LargestTensor
from tests.probes.mutants import Check, noticed


def random_pictures(seed: int, pictures: int, classes: int = 3, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (pictures, 8, 12), generator=random)
    return torch.randn(pictures, d, 4, 6, generator=random), labels


def check_protocol(module: ModuleType) -> None:
    settings = module.HUMMINGBIRD
    assert (settings.neighbors, settings.temperature, settings.capacity) == (30, 0.02, 10_240_000)
    assert module.capacity_within(4_300_000_000, 384, 150) == 2_013_108


def check_shares_by_hand(module: ModuleType) -> None:
    labels = torch.tensor([[[0, 0, 1, 2], [0, 1, 255, 255], [255, 255, 2, 2]]])
    shares = module.class_shares(labels, 3, (1, 2))
    assert torch.allclose(shares[0, :, 0, 0], torch.tensor([3 / 4, 1 / 4, 0.0]))
    assert torch.allclose(shares[0, :, 0, 1], torch.tensor([0.0, 1 / 4, 3 / 4]))
    assert module.class_shares(torch.full((1, 2, 2), 255), 3, (1, 1)).sum() == 0
    assert torch.equal(module.class_shares(torch.tensor([[[2, 0, 1]]]), 3, (1, 3))[0, :, 0].T, torch.eye(3)[[2, 0, 1]])
    uneven = module.class_shares(torch.arange(5)[None, :, None].expand(2, 5, 3), 5, (2, 1))  # rows 0-2 and 3-4
    assert torch.allclose(uneven[1, :, 0, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0]))
    assert torch.allclose(uneven[1, :, 1, 0], torch.tensor([0, 0, 0, 1 / 2, 1 / 2]))


def check_answers_by_loops(module: ModuleType) -> None:
    features, labels = random_pictures(1, 3)
    settings = module.BankSettings(neighbors=7, temperature=0.3)
    bank = module.FeatureBank(5, 3, pictures=3, settings=settings)
    bank.add(features[:2], labels[:2])
    bank.add(features[2:], labels[2:])
    assert len(bank) == 3 * 24
    query = torch.randn(2, 5, 3, 2, generator=torch.Generator().manual_seed(9))
    got = bank.probabilities(query).numpy()
    keys = features.movedim(1, -1).reshape(-1, 5).double().numpy()
    shares = np.zeros((3, 4, 6, 3))
    for (picture, y, x), label in np.ndenumerate(labels.numpy()):
        shares[picture, y // 2, x // 2, label] += 0.25
    for b, y, x in np.ndindex(2, 3, 2):
        q = query[b, :, y, x].double().numpy()
        cosine = keys @ q / np.linalg.norm(keys, axis=1) / np.linalg.norm(q)
        best = np.argsort(-cosine)[:7]
        weights = np.exp(cosine[best] / 0.3)
        assert np.allclose(got[b, :, y, x], weights @ shares.reshape(-1, 3)[best] / weights.sum(), atol=1e-5)


def check_own_pictures_come_back(module: ModuleType) -> None:
    """Cells of one class each, asked with their own features at a low temperature: the labels themselves, at pixel size."""
    features, _ = random_pictures(2, 1, d=32)
    labels = torch.randint(0, 3, (1, 4, 6), generator=torch.Generator().manual_seed(1))
    bank = module.FeatureBank(32, 3, pictures=1)
    bank.add(features, labels.repeat_interleave(8, 1).repeat_interleave(8, 2))
    assert torch.equal(bank.predict(features, 4, 6), labels)
    larger = bank.predict(features, 32, 48)
    assert torch.equal(larger[:, 3::8, 3::8], labels) and torch.equal(larger[:, 4::8, 4::8], labels)


def check_the_capacity_is_shared_out(module: ModuleType) -> None:
    """Two pictures, room for 14 cells: seven each. The only cell with class 2 is nearly always kept, and never an ignored one."""
    kept_rare = 0
    for seed in range(40):
        features, labels = random_pictures(seed, 2, classes=2)
        labels[:, :2, :2] = 2
        labels[:, 6:, 10:] = 255
        features[:, :, 0, 0] = torch.tensor([100.0, 0, 0, 0, 0])
        features[:, :, 3, 5] = torch.tensor([0, 100.0, 0, 0, 0])
        bank = module.FeatureBank(5, 3, pictures=2, settings=module.BankSettings(capacity=15), seed=seed)
        bank.add(features, labels)
        assert len(bank) == 14 and bank.pictures_left == 0
        stored, shares = bank._used(0)
        kept_rare += int((shares[:, 2] == 1).sum())
        assert not bool((stored[:, 1] > 0.9999).any())
        assert bool((shares.sum(dim=1) - 1).abs().max() < 1e-6)
        norms = stored.norm(dim=1)
        assert bool((norms - 1).abs().max() < 1e-5)
    # score of the rare cell u * 1, of the others u * (22 + about 22): it is among the 7 least of 23 unless u is large
    assert kept_rare >= 76


def check_same_seed_same_bank(module: ModuleType) -> None:
    features, labels = random_pictures(3, 4)
    banks = []
    for batches in ((4,), (1, 3), (2, 2)):
        bank = module.FeatureBank(5, 3, pictures=4, settings=module.BankSettings(capacity=40), seed=7)
        for f, y in zip(features.split(batches), labels.split(batches), strict=True):
            bank.add(f, y)
        banks.append(bank._used(0)[0])
    assert torch.equal(banks[0], banks[1]) and torch.equal(banks[0], banks[2])


def check_blocks_do_not_show(module: ModuleType) -> None:
    features, labels = random_pictures(4, 5)
    query = torch.randn(1, 5, 9, 9, generator=torch.Generator().manual_seed(2))
    answers = []
    for block_rows, query_rows in ((16384, 1024), (7, 10), (120, 81), (1, 1000)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK_ROWS", block_rows)
            patch.setattr(module, "QUERY_ROWS", query_rows)
            bank = module.FeatureBank(5, 3, pictures=5)
            bank.add(features, labels)
            assert len(bank) == 120
            answers.append(bank.probabilities(query))
    for answer in answers[1:]:
        assert torch.allclose(answer, answers[0], atol=1e-6)
    assert math.isclose(float(answers[0].sum()), 81, rel_tol=1e-5)


def check_bad_input_is_named(module: ModuleType) -> None:
    features, labels = random_pictures(5, 1)
    bank = module.FeatureBank(5, 3, pictures=1)
    with pytest.raises(ValueError, match="the bank is empty"):
        bank.probabilities(features)
    with pytest.raises(ValueError, match=r"label 3 is outside the class list \(0 to 2\)"):
        bank.add(features, labels.clamp(min=1) + 1)
    with pytest.raises(ValueError, match="label -1 is outside"):
        bank.add(features, torch.where(torch.arange(12) == 5, -1, labels))
    with pytest.raises(ValueError, match="not finite"):
        bank.add(features * torch.nan, labels)
    with pytest.raises(ValueError, match="features of 4 channels for a bank of 5"):
        bank.add(features[:, :4], labels)
    with pytest.raises(ValueError, match="labels of 2x12 are coarser"):
        bank.add(features, labels[:, :2])
    bank.add(features, labels)
    with pytest.raises(ValueError, match="1 more pictures for a bank that expects 0"):
        bank.add(features, labels)
    with pytest.raises(ValueError, match="no room for one of each of 9 pictures"):
        module.FeatureBank(5, 3, pictures=9, settings=module.BankSettings(capacity=8))
    assert module.FeatureBank(5, 3, pictures=8, settings=module.BankSettings(capacity=8)).cells_per_picture == 1


CHECKS = (
    check_protocol, check_shares_by_hand, check_answers_by_loops, check_own_pictures_come_back,
    check_the_capacity_is_shared_out, check_same_seed_same_bank, check_blocks_do_not_show,
    check_bad_input_is_named,
)  # fmt: skip

MUTATIONS = [
    ("neighbors: int = 30", "neighbors: int = 20"),
    ("temperature: float = 0.02", "temperature: float = 0.07"),
    ("4 * (channels + classes)", "4 * channels"),
    ("labelled = labels != ignored", "labelled = labels != -1"),
    ("counts / counts.sum(dim=1, keepdim=True).clamp(min=1)", "(counts > 0).float()"),
    ("counts / counts.sum(dim=1, keepdim=True).clamp(min=1)", "counts / (h * w / (g * f))"),
    (".clamp(min=1)", ""),
    ("device) * g // h", "device) * g // (h + 1)"),
    ("device) * f // w", "device) // (w // f + 1)"),
    ("F.normalize(cells_nd[kept].float(), dim=1)", "cells_nd[kept].float()"),
    ("F.normalize(features_bdgf.float(), dim=1)", "features_bdgf.float()"),
    ("usable = labelled.nonzero()", "usable = (labelled | True).nonzero()"),
    ("uniform * (occurs_nc.float() @ occurs_nc.sum(dim=0).float())", "uniform"),
    ("uniform * (occurs_nc.float() @ occurs_nc.sum(dim=0).float())", "occurs_nc.float() @ occurs_nc.sum(dim=0).float() * -uniform"),
    ("largest=False", "largest=True"),
    ("settings.capacity // pictures", "settings.capacity"),
    ("self._random = torch.Generator().manual_seed(seed)", "self._random = torch.default_generator"),
    ("(cosine_qk / self.settings.temperature).softmax(dim=1)", "cosine_qk / cosine_qk.sum(dim=1, keepdim=True)"),
    ("(cosine_qk / self.settings.temperature).softmax(dim=1)", "(cosine_qk * self.settings.temperature).softmax(dim=1)"),
    ("min(self.settings.neighbors, len(features))", "min(self.settings.neighbors - 1, len(features))"),
    ('mode="bilinear", align_corners=False', 'mode="bilinear", align_corners=True'),
    ("queries.flatten(0, 2)", "queries.transpose(1, 2).flatten(0, 2)"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_feature_bank(check: Check) -> None:
    check(feature_bank)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(feature_bank, old, new, CHECKS)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of 40,000 cells and 4,096 queries: all cosines at once would be 655 MB; no tensor exceeds block x queries."""
    bank = feature_bank.FeatureBank(4, 2, pictures=10)
    bank.add(torch.randn(10, 4, 64, 64), torch.zeros(10, 64, 64, dtype=torch.uint8))
    with LargestTensor() as largest:
        bank.probabilities(torch.randn(1, 4, 64, 64))
    assert largest.bytes <= 4 * feature_bank.BLOCK_ROWS * feature_bank.QUERY_ROWS
