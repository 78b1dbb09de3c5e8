"""The loader delivers the same batches however it is run, and never hangs, leaks or keeps quiet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from shards.reader import ShardSet
from tests.trainer.training_set import FLOW, IMAGE, FakeSource, flip_image_byte, write_training_set
from trainer.batch import Batch, Plan
from trainer.loader import Loader, LoaderError
from trainer.order import SampleOrder

ROOT = Path(__file__).resolve().parents[2]


def plan_for(samples: int = 40, batch_size: int = 6, *, seed: int = 0, rank: int = 0, ranks: int = 1) -> Plan:
    return Plan(SampleOrder(np.ones((samples, 3), bool), seed=seed), batch_size, 8, 4, rank, ranks)


def take(loader: Loader, count: int, first: int = 0) -> list[tuple]:
    """Copies of `count` batches: (step, sample, neighbour, images, flow, quantum, failures)."""
    copies = []
    for batch in loader.batches(first):
        assert batch.flow_b2hw is not None
        arrays = (batch.sample, batch.neighbour, batch.images_bhwc, batch.flow_b2hw, batch.quantum_px)
        copies.append((batch.step, *(a.copy() for a in arrays), list(batch.failures)))
        if len(copies) == count:
            break
    return copies


def same(a: list[tuple], b: list[tuple]) -> bool:
    return len(a) == len(b) and all(
        all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in zip(p, q, strict=True))
        for p, q in zip(a, b, strict=True)
    )


def test_batches_hold_what_the_order_says() -> None:
    plan = plan_for()
    with Loader(FakeSource(), plan, workers=2) as loader:
        for step, sample, neighbour, images, flow, quantum, failures in take(loader, 20):
            visits = plan.order.visits(plan.positions(step))
            assert (sample == visits.sample).all() and (neighbour == visits.neighbour).all() and not failures
            assert (images == sample[:, None, None, None]).all() and (flow == neighbour[:, None, None, None]).all()
            assert (quantum == 2.0**-neighbour).all()


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (1, 4), (2, 1), (3, 5), (9, 2)])
def test_any_worker_count_gives_the_same_batches(workers: int, prefetch: int) -> None:
    source = FakeSource(bad={3, 4, 17})
    with Loader(source, plan_for(), workers=0) as alone:
        wanted = take(alone, 15)
    with Loader(source, plan_for(), workers=workers, prefetch_batches=prefetch) as loader:
        got = take(loader, 15)
    assert same(got, wanted)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_together_see_the_single_rank_batches(workers: int) -> None:
    with Loader(FakeSource(bad={5}), plan_for(), workers=0) as alone:
        wanted = take(alone, 8)
    parts = []
    for rank in range(3):
        with Loader(FakeSource(bad={5}), plan_for(rank=rank, ranks=3), workers=workers) as loader:
            parts.append(take(loader, 8))
    for step in range(8):
        for column in range(1, 6):
            assert np.array_equal(np.concatenate([p[step][column] for p in parts]), wanted[step][column])


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_late_continues_the_sequence(workers: int) -> None:
    with Loader(FakeSource(), plan_for(), workers=0) as alone:
        wanted = take(alone, 12)
    with Loader(FakeSource(), plan_for(), workers=workers) as loader:
        assert same(take(loader, 5, first=7), wanted[7:])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_sample_is_named_and_replaced_by_the_next(workers: int) -> None:
    plan = plan_for(samples=20, batch_size=5)
    with Loader(FakeSource(bad={7}), plan, workers=workers) as loader:
        batches = take(loader, 8)
        assert loader.failed >= 2
    failures = [f for batch in batches for f in batch[-1]]
    assert {f.sample for f in failures} == {7} and all(
        "sample-7 in some shard is damaged" in f.reason for f in failures
    )
    for failure in failures:
        step, row = divmod(failure.position, 5)
        following = plan.order.visits(np.array([failure.position + 1]))
        assert batches[step][1][row] == following.sample[0]
        assert (batches[step][3][row] == following.sample[0]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_samples_stop_the_run(workers: int) -> None:
    with (
        Loader(FakeSource(bad=set(range(0, 40)) - {0, 9, 18, 27, 36, 5}), plan_for(), workers=workers) as loader,
        pytest.raises(LoaderError, match=r"max_failed_share = 0\.5|samples in a row could not be read"),
    ):
        take(loader, 200)


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_readable_stops_at_once(workers: int) -> None:
    with (
        Loader(FakeSource(bad=range(40)), plan_for(), workers=workers) as loader,
        pytest.raises(LoaderError, match="16 samples in a row could not be read; the last: sample-"),
    ):
        take(loader, 1)


def test_a_share_of_failures_within_the_limit_is_lived_with() -> None:
    with Loader(FakeSource(bad=range(0, 40, 5)), plan_for(), workers=2) as loader:
        assert len(take(loader, 60)) == 60
        assert 0.1 < loader.failed / loader.reads < 0.3


def test_killed_worker_is_reported_not_waited_for() -> None:
    with Loader(FakeSource(delay_s=0.02), plan_for(), workers=3) as loader:
        batches = loader.batches()
        next(batches)
        os.kill(loader.processes[1].pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(
            LoaderError, match=r"loader worker 1 \(pid \d+\) was killed by signal 9 \(out of memory\?\)"
        ):
            for _ in batches:
                pass
        assert time.monotonic() - began < 10


def test_stopped_worker_runs_into_the_timeout() -> None:
    with (
        Loader(FakeSource(hang={3}), plan_for(samples=12), workers=2, timeout_s=0.5) as loader,
        pytest.raises(LoaderError, match=r"no answer from the loader's workers for 0\.5 s"),
    ):
        take(loader, 10)
    assert not loader.processes


def test_a_defect_in_the_source_arrives_with_its_traceback() -> None:
    with (
        Loader(FakeSource(crash={3}), plan_for(samples=12), workers=2) as loader,
        pytest.raises(LoaderError, match=r"(?s)loader worker \d: Traceback.*ZeroDivisionError: a defect in the reader"),
    ):
        take(loader, 10)


def test_workers_end_with_the_loader() -> None:
    with Loader(FakeSource(), plan_for(), workers=3) as loader:
        take(loader, 2)
        processes = [psutil.Process(p.pid) for p in loader.processes]
        assert len(processes) == 3
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
    loader.close()


def test_workers_end_when_an_exception_leaves_the_block() -> None:
    processes = []
    with pytest.raises(KeyboardInterrupt), Loader(FakeSource(), plan_for(), workers=2) as loader:
        processes = list(loader.processes)
        raise KeyboardInterrupt
    assert processes and not any(p.is_alive() for p in processes)


def test_workers_leave_when_the_main_process_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import time
        from tests.trainer.test_loader import plan_for
        from tests.trainer.training_set import FakeSource
        from trainer.loader import Loader
        loader = Loader(FakeSource(), plan_for(), workers=3)
        next(loader.batches())
        print(*(p.pid for p in loader.processes), flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in main.stdout.readline().split()]
        assert len(workers) == 3
        main.kill()
        main.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_slots_are_reused_not_reallocated() -> None:
    plan = plan_for()
    with Loader(FakeSource(), plan, workers=2, prefetch_batches=2) as loader:
        seen = set()
        for batch in loader.batches():
            seen.add(batch.images_bhwc.ctypes.data)
            if batch.step == 20:
                break
        assert len(seen) == 3


def test_a_batch_stays_untouched_until_the_next_is_asked_for() -> None:
    with Loader(FakeSource(), plan_for(), workers=2, prefetch_batches=2) as loader:
        for batch in loader.batches():
            before = batch.images_bhwc.copy()
            time.sleep(0.02)
            assert (batch.images_bhwc == before).all()
            if batch.step == 5:
                break


def test_empty_order_is_refused() -> None:
    plan = Plan(SampleOrder(np.zeros((3, 2), bool), seed=0), 2, 8, 4)
    with pytest.raises(ValueError, match="no sample of this set may be trained on"):
        Loader(FakeSource(), plan, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_real_shards_arrive_as_they_are_read(tmp_path: Path, workers: int) -> None:
    shards = ShardSet(write_training_set(tmp_path / "set"))
    plan = Plan(SampleOrder(shards.trainable_mask, seed=0), 4, IMAGE, FLOW)
    with Loader(shards, plan, workers=workers) as loader:
        for batch in loader.batches():
            check_rows(batch, shards)
            if batch.step == 4:
                break


def check_rows(batch: Batch, shards: ShardSet) -> None:
    assert batch.flow_b2hw is not None
    for row, (i, k) in enumerate(zip(batch.sample, batch.neighbour, strict=True)):
        sample = shards.read(int(i), int(k))
        assert (batch.images_bhwc[row] == sample.image_hwc).all() and (batch.flow_b2hw[row] == sample.flow_chw).all()
        assert batch.quantum_px[row] == sample.quantum_px and shards.trainable_mask[i, k]


def test_a_flipped_bit_in_a_shard_costs_one_sample(tmp_path: Path) -> None:
    root = write_training_set(tmp_path / "set")
    key = flip_image_byte(root, 4)
    shards = ShardSet(root)
    plan = Plan(SampleOrder(shards.trainable_mask, seed=0), 5, IMAGE, FLOW)
    with Loader(shards, plan, workers=2) as loader:
        failures = [f for batch in take(loader, 6) for f in batch[-1]]
    assert {f.sample for f in failures} == {4} and all(key in f.reason and "damaged" in f.reason for f in failures)
