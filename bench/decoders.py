"""Video libraries beside each other, frame by frame, on real clips and on odd files: `docs/decoders.md`.

Comes in: a folder with `videos/` and `odd_videos/`, and where to find the libraries that are not installed. Goes out: figures, a table
of the odd files, and with --record rows of results.csv. Every library reads every file in a process of its own with a deadline
(`bench/decoders_read.py`), the libraries taking turns at each file, so that they see the same load of the machine.

    pip install --no-deps --target elsewhere/decord2 decord2          # the same import name as decord: never both in one place
    python bench/decoders.py ../shared/data --at decord2=elsewhere/decord2 --at torchcodec=elsewhere/torchcodec \\
        --libraries torchcodec=elsewhere/ffmpeg --out elsewhere/decoders.json --record

decord2's frames are compared with decord's, and all with those of PyAV, the only one that hands through whatever FFmpeg gives in order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.decoders_read import Task
from bench.record import record

READ = Path(__file__).with_name("decoders_read.py")
LIBRARIES = ("decord", "decord2", "pyav", "torchcodec")
COMPARED_FRAMES = 6
"""Of two readings that differ: so many frames are compared value by value."""


Tell = Callable[[str, str, float, str, str], None]


def show(bench: str, figure: str, value: float, unit: str, note: str) -> None:
    """In the place of `record`: nothing is kept."""
    print(f"{bench:12s} {figure:44s} {value:12.5g} {unit:10s} {note}", flush=True)


@dataclass
class Reading:
    """What one library made of one file. ended: ok, refused, stopped (an error on the way), crashed or hung; error: in its words."""

    ended: str
    error: str = ""
    listed: int = 0
    open_s: float = 0.0
    sweep_s: float = 0.0
    flagged: int = 0
    digests: list[str] = field(default_factory=list)
    stamps_s: list[float] = field(default_factory=list)
    kinds: list[list[object]] = field(default_factory=list)
    jumps_s: float = 0.0
    jumps_wrong: int = 0
    jumps_asked: int = 0
    seam_s: float = 0.0
    seam_wrong: int = 0
    seam_error: str = ""

    @property
    def shapes_wrong(self) -> bool:
        return any(kind[0] != "uint8" or len(kind) != 4 or kind[3] != 3 for kind in self.kinds)


@dataclass(frozen=True)
class Places:
    """Folders to import a library from, and to find its shared libraries in."""

    packages: dict[str, str]
    shared: dict[str, str]

    def environment(self, library: str) -> dict[str, str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": self.packages.get(library, "")}
        return env | ({"LD_LIBRARY_PATH": self.shared[library]} if library in self.shared else {})


class Library:
    """A process that has imported one library and reads files with it. name: a key of `decoders_read.LIBRARIES`."""

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(READ), name],
            env=places.environment(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready":
            raise SystemExit(f"{name} cannot be imported: its last words are above")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def do(self, task: Task) -> str:
        """How the task ended: "", a signal's name, "exit N" or "hung"."""
        assert self._process.stdin is not None
        print(json.dumps(asdict(task)), file=self._process.stdin, flush=True)
        ended = json.loads(self._line())
        assert isinstance(ended, str)
        return ended

    def read(self, path: Path, deadline_s: float, *, sweep_only: bool = False) -> Reading:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.jsonl"
            ended = self.do(Task(str(path), str(out), deadline_s, sweep_only))
            lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return reading_of(lines, ended)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def reading_of(lines: list[dict[str, Any]], ended: str) -> Reading:
    """lines: what `decoders_read` has said of one file before it ended."""
    said = {line["what"]: line for line in lines}
    reading = Reading("ok")
    if "refused" in said:
        reading.ended, reading.error = "refused", said["refused"]["error"]
    if "opened" in said:
        reading.listed, reading.open_s = said["opened"]["listed"], said["opened"]["cpu_s"]
    if "sweep" in said:
        swept = said["sweep"]
        reading.sweep_s, reading.flagged = swept["cpu_s"], swept["flagged"]
        reading.digests, reading.stamps_s, reading.kinds = swept["digests"], swept["stamps_s"], swept["kinds"]
        if swept["error"]:
            reading.ended, reading.error = "stopped", swept["error"]
    if ended:
        reading.ended, reading.error = ("hung" if ended == "hung" else "crashed"), ended
    for what in ("jumps", "seam"):
        if what in said and "digests" in said[what]:
            pairs = zip(said[what]["wanted"], said[what]["digests"], strict=True)
            wrong = sum(reading.digests[index] != got for index, got in pairs)
            setattr(reading, f"{what}_wrong", wrong)
            setattr(reading, f"{what}_s", said[what]["cpu_s"])
            reading.jumps_asked = len(said[what]["wanted"])
    reading.seam_error = said.get("seam", {}).get("error", "")
    return reading


def differing(one: Reading, other: Reading) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(one.digests, other.digests, strict=False)) if a != b]


def largest_difference(
    pair: tuple[Library, Library], path: Path, where: list[int], deadline_s: float
) -> tuple[int, float] | None:
    """(largest, mean) difference in grey levels over some of the differing frames; None where the shapes differ."""
    chosen = [where[i] for i in np.unique(np.linspace(0, len(where) - 1, COMPARED_FRAMES).astype(int))]
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        for library in pair:
            out = Path(folder) / f"{library.name}.npz"
            if library.do(Task(str(path), str(out), deadline_s, keep=tuple(map(int, chosen)))) or not out.exists():
                return None
            with np.load(out) as stored:
                kept.append(list(stored.values()))
    if any(a.shape != b.shape for a, b in zip(*kept, strict=True)):
        return None
    gaps = [np.abs(a.astype(np.int16) - b.astype(np.int16)) for a, b in zip(*kept, strict=True)]
    return max(int(gap.max()) for gap in gaps), float(np.mean([gap.mean() for gap in gaps]))


def clip_figures(
    readings: dict[str, dict[str, Reading]], gaps: dict[str, dict[str, tuple[int, float]]], tell: Tell
) -> None:
    """Rows about the real clips: speed over the files that all libraries read to the end, sameness over those that PyAV reads."""
    common = [name for name, by in readings.items() if all(by[lib].ended == "ok" for lib in by)]
    frames = sum(len(readings[name]["pyav"].digests) for name in common)
    for lib in readings[common[0]]:
        mine = [readings[name][lib] for name in common]
        jumped = [r for r in mine if r.jumps_asked]
        note = f"{len(common)} clips that all read, {frames} frames"
        windows = f"CPU time, {len(jumped)} clips"
        sweep_s = sum(r.open_s + r.sweep_s for r in mine)
        tell("decoders", f"{lib}_sweep", sum(len(r.digests) for r in mine) / sweep_s, "frames/s", note)
        if jumped:  # of few files (--first) perhaps none
            tell("decoders", f"{lib}_seam_16_passes", sum(r.seam_s for r in jumped) / len(jumped), "s/clip", windows)
            tell("decoders", f"{lib}_jumps_16_passes", sum(r.jumps_s for r in jumped) / len(jumped), "s/clip", windows)
        asked = sum(r.jumps_asked for r in mine)
        tell("decoders", f"{lib}_jumps_wrong", sum(r.jumps_wrong for r in mine), "frames", f"of {asked} asked for")
        tell("decoders", f"{lib}_seam_wrong", sum(r.seam_wrong for r in mine), "frames", f"of {asked} asked for")
        same_count = [n for n in common if len(readings[n][lib].digests) == len(readings[n]["pyav"].digests)]
        same = [n for n in same_count if not differing(readings[n][lib], readings[n]["pyav"])]
        note = f"of {len(common)}; the same number of frames in {len(same_count)}"
        tell("decoders", f"{lib}_same_as_pyav", len(same), "clips", note)
        apart = [found[0] for found in gaps.get(lib, {}).values()]
        if apart:
            tell("decoders", f"{lib}_from_pyav", max(apart), "levels", f"largest difference, {len(apart)} files")


def odd_figures(readings: dict[str, dict[str, Reading]], tell: Tell) -> None:
    """Rows about the odd files: how they ended, and how many of the frames are silently others than FFmpeg's."""
    for lib in next(iter(readings.values())):
        mine = {name: by[lib] for name, by in readings.items()}
        ended = Counter(r.ended for r in mine.values())
        note = ", ".join(f"{n} {how}" for how, n in sorted(ended.items()))
        tell("decoders", f"{lib}_odd_read", ended["ok"], "files", f"of {len(mine)}: {note}")
        silent = [n for n, r in mine.items() if r.ended == "ok" and silently_other(r, readings[n]["pyav"])]
        tell("decoders", f"{lib}_odd_silently_other", len(silent), "files", "read to the end, other frames than PyAV")
        wrong = sum(r.shapes_wrong for r in mine.values())
        tell("decoders", f"{lib}_odd_wrong_shape", wrong, "files", "frames that are not [H, W, 3] uint8")


def silently_other(mine: Reading, truth: Reading) -> bool:
    return truth.ended == "ok" and (len(mine.digests) != len(truth.digests) or bool(differing(mine, truth)))


def odd_table(readings: dict[str, dict[str, Reading]]) -> list[str]:
    """Markdown: the odd files that not all libraries treat alike."""
    libraries = list(next(iter(readings.values())))
    lines = ["| file | " + " | ".join(libraries) + " |", "|---" * (len(libraries) + 1) + "|"]
    for name, by in readings.items():
        cells = []
        for reading in by.values():
            cell = str(len(reading.digests)) if reading.ended == "ok" else f"{reading.ended} at {len(reading.digests)}"
            cell = "refused" if reading.ended == "refused" else cell
            cell += " ≠" if reading.ended == "ok" and silently_other(reading, by["pyav"]) else ""
            cells.append(cell + (" shape!" if reading.shapes_wrong else ""))
        if len(set(cells)) > 1:
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def pairs_of(texts: list[str]) -> dict[str, str]:
    return {name: str(Path(place).resolve()) for name, _, place in (text.partition("=") for text in texts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--at", action="append", default=[], help="LIBRARY=FOLDER to import it from")
    parser.add_argument("--libraries", action="append", default=[], help="LIBRARY=FOLDER with the FFmpeg that it needs")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument(
        "--jumps-every", type=int, default=3, help="windows are read from every so many files; all are swept"
    )
    parser.add_argument("--first", type=int, default=None, help="of each folder only so many files")
    parser.add_argument("--folders", nargs="+", default=["videos", "odd_videos"])
    parser.add_argument("--deadline", type=float, default=120.0)
    parser.add_argument("--out", type=Path, help="all readings as JSON")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    tell = record if arguments.record else show
    everything: dict[str, dict[str, dict[str, Reading]]] = {}
    gaps: dict[str, dict[str, tuple[int, float]]] = {}
    places = Places(pairs_of(arguments.at), pairs_of(arguments.libraries))
    libraries = {name: Library(name, places) for name in arguments.only}
    for folder in arguments.folders:
        readings = everything[folder] = {}
        paths = sorted(path for path in (arguments.data / folder).rglob("*") if path.is_file())[: arguments.first]
        for number, path in enumerate(paths):
            turn = number % len(libraries)
            order = arguments.only[turn:] + arguments.only[:turn]
            sweep_only = number % arguments.jumps_every > 0
            by = {name: libraries[name].read(path, arguments.deadline, sweep_only=sweep_only) for name in order}
            readings[path.name] = {name: by[name] for name in arguments.only}
            for name in arguments.only:
                where = differing(by[name], by["pyav"])
                if where and len(by[name].digests) == len(by["pyav"].digests):
                    pair = (libraries[name], libraries["pyav"])
                    found = largest_difference(pair, path, where, arguments.deadline)
                    if found:
                        gaps.setdefault(name, {})[path.name] = found
            print(path.name, {name: (r.ended, len(r.digests)) for name, r in readings[path.name].items()}, flush=True)
    for library in libraries.values():
        library.close()
    if arguments.out:
        stored = {
            f: {n: {lib: asdict(r) for lib, r in by.items()} for n, by in rs.items()} for f, rs in everything.items()
        }
        arguments.out.write_text(json.dumps({"readings": stored, "gaps": gaps}))
    if "videos" in everything:
        clip_figures(everything["videos"], gaps, tell)
    if "odd_videos" in everything:
        odd_figures(everything["odd_videos"], tell)
        print("\n".join(odd_table(everything["odd_videos"])))


if __name__ == "__main__":
    main()
