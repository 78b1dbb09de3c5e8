"""Shards that are damaged, go missing or are replaced, before and while a training reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.reader import ShardSet
from shards.schema import SampleError, ShardSetError
from tests.trainer.runs import assert_equal, final_state, lines, run
from tests.trainer.training_set import write_training_set
from trainer import train as train_module
from trainer.loader import LoaderError

LAST = "pass-00/000001.tar"  # samples 6 .. 9


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A set that a test may damage."""
    return write_training_set(tmp_path / "set")


def overwrite(path: Path) -> None:
    """Other bytes in the same file."""
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))


def replace(path: Path) -> None:
    """Another file of the same size under the same name, as `mv` does."""
    other = path.with_suffix(".new")
    other.write_bytes(bytes(path.stat().st_size))
    os.replace(other, path)


def truncate(path: Path) -> None:
    os.truncate(path, 700)


@pytest.mark.parametrize(
    ("harm", "reader_who_had_it_open", "new_reader"),
    [
        (overwrite, "its CRC-32 does not match the index", "its CRC-32 does not match the index"),
        (truncate, r"damaged: \d+ of \d+ bytes", r"damaged: \d+ of \d+ bytes"),
        (replace, None, "its CRC-32 does not match the index"),
        (Path.unlink, None, "No such file or directory"),
    ],
)
def test_what_each_reader_sees(
    own: Path, harm: Callable[[Path], None], reader_who_had_it_open: str | None, new_reader: str
) -> None:
    """An open shard outlives its name; whatever else changes is found by size or CRC, sample by sample, and named."""
    had_it_open, fresh = ShardSet(own), ShardSet(own)
    before = had_it_open.read(7, 1)
    harm(own / LAST)
    for reader, reason in ((had_it_open, reader_who_had_it_open), (fresh, new_reader)):
        if reason is None:
            assert np.array_equal(reader.read(7, 1).image_hwc, before.image_hwc)
        else:
            with pytest.raises(SampleError, match=rf"000001-00-0001\.jpg in {LAST}.*{reason}"):
                reader.read(7, 1)
        reader.read(2, 1)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, rf"shard .*{LAST} is missing; delete .*records/pass-00/000001\.parquet and rerun"),
        (truncate, rf"shard .*{LAST} has 700 bytes, \d+ expected: it is truncated or was replaced; delete"),
    ],
)
def test_a_run_does_not_begin_or_resume_with_a_shard_missing_or_of_another_size(
    own: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    run(own, tmp_path / "run", "train.steps=2")
    kept = shutil.copy(own / LAST, tmp_path / "kept.tar")
    harm(own / LAST)
    for resume, out in ((False, tmp_path / "new"), (True, tmp_path / "run")):
        with pytest.raises(ShardSetError, match=message):
            run(own, out, "train.steps=4", resume=resume)
    assert not (tmp_path / "new").exists()
    shutil.copy(kept, own / LAST)
    assert run(own, tmp_path / "run", "train.steps=4", resume=True).step == 4


def after_three_steps(monkeypatch: pytest.MonkeyPatch, harm: Callable[[], None]) -> None:
    on_device = train_module.on_device

    def watched(*args: Any) -> Any:
        for number, batch in enumerate(on_device(*args)):
            if number == 3:
                harm()
            yield batch

    monkeypatch.setattr(train_module, "on_device", watched)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_overwritten_while_training_costs_its_samples_and_they_are_named(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    after_three_steps(monkeypatch, lambda: overwrite(own / LAST))
    outcome = run(own, tmp_path / "run", "train.steps=16", f"data.workers={workers}", "data.prefetch_batches=1")
    skipped = lines(tmp_path / "run", "skipped")
    assert outcome.step == 16 and {line["key"][:6] for line in skipped} == {"000001"}
    assert min(line["step"] for line in skipped) > 3 and all(LAST in line["reason"] for line in skipped)
    assert lines(tmp_path / "run", "step")[-1]["skipped"] == len(skipped)


@pytest.mark.parametrize("harm", [replace, Path.unlink])
def test_a_shard_replaced_or_removed_while_it_is_open_changes_nothing(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    run(own, tmp_path / "straight", "train.steps=8")
    after_three_steps(
        monkeypatch, lambda: harm(own / LAST)
    )  # twelve samples have been read, of ten: all shards are open
    run(own, tmp_path / "run", "train.steps=8")
    assert not lines(tmp_path / "run", "skipped")
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "straight"))


def test_a_set_that_is_overwritten_altogether_stops_the_run(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harm() -> None:
        for path in own.glob("pass-00/*.tar"):
            overwrite(path)

    after_three_steps(monkeypatch, harm)
    with pytest.raises(LoaderError, match=r"could not be read; the last: .* is damaged: its CRC-32"):
        run(own, tmp_path / "run", "train.steps=500", "log.checkpoint_every=2")
    assert final_state(tmp_path / "run")["step"] in (2, 4), "the checkpoint from before is there"


def test_many_but_not_all_bad_samples_stop_the_run_past_the_share(own: Path, tmp_path: Path) -> None:
    for path in own.glob("pass-00/000000.tar"):  # six of ten
        overwrite(path)
    with pytest.raises(LoaderError, match=r"of \d+ samples could not be read, more than data\.max_failed_share = 0\.2"):
        run(own, tmp_path / "run", "train.steps=500", "data.max_failed_share=0.2")
    assert len(lines(tmp_path / "run", "error")) == 1
