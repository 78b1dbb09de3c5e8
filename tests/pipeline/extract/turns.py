"""Several parts of a set in a bucket inside one test, of which exactly one goes on at a time, from one request to the next.

Each part is a thread that stops before every request of its bucket until it is told to go on; so a test says what comes before what,
and nothing depends on time. What a part makes is copied out of a set that was made before.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.extract.parts import Part
from pipeline.extract.remote_set import RemoteSet
from shards import schema
from shards.bucket import Bucket
from shards.finalize import finalize
from shards.records import recorded
from shards.video_table import PlanRow
from tests.pipeline.extract.remote_extraction import HASTY


class Killed(BaseException):
    """What ends a part as SIGKILL does: nothing that it does afterwards reaches the bucket."""


class SteppedBucket(Bucket):
    """atomic: whether `create` asks and makes in one request."""

    actor: Actor
    atomic = True

    def _step(self, what: str) -> None:
        self.actor.stop_before(what)

    def files(self):  # type: ignore[no-untyped-def]
        self._step("list")
        return super().files()

    def read(self, name: str, size: int | None = None) -> bytes:
        self._step(f"read {name}")
        return super().read(name, size)

    def put(self, name: str, source: Path) -> None:
        self._step(f"put {name}")
        super().put(name, source)

    def write(self, name: str, data: bytes) -> None:
        self._step(f"put {name}")
        super().write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        self._step(f"create {name}")
        if self.atomic:
            return super().create(name, data)
        if name in super().files():
            return False
        self._step(f"create {name} after all")
        super().write(name, data)
        return True

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._step(f"delete {name}")
            super().delete([name])

    def put_all(self, files: Iterable[tuple[str, Path]]) -> None:
        for name, source in files:
            self.put(name, source)

    def get_all(self, sizes: Mapping[str, int], root: Path) -> None:
        for name in sizes:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(self.read(name, sizes[name]))


class Actor:
    """A part in a thread. next: the request before which it stands; empty at its end."""

    def __init__(self, name: str, work: Callable[[Actor], None]) -> None:
        self.name, self.next, self.killed = name, "", False
        self.error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        assert self._stopped.acquire(timeout=60)

    def _run(self, work: Callable[[Actor], None]) -> None:
        try:
            work(self)
        except BaseException as error:
            self.error = error
        self.next = ""
        self._stopped.release()

    def stop_before(self, what: str) -> None:
        """Called in the thread."""
        if not self.killed:
            self.next = what
            self._stopped.release()
            self._go.acquire()
        if self.killed:
            raise Killed

    @property
    def ended(self) -> bool:
        return not self.next

    def go_on(self) -> None:
        """One request, and all that follows until the next."""
        assert not self.ended
        self._go.release()
        assert self._stopped.acquire(timeout=60)
        assert self.error is None or isinstance(self.error, Killed), repr(self.error)

    def until(self, what: str) -> None:
        """To just before a request that begins so."""
        while not self.next.startswith(what):
            self.go_on()

    def to_its_end(self, most: int = 500) -> bool:
        """False where it has not come to it with so many requests: it waits for another."""
        for _ in range(most):
            if self.ended:
                return True
            self.go_on()
        return self.ended

    def kill(self) -> None:
        self.killed = True
        self._go.release()
        assert self._stopped.acquire(timeout=60)
        assert isinstance(self.error, Killed), repr(self.error)


class Parts:
    """Parts of a set of which `whole` is a copy. rows: of its plan."""

    def __init__(self, whole: Path, rows: Sequence[PlanRow], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._whole, self._rows, self._home = whole, rows, home
        self.place = home / "bucket" / "set"
        self._begun = 0
        monkeypatch.setattr("pipeline.extract.remote_set.Bucket", SteppedBucket)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # a wait is a turn that changes nothing

    def begin(self, index: int, of: int, *, atomic: bool = True) -> Actor:
        self._begun += 1
        scratch = self._home / f"scratch-{self._begun}"

        def work(actor: Actor) -> None:
            remote = RemoteSet(f"file://{self.place}", scratch, HASTY)
            assert isinstance(remote.bucket, SteppedBucket)
            remote.bucket.actor, remote.bucket.atomic = actor, atomic
            self._make(remote, Part(index, of))

        return Actor(f"part {index}/{of}", work)

    def _make(self, remote: RemoteSet, part: Part) -> None:
        """What an extraction does with a `RemoteSet`, chunk by chunk."""
        manifest = schema.read_manifest(self._whole)
        with remote.opened(writing=True, part=part):
            self._copy(schema.PLAN, remote.mirror)
            remote.begin()
            for chunk in filter(part.has, range(manifest.chunks)):
                passes = [p for p in range(manifest.passes) if (chunk, p) not in recorded(remote.mirror)]
                if not passes:
                    continue
                for pass_index in passes:
                    self._copy(schema.shard_path(chunk, pass_index), remote.making)
                    self._copy(schema.record_path(chunk, pass_index), remote.making)
                self._copy(f"{schema.RECORDS}/videos/{chunk:06d}.json", remote.making)
                remote.land(chunk, passes)
            remote.hear_of_others()
            finalize(remote.mirror, manifest.settings, manifest.chunks, manifest.passes, self._rows)

    def _copy(self, name: str, to: Path) -> None:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._whole / name, to / name)

    def give_up(self, actor: Actor, *names: str) -> None:
        """Let the locks of a part, or those of these names, look as those of a machine that is gone."""
        for path in self.place.glob(".lock*"):
            body = json.loads(path.read_bytes())
            if body["holder"]["what"] == actor.name and (not names or path.name in names):
                body["holder"]["place"], body["beat_s"] = "another boot", 0.0
                path.write_text(json.dumps(body))

    def run_all(self, actors: Sequence[Actor], order: random.Random, kills: int = 0) -> list[Actor]:
        """Let them all come to their end, whose turn it is being drawn; so many die on the way. Gives those that have."""
        dies_before = {actor: order.randrange(1, 30) for actor in order.sample(actors, kills)}
        done, killed = Counter[Actor](), list[Actor]()
        while living := [actor for actor in actors if not actor.ended]:
            actor = order.choice(living)
            for _ in range(order.choice((1, 1, 2, 5, 20))):  # long runs and short ones find different faults
                if actor.ended:
                    break
                done[actor] += 1
                if done[actor] == dies_before.get(actor):
                    actor.kill()
                    self.give_up(actor)
                    killed.append(actor)
                else:
                    actor.go_on()
        return killed
