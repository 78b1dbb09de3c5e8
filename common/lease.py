"""Locks between machines that share nothing but a directory: files that their holders keep alive, and others watch.

    <directory>/<name>          a lease: who holds it, and a count that the holder raises every BEAT_S
    <directory>/gate-000007     the gate, which one process at a time passes: the highest number is the one that counts

flock may end at the machine on a network file system, and then says nothing; so it is not used. A holder on this machine is dead when
its process is. One elsewhere is dead when its count has stood still for LEASE_S by the watcher's own clock: clocks are never compared.

Assumed of the file system: exclusive creation (O_EXCL) succeeds for one process only; a file that is opened shows what was written
and closed before; who has just created a file in a directory sees there what others have. NFS from version 3 on, Lustre, GPFS, CephFS
and SMB do. A process that stood still for longer than LEASE_S may find its lease taken, and is told so by `Lease.check`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

from common.command import PlainError
from common.holder import Holder

log = logging.getLogger(__name__)

BEAT_S = 5.0
LEASE_S = 60.0
_COUNT_BYTES = 12
_FREE = b"free".ljust(_COUNT_BYTES)
_GATE = re.compile(r"gate-(\d{6,})")
_GATE_POLL_S = (0.02, 1.0)


class Life(Enum):
    """What is known of a lease's holder."""

    LIVES = "lives"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass
class _Seen:
    """A lease of another process. since: when its count was last found changed (or first seen), by time.monotonic."""

    count: bytes
    holder: Holder | None
    since: float
    changed: bool = False

    def life(self) -> Life:
        known = self.holder.lives() if self.holder is not None else None
        if known is not None:
            return Life.LIVES if known else Life.DEAD
        if time.monotonic() - self.since > LEASE_S:
            return Life.DEAD
        return Life.LIVES if self.changed else Life.UNKNOWN


class Lease:
    """One that this process holds."""

    def __init__(self, path: Path, holder: Holder) -> None:
        """Raises FileExistsError where the name is taken."""
        self.path, self.holder = path, holder
        self._count, self._lost, self._freed = 0, False, False
        self._heard = time.monotonic()
        self._guard = threading.Lock()
        with open(path, "xb") as stream:
            try:
                stream.write(b"0".zfill(_COUNT_BYTES) + b" " + json.dumps(asdict(holder)).encode() + b"\n")
                stream.flush()
            except OSError:
                path.unlink()
                raise

    def beat(self) -> None:
        """Say that the holder lives."""
        self._count += 1
        try:
            with self._guard:
                if not self._freed:
                    self._put(str(self._count).zfill(_COUNT_BYTES).encode())
                    self._heard = time.monotonic()
        except FileNotFoundError:
            self._lost = True
        except OSError as error:
            log.warning("%s cannot be kept alive: %s", self.path, error)  # `check` says so when it has lasted

    def free(self) -> None:
        """Leave the file as one that nobody holds."""
        with self._guard, suppress(FileNotFoundError):
            self._freed = True
            self._put(_FREE)

    def _put(self, count: bytes) -> None:
        with open(self.path, "r+b") as stream:  # closed every time: that is when others see it
            stream.write(count)

    def check(self) -> None:
        """Raises PlainError once the lease may belong to somebody else."""
        if self._lost or time.monotonic() - self._heard > LEASE_S:
            raise PlainError(
                f"{self.path} could not be kept alive for {LEASE_S:g} s, so another machine may have taken over: this run ends; what has "
                "landed is safe, run it again"
            )


class Leases:
    """The leases in a directory, seen by one process. A thread keeps its own alive and watches the others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mine: dict[str, Lease] = {}
        self._seen: dict[str, _Seen] = {}
        self._guard = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._mine):
            self.give_up(name)

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            with self._guard:
                mine = list(self._mine.values())
            for lease in mine:
                lease.beat()
            try:
                self._look()
            except OSError as error:
                log.warning("%s cannot be read: %s", self.directory, error)

    def take(self, name: str, what: str) -> Lease:
        """Hold a lease of a name that nobody else has."""
        return self._create(f"{name}-{secrets.token_hex(4)}", what)

    def _create(self, name: str, what: str) -> Lease:
        lease = Lease(self.directory / name, Holder.here(what))
        with self._guard:
            self._mine[name] = lease
        return lease

    def give_up(self, name: str) -> None:
        """Hold it no longer."""
        with self._guard:
            lease = self._mine.pop(name)
        lease.path.unlink(missing_ok=True)

    def others(self) -> dict[str, tuple[Holder | None, Life]]:
        """Leases of others by name, with what is known of their holders now. The gate is none of them."""
        self._look()
        with self._guard:
            return {name: (seen.holder, seen.life()) for name, seen in self._seen.items() if not _GATE.fullmatch(name)}

    def settle(self, wanted: Callable[[str], bool]) -> None:
        """Wait until it is known of every wanted lease whether its holder lives: LEASE_S at most, a beat where it does."""
        said = False
        while unknown := [name for name, (_, life) in self.others().items() if life is Life.UNKNOWN and wanted(name)]:
            if not said:
                said = True
                log.warning(
                    "%s: waiting up to %g s to see whether its process lives", self.directory / unknown[0], LEASE_S
                )
            time.sleep(min(0.2, BEAT_S / 5))

    def remove(self, name: str) -> None:
        """End another's lease; its holder finds out at its next beat."""
        (self.directory / name).unlink(missing_ok=True)

    @contextmanager
    def gate(self) -> Iterator[Callable[[], bool]]:
        """Be the only process inside. Waits for whoever is, and for LEASE_S where they died on another machine.

        Gives what says whether it is still so: no longer once this process stood still, was taken for dead and others have come in.
        Who has changed what they may have changed as well must then come in and do it again.
        """
        name = self._pass_gate()
        try:
            yield lambda: _gate(self._highest_gate()) == name
        finally:
            with self._guard:
                lease = self._mine.pop(name)
            lease.free()

    def _pass_gate(self) -> str:
        wait_s = _GATE_POLL_S[0]
        while True:
            number = self._highest_gate()
            if number >= 0 and not self._passable(_gate(number)):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _GATE_POLL_S[1])
                continue
            name = _gate(number + 1)
            try:
                self._create(name, "the gate")
            except FileExistsError:
                continue
            # A number is given once: the highest file is never removed. Whoever was slow to see that others had gone on finds it out here.
            if self._highest_gate() == number + 1:
                for lower in self._gates():
                    if lower <= number:
                        (self.directory / _gate(lower)).unlink(missing_ok=True)
                return name
            self.give_up(name)

    def _gates(self) -> list[int]:
        return sorted(int(found[1]) for name in os.listdir(self.directory) if (found := _GATE.fullmatch(name)))

    def _highest_gate(self) -> int:
        return max(self._gates(), default=-1)

    def _passable(self, name: str) -> bool:
        """Whether nobody is in a gate any more."""
        with self._guard:
            if name in self._mine:  # another thread of this process
                return False
            self._look_at(name)
            seen = self._seen.get(name)
            return seen is not None and (seen.count == _FREE or seen.life() is Life.DEAD)

    def _look(self) -> None:
        names = os.listdir(self.directory)
        with self._guard:
            for gone in self._seen.keys() - set(names):
                del self._seen[gone]
            for name in names:
                if name not in self._mine:
                    self._look_at(name)

    def _look_at(self, name: str) -> None:
        try:
            content = (self.directory / name).read_bytes()
        except FileNotFoundError:
            self._seen.pop(name, None)
            return
        count, known = content[:_COUNT_BYTES], self._seen.get(name)
        if known is None:
            self._seen[name] = _Seen(count, _holder(content), time.monotonic())
        elif count != known.count or known.holder is None:
            moved = count != known.count
            since = time.monotonic() if moved else known.since
            self._seen[name] = _Seen(count, _holder(content), since, known.changed or moved)


def _gate(number: int) -> str:
    return f"gate-{number:06d}"


def _holder(content: bytes) -> Holder | None:
    """None where the file has only just been created, or is somebody else's."""
    try:
        return Holder(**json.loads(content[_COUNT_BYTES:]))
    except (ValueError, TypeError):
        return None
