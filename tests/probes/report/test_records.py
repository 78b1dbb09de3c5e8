"""records.jsonl: appended to and never rewritten, by several processes, through torn lines; what counts as the same protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from probes.report import records
from probes.report.records import FILE, Protocol
from tests.module_graph import ROOT
from tests.probes.report.sample_results import write_run


def test_lines_come_back(tmp_path: Path) -> None:
    protocol = write_run(tmp_path, 0.5)
    stored = records.read(tmp_path)
    assert stored.damaged == 0
    (run,) = stored.runs
    assert run.protocol == protocol and run.protocol.digest == run.digest
    assert len(stored.units) == 3 * 2
    line = next(iter(stored.units.values()))
    assert line.digest == protocol.digest and line.seconds == 1.5 and len(line.weights) == 64
    assert line.rows[0].values["JF"] == 0.5


def test_nothing_is_rewritten(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5)
    before = (tmp_path / FILE).read_bytes()
    write_run(tmp_path, 0.6)
    assert (tmp_path / FILE).read_bytes().startswith(before)
    assert {line.rows[0].values["J"] for line in records.read(tmp_path).units.values()} == {0.6}, "the later one counts"


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_costs_itself_alone(tmp_path: Path, keep: int) -> None:
    """A killed process leaves any part of its last line; the next line is whole all the same."""
    write_run(tmp_path, 0.5)
    whole = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(b"".join(whole[:-1]) + whole[-1][:keep])
    expected = len(whole) - 2 + (keep == -1)  # only the line's end is missing: it says all it has to say
    stored = records.read(tmp_path)
    assert (len(stored.units), stored.damaged) == (expected, int(keep != -1))
    write_run(tmp_path, 0.5)
    stored = records.read(tmp_path)
    assert len(stored.units) == 6 and len(stored.runs) == 2 and stored.damaged == int(keep != -1)


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"format": 99}', '{"format": 3, "kind": "x"}', '{"format": 3, "kind": "run"}']
)
def test_other_lines_are_counted_and_left_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(line + "\n")
    write_run(tmp_path, 0.5)
    stored = records.read(tmp_path)
    assert stored.damaged == 1 and len(stored.units) == 6
    assert (tmp_path / FILE).read_text().startswith(line + "\n")


def test_no_line_that_is_no_number(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5)
    stored = next(iter(records.read(tmp_path).units.values()))
    with pytest.raises(ValueError, match="JSON"):
        records.append(tmp_path, [replace(stored, seconds=float("nan"))])
    assert records.read(tmp_path).damaged == 0


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """Lines of 60 kB, which no pipe or buffer would keep whole by itself."""
    script = (
        "import os, sys, traceback; from pathlib import Path\n"
        "from tests.probes.report.sample_results import write_run\n"
        "def write(name):\n"
        "    for number in range(40):\n"
        "        write_run(Path(sys.argv[1]), 0.5, weights=f'{name}{number}', note='x' * 60000)\n"
        "def writer(name):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        return child\n"
        "    os.close(begin)\n"
        "    os.read(wait, 1)\n"
        "    try:\n"
        "        write(name)\n"
        "        os._exit(0)\n"
        "    except BaseException:\n"
        "        traceback.print_exc()\n"
        "        os._exit(1)\n"
        "wait, begin = os.pipe()\n"
        "writers = [writer(name) for name in 'abc']\n"
        "os.close(begin)\n"  # which all three wait for
        "sys.exit(any([os.waitpid(child, 0)[1] for child in writers]))\n"
    )  # one process imports everything, its three forks write at once
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, timeout=120).returncode == 0
    stored = records.read(tmp_path)
    assert stored.damaged == 0 and len(stored.runs) == 3 * 40 and len(stored.units) == 3 * 40 * 6


def test_what_makes_another_protocol() -> None:
    base = Protocol("vos", {"height": 480, "iterations": 500}, 0, {"one": "f1"})
    same = Protocol("vos", {"iterations": 500, "height": 480}, 0, {"one": "f1"})
    assert same.digest == base.digest
    others = [
        replace(base, task="vos-knn"),
        replace(base, settings={"height": 240, "iterations": 500}),
        replace(base, seed=1),
        replace(base, data={"one": "f2"}),
        replace(base, data={"one": "f1", "two": "f2"}),
    ]
    assert len({one.digest for one in [base, *others]}) == 6
    assert [one.conditions == base.conditions for one in others] == [False, False, False, True, True]


def test_a_line_says_what_it_stands_on(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5)
    run, *units = map(json.loads, (tmp_path / FILE).read_text().splitlines())
    assert run["settings"] == {"height": 480} and run["data"] == {"one": "f1", "two": "f2"} and run["seed"] == 0
    for unit in units:
        assert {"digest", "weights", "seconds", "seed", "versions", "at", "fingerprint"} <= set(unit)
