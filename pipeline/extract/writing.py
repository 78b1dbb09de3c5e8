"""The thread that writes: finished videos of one job after the other go into shards, jobs are committed, their ends are told.

It is a thread of the parent and no process: what it does is mostly hashing and system calls, which run beside Python, and only the parent
can say that a chunk has landed. It begins no job before the end of the one before has been heard: whoever stops the run
on hearing of a chunk knows that no other has landed since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from pipeline.extract.assembly import sample_bytes
from pipeline.extract.runner import ChunkDone, ChunkFailed, ChunkJob, VideoReport
from pipeline.extract.stages import Encoded, Refused, failure, write


class _Stopped(Exception):
    """The run is over before the job is."""


class _Failed(Exception):
    """The job at hand cannot be finished."""

    def __init__(self, ended: ChunkFailed) -> None:
        super().__init__(ended.message)
        self.ended = ended


class _JobEnd:
    """All videos of the job at hand have been handed over."""


class _Stop:
    """No more jobs."""


class Writer:
    """Writes jobs in the order in which they are begun. tell: called in the thread, with every report and every job's end."""

    def __init__(self, tell: Callable[[VideoReport | ChunkDone | ChunkFailed], None]) -> None:
        self._tell = tell
        self._queue: SimpleQueue[ChunkJob | Encoded | Refused | ChunkFailed | _JobEnd | _Stop] = SimpleQueue()
        self._lock = threading.Lock()
        self._acknowledged = threading.Semaphore(0)
        self._stopping = False
        self._bytes = self._videos = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Encoded bytes that are not in a shard yet."""
        return self._bytes

    @property
    def waiting_videos(self) -> int:
        return self._videos

    def begin(self, job: ChunkJob) -> None:
        """The job that the following videos belong to."""
        self._queue.put(job)

    def put(self, video: Encoded | Refused) -> None:
        """The next video of the job."""
        self._count(video, 1)
        self._queue.put(video)

    def end(self) -> None:
        """The job is whole: commit it."""
        self._queue.put(_JobEnd())

    def fail(self, ended: ChunkFailed) -> None:
        """The job cannot be finished: drop it and say so. Nothing more of it may follow."""
        self._queue.put(ended)

    def heard(self) -> None:
        """The end of a job that was told has been dealt with."""
        self._acknowledged.release()

    def stop(self) -> None:
        """Let a commit that has begun come to its end; drop everything else."""
        self._stopping = True
        self._queue.put(_Stop())
        self._acknowledged.release()
        self._thread.join()

    def _count(self, video: Encoded | Refused, sign: int) -> None:
        size = sample_bytes(video.samples) if isinstance(video, Encoded) else 0
        with self._lock:
            self._bytes += sign * size
            self._videos += sign

    def _run(self) -> None:
        while isinstance(job := self._queue.get(), ChunkJob):
            videos = self._videos_of_job()
            ended: ChunkDone | ChunkFailed
            try:
                ended = self._write(job, videos)
                for _ in videos:  # what is left of a job that could not be written
                    pass
            except _Failed as failed:
                ended = failed.ended
            except _Stopped:
                return
            self._tell(ended)
            self._acknowledged.acquire()
            if self._stopping:
                return

    def _write(self, job: ChunkJob, videos: Iterator[Encoded | Refused]) -> ChunkDone | ChunkFailed:
        try:
            write(job, videos, self._tell)
        except (_Failed, _Stopped):
            raise
        except Exception as error:
            return failure(job, error)
        return ChunkDone(job.chunk)

    def _videos_of_job(self) -> Iterator[Encoded | Refused]:
        while not isinstance(item := self._queue.get(), _JobEnd):
            if isinstance(item, ChunkFailed):
                raise _Failed(item)
            if self._stopping or isinstance(item, _Stop):
                raise _Stopped
            assert isinstance(item, Encoded | Refused)
            self._count(item, -1)
            yield item
