"""A runner whose chunks land in remote storage: another runner makes them in scratch, and each is uploaded beside the next ones.

Jobs go to the runner inside with a local folder as their root; its events go on to whoever listens. That a chunk is done is told once
it is in the bucket. What waits to be uploaded is bounded: past `most_bytes` the listening thread waits, and with it everything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

from pipeline.extract.remote_set import RemoteSet
from pipeline.extract.runner import ChunkDone, ChunkJob, Event, Runner
from shards import schema
from shards.storage import StorageError


class _Upload(NamedTuple):
    done: ChunkDone
    bytes: int
    ended: Future[None]


class UploadingRunner:
    """A `Runner`. remote: opened for writing. most_bytes: of chunks that have been made and are not in the bucket; one is always let
    through."""

    def __init__(self, inside: Runner, remote: RemoteSet, most_bytes: int) -> None:
        self._inside, self._remote, self._most_bytes = inside, remote, most_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._under_way: deque[_Upload] = deque()
        self._aside: deque[Future[None]] = deque()
        self._manifest_at = self._manifest_time()

    def __enter__(self) -> UploadingRunner:
        self._inside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._inside.__exit__(kind, error, trace)
        finally:
            # Chunks that have been made are hours of work: they land, unless it was the storage that failed.
            self._thread.shutdown(wait=True, cancel_futures=self._remote.bucket.down)

    def prepare(self, jobs: int) -> None:
        self._inside.prepare(jobs)

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """As any runner; faults of the storage end the run as ExtractionError."""
        try:
            self._run(jobs, on_event)
        except StorageError as error:
            raise self._remote.explained(error) from error

    def _run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        self._remote.begin()
        job_of = {job.chunk: job for job in jobs}

        def handle(event: Event) -> None:
            self._remote.check()
            self._tell(on_event, keep_bytes=None)
            if not isinstance(event, ChunkDone):
                on_event(event)
                return
            passes = job_of[event.chunk].passes
            size = self._remote.bytes_of(event.chunk, passes)
            self._tell(on_event, keep_bytes=self._most_bytes - size)
            landing = self._thread.submit(self._remote.land, event.chunk, passes)
            self._under_way.append(_Upload(event, size, landing))

        self._inside.run([replace(job, root=self._remote.making) for job in jobs], handle)
        self._tell(on_event, keep_bytes=0)
        for noted in self._aside:
            noted.result()

    def _tell(self, on_event: Callable[[Event], None], keep_bytes: int | None) -> None:
        """Tell of chunks that are in the bucket. keep_bytes: wait until no more than these are under way."""
        while self._under_way:
            first = self._under_way[0]
            waiting = sum(upload.bytes for upload in self._under_way)
            if not first.ended.done() and (keep_bytes is None or waiting <= max(0, keep_bytes)):
                break
            first.ended.result()
            self._under_way.popleft()
            on_event(first.done)
            self._aside.append(self._thread.submit(self._remote.note_sources, first.done.chunk))
        while self._aside and self._aside[0].done():
            self._aside.popleft().result()
        made_at = self._manifest_time()
        if made_at != self._manifest_at:
            self._manifest_at = made_at
            self._aside.append(self._thread.submit(self._remote.publish))

    def _manifest_time(self) -> int:
        path = self._remote.mirror / schema.MANIFEST
        return path.stat().st_mtime_ns if path.is_file() else 0
