"""Decoding processes for videos in remote storage: a video goes to one as soon as its local copy is there.

The same calls as `DecodingPool`, so that nobody else need know. A video that could not be fetched is rejected as `not_fetched` (or
`missing`); storage that gives nothing at all ends the run.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.extract.decoding import DecodeTask, DecodingPool, Ear
from pipeline.extract.runner import storage_failed
from pipeline.video.arena import Arena
from pipeline.video.datasets import Video
from pipeline.video.messages import DecodeHeader, DecodeRefusal
from pipeline.video.prefetch import Copy, Prefetcher
from pipeline.video.rejects import Reject
from pipeline.video.remote_videos import RemoteVideos
from shards.storage import StorageError


class FetchingPool(DecodingPool):
    """most_bytes: of local copies."""

    def __init__(self, arena: Arena, most: int, remote: RemoteVideos, most_bytes: int) -> None:
        super().__init__(arena, most)
        self._prefetcher = Prefetcher(remote, most_bytes)
        self._asked: deque[DecodeTask] = deque()
        self._coming: list[tuple[DecodeTask, Copy]] = []
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)

    @property
    def idle(self) -> int:
        return super().idle - len(self._asked) - len(self._coming)

    @property
    def ears(self) -> list[Ear]:
        return [*super().ears, self._rung]

    def expect(self, videos: Iterable[Video]) -> None:
        self._prefetcher.expect(videos)

    def submit(self, task: DecodeTask) -> None:
        self._asked.append(task)
        self._take()

    def _take(self) -> None:
        """Wait for the copies of what has been asked for, as far as there is room for them."""
        while self._asked:
            copy = self._prefetcher.take(self._asked[0].video)
            if copy is None:
                return
            self._coming.append((self._asked.popleft(), copy))
            copy.ready.add_done_callback(self._ring)

    def _ring(self, _: object) -> None:
        with suppress(BlockingIOError, OSError):  # rung often enough, or nobody listens any more
            self._bell.send(b"!")

    def heard(self, ear: Ear) -> None:
        if ear is not self._rung:
            super().heard(ear)
            return
        self._rung.recv(1 << 12)
        for pair in [pair for pair in self._coming if pair[1].ready.done()]:
            self._coming.remove(pair)
            self._arrived(*pair)
        self._take()

    def _arrived(self, task: DecodeTask, copy: Copy) -> None:
        try:
            path = copy.ready.result()
        except Reject as refused:
            self._prefetcher.give_back(copy)
            task.tell(DecodeRefusal(refused.reason, refused.detail, refused.seconds))
            return
        except StorageError as error:
            raise storage_failed(error) from error

        def tell(answer: DecodeHeader | DecodeRefusal) -> None:
            self._prefetcher.give_back(copy)
            task.tell(_of_the_object(answer, path, task.video))
            self._take()

        super().submit(replace(task, video=replace(task.video, path=path), tell=tell))

    def close(self) -> None:
        self._prefetcher.close()
        super().close()
        self._coming.clear()
        self._asked.clear()
        self._bell.close()
        self._rung.close()


def _of_the_object(answer: DecodeHeader | DecodeRefusal, path: Path, video: Video) -> DecodeHeader | DecodeRefusal:
    """What was said of the copy, said of the video."""
    if isinstance(answer, DecodeHeader):
        return answer
    return replace(answer, detail=answer.detail.replace(str(path), str(video.path)))
