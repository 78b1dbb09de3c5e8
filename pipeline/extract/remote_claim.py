"""An object in remote storage that one run at a time holds: it says who, with a time that its holder renews.

Comes in: a `Bucket` and a name. The object is created where there is none (on S3, Google Cloud Storage and local files in one step that
two cannot both win). Its holder rewrites it every beat and looks first whether it is still its own. It is stale when its process
is gone, where that was on this machine, or some time after the last renewal; a stale one is removed by whoever wants it next. Clocks of
the machines must agree to within minutes.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

from common.command import PlainError
from common.holder import Holder
from shards.bucket import Bucket
from shards.storage import StorageError, inside

BEAT_S = 60.0
EXPIRES_S = 300.0
ROUNDS = 5
"""Attempts at an object that is gone whenever one looks."""


@dataclass(frozen=True)
class Claim:
    """What the object says. owner: of this claim alone, for a process may have made several. beat_s: seconds since 1970."""

    owner: str
    holder: Holder
    beat_s: float

    @staticmethod
    def of_this_run(what: str) -> Claim:
        return Claim(uuid.uuid4().hex, Holder.here(what), time.time())

    def to_bytes(self) -> bytes:
        """As of now."""
        return (json.dumps({**asdict(self), "beat_s": time.time()}, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_bytes(data: bytes) -> Claim | None:
        """None for what no run has written."""
        try:
            body = json.loads(data)
            return Claim(str(body["owner"]), Holder(**body["holder"]), float(body["beat_s"]))
        except (ValueError, TypeError, KeyError):
            return None

    def gone(self, expires_s: float) -> bool:
        lives = self.holder.lives()
        return time.time() - self.beat_s > expires_s if lives is None else not lives


class ClaimedObject:
    """what: the work of whoever holds it, for people. Methods raise StorageError where the storage does not answer, PlainError where an
    object of that name is none of ours."""

    def __init__(
        self, bucket: Bucket, name: str, what: str, *, beat_s: float = BEAT_S, expires_s: float = EXPIRES_S
    ) -> None:
        self.name, self.expires_s = name, expires_s
        self._bucket, self._beat_s = bucket, beat_s
        self._me = Claim.of_this_run(what)
        self._ended = threading.Event()
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._renew, name=name.lstrip("."), daemon=True)

    def take(self) -> Claim | None:
        """Hold it, once it is not held by anybody who lives; else that claim, and nothing has changed."""
        stale = False
        for _ in range(ROUNDS):
            if self._bucket.create(self.name, self._me.to_bytes()) and stale:
                time.sleep(min(1.0, self._beat_s))  # another run may have found the same stale one
            other = claim_at(
                self._bucket, self.name
            )  # not always what was created: stores without conditions let two in
            if other is None:
                continue
            if other.owner == self._me.owner:
                return None
            if not other.gone(self.expires_s):
                return other
            self._bucket.delete([self.name])
            stale = True
        raise _not_ours(self._bucket, self.name)

    def keep(self) -> None:
        """Renew it from now on, in a thread."""
        self._thread.start()

    def ours(self) -> bool:
        """Whether it still says that this run holds it."""
        other = claim_at(self._bucket, self.name)
        return other is not None and other.owner == self._me.owner

    def check(self) -> None:
        """Raises what has become of it, if it is no longer ours."""
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Hold it no longer."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        with suppress(StorageError, PlainError):  # one that cannot be removed is stale as soon as this process has gone
            if self.ours():
                self._bucket.delete([self.name])

    def refusal(self, other: Claim | None) -> PlainError:
        """What somebody is told whom this keeps out, or who has lost it."""
        if other is None:
            return _not_ours(self._bucket, self.name)
        return PlainError(
            f"an extraction is already at work in {self._bucket.url}: {other.holder}, last sign of life "
            f"{max(0.0, time.time() - other.beat_s):.0f} s ago; wait for it, or stop it and rerun "
            f"{self.expires_s:.0f} s after its last sign (at once on its own machine)"
        )

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(self._beat_s):
            try:
                other = claim_at(self._bucket, self.name)
                if other is None or other.owner != self._me.owner:
                    self._lost = self.refusal(other)
                    return
                self._bucket.write(self.name, self._me.to_bytes())
                renewed = time.monotonic()
            except PlainError as error:
                self._lost = error
                return
            except StorageError as error:
                if time.monotonic() - renewed > self.expires_s:
                    self._lost = error
                    return


def claim_at(bucket: Bucket, name: str) -> Claim | None:
    """None where there is no such object. PlainError where it is nobody's claim."""
    try:
        found = Claim.from_bytes(bucket.read(name))
    except StorageError as error:
        if error.missing:
            return None
        raise
    if found is None:
        raise _not_ours(bucket, name)
    return found


def _not_ours(bucket: Bucket, name: str) -> PlainError:
    return PlainError(f"{inside(bucket.url, name)} is not ours: delete it if no extraction is at work in {bucket.url}")
