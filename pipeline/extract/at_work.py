"""A run's place among the runs on one set: who may work on what, on which plan, and who writes the manifest.

Locks lie in `.locks` inside the set (`common.lease`), one file per run, named after its part. Whoever comes passes a gate: it is refused
where somebody at work has a chunk in common with it, and where its plan is not the one that the others work from. With nobody else at
work it may replace the plan, which is how a set grows. Whoever goes passes the gate as well: the manifest is written by who finds
that everything has landed, and by the last one at work.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common.command import PlainError
from common.holder import Holder
from common.lease import Lease, Leases, Life
from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan, PlanError, PlanText, Stored, difference, plan_text, stored_plan
from shards.files import full_disk
from shards.schema import Manifest

LOCKS = ".locks"
_NAME = re.compile(r"part-(\d+)-of-(\d+)-[0-9a-f]+")


@dataclass(frozen=True)
class PartEnd:
    """How a part ended. manifest: None where others, who are at work, will write it. missing: what the whole set still lacks, chunk →
    passes. at_work: parts that others are making, and who."""

    manifest: Manifest | None
    missing: Mapping[int, Sequence[int]]
    at_work: Mapping[Part, str]


class AtWork:
    """Used as a context manager around the work; raises PlainError where the set's directory cannot be made or written, OSError where the
    disk is full."""

    def __init__(self, out: Path, part: Part) -> None:
        self.out, self.part = out, part
        self._leases = Leases(out / LOCKS)
        self._lease: Lease | None = None
        self._plan = ""

    def __enter__(self) -> AtWork:
        try:
            self._leases.__enter__()
        except OSError as error:
            if full_disk(error):
                raise
            why = error.strerror or str(error)
            raise PlainError(
                f"{self.out / LOCKS} cannot be made ({why}); give an --out where this user may write"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leases.__exit__(kind, error, trace)

    def admit(
        self,
        plan: ChunkPlan,
        basis: Stored,
        again: Callable[[], ChunkPlan],
        save: Callable[[Path, PlanText], None],
    ) -> ChunkPlan:
        """Begin, on the plan that is given back. basis: what `plan` was made from; `again` makes it anew where that has changed.

        Raises PlainError where others work on the same chunks, PlanError where they work from another plan.
        """
        mine = plan_text(plan)
        while True:
            self._leases.settle(self._meets)
            with self._leases.gate():
                others = self._leases.others()
                self._refuse_meeting(others)
                stored = stored_plan(self.out)
                if stored != basis and stored.digest != mine.digest:
                    plan, basis = again(), stored
                    mine = plan_text(plan)
                if stored.digest == mine.digest or self._may_replace(plan, others):
                    if stored.digest != mine.digest:
                        save(self.out, mine)
                    self._plan = mine.digest
                    for name, (_, life) in others.items():
                        if life is Life.DEAD and self._meets(name):
                            self._leases.remove(name)
                    name = f"part-{self.part.index}-of-{self.part.of}"
                    self._lease = self._leases.take(name, f"part {self.part}" if not self.part.whole else "a run")
                    self._clear(lambda chunk: self.part.has(chunk))
                    return plan
            self._leases.settle(lambda name: True)

    def _refuse_meeting(self, others: Mapping[str, tuple[Holder | None, Life]]) -> None:
        for name, (holder, life) in others.items():
            if self._meets(name) and life is not Life.DEAD:
                raise PlainError(
                    f"an extraction is already at work in {self.out} ({holder or name}): wait for it, or stop it"
                    + ("" if self.part.whole else "; parts that run together count to the same n, and each is run once")
                )

    def _may_replace(self, plan: ChunkPlan, others: Mapping[str, tuple[Holder | None, Life]]) -> bool:
        """Whether nobody works from the plan that is stored; False where that is not known yet."""
        if any(life is Life.UNKNOWN for _, life in others.values()):
            return False
        for name, (holder, life) in others.items():
            if life is Life.LIVES:
                raise PlanError(
                    f"{holder or name} works on the set at {self.out} from another plan ({difference(self.out, plan)}): give every part "
                    "the same videos and options, or wait for it"
                )
        for name in others:  # should it come back, it must not go on with the old plan
            self._leases.remove(name)
        return True

    def _meets(self, name: str) -> bool:
        part = _part_of(name)
        return part is None or self.part.meets(part)

    def _clear(self, whose: Callable[[int], bool]) -> None:
        """Remove what killed runs have left of chunks that nobody else is at."""
        for left in (self.out / ".tmp").glob("*"):
            number = left.name.partition("-")[0]
            if number.isdecimal() and whose(int(number)):
                shutil.rmtree(left, ignore_errors=True)

    def check(self) -> None:
        """Raises PlainError when this run may have lost its place to another."""
        if self._lease is not None:
            self._lease.check()

    def alone(self, make: Callable[[], Manifest]) -> Manifest:
        """Make a manifest, and the tables that it names, while nobody else does."""
        while True:
            with self._leases.gate() as still_alone:
                self._refuse_lost_plan()
                made = make()
                if still_alone():  # else an older manifest may have come after a newer one
                    return made

    def _refuse_lost_plan(self) -> None:
        """Whoever replaced the plan took this run for dead; it must not describe the set by the old one."""
        if stored_plan(self.out).digest != self._plan:
            raise taken_over(self.out)

    def leave(
        self, missing: Callable[[], Mapping[int, Sequence[int]]], finalize: Callable[[], Manifest], *, in_haste: bool
    ) -> PartEnd:
        """End. in_haste: on an error or an interrupt, which does not wait to see whether others live.

        PlainError where another run has replaced the plan.
        """
        assert self._lease is not None, "admit comes first"
        if not in_haste and missing():
            self._leases.settle(lambda name: True)
        while True:
            with self._leases.gate() as still_alone:
                self._refuse_lost_plan()
                others = self._leases.others()
                at_work = {name: holder for name, (holder, life) in others.items() if life is not Life.DEAD}
                lacking = missing()
                if not at_work:
                    self._clear(lambda chunk: True)
                manifest = finalize() if not at_work or not lacking else None
                if still_alone():  # else as in `alone`
                    self._leases.give_up(self._lease.path.name)
                    break
        parts = {part: str(holder or name) for name, holder in at_work.items() if (part := _part_of(name)) is not None}
        return PartEnd(manifest, lacking, parts)


def _part_of(name: str) -> Part | None:
    """None for a file that is none of ours, which nobody can work beside."""
    found = _NAME.fullmatch(name)
    return Part(int(found[1]), int(found[2])) if found else None


def taken_over(place: Path | str) -> PlainError:
    """What a run is told that was taken for dead. place: folder or address of the set."""
    return PlainError(
        f"another run has taken over the set at {place} with another plan: this one ends; what has landed is safe, run it again"
    )
