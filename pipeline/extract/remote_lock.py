"""One extraction at a time on a set in remote storage: an object `.lock` that says who, with a time that its holder renews.

Comes in: a `Bucket`. The object is created where there is none (on S3, Google Cloud Storage and local files in one step that two cannot
both win). Its holder rewrites it every BEAT_S and looks first whether it is still its own: whoever has lost it stops. It is stale
when its process is gone, where that was on this machine, or EXPIRES_S after the last renewal; a stale one is removed by the next run.
Clocks of the machines must agree to within minutes. Two runs that slip through all the same write equal shards, because
equal inputs do, and one of them ends at its next renewal.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType

from common.command import PlainError
from common.holder import place_of_this_process, started
from shards.bucket import Bucket
from shards.storage import StorageError, inside

NAME = ".lock"
BEAT_S = 60.0
EXPIRES_S = 300.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. owner: of this run alone. machine: boot and process numbering; began: when the process did, in its machine's
    ticks. beat_s: seconds since 1970."""

    owner: str
    host: str
    machine: str
    pid: int
    began: str
    beat_s: float

    @staticmethod
    def this_run() -> Holder:
        pid = os.getpid()
        return Holder(uuid.uuid4().hex, platform.node(), place_of_this_process(), pid, started(pid), time.time())

    def to_bytes(self) -> bytes:
        return (json.dumps({**asdict(self), "beat_s": time.time()}, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_bytes(data: bytes) -> Holder | None:
        """None for what no run has written."""
        try:
            body = json.loads(data)
            return Holder(**{**body, "beat_s": float(body["beat_s"]), "pid": int(body["pid"])})
        except (ValueError, TypeError, KeyError):
            return None

    def gone(self, expires_s: float) -> bool:
        if self.machine and self.machine == place_of_this_process():
            return started(self.pid) != self.began
        return time.time() - self.beat_s > expires_s


class RemoteLock:
    """Held inside `with`. Raises PlainError where somebody else has it, StorageError where the storage does not answer."""

    def __init__(self, bucket: Bucket, *, beat_s: float = BEAT_S, expires_s: float = EXPIRES_S) -> None:
        self._bucket, self._beat_s, self._expires_s = bucket, beat_s, expires_s
        self._me = Holder.this_run()
        self._ended = threading.Event()
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def __enter__(self) -> RemoteLock:
        took_over = self._take()
        if took_over:
            time.sleep(min(1.0, self._beat_s))  # another run may have found the same stale lock
        other = self._holder()
        if other is None or other.owner != self._me.owner:
            raise self._refusal(other)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):  # a lock that cannot be removed is stale as soon as this process has gone
            other = self._holder()
            if other is not None and other.owner == self._me.owner:
                self._bucket.delete([NAME])

    def check(self) -> None:
        """Raises what has become of the lock, if it is no longer ours."""
        if self._lost is not None:
            raise self._lost

    def _take(self) -> bool:
        """Whether a stale one was in the way."""
        took_over = False
        for _ in range(3):
            if self._bucket.create(NAME, self._me.to_bytes()):
                return took_over
            try:
                other = Holder.from_bytes(self._bucket.read(NAME))
            except StorageError as error:
                if error.missing:
                    continue
                raise
            if other is not None and other.owner == self._me.owner:
                return took_over  # the answer to an earlier attempt was lost
            if other is None or not other.gone(self._expires_s):
                raise self._refusal(other)
            self._bucket.delete([NAME])
            took_over = True
        raise self._refusal(None)

    def _holder(self) -> Holder | None:
        try:
            return Holder.from_bytes(self._bucket.read(NAME))
        except StorageError as error:
            if error.missing:
                return None
            raise

    def _refusal(self, other: Holder | None) -> PlainError:
        place = self._bucket.url
        if other is None:
            return PlainError(f"{inside(place, NAME)} is not ours: delete it if no extraction is at work in {place}")
        return PlainError(
            f"an extraction is already at work in {place}: process {other.pid} on {other.host}, last sign of life "
            f"{max(0.0, time.time() - other.beat_s):.0f} s ago; wait for it, or stop it and rerun "
            f"{self._expires_s:.0f} s after its last sign (at once on its own machine)"
        )

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(self._beat_s):
            try:
                other = self._holder()
                if other is None or other.owner != self._me.owner:
                    self._lost = self._refusal(other)
                    return
                self._bucket.write(NAME, self._me.to_bytes())
                renewed = time.monotonic()
            except StorageError as error:
                if time.monotonic() - renewed > self._expires_s:
                    self._lost = error
                    return
