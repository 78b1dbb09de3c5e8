"""Several sets in one run: numbered through, mapped by offset, refused where they do not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from shards.reader import ShardSet
from shards.sample import Buffers
from shards.schema import SampleError, ShardSetError
from tests.trainer.runs import TINY, assert_equal, config_for, final_state, lines, run
from tests.trainer.training_set import FLOW, IMAGE, SETTINGS, flip_image_byte, write_training_set
from trainer.batch import Plan
from trainer.cli import main
from trainer.config import load_config, to_toml
from trainer.loader import Loader
from trainer.order import SampleOrder
from trainer.shard_sets import ShardSets, open_sets
from trainer.training_samples import held_out_order, sample_order


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten samples at offsets -1, 1, 2, and seven other ones at 2, 4."""
    root = tmp_path_factory.mktemp("two")
    return write_training_set(root / "one"), write_training_set(
        root / "other", samples=7, first=50, settings=replace(SETTINGS, offsets=(2, 4))
    )


def both(two: tuple[Path, Path], *overrides: str) -> tuple[str, ...]:
    return (f'data.shards=["{two[0]}", "{two[1]}"]', *overrides)


def opened(two: tuple[Path, Path], *overrides: str) -> ShardSets:
    return open_sets(load_config(None, both(two, *overrides)).data)


def test_config_takes_a_text_a_list_and_bare_words(tmp_path: Path) -> None:
    assert load_config(None, ["data.shards=a/b"]).data.sets == ("a/b",)
    assert load_config(None, ["data.shards=2024"]).data.sets == ("2024",)
    config = load_config(None, ['data.shards=["a", "s3://b/c"]', "data.weights=[1, 2.5]"])
    assert config.data.sets == ("a", "s3://b/c") and config.data.weights == (1.0, 2.5)
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "again.toml") == config
    assert load_config().data.sets == ()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['data.shards=["a", 3]'], r"data\.shards = \['a', 3\] must be a text in quotes or a list of texts"),
        (['data.shards=["a", "b"]', "data.weights=[1]"], r"data\.weights has 1 numbers for 2 shard sets"),
        (['data.shards=["a", "b"]', "data.weights=[1, 0]"], r"data\.weights = \[1, 0\] must be greater than 0"),
    ],
)
def test_lists_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(None, overrides)


def test_samples_are_numbered_through_and_columns_are_all_offsets(two: tuple[Path, Path]) -> None:
    sets = opened(two)
    one, other = ShardSet(two[0]), ShardSet(two[1])
    assert sets.offsets == (-1, 1, 2, 4) and len(sets) == 17 and sets.sizes == [10, 7]
    assert (sets.trainable_mask[:10, :3] == one.trainable_mask).all() and not sets.trainable_mask[:10, 3].any()
    assert (sets.trainable_mask[10:, 2:] == other.trainable_mask).all() and not sets.trainable_mask[10:, :2].any()
    assert list(sets.video) == [*one.video, *other.video] and sets.keys[10] == f"{two[1]}: {other.keys[0]}"
    assert sets.identity == "+".join(s.manifest.files["index.parquet"]["sha256"] for s in (one, other))


def test_a_single_set_is_what_it_always_was(two: tuple[Path, Path]) -> None:
    sets, one = open_sets(config_for(two[0], "data.weights=[3]").data), ShardSet(two[0])
    assert sets.identity == one.manifest.files["index.parquet"]["sha256"] and sets.keys == one.keys
    order = sample_order(sets, config_for(two[0]))
    assert type(order) is SampleOrder
    plain = SampleOrder(one.trainable_mask, seed=0).visits(np.arange(50))
    assert all(np.array_equal(a, b) for a, b in zip(order.visits(np.arange(50)), plain, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_delivers_the_pixels_of_the_right_set(two: tuple[Path, Path], workers: int) -> None:
    sets, config = opened(two), config_for(two[0], *both(two))
    own = [ShardSet(root) for root in two]
    seen: Counter[int] = Counter()
    with Loader(sets, Plan(sample_order(sets, config), 17, IMAGE, FLOW), workers=workers) as loader:
        for batch in loader.batches():
            assert not batch.failures and batch.flow_b2hw is not None
            for row, (i, k) in enumerate(zip(batch.sample.tolist(), batch.neighbour.tolist(), strict=True)):
                source, local = (own[0], i) if i < 10 else (own[1], i - 10)
                wanted = source.read(local, source.offsets.index(sets.offsets[k]))
                assert np.array_equal(batch.images_bhwc[row], wanted.image_hwc)
                assert np.array_equal(batch.flow_b2hw[row], wanted.flow_chw)
                assert batch.quantum_px[row] == np.float32(wanted.quantum_px)
            seen.update(batch.sample.tolist())
            if batch.step == 2:
                break
    assert seen == dict.fromkeys(range(17), 3), "each sample once in each of three epochs"


def test_weights_set_how_often_a_set_is_seen(two: tuple[Path, Path]) -> None:
    config = config_for(two[0], *both(two, "data.weights=[1, 3]"))
    samples = sample_order(open_sets(config.data), config).visits(np.arange(17 * 40)).sample
    assert (samples < 10).sum() == 4 * 40
    assert np.ptp(np.bincount(samples, minlength=17)[10:]) <= 1


def test_offsets_are_named_by_their_value(two: tuple[Path, Path]) -> None:
    sets, config = opened(two), config_for(two[0], *both(two, "data.offsets=[2]"))
    visits = sample_order(sets, config).visits(np.arange(100))
    assert {sets.offsets[k] for k in visits.neighbour} == {2}
    assert set(visits.sample) == set(range(17)) - {11, 14}, "videos 51 and 54 lack the other set's first offset, 2"
    with pytest.raises(ValueError, match=r"data\.offsets = \[-1\]: the set at .*other stores \[2, 4\]"):
        sample_order(sets, config_for(two[0], *both(two, "data.offsets=[-1]")))
    with pytest.raises(ValueError, match=r"data\.offsets = \[2, 9\]: the set at .*one stores \[-1, 1, 2\]"):
        sample_order(sets, config_for(two[0], *both(two, "data.offsets=[2, 9]")))


def test_a_pair_that_a_set_does_not_store_is_a_bad_sample(two: tuple[Path, Path]) -> None:
    sets = opened(two)
    with pytest.raises(SampleError, match="stores no neighbour at offset 4"):
        sets.read_into(3, 3, Buffers(flow_chw=np.empty((2, FLOW, FLOW), np.int16)))


def test_sets_that_cannot_share_a_batch_are_refused_by_name(two: tuple[Path, Path], tmp_path: Path) -> None:
    small = write_training_set(tmp_path / "small", samples=2, settings=replace(SETTINGS, flow_size=16))
    with pytest.raises(
        ValueError, match=r"one and .*small cannot be trained on together: flow_size is 32 .* 16 in the"
    ):
        opened((two[0], small))
    with pytest.raises(ValueError, match=r"names .*one twice: .*data\.weights"):
        opened((two[0], two[0]))
    with pytest.raises(ShardSetError, match=r"no shard set at .*nowhere"):
        opened((two[0], tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"data\.passes = 2: the set at .*one has 1"):
        sample_order(opened(two), config_for(two[0], *both(two, "data.passes=2")))


def test_videos_are_held_out_in_every_set(two: tuple[Path, Path]) -> None:
    sets, config = opened(two), config_for(two[0], *both(two, "data.holdout=0.4"))
    order, held_out = sample_order(sets, config), held_out_order(sets, config)
    assert held_out is not None and sorted([*order.samples, *held_out.samples]) == list(range(17))
    for root, first, last in ((two[0], 0, 10), (two[1], 10, 17)):
        alone = held_out_order(ShardSet(root), config_for(root, "data.holdout=0.4"))
        mine = held_out.samples[(held_out.samples >= first) & (held_out.samples < last)] - first
        assert alone is not None and mine.tolist() == alone.samples.tolist()


def test_a_run_over_two_sets_resumes_exactly_and_names_them(two: tuple[Path, Path], tmp_path: Path) -> None:
    settings = both(two, "data.weights=[1, 2]")
    run(two[0], tmp_path / "straight", *settings, "train.steps=8")
    run(two[0], tmp_path / "halves", *settings, "train.steps=3", "data.workers=2")
    run(two[0], tmp_path / "halves", *settings, "train.steps=8", resume=True)
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))
    assert final_state(tmp_path / "straight")["shards"] == opened(two).identity
    named = lines(tmp_path / "straight", "start")[0]["sets"]
    assert [(s["place"], s["samples"], s["trained"]) for s in named] == [(str(two[0]), 10, 10), (str(two[1]), 7, 7)]
    with pytest.raises(ValueError, match=r"other settings.*data\.weights"):
        run(two[0], tmp_path / "halves", *both(two, "data.weights=[2, 1]"), resume=True)


def test_a_bad_sample_is_named_with_its_set(two: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = write_training_set(tmp_path / "damaged", samples=7, first=50)
    key = flip_image_byte(damaged, 3)
    run(two[0], tmp_path / "run", *both((two[0], damaged)), "train.steps=10")
    skipped = lines(tmp_path / "run", "skipped")
    assert skipped and {line["key"] for line in skipped} == {f"{damaged}: {key}"}
    assert all(line["reason"].startswith(f"{damaged}: {key}.jpg") for line in skipped)


def test_the_command_takes_several_sets(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--shards", str(two[0]), "--shards", str(two[1]), "--out", str(out), *TINY, "train.steps=1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert load_config(out / "config.toml").data.sets == (str(two[0]), str(two[1]))
    assert f"{two[1]}: 7 of 7 samples" in "".join(done.stderr.split("\n")), "each set is named, with its numbers"
