"""Training from an object store: the run of the local set bit for bit, and a defined end when the store fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.reader import ShardSet
from tests.shards.object_store import ObjectStore, storing
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from tests.trainer.training_set import FLOW, IMAGE
from trainer.batch import Plan
from trainer.block_order import BlockOrder
from trainer.loader import Loader, LoaderError
from trainer.order import SampleOrder
from trainer.shard_sets import open_sets
from trainer.training_samples import sample_order

pytest.importorskip("aiohttp", reason="the extra `remote` is not installed")
BLOCKS = ("data.block_samples=2", "data.window_blocks=3")


@pytest.fixture
def store(shards: Path) -> Iterator[ObjectStore]:
    with storing(shards) as running:
        yield running


def at(url: str, *overrides: str) -> tuple[str, ...]:
    return (f'data.shards="{url}"', *overrides)


def test_addresses_are_read_in_blocks_and_folders_are_not(shards: Path, store: ObjectStore) -> None:
    local, remote = open_sets(config_for(shards).data), open_sets(config_for(shards, *at(store.url)).data)
    assert local.window_blocks == 0 and remote.window_blocks == 64
    assert type(sample_order(local, config_for(shards))) is SampleOrder
    assert isinstance(sample_order(remote, config_for(shards)), BlockOrder)
    assert remote.identity == f"{local.identity}, 64 blocks of 6" != local.identity, "another order is another identity"
    never = open_sets(config_for(shards, *at(store.url, "data.block_samples=-1")).data)
    assert never.identity == local.identity
    set_mib = sum(path.stat().st_size for path in shards.glob("pass-*/*.tar")) / 2**20
    assert local.held_mib == never.held_mib == 0 and set_mib <= remote.held_mib < 1.3 * set_mib


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_run_from_a_folder_and_from_a_store(
    shards: Path, store: ObjectStore, tmp_path: Path, workers: int
) -> None:
    """Also with the move in the middle of an epoch, and with requests that fail and are repeated."""
    run(shards, tmp_path / "local", *BLOCKS, "train.steps=7")
    run(shards, tmp_path / "moved", *BLOCKS, "train.steps=3")
    store.wrong = lambda number, path: "500" if number % 4 == 3 else ""
    run(shards, tmp_path / "moved", *at(store.url, *BLOCKS, f"data.workers={workers}", "train.steps=7"), resume=True)
    assert_equal(final_state(tmp_path / "moved"), final_state(tmp_path / "local"))
    assert not lines(tmp_path / "moved", "set_changed") and not lines(tmp_path / "moved", "skipped")


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_workers_fetch_each_block_once_per_window(
    shards: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Ten samples in five blocks of two, all in one window: five requests, whoever reads."""
    if kind == "s3":
        s3fs = pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in store.s3_environment.items():
            monkeypatch.setenv(name, value)
    url = "s3://bucket" if kind == "s3" else store.url
    config = config_for(shards, *at(url, "data.block_samples=2", "data.window_blocks=8"))
    sets = open_sets(config.data)
    plan = Plan(sample_order(sets, config), 5, IMAGE, FLOW)
    local = ShardSet(shards)
    with Loader(sets, plan, workers=3, prefetch_batches=1) as loader:
        for batch in loader.batches():
            for row, i in enumerate(batch.sample.tolist()):
                assert np.array_equal(batch.images_bhwc[row], local.read(i, int(batch.neighbour[row])).image_hwc)
            if batch.step == 5:
                break
    ranges = store.asked(".tar")
    assert len(set(ranges)) >= 4 and len(ranges) == 5, "the whole set is one window and stays held"


@pytest.mark.parametrize(
    ("wrong", "reason"), [("500", "500"), ("cuts the body", r"after|down"), ("hangs", "no answer")]
)
def test_a_shard_that_cannot_be_had_costs_its_samples(
    shards: Path, store: ObjectStore, tmp_path: Path, wrong: str, reason: str
) -> None:
    store.wrong = lambda number, path: wrong if path.endswith("000001.tar") else ""
    run(shards, tmp_path / "run", *at(store.url, *BLOCKS, "data.timeout_s=4", "train.steps=6"))
    skipped = lines(tmp_path / "run", "skipped")
    assert skipped and {line["key"][:6] for line in skipped} == {"000001"}
    assert all("000001.tar" in line["reason"] for line in skipped)
    assert lines(tmp_path / "run", "step")[-1]["skipped"] == len(skipped)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_is_gone_stops_the_run_with_one_line(
    shards: Path, store: ObjectStore, tmp_path: Path, workers: int
) -> None:
    run(shards, tmp_path / "run", *at(store.url, *BLOCKS, "train.steps=2"))
    start = len(store.requests)
    store.wrong = lambda number, path: "500" if path.endswith(".tar") and number > start else ""
    with pytest.raises(LoaderError, match=r"could not be read.*\.tar.*500") as caught:
        run(
            shards, tmp_path / "run", *at(store.url, *BLOCKS, "train.steps=900", f"data.workers={workers}"), resume=True
        )
    assert "\n" not in str(caught.value)
    assert final_state(tmp_path / "run")["step"] == 2
