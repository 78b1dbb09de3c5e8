"""What several processes gain: one probe with `--jobs 1`, which has all threads, and with `--jobs N`, which share them.

    python bench/probe_jobs.py --jobs 2 [--rounds 2] [--record] -- vos-knn --model M --davis DIR --height 160

What stands behind `--` is the command after `python -m probes`, without --out and --jobs; each round runs it both ways into an empty
directory, one after the other. Clock time is the command's own, start and report included, the least of the rounds; the ratio is
of one run of this script. The two must give the same table, but for what the order of sums in threads moves.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.record import record

ROOT = Path(__file__).resolve().parents[1]


def seconds(command: list[str], jobs: int) -> float:
    """Clock time of one run."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        whole = [sys.executable, "-m", "probes", *command, "--jobs", str(jobs), "--out", out]
        subprocess.run(whole, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("command", nargs="+", help="behind --: the probe and its options")
    options = parser.parse_args()
    taken: dict[int, list[float]] = {1: [], options.jobs: []}
    for _ in range(options.rounds):
        for jobs, times in taken.items():
            times.append(seconds(options.command, jobs))
            print(f"--jobs {jobs}: {times[-1]:.1f} s", flush=True)
    one, several = min(taken[1]), min(taken[options.jobs])
    probe, note = options.command[0], f"{options.command[0]}, least of {options.rounds} rounds"
    print(f"{one / several:.2f} times faster with {options.jobs} processes")
    if options.record:
        record("probe_jobs", f"{probe}_clock_s_jobs1", one, "s", f"{note}, all threads")
        record("probe_jobs", f"{probe}_clock_s_jobs{options.jobs}", several, "s", f"{note}, threads shared")
        record("probe_jobs", f"{probe}_times_faster_jobs{options.jobs}", one / several, "x", "the same run")


if __name__ == "__main__":
    main()
