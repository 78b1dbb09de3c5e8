"""What a runner may and may not change: the bytes stay, failures reach the user as themselves, a full disk has one message."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.extract import run as run_module
from pipeline.extract import stages
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract
from pipeline.extract.runner import ChunkDone, Event, ExtractionError, VideoReport, disk_is_full
from pipeline.window import Window, WindowFlow
from shards import schema
from shards.reader import ShardSet
from shards.records import read_videos
from shards.schema import Statement
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request, run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 5)


def test_another_runner_in_another_order_makes_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    run(request(videos, tmp_path / "workers"), workers=2)
    run_here(request(videos, tmp_path / "here"))
    assert digests(tmp_path / "here") == digests(tmp_path / "workers")


class Absent:
    """An estimator with a defect of ours in it."""

    name = "dis"

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        raise KeyError("no such layer")


@dataclass(frozen=True)
class AbsentChoice:
    """Picklable, so that real workers meet the defect as well. broken: refuses to be built."""

    broken: bool = False
    name = "dis"
    smallest_side_px = 1

    def statement(self) -> Statement:
        return {"weights": None}

    def build(self) -> Absent:
        if self.broken:
            raise TypeError("unexpected kernel")
        return Absent()


def with_estimator(videos: Path, out: Path, choice: AbsentChoice) -> ExtractionRequest:
    plain = request(videos, out)
    settings = schema.Settings.from_json({**plain.settings.to_json(), "estimator": run_module.stated(choice)})
    return ExtractionRequest(videos, out, settings, choice)


def test_an_unknown_exception_in_a_worker_is_reported_as_itself(videos: Path, tmp_path: Path) -> None:
    wanted = with_estimator(videos, tmp_path / "set", AbsentChoice())
    with pytest.raises(ExtractionError) as caught:
        run(wanted)
    message = str(caught.value)
    assert "chunk 0: KeyError: 'no such layer'" in message and "--workers" not in message
    (log,) = (tmp_path / "set" / ".log").glob("*.jsonl")
    assert str(log) in message
    failed = json.loads(log.read_text().splitlines()[-1])
    assert failed["chunk"] == 0 and "in estimate" in failed["trace"] and "KeyError" in failed["trace"]


def test_an_estimator_that_cannot_be_built_leaves_nothing_behind(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="cannot be built: TypeError: unexpected kernel"):
        run(with_estimator(videos, tmp_path / "made" / "set", AbsentChoice(broken=True)))
    assert not (tmp_path / "made").exists()


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (stages.ChunkWriter, "add"),
        (stages.ChunkWriter, "commit"),
        (run_module, "save_plan"),
        (run_module, "finalize"),
        (Path, "mkdir"),
    ],
)
def test_a_full_disk_has_one_message_whoever_meets_it(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    """add and commit: the worker's writes. The others: the parent's own."""
    out = tmp_path / "set"
    wanted = request(videos, out)
    with monkeypatch.context() as patched:
        patched.setattr(where, name, full)
        with pytest.raises(ExtractionError) as caught:
            run_here(wanted)
    assert str(caught.value) == disk_is_full(out)
    assert str(caught.value) == (
        f"no space left on the device of {out}: free some and rerun the same command; chunks that have landed are safe"
    )
    run_here(wanted)
    run_here(request(videos, tmp_path / "whole"))
    assert digests(out) == digests(tmp_path / "whole")


def test_the_disk_fills_while_a_failure_is_logged(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module.json, "dumps", full)
    with pytest.raises(ExtractionError) as caught:
        run_here(request(videos, tmp_path / "set"), Absent())
    assert str(caught.value) == disk_is_full(tmp_path / "set")


def test_rows_and_members_follow_the_plan_when_a_video_is_rejected_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 5)
    (videos / "synth-00002.mp4").write_bytes(b"")
    names = [f"synth-{i:05d}" for i in range(5)]
    for batch in (1, 64):
        seen: list[str] = []

        def note(event: Event, seen: list[str] = seen) -> None:
            if isinstance(event, VideoReport):
                seen.append(event.video)

        out = tmp_path / f"batch-{batch}"
        run_here(request(videos, out, content={"chunk_videos": 8}, batch=batch), on_event=note)
        assert seen == names
        record = pq.read_table(out / schema.record_path(0, 1))
        rows = read_videos(out, 0)
        assert [row["video"] for row in rows] == names
        assert record.column("video").to_pylist() == [name for name in names if name != "synth-00002"]
    assert digests(tmp_path / "batch-1") == digests(tmp_path / "batch-64")


def test_a_manifest_of_what_has_landed_is_there_while_the_run_goes_on(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training may begin before extraction ends."""
    out = tmp_path / "set"
    seen: list[tuple[bool, int]] = []

    def look(event: Event) -> None:
        if isinstance(event, ChunkDone) and (out / schema.MANIFEST).exists():
            data = ShardSet(out, allow_partial=True)
            seen.append((data.manifest.complete, len(data)))

    monkeypatch.setattr(run_module, "PARTIAL_MANIFEST_EVERY_S", 0.0)
    monkeypatch.setattr(run_module, "PUBLISHING_WAIT_S", 60.0)  # else a busy machine may be late with one
    run_here(request(videos, out), on_event=look)
    assert seen == [(False, 2), (False, 6), (False, 6)], "chunks of 1, 2 and 2 videos; the last leaves it to the end"
    assert ShardSet(out).manifest.complete

    seen.clear()
    monkeypatch.setattr(run_module, "PARTIAL_MANIFEST_EVERY_S", 3600.0)
    out = tmp_path / "short"
    run_here(request(videos, out), on_event=look)
    assert seen == [], "a short run writes one manifest, at its end"


@pytest.mark.parametrize("fails", [False, True])
def test_the_runner_has_ended_before_the_set_is_finalized(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Otherwise a chunk could land while the records are merged, and workers would hold memory that nobody uses."""
    wanted = request(videos, tmp_path / "set")
    runner = LocalRunner(1, wanted.estimator)
    alive: list[int] = []
    finalize = run_module.finalize

    def look(*args: object) -> object:
        alive.append(runner.processes)
        return finalize(*args)  # type: ignore[arg-type]

    def stop(event: Event, tally: object) -> None:
        if fails and isinstance(event, ChunkDone):
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "finalize", look)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        extract(wanted, runner, stop, lambda plan, tally: None)
    assert alive == [0]


def test_what_an_event_handler_raises_ends_the_run_and_keeps_what_has_landed(videos: Path, tmp_path: Path) -> None:
    wanted = request(videos, tmp_path / "set")

    def stop(event: Event, tally: object) -> None:
        if isinstance(event, ChunkDone):
            raise KeyboardInterrupt

    handler: Callable[..., None] = stop
    with pytest.raises(KeyboardInterrupt):
        extract(wanted, LocalRunner(1, wanted.estimator), handler, lambda plan, tally: None)
    landed = ShardSet(tmp_path / "set", allow_partial=True)
    assert not landed.manifest.complete and len(landed) == 4
    run(wanted)
    run_here(request(videos, tmp_path / "whole"))
    assert digests(tmp_path / "set") == digests(tmp_path / "whole")
