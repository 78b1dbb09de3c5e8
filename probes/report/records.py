"""What was measured, a line at a time: `<report>/records.jsonl`, to which runs append and which nobody rewrites.

    run     what was asked for: the protocol (task, settings, seed, fingerprint of every unit), the model, sources, versions
    unit    the rows of one source on one unit: with the weights' hash, the protocol's digest, seed, versions and duration

Several processes may write into one report: a line is appended whole, under a lock, and synced. A line that a killed process
left half written stays where it is, is counted and not read; what it held is measured again. `store.py` makes tables' rows of
the lines.

The digest of a protocol says what rows may be compared: the same task, data, sizes, parameters and seed. It knows nothing of
the model, which is what rows of one digest compare.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.task import Row, Scalar, Settings

FORMAT = 3
FILE = "records.jsonl"
CHANCE = "chance"
"""The source of rows that look at no feature (`Task.chance`)."""
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class Protocol:
    """What a score hangs on besides the features. data: fingerprint of each unit by its name, in order."""

    task: str
    settings: Settings
    seed: int
    data: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Equal for protocols whose rows compare."""
        return _digest([self.conditions, sorted(self.data.items())])

    @property
    def conditions(self) -> str:
        """The same without the data: under equal conditions a unit that was measured needs no second time."""
        return _digest([self.task, sorted(self.settings.items()), self.seed])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGEST_LETTERS]


@dataclass(frozen=True)
class Picture:
    """One stored picture: `file` is relative to the report's directory, `source` is empty where it belongs to all sources."""

    group: str
    caption: str
    source: str
    file: str


@dataclass(frozen=True)
class RunLine:
    """weights: see `UnitLine`. model, about: what readers want to know of either. at: UTC, ISO 8601."""

    at: str
    task: str
    digest: str
    settings: dict[str, Scalar]
    seed: int
    data: dict[str, str]
    weights: dict[str, str]
    model: dict[str, Scalar]
    about: dict[str, Scalar]
    versions: dict[str, str]

    @property
    def protocol(self) -> Protocol:
        return Protocol(self.task, self.settings, self.seed, self.data)


@dataclass(frozen=True)
class UnitLine:
    """weights: SHA-256 of what the source was computed with, and which part of it; empty for chance. seconds: of this source."""

    at: str
    task: str
    digest: str
    conditions: str
    source: str
    weights: str
    unit: str
    fingerprint: str
    facts: dict[str, int]
    rows: list[Row]
    seconds: float
    seed: int
    versions: dict[str, str]
    pictures: list[Picture] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, ...]:
        return self.conditions, self.weights, self.source, self.unit, self.fingerprint


Line = RunLine | UnitLine
KINDS: Mapping[str, type[Line]] = {"run": RunLine, "unit": UnitLine}


@dataclass
class Records:
    """The lines of a report, oldest first. damaged: how many could not be read."""

    runs: list[RunLine] = field(default_factory=list)
    units: dict[tuple[str, ...], UnitLine] = field(default_factory=dict)
    damaged: int = 0

    def add(self, line: Line) -> None:
        """Of two measurements of the same thing the later one counts."""
        if isinstance(line, RunLine):
            self.runs.append(line)
        else:
            self.units[line.key] = line

    def last_run(self, task: str) -> RunLine | None:
        return next((run for run in reversed(self.runs) if run.task == task), None)


def append(out: Path, lines: Sequence[Line]) -> None:
    """Write lines at the end of the file and wait until they are on the disk. Raises OSError where that fails."""
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(_stored(line), allow_nan=False) + "\n" for line in lines)
    descriptor = os.open(out / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        left = (b"\n" if torn else b"") + text.encode()
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # and with it the lock


def read(out: Path) -> Records:
    """Every line of a report that can be read; none where there is no file."""
    records = Records()
    try:
        with open(out / FILE, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            content = file.read()
    except FileNotFoundError:
        return records
    for line in content.splitlines():
        if line.strip():
            parsed = _parsed(line)
            if parsed is None:
                records.damaged += 1
            else:
                records.add(parsed)
    return records


@contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Held while pages are made of the records, so that no page made of older ones takes a newer one's place."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".report.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stored(line: Line) -> dict[str, Any]:
    kind = next(name for name, kind in KINDS.items() if isinstance(line, kind))
    return {"format": FORMAT, "kind": kind, **asdict(line)}


def _parsed(line: bytes) -> Line | None:
    """None for what `append` never wrote: half a line, or one of another version of this program."""
    try:
        stored = json.loads(line)
        if stored.pop("format") != FORMAT:
            return None
        kind = KINDS[stored.pop("kind")]
        if kind is UnitLine:
            stored["rows"] = [Row(**row) for row in stored["rows"]]
            stored["pictures"] = [Picture(**picture) for picture in stored["pictures"]]
        return kind(**stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
