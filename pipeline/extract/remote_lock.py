"""One extraction at a time on a chunk in remote storage: an object `.lock` that says who, with a time that its holder renews.

A run of one part of the set has `.lock-part-I-of-N`; runs whose parts have a chunk in common are refused, as in a folder.

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
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType

from common.command import PlainError
from common.holder import place_of_this_process, started
from pipeline.extract.parts import WHOLE, Part
from shards.bucket import Bucket
from shards.storage import StorageError, inside

NAME = ".lock"
_PART = re.compile(r"\.lock-part-(\d{1,9})-of-(\d{1,9})")
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

    def __init__(
        self, bucket: Bucket, part: Part = WHOLE, *, beat_s: float = BEAT_S, expires_s: float = EXPIRES_S
    ) -> None:
        self._bucket, self._part, self._beat_s, self._expires_s = bucket, part, beat_s, expires_s
        self._name = NAME if part.whole else f"{NAME}-part-{part.index}-of-{part.of}"
        self._me = Holder.this_run()
        self._ended = threading.Event()
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def __enter__(self) -> RemoteLock:
        took_over = self._take()
        if took_over:
            time.sleep(min(1.0, self._beat_s))  # another run may have found the same stale lock
        other = self._holder(self._name)
        if other is None or other.owner != self._me.owner:
            raise self._refusal(other)
        try:
            self._refuse_meeting()
        except BaseException:
            self._bucket.delete([self._name])
            raise
        self._thread.start()
        return self

    def _refuse_meeting(self) -> None:
        """Runs of other parts that have a chunk in common with this one. Of two that begin together both may be refused."""
        for name, part in self._others().items():
            if self._part.meets(part):
                if self._lives(name):
                    raise self._refusal(self._holder(name), name)
                self._bucket.delete([name])

    def others_at_work(self) -> bool:
        """Whether other parts are being made."""
        return any(self._lives(name) for name in self._others())

    def _others(self) -> dict[str, Part]:
        """Locks of other runs, with their parts."""
        found = {name: _PART.fullmatch(name) for name in self._bucket.files() if name.startswith(NAME)}
        parts = {name: Part(int(match[1]), int(match[2])) for name, match in found.items() if match}
        parts |= {NAME: Part()} if NAME in found else {}
        return {name: part for name, part in parts.items() if name != self._name}

    def _lives(self, name: str) -> bool:
        other = self._holder(name)
        if other is None:
            return self._bucket.size(name) is not None  # else it has ended since
        return not other.gone(self._expires_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):  # a lock that cannot be removed is stale as soon as this process has gone
            other = self._holder(self._name)
            if other is not None and other.owner == self._me.owner:
                self._bucket.delete([self._name])

    def check(self) -> None:
        """Raises what has become of the lock, if it is no longer ours."""
        if self._lost is not None:
            raise self._lost

    def _take(self) -> bool:
        """Whether a stale one was in the way."""
        took_over = False
        for _ in range(3):
            if self._bucket.create(self._name, self._me.to_bytes()):
                return took_over
            try:
                other = Holder.from_bytes(self._bucket.read(self._name))
            except StorageError as error:
                if error.missing:
                    continue
                raise
            if other is not None and other.owner == self._me.owner:
                return took_over  # the answer to an earlier attempt was lost
            if other is None or not other.gone(self._expires_s):
                raise self._refusal(other)
            self._bucket.delete([self._name])
            took_over = True
        raise self._refusal(None)

    def _holder(self, name: str) -> Holder | None:
        try:
            return Holder.from_bytes(self._bucket.read(name))
        except StorageError as error:
            if error.missing:
                return None
            raise

    def _refusal(self, other: Holder | None, name: str = "") -> PlainError:
        place = self._bucket.url
        if other is None:
            return PlainError(
                f"{inside(place, name or self._name)} is not ours: delete it if no extraction is at work in {place}"
            )
        return PlainError(
            f"an extraction is already at work in {place}: process {other.pid} on {other.host}, last sign of life "
            f"{max(0.0, time.time() - other.beat_s):.0f} s ago; wait for it, or stop it and rerun "
            f"{self._expires_s:.0f} s after its last sign (at once on its own machine)"
        )

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(self._beat_s):
            try:
                other = self._holder(self._name)
                if other is None or other.owner != self._me.owner:
                    self._lost = self._refusal(other)
                    return
                self._bucket.write(self._name, self._me.to_bytes())
                renewed = time.monotonic()
            except StorageError as error:
                if time.monotonic() - renewed > self._expires_s:
                    self._lost = error
                    return
