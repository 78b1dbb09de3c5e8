"""Bilinear, the teacher and FlowFeat++: what each adds to the checkpoint's encoder, and how heads take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from probes.data.shard_pairs import set_digest
from probes.heads import linear
from probes.heads.joined import joined_map
from probes.heads.pamr import flowfeat_plus_plus
from probes.heads.pixel_classifier import LinearHead, Optimisation, PixelClassifier, bank_features
from probes.run import fitting
from probes.sources.features import Features, Source, features_of
from probes.sources.flowfeat import Checkpoint, open_checkpoint
from probes.sources.identity import describe, identity_sha256, parameter_count, weights_sha256
from probes.sources.table import create_sources
from probes.tasks.homography import HomographyMatching
from probes.tasks.vos import LinearVos
from probes.tasks.vos_knn import maps_of
from shards.reader import ShardSet
from tests.trainer.training_set import write_training_set
from trainer import FlowFeat

CPU = torch.device("cpu")


def _images() -> torch.Tensor:
    return torch.randint(0, 256, (1, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _one(name: str, checkpoint: Checkpoint) -> tuple[Source, Features]:
    ((source, features),) = features_of(create_sources([name], checkpoint), _images())
    return source, features


def _training_checkpoint(tiny: FlowFeat, path: Path, shards: str) -> Path:
    """As a run writes it: the student, and a teacher that differs from it."""
    state = tiny.state_dict()
    teacher = {
        f"decoder_ema.ema_model.{k.removeprefix('decoder.')}": 1.5 * v for k, v in state.items() if "decoder." in k
    }
    torch.save({"checkpoint_format": 1, "step": 3, "shards": shards, "model": {**state, **teacher}}, path)
    return path


def test_the_teacher_is_read_from_a_runs_checkpoint(tiny: FlowFeat, tmp_path: Path) -> None:
    path = _training_checkpoint(tiny, tmp_path / "step-0000003.pth", "the set")
    checkpoint = open_checkpoint(path, device=CPU)
    (student, plain), (teacher, averaged) = (
        (source, features)
        for source, features in features_of(create_sources(["flowfeat", "teacher"], checkpoint), _images())
    )
    expected = FlowFeat.from_pretrained(path, teacher=True)(tiny.normalise(_images()))[1]
    assert averaged.high_bkhw is not None and torch.allclose(averaged.high_bkhw, expected, atol=1e-5)
    assert plain.high_bkhw is not None and not torch.allclose(plain.high_bkhw, expected, atol=1e-2)
    assert teacher.encoder is student.encoder and teacher.modules[0] is student.modules[0], "one encoder in memory"
    assert student.trained_on == teacher.trained_on == "the set"
    asked = open_checkpoint(path, teacher=True, device=CPU)
    assert _one("flowfeat", asked)[1].high_bkhw is not None
    assert torch.equal(_one("flowfeat", asked)[1].high_bkhw, _one("teacher", asked)[1].high_bkhw)  # type: ignore[arg-type]


def test_a_file_without_a_teacher_is_named(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny\.safetensors holds no EMA decoder"):
        _one("teacher", open_checkpoint(checkpoint, device=CPU))


def test_a_model_says_which_set_it_was_trained_on(tmp_path: Path, tiny: FlowFeat) -> None:
    shards = ShardSet(write_training_set(tmp_path / "set", samples=2))
    path = _training_checkpoint(tiny, tmp_path / "a.pth", set_digest(shards))
    encoder, fresh, trained = create_sources(
        ["encoder", "random_decoder", "flowfeat"], open_checkpoint(path, device=CPU)
    )
    assert encoder.trained_on is fresh.trained_on is None and trained.trained_on == set_digest(shards)


def test_bilinear_is_tokens_at_every_pixel_and_stands_alone(tiny: FlowFeat, tiny_checkpoint: Checkpoint) -> None:
    low = tiny(tiny.normalise(_images()))[0]
    dense = F.interpolate(low, size=(32, 48), mode="bilinear", align_corners=False)
    features = _one("bilinear", tiny_checkpoint)[1]
    assert features.high_bkhw is not None and torch.equal(features.high_bkhw, dense)
    assert torch.equal(joined_map(features, "both"), dense[0]) and torch.equal(features.for_heads().low_bdgf, dense)
    assert LinearHead(features, 3)(features).shape == (1, 3, 32, 48)
    assert LinearHead(features, 3).low.weight.shape[1] == low.shape[1], "the tokens are not beside it"
    assert [one.shape for one in maps_of(features, 1)] == [low[0].shape]
    assert bank_features(features, 2).shape == (1, low.shape[1], 8, 12)
    attending = PixelClassifier(features, 3, "attention", Optimisation(1e-3, 0, True), seed=0)
    assert isinstance(attending.head, LinearHead), "the attention probe is for decoders"


def test_a_linear_probe_on_bilinear_tokens_is_one_on_the_resized_map(tiny_checkpoint: Checkpoint) -> None:
    features = _one("bilinear", tiny_checkpoint)[1]
    labels = torch.zeros(32, 48, dtype=torch.long)
    labels[8:20, 10:30] = 1
    assert features.high_bkhw is not None
    alone, plain = (linear.fit(one, labels, 2, iterations=20) for one in (features, Features(features.high_bkhw)))
    assert torch.equal(alone.logits(features), plain.logits(Features(features.high_bkhw)))
    assert alone.weight_high_ck is None


def test_flowfeat_plus_plus_refines_the_logits_of_a_probe(tiny_checkpoint: Checkpoint) -> None:
    (plain, features), (refined, same) = (_one(name, tiny_checkpoint) for name in ("flowfeat", "flowfeat++"))
    assert plain.refine is None and refined.refine is not None and features.high_bkhw is not None
    assert same.high_bkhw is not None and torch.equal(features.high_bkhw, same.high_bkhw)
    labels = torch.randint(0, 2, (32, 48), generator=torch.Generator().manual_seed(0))
    probe = linear.fit(features, labels, 2, iterations=5)
    expected = flowfeat_plus_plus(probe.logits(features), features.high_bkhw).argmax(dim=1)
    assert torch.equal(probe.predict(features, 32, 48, refined.refine).long(), expected)
    assert not torch.equal(probe.predict(features, 32, 48), probe.predict(features, 32, 48, refined.refine))
    heads = [
        PixelClassifier(features, 2, "linear", Optimisation(1e-3, 0, True), seed=0, refine=source.refine)
        for source in (plain, refined)
    ]
    by_hand = flowfeat_plus_plus(heads[0].head(features).detach(), features.high_bkhw)
    assert torch.equal(
        heads[1].predict(features, 32).long(), F.interpolate(by_hand, (32, 32), mode="bilinear").argmax(1)
    )


def test_it_has_no_row_where_nothing_is_refined(tiny_checkpoint: Checkpoint) -> None:
    sources = create_sources(["flowfeat", "flowfeat++"], tiny_checkpoint)
    assert [one.name for one in fitting(LinearVos(), sources)] == ["flowfeat", "flowfeat++"]
    assert [one.name for one in fitting(HomographyMatching(), sources)] == ["flowfeat"]
    with pytest.raises(ValueError, match="homography has no logits to refine, and only flowfeat\\+\\+"):
        fitting(HomographyMatching(), sources[1:])


def test_records_say_what_a_source_is(tiny: FlowFeat, tiny_checkpoint: Checkpoint) -> None:
    fresh, trained = create_sources(["random_decoder", "flowfeat"], tiny_checkpoint)
    told = describe(trained, (32, 48), CPU)
    low, high = tiny(tiny.normalise(_images()))
    assert told.low_cgf == tuple(low.shape[1:]) and told.high_chw == tuple(high.shape[1:])
    assert told.parameters == sum(one.numel() for one in tiny.parameters()) == parameter_count(trained.modules)
    assert (
        told.weights_sha256
        == weights_sha256((tiny.encoder, tiny.decoder))
        != describe(fresh, (32, 48), CPU).weights_sha256
    )
    (encoder,) = create_sources(["encoder"], tiny_checkpoint)
    assert describe(encoder, (32, 48), CPU).high_chw is None
    assert identity_sha256(trained) != identity_sha256(replace(trained, spec="called in another way"))
    assert weights_sha256([torch.nn.Linear(2, 2)]) != weights_sha256([torch.nn.Linear(2, 2)])
