"""A forecast is kept in the log folder of its set, and put beside what came of it.

`plan --out SET` writes SET/.log/forecast.json, which readers of the set ignore; `extract`, and `plan` of a finished set, read it. How long
the extraction took is what the run logs say.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.progress import duration
from pipeline.extract.forecast import Range
from shards.files import write_atomic
from shards.schema import Manifest, Settings

FORECAST = ".log/forecast.json"
_NOTES = {True: "", False: "outside", None: "no range"}
_TAIL_BYTES = 4096
_END = re.compile(rb'\{"run_s": ([0-9.]+)\}')
_RUN = re.compile(r"extract-(\d{8}-\d{6})\b.*\.jsonl")


@dataclass(frozen=True)
class Kept:
    """What is kept of a forecast. made: time of day, UTC. seconds: of extracting all of it on the machine where it was made."""

    made: str
    settings: Settings
    passes: int
    videos: int
    sampled: int
    rejected: Range
    pairs: Range
    seconds: Range
    bytes: Range


def keep(out: Path, kept: Kept) -> Path:
    """Write it into the set's log folder, which is made."""
    body = {**asdict(kept), "settings": kept.settings.to_json()}
    write_atomic(out / FORECAST, json.dumps(body, indent=1, sort_keys=True) + "\n")
    return out / FORECAST


def kept_of(out: Path) -> Kept | None:
    """The forecast of a set; None where none was made. Raises ValueError for a file that is none, naming it."""
    path = out / FORECAST
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_bytes())
        return Kept(
            made=body["made"],
            settings=Settings.from_json(body["settings"]),
            passes=body["passes"],
            videos=body["videos"],
            sampled=body["sampled"],
            rejected=Range(**body["rejected"]),
            pairs=Range(**body["pairs"]),
            seconds=Range(**body["seconds"]),
            bytes=Range(**body["bytes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no forecast ({error}); delete it") from error


@dataclass(frozen=True)
class Row:
    """One figure twice. inside: whether what came lies in the range; None where the sample was too small to have one."""

    what: str
    planned: str
    came: str
    inside: bool | None


@dataclass(frozen=True)
class Beside:
    """rows: plan beside reality. remark: why there are none."""

    rows: tuple[Row, ...] = ()
    remark: str = ""

    def lines(self) -> list[str]:
        """For a terminal."""
        if not self.rows:
            return [self.remark]
        table = [
            ("", "planned (95 % range)", "came", ""),
            *((r.what, r.planned, r.came, _NOTES[r.inside]) for r in self.rows),
        ]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        return [
            f"{what:<{widths[0]}}  {planned:>{widths[1]}}  {came:>{widths[2]}}  {note}".rstrip()
            for what, planned, came, note in table
        ]


def beside(out: Path, manifest: Manifest) -> Beside | None:
    """The forecast of a set beside what it has become; None where none was made. A damaged forecast is only a remark."""
    try:
        kept = kept_of(out)
    except ValueError as error:
        return Beside(remark=str(error))
    if kept is None:
        return None
    changed = kept.settings.differences(manifest.settings)
    if changed or kept.passes != manifest.passes:
        what = changed[0] if changed else f"passes: {kept.passes} planned, {manifest.passes} in the set"
        return Beside(remark=f"not put beside this set: the forecast of {kept.made}, of another extraction ({what})")
    if not manifest.complete:
        return Beside(remark=f"the set is not complete: the forecast of {kept.made} cannot be put beside it yet")
    counts = manifest.counts
    stored = counts["pairs"].get("stored", 0) + counts["pairs"].get("still", 0)
    size = sum(info.bytes for info in manifest.shards)
    rows = (
        _row("videos", Range.exactly(kept.videos), counts["videos"], count, known=True),
        _row("rejected", kept.rejected, sum(counts["rejected"].values()), count, known=kept.sampled >= kept.videos),
        _row("pairs stored", kept.pairs, stored, count),
        _time_row(kept.seconds, run_seconds(out)),
        _row("GiB", kept.bytes, size, gib),
    )
    return Beside(rows)


def run_seconds(out: Path) -> float | None:
    """Of all runs of a set together, as the last line of each log says; runs at the same time count each. None where no log is at hand.

    The log of a run that was killed or ended early lacks it: its time is from its name to when the file was written last.
    """
    total = None
    for path in (out / ".log").glob("extract-*.jsonl"):
        found = _RUN.fullmatch(path.name)
        if found:
            total = (total or 0.0) + (_told_s(path) or _guessed_s(path, found[1]))
    return total


def _told_s(log: Path) -> float:
    """What the end of a log says; 0 where the run was killed before."""
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = stream.read().splitlines()
    ends = [found for found in map(_END.fullmatch, lines) if found]
    return float(ends[-1][1]) if ends and lines[-1] == ends[-1][0] else 0.0


def _guessed_s(log: Path, start: str) -> float:
    return max(0.0, log.stat().st_mtime - time.mktime(time.strptime(start, "%Y%m%d-%H%M%S")))


def ranged(found: Range, text: Callable[[float], str]) -> str:
    """For example "3,520 (3,400 … 3,600)"; without bounds where they read the same."""
    best, low, high = text(found.best), text(found.low), text(found.high)
    return best if low == high == best else f"{best} ({low} … {high})"


def count(value: float) -> str:
    return f"{value:,.0f}"


def gib(size: float) -> str:
    """Bytes, with three digits."""
    found = size / 2**30
    return f"{found:,.0f}" if found >= 100 else f"{found:.3g}"


def _time_row(planned: Range, came: float | None) -> Row:
    return (
        Row("time", ranged(planned, duration), "not known", True)
        if came is None
        else _row("time", planned, came, duration)
    )


def _row(what: str, planned: Range, came: float, text: Callable[[float], str], *, known: bool = False) -> Row:
    """known: whether the plan knows the figure. Else a range of no width is the lack of one: any figure but the guess lies outside it."""
    words, found = ranged(planned, text), text(came)
    if planned.low <= came <= planned.high or found == words:
        return Row(what, words, found, True)
    return Row(what, words, found, None if planned.low == planned.high and not known else False)
