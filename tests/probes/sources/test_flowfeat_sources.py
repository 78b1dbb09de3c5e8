"""Feature sources stand on one encoder; only decoders differ."""

from __future__ import annotations

import pytest
import torch

from probes.sources.features import Encoding, Features, Source, by_encoder, features_of
from probes.sources.flowfeat import Checkpoint, with_fresh_decoder
from probes.sources.table import check_names, create_sources, title_of, usual_names
from trainer import FlowFeat


def _images(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_three_sources_share_their_encoder(tiny: FlowFeat, tiny_checkpoint: Checkpoint) -> None:
    images = _images()
    sources = create_sources(usual_names(), tiny_checkpoint)
    encoder, fresh, trained = (features for _, features in features_of(sources, images))
    low, high = tiny(tiny.normalise(images))
    assert encoder.high_bkhw is None
    assert fresh.high_bkhw is not None
    for features in (encoder, fresh, trained):
        assert torch.equal(features.low_bdgf, low)
    assert trained.high_bkhw is not None and torch.equal(trained.high_bkhw, high)
    assert fresh.high_bkhw.shape == high.shape
    assert (fresh.high_bkhw - high).abs().max() > 0.1


def test_the_encoder_runs_once_per_batch(
    tiny: FlowFeat, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = FlowFeat.encode

    def counted(model: FlowFeat, images: torch.Tensor) -> object:
        calls.append(1)
        return encode(model, images)

    monkeypatch.setattr(FlowFeat, "encode", counted)
    sources = create_sources(usual_names(), tiny_checkpoint)
    images, others = _images(1), _images(2)
    assert [source.name for source, _ in features_of(sources, images)] == usual_names()
    assert len(calls) == 1
    for batch in (others, images, images.fill_(7)):
        (_, features), *_ = features_of(sources, batch)
        assert torch.equal(features.low_bdgf, tiny(tiny.normalise(batch))[0]), "nothing of another batch may be left"


def test_every_encoder_sees_the_batch_once_and_its_own_sources_only() -> None:
    class Counting:
        size_multiple = 1

        def __init__(self, factor: float) -> None:
            self.factor, self.calls = factor, 0

        def encode(self, images_bhwc: torch.Tensor) -> Encoding:
            self.calls += 1
            images = images_bhwc.movedim(-1, 1).float()
            return Encoding(images, self.factor * images)

    one, two = Counting(1.0), Counting(2.0)
    plain = lambda encoding: Features(encoding.low_bdgf)  # noqa: E731
    sources = [Source("a", one, plain), Source("b", two, plain), Source("c", one, plain)]
    assert [[source.name for source in group] for group in by_encoder(sources)] == [["a", "c"], ["b"]]
    means = {source.name: features.low_bdgf.mean() for source, features in features_of(sources, _images())}
    assert (one.calls, two.calls) == (1, 1)
    assert means["b"] == 2 * means["a"] == 2 * means["c"]


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
    assert title_of("flowfeat") == "encoder + FlowFeat"
    assert title_of("somebody's own") == "somebody's own"
    with pytest.raises(ValueError, match="'flowfeet'; did you mean flowfeat"):
        check_names(["flowfeet"])
    with pytest.raises(ValueError, match="no feature source"):
        check_names([])
