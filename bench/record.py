"""Append measured figures to bench/results.csv: date, commit, machine, command, figure. One row per figure.

BENCH_RESULTS names another file to append to: whoever runs several benches may want their rows apart (`bench/gpu.py`).

from bench.record import record
record("codec", "decode_flows_per_s_core", 3300, "1/s", "thread CPU time, best of 7")

A shell script says the same as `python bench/record.py --command "bash bench/user_way.sh DIR" user_way all_wall_s 1368 s NOTE`.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).with_name("results.csv"))
COLUMNS = ("date", "commit", "machine", "command", "bench", "figure", "value", "unit", "note")


def machine() -> str:
    """Processor or GPU, core count, torch: what a figure depends on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores"


def commit() -> str:
    """Short hash of HEAD, with "+" when the working tree differs from it; BENCH_COMMIT, or "unknown", where there is no git."""
    if "BENCH_COMMIT" in os.environ:
        return os.environ["BENCH_COMMIT"]
    if shutil.which("git") is None:
        return "unknown"
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True
    )
    if head.returncode:
        return "unknown"  # a copy of the files without their history
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def record(
    bench: str,
    figure: str,
    value: float,
    unit: str,
    note: str = "",
    *,
    device: str | None = None,
    command: str | None = None,
) -> None:
    """Print a figure and append it to results.csv. device: the accelerator, where one was used. command: by default this one."""
    fresh = not RESULTS.exists()
    row = [
        datetime.date.today().isoformat(),
        commit(),
        device or machine(),
        command or shlex.join(["python", *_command()]),
    ]
    row += [bench, figure, f"{value:.6g}", unit, note]
    with open(RESULTS, "a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerow(row)
    print(f"{bench:12s} {figure:44s} {value:12.5g} {unit:10s} {note}", flush=True)


def _command() -> list[str]:
    """The command line with file arguments reduced to their last two parts: no path of this machine is recorded."""
    script, *arguments = sys.argv
    short = ["/".join(Path(a).parts[-2:]) if os.sep in a else a for a in arguments]
    return [f"bench/{Path(script).name}", *short]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", required=True, help="what measured it")
    parser.add_argument("bench")
    parser.add_argument("figure")
    parser.add_argument("value", type=float)
    parser.add_argument("unit")
    parser.add_argument("note", nargs="?", default="")
    given = parser.parse_args()
    record(given.bench, given.figure, given.value, given.unit, given.note, command=given.command)


if __name__ == "__main__":
    main()
