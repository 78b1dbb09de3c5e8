"""Feature sources stand on one encoder; only decoders differ."""

from __future__ import annotations

import pytest
import torch

from probes.sources.flowfeat import SOURCES, check_names, create_sources, with_fresh_decoder
from trainer import FlowFeat


def _images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def test_the_three_sources_share_their_encoder(tiny: FlowFeat) -> None:
    images = _images()
    encoder, fresh, trained = (source(images) for source in create_sources(list(SOURCES), tiny, seed=5))
    low, high = tiny(images)
    assert encoder.high_bkhw is None
    assert fresh.high_bkhw is not None
    for features in (encoder, fresh, trained):
        assert torch.equal(features.low_bdgf, low)
    assert torch.equal(trained.high_bkhw, high)
    assert fresh.high_bkhw.shape == high.shape
    assert (fresh.high_bkhw - high).abs().max() > 0.1


def test_the_encoder_runs_once_per_batch(tiny: FlowFeat, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = FlowFeat.encode
    monkeypatch.setattr(FlowFeat, "encode", lambda self, images: (calls.append(1), encode(self, images))[1])
    sources = create_sources(list(SOURCES), tiny, seed=0)
    images, others = _images(1), _images(2)
    for source in sources:
        source(images)
    assert len(calls) == 1
    assert torch.equal(sources[0](others).low_bdgf, tiny(others)[0]), (
        "another batch must not get the remembered features"
    )
    images.mul_(2)
    assert torch.equal(sources[0](images).low_bdgf, tiny(images)[0]), "nor the same tensor with other content"


def test_a_fresh_decoder_follows_its_seed_only(tiny: FlowFeat) -> None:
    before, state = {k: v.clone() for k, v in tiny.state_dict().items()}, torch.get_rng_state()
    a, b, c = (with_fresh_decoder(tiny, seed) for seed in (1, 1, 2))
    assert a.encoder is tiny.encoder
    weights = [torch.cat([p.flatten() for p in model.decoder.parameters()]) for model in (a, b, c, tiny)]
    assert torch.equal(weights[0], weights[1])
    for other in weights[2:]:
        assert not torch.equal(weights[0], other)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items()), "the trained model must not change"


def test_a_trained_decoder_leaves_nothing_in_the_random_one(tiny: FlowFeat) -> None:
    """Every weight is drawn anew: from another model with the same seed comes the same decoder."""
    other = FlowFeat.create(tiny.variant, init="random", seed=99)
    with torch.no_grad():
        for parameter in other.decoder.parameters():
            parameter.fill_(7.0)
    one, two = with_fresh_decoder(tiny, 4).decoder.state_dict(), with_fresh_decoder(other, 4).decoder.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_names_are_checked_and_ordered() -> None:
    assert check_names(["flowfeat", "encoder", "flowfeat"]) == ["encoder", "flowfeat"]
    with pytest.raises(ValueError, match="did you mean 'flowfeat'"):
        check_names(["flowfeet"])
    with pytest.raises(ValueError, match="no feature source"):
        check_names([])
