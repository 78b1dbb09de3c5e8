"""data.passes: training on the first anchors of every video only."""

from __future__ import annotations

import numpy as np
import pytest

from shards.reader import ShardSet
from tests.trainer.runs import config_for
from tests.trainer.training_set import write_training_set
from trainer.training_samples import sample_order


@pytest.fixture(scope="module")
def two_passes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(write_training_set(tmp_path_factory.mktemp("data") / "set", passes=2))


def test_only_samples_of_the_first_passes_are_seen(two_passes: ShardSet) -> None:
    every = sample_order(two_passes, config_for(two_passes.root))
    first = sample_order(two_passes, config_for(two_passes.root, "data.passes=1"))
    assert len(every) == 20 and len(first) == 10
    seen = first.visits(np.arange(40)).sample
    assert set(two_passes.pass_index[seen]) == {0} and len(set(seen)) == 10
    both = sample_order(two_passes, config_for(two_passes.root, "data.passes=2"))
    assert np.array_equal(both.samples, every.samples)


def test_more_passes_than_there_are_is_refused_with_the_way_out(two_passes: ShardSet) -> None:
    with pytest.raises(ValueError, match=r"data\.passes = 3: the set at .* has 2; extend it with PASSES=3"):
        sample_order(two_passes, config_for(two_passes.root, "data.passes=3"))
