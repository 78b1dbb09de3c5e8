"""Videos from remote storage, fetched ahead of those who decode them, in the order in which they will be asked for.

Comes in: that order. Goes out: a local copy per video, which is deleted when it is given back. What lies in scratch is bounded in
bytes; one video is always let through. Fetching goes strictly in the order: what is asked for next is never behind a later one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.video.datasets import Video
from pipeline.video.remote_videos import RemoteVideos

FETCHES_AT_ONCE = 8


@dataclass(eq=False)
class Copy:
    """A local copy that is there, under way, or will be. ready: its path; raises what `RemoteVideos.fetch` does."""

    video: Video
    size: int
    ready: Future[Path] = field(default_factory=Future)


class Prefetcher:
    """most_bytes: of local copies. Safe to use from several threads."""

    def __init__(self, remote: RemoteVideos, most_bytes: int) -> None:
        self._remote, self._most_bytes = remote, most_bytes
        self._expected: deque[Video] = deque()
        self._begun: deque[Copy] = deque()
        self._bytes = self._copies = 0
        self._lock = threading.RLock()
        self._closed = False
        self._threads = ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch")

    def expect(self, videos: Iterable[Video]) -> None:
        """These will be asked for, in this order, after those that are expected already."""
        with self._lock:
            self._expected.extend(videos)
            self._fill()

    def _fill(self) -> None:
        while self._expected and not self._closed:
            size = self._remote.size(self._expected[0])
            if self._copies and self._bytes + size > self._most_bytes:
                return
            copy = Copy(self._expected.popleft(), size)
            self._bytes += size
            self._copies += 1
            self._begun.append(copy)
            self._threads.submit(self._fetch, copy)

    def _fetch(self, copy: Copy) -> None:
        if self._closed:
            copy.ready.cancel()
            return
        try:
            found = self._remote.fetch(copy.video)
        except BaseException as error:
            copy.ready.set_exception(error)
        else:
            copy.ready.set_result(found)

    def take(self, video: Video) -> Copy | None:
        """The copy of the next expected video; None while there is no room for it, so ask again when one has been given back.

        Videos that were expected before it are not wanted any more: their chunk has failed.
        """
        with self._lock:
            while self._begun and self._begun[0].video != video:
                self._drop(self._begun.popleft())
            if not self._begun:
                while self._expected and self._expected[0] != video:
                    self._expected.popleft()
                self._fill()
            return self._begun.popleft() if self._begun else None

    def _drop(self, copy: Copy) -> None:
        copy.ready.add_done_callback(lambda _: self.give_back(copy))

    def give_back(self, copy: Copy) -> None:
        """Delete a copy that has been used, or could not be had."""
        if not copy.ready.cancelled() and copy.ready.exception() is None:
            self._remote.remove(copy.ready.result())
        with self._lock:
            self._bytes -= copy.size
            self._copies -= 1
            self._fill()

    def close(self) -> None:
        """Fetch nothing more."""
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
