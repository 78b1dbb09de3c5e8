"""Trained pixel classifiers: the loss, batches in parts, and what is drawn at random."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from probes.heads.pixel_classifier import (
    DecoderAttentionHead,
    HeadKind,
    LinearHead,
    Optimisation,
    PixelClassifier,
    bank_features,
    summed_loss,
)
from probes.sources.features import Features

ADAM = Optimisation(learning_rate=0.01, weight_decay=0.0, decoupled=False)


def _features(pictures: int = 2, *, decoder: bool = True, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(pictures, 6, 4, 4, generator=generator)
    return Features(low, torch.randn(pictures, 8, 16, 16, generator=generator) if decoder else None)


def _labels(pictures: int = 2) -> torch.Tensor:
    labels = torch.randint(0, 3, (pictures, 16, 16), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    labels[:, :, :5] = 255
    return labels


def test_the_linear_head_is_a_layer_on_resized_and_concatenated_features() -> None:
    features = _features()
    head, high = LinearHead(features, 3), features.high_bkhw
    assert head.high is not None and high is not None
    resized = F.interpolate(features.low_bdgf, size=(16, 16), mode="bilinear", align_corners=False)
    both = torch.cat([resized, high], dim=1)
    weight = torch.cat([head.low.weight[:, :, 0, 0], head.high.weight], dim=1)
    assert head.low.bias is not None
    expected = torch.einsum("cd,bdhw->bchw", weight, both) + head.low.bias[:, None, None]
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-5)


def test_without_a_decoder_logits_stay_on_the_token_grid() -> None:
    features = _features(decoder=False)
    assert LinearHead(features, 3)(features).shape == (2, 3, 4, 4)
    assert PixelClassifier(features, 3, "attention", ADAM, seed=0).predict(features, 16).shape == (2, 16, 16)


def test_the_loss_is_that_of_the_labelled_pixels_alone() -> None:
    logits, labels = torch.randn(2, 3, 16, 16), _labels()
    chosen = labels != 255
    expected = F.cross_entropy(logits.movedim(1, -1)[chosen], labels[chosen].long(), reduction="sum")
    torch.testing.assert_close(summed_loss(logits, labels), expected)
    assert float(summed_loss(logits, torch.full_like(labels, 255))) == 0.0


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_a_batch_in_parts_gives_the_gradient_of_the_batch(kind: HeadKind) -> None:
    features, labels = _features(), _labels()
    labelled = int((labels != 255).sum())
    whole, parted = (PixelClassifier(features, 3, kind, ADAM, seed=3) for _ in range(2))
    loss = whole.add(features, labels, labelled)
    shares = [parted.add(features.picture(i), labels[i : i + 1], labelled) for i in range(2)]
    assert sum(shares) == pytest.approx(loss, rel=1e-5)
    for one, other in zip(whole.head.parameters(), parted.head.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_attention_head_serves_sources_with_a_decoder_only() -> None:
    assert isinstance(PixelClassifier(_features(), 3, "attention", ADAM, seed=0).head, DecoderAttentionHead)
    assert isinstance(PixelClassifier(_features(decoder=False), 3, "attention", ADAM, seed=0).head, LinearHead)
    assert isinstance(PixelClassifier(_features(), 3, "linear", ADAM, seed=0).head, LinearHead)


def test_the_seed_draws_the_head_and_nothing_else_changes() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (PixelClassifier(_features(), 3, "attention", ADAM, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, different = (next(c.head.parameters()) for c in (one, same, other))
    assert torch.equal(first, again) and not torch.equal(first, different)


def test_training_separates_what_can_be_separated() -> None:
    labels = _labels()
    high = F.one_hot(torch.where(labels == 255, 0, labels).long(), 8).movedim(-1, 1).float()
    features = Features(torch.zeros(2, 6, 4, 4), high)
    classifier = PixelClassifier(features, 3, "linear", Optimisation(0.1, 0.0, decoupled=True), seed=0)
    for _ in range(60):
        classifier.add(features, labels, int((labels != 255).sum()))
        classifier.step()
    right = classifier.predict(features, 16) == labels
    assert bool(right[labels != 255].all())


def test_weight_decay_is_adams_or_adamws() -> None:
    """Without a gradient AdamW shrinks weights by exactly lr * decay; Adam moves each by a whole learning rate."""
    for decoupled, factor in ((True, 1 - 0.01 * 0.5), (False, None)):
        classifier = PixelClassifier(_features(), 3, "linear", Optimisation(0.01, 0.5, decoupled=decoupled), seed=0)
        weight = next(classifier.head.parameters())
        before = weight.detach().clone()
        classifier.add(_features(), torch.full((2, 16, 16), 255, dtype=torch.uint8), 0)
        classifier.step()
        expected = before - 0.01 * before.sign() if factor is None else before * factor
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    features = Features(torch.full((2, 6, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        PixelClassifier(features, 3, "linear", ADAM, seed=0).add(features, _labels(), 1)


def test_cells_of_a_bank_compare_encoder_and_decoder_in_equal_parts() -> None:
    features = _features()
    assert features.high_bkhw is not None
    cells = bank_features(features, 2)
    assert cells.shape == (2, 14, 8, 8)
    for half in (cells[:, :6], cells[:, 6:]):
        torch.testing.assert_close(half.norm(dim=1), torch.ones(2, 8, 8))
    pooled = F.normalize(F.avg_pool2d(features.high_bkhw, 2), dim=1)
    torch.testing.assert_close(cells[:, 6:], pooled)
    assert bank_features(_features(decoder=False), 2).shape == (2, 6, 4, 4)
