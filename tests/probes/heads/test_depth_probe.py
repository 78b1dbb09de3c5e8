"""Training of the depth heads: the same for a source alone and among others, from a seed, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from probes.heads import depth_probe
from probes.heads.depth import DepthBins, depth_loss
from probes.sources.features import Features, Source, features_of
from tests.probes.small_depth import PIXELS, TOKENS

BINS = DepthBins(16, farthest_m=4.0)


def _batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    grey = [torch.randint(60, 255, (2, 16, 16, 1), dtype=torch.uint8, generator=generator) for _ in range(count)]
    return [(one.expand(-1, -1, -1, 3), one.movedim(-1, 1).float() * 4 / 255) for one in grey]


def _seen(
    sources: Sequence[Source], batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> list[tuple[Iterator[tuple[Source, Features]], torch.Tensor]]:
    return [(features_of(sources, images), truth) for images, truth in batches]


def test_a_source_is_trained_as_if_alone() -> None:
    both = depth_probe.train(_seen([TOKENS, PIXELS], _batches(3)), BINS, seed=1)
    alone = depth_probe.train(_seen([PIXELS], _batches(3)), BINS, seed=1)
    other = depth_probe.train(_seen([PIXELS], _batches(3)), BINS, seed=2)
    for name, weight in both["flowfeat"].head.state_dict().items():
        assert torch.equal(weight, alone["flowfeat"].head.state_dict()[name])
    key = "logits.attention.queries"
    assert not torch.equal(alone["flowfeat"].head.state_dict()[key], other["flowfeat"].head.state_dict()[key])


def test_a_step_is_adam_on_the_papers_loss() -> None:
    """Recomputing logits for the gradient changes nothing: a plain step gives the same weights."""
    images, truth = _batches(1)[0]
    features = PIXELS.decode(PIXELS.encoder.encode(images))
    probe = depth_probe.new_probe(features, BINS, seed=0, learning_rate=1e-2)
    plain = depth_probe.DepthHead(features, BINS)
    plain.load_state_dict(probe.head.state_dict())
    adam = torch.optim.Adam(plain.parameters(), lr=1e-2, weight_decay=1e-5)
    assert features.high_bkhw is not None
    depth_loss(BINS.depth_from_logits(plain.logits(features.low_bdgf, features.high_bkhw)), truth, 4.0).backward()
    adam.step()
    probe.step(features, truth)
    for ours, theirs in zip(probe.head.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_depth_has_the_size_asked_for() -> None:
    images, _ = _batches(1)[0]
    for source in (TOKENS, PIXELS):
        features = source.decode(source.encoder.encode(images))
        probe = depth_probe.new_probe(features, BINS, seed=0, learning_rate=1e-2)
        depth = probe.predict(features, (16, 16))
        assert depth.shape == (2, 1, 16, 16)
        assert float(depth.min()) >= BINS.nearest_m and float(depth.max()) <= BINS.farthest_m


def test_features_that_are_no_numbers_are_refused() -> None:
    broken = Source(
        "flowfeat", PIXELS.encoder, lambda encoding: Features(encoding.low_bdgf, encoding.images_bchw * torch.nan)
    )
    with pytest.raises(ValueError, match="is not finite"):
        depth_probe.train(_seen([broken], _batches(1)), BINS, seed=0)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    depth_probe.train(_seen([PIXELS], _batches(1)), BINS, seed=0)
    assert torch.equal(before, torch.get_rng_state())
