"""Who may work on a set in remote storage: one run per chunk, and one run at a time on what all of them share.

A run holds `.lock` while it works, a run of one part of the set `.lock-part-I-of-N`; runs whose parts have a chunk in common are refused,
as in a folder. The plan, the tables and the manifest belong to all parts: whoever writes them holds `.lock-gate` meanwhile. Each is an
object that says who (`remote_claim`). Two runs that slip through all the same write equal shards, because equal inputs do, and
one of them ends at its next renewal.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from common.printable import printable
from pipeline.extract.parts import WHOLE, Part
from pipeline.extract.remote_claim import BEAT_S, EXPIRES_S, Claim, ClaimedObject, claim_at
from shards.bucket import Bucket
from shards.storage import inside

log = logging.getLogger(__name__)

NAME = ".lock"
GATE = ".lock-gate"
_PART = re.compile(r"\.lock-part-(\d{1,9})-of-(\d{1,9})")
GATE_POLL_S = (0.2, 5.0)
"""How often a gate that is held is tried, at first and at last."""


class RemoteLock:
    """Held inside `with`. Raises PlainError where somebody else has it, StorageError where the storage does not answer."""

    def __init__(
        self, bucket: Bucket, part: Part = WHOLE, *, beat_s: float = BEAT_S, expires_s: float = EXPIRES_S
    ) -> None:
        self._bucket, self._part = bucket, part
        name = NAME if part.whole else f"{NAME}-part-{part.index}-of-{part.of}"
        self._claim = ClaimedObject(bucket, name, what(part), beat_s=beat_s, expires_s=expires_s)

    def __enter__(self) -> RemoteLock:
        other = self._claim.take()
        if other is not None:
            raise self._claim.refusal(other)
        try:
            self._refuse_meeting()
        except BaseException:
            self._bucket.delete([self._claim.name])
            raise
        self._claim.keep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.release()

    def check(self) -> None:
        """Raises what has become of the lock, if it is no longer ours."""
        self._claim.check()

    def _refuse_meeting(self) -> None:
        """Runs of other parts that have a chunk in common with this one. Of two that begin together both may be refused."""
        names = [name for name in self._bucket.files() if name.startswith(NAME)]
        for name, part in self._others(names).items():
            if self._part.meets(part):
                other = self._living(name)
                if other is not None:
                    raise self._claim.refusal(other)
                self._bucket.delete([name])
        if GATE in names and self._living(GATE) is None:
            # Whoever was in it may come back, after a sleep: it finds that the gate is not its own any more, and looks again.
            self._bucket.delete([GATE])

    def others(self) -> dict[Part, Claim]:
        """Other parts that are being made, and by whom."""
        names = [name for name in self._bucket.files() if name.startswith(NAME)]
        living = {part: self._living(name) for name, part in self._others(names).items()}
        return {part: claim for part, claim in living.items() if claim is not None}

    def _others(self, names: list[str]) -> dict[str, Part]:
        """Locks of other runs, with their parts."""
        found = {name: _PART.fullmatch(name) for name in names}
        parts = {name: Part(int(match[1]), int(match[2])) for name, match in found.items() if match}
        parts |= {NAME: WHOLE} if NAME in found else {}
        return {name: part for name, part in parts.items() if name != self._claim.name}

    def _living(self, name: str) -> Claim | None:
        claim = claim_at(self._bucket, name)
        return None if claim is None or claim.gone(self._claim.expires_s) else claim


def what(part: Part) -> str:
    """A run, for people."""
    return "a run" if part.whole else f"part {part}"


@contextmanager
def gate(bucket: Bucket, part: Part, *, wait: bool = True) -> Iterator[ClaimedObject | None]:
    """Be the only run that writes what all parts share; None where another is and this one does not wait.

    Who has written must ask `ours` before it leaves, and do all of it again, in a new gate, where the answer is no: it was
    taken for dead meanwhile, or the storage let two in, and what another run has written may be mixed with its own. Raises as
    `ClaimedObject` does.
    """
    claim = ClaimedObject(bucket, GATE, what(part))
    pause_s = GATE_POLL_S[0]
    said = False
    while (other := claim.take()) is not None:
        if not wait:
            yield None
            return
        if not said:
            log.warning("%s: waiting for %s", inside(bucket.url, GATE), printable(str(other.holder)))
            said = True
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, GATE_POLL_S[1])
    claim.keep()
    try:
        yield claim
    finally:
        claim.release()
