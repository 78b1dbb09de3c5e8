"""Stage 1 on a folder of real clips: the engine beside its estimator alone, beside a plain engine, and beside another checkout.

    python bench/extraction.py --videos DIR                       # dis, then raft-small with random weights
    python bench/extraction.py --videos DIR --flow sea-raft-m --weights random:0 --device cuda --workers 16
    python bench/extraction.py --videos DIR --against CHECKOUT    # CPU time of the whole command, before and after

All figures of a row come from one run. On a machine that others use, wall-clock rates say little; the CPU times per pair hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.extraction_engine import COPIES, Case, copies_of, run_alone, run_engine, run_plain, windows_in_memory
from bench.record import record
from common.device import device_name, pick_device
from pipeline.extract.devices import first_device

ROOT = Path(__file__).resolve().parents[1]


@click.command()
@click.option("--videos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--flow", help="One estimator; default: dis, and raft-small with one pass.")
@click.option("--weights")
@click.option("--device", default="cpu")
@click.option("--precision", default="fp32", show_default=True, help="Of a flow network.")
@click.option("--passes", default=16, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--plain/--no-plain", default=True, help="Also run the plain engine.")
@click.option(
    "--alone-seconds", "alone_s", default=10.0, show_default=True, help="Of every run of the estimator alone."
)
@click.option("--rounds", default=2, show_default=True, help="With --against.")
@click.option(
    "--against", type=click.Path(exists=True, path_type=Path), help="Another checkout to compare CPU times with."
)
def main(
    videos: Path,
    flow: str | None,
    weights: str | None,
    device: str,
    precision: str,
    passes: int,
    workers: int,
    plain: bool,
    alone_s: float,
    against: Path | None,
    rounds: int,
) -> None:
    if against is not None:
        compare(videos, against, passes, workers, rounds)
        return
    cases = [Case(videos, flow, weights, device, passes, workers, precision)] if flow else []
    if not flow:
        cases = [
            Case(videos, "dis", passes=passes, workers=workers),
            Case(videos, "raft-small", "random:0", passes=1, workers=workers),
        ]
    for case in cases:
        measure(case, plain=plain and case.flow == "dis", alone_s=alone_s)


def measure(case: Case, *, plain: bool, alone_s: float) -> None:
    """All rows of one case. alone_s: seconds of each run of the estimator alone."""
    windows = windows_in_memory(case, 512)
    flow_processes = case.workers if case.device == "cpu" else 1
    before = run_alone(case, windows, flow_processes, alone_s)
    one = run_alone(case, windows, 1, alone_s) if flow_processes > 1 else before
    engine = run_engine(case)
    after = run_alone(case, windows, flow_processes, alone_s)  # the machine may have changed meanwhile
    alone = (before.pairs_per_s + after.pairs_per_s) / 2
    alone_cpu = (before.cpu_ms_per_pair + after.cpu_ms_per_pair) / 2
    device = pick_device(first_device(case.device))
    gpu = device_name(device) if device.type == "cuda" else None
    note = f"{case.flow}, {case.device}, {case.precision}, {case.passes} passes, {case.workers} workers, {engine.all_pairs} pairs"

    def row(figure: str, value: float, unit: str, more: str = "") -> None:
        text = ", ".join(filter(None, [note, more]))
        record("extraction", f"{figure}_{case.flow}", value, unit, text, device=gpu)

    row("engine_pairs_per_s", engine.pairs_per_s, "1/s")
    row("engine_pairs_per_s_with_start", engine.pairs_per_s_with_start, "1/s")
    row("alone_pairs_per_s", alone, "1/s", f"{flow_processes} processes, frames in memory")
    row(
        "engine_over_alone",
        engine.pairs_per_s / alone,
        "ratio",
        f"against {flow_processes} processes that do nothing else",
    )
    row(
        "engine_over_one_alone",
        engine.pairs_per_s / one.pairs_per_s,
        "ratio",
        "against one process that does nothing else",
    )
    row("cpu_per_pair", engine.cpu_ms_per_pair, "ms", "all processes")
    row("cpu_per_pair_alone", alone_cpu, "ms")
    row("cpu_per_pair_beside_flow", engine.cpu_ms_per_pair - alone_cpu, "ms")
    row(
        "flow_share_of_cpu",
        alone_cpu / engine.cpu_ms_per_pair,
        "ratio",
        "the most that engine_over_alone can be on a CPU",
    )
    row("flow_waits", engine.flow_waits, "ratio", f"limited by {engine.limited_by}")
    row("decoding_waits", engine.decoding_waits, "ratio")
    row("kib_per_pair", engine.bytes / 1024 / engine.all_pairs, "KiB", "image included")
    if plain:
        slow = run_plain(case, pairs_per_video=4, most_videos=12)
        row("plain_pairs_per_s", slow.pairs_per_s, "1/s", "one pair at a time, two seeks, float16 files")
        row(
            "faster_than_plain",
            engine.pairs_per_s_with_start / slow.pairs_per_s,
            "ratio",
            "the engine's start included",
        )
        row("less_cpu_than_plain", slow.cpu_ms_per_pair / engine.cpu_ms_per_pair, "ratio")
        smaller = slow.whole_bytes * engine.all_pairs / engine.bytes
        row(
            "smaller_than_plain",
            smaller,
            "ratio",
            f"images included; {slow.flow_bytes / 1024:.0f} KiB of flow per pair there",
        )


def compare(videos: Path, other: Path, passes: int, workers: int, rounds: int) -> None:
    """CPU time per pair of the whole command with dis: other, this, other, this. Start-up is in none of it: each run is made with every
    clip once and with every clip three times, and only the difference counts."""
    used: dict[Path, list[float]] = {other: [], ROOT: []}
    with tempfile.TemporaryDirectory() as home:
        once, thrice = copies_of(videos, Path(home) / "once", 1), copies_of(videos, Path(home) / "thrice", COPIES)
        for _ in range(rounds):
            for checkout, times in used.items():
                (few_s, few), (many_s, many) = (_command(checkout, clips, passes, workers) for clips in (once, thrice))
                times.append(1e3 * (many_s - few_s) / (many - few))
    case = Case(videos, passes=passes, workers=workers)
    flow_ms = run_alone(case, windows_in_memory(case, 512), 1, 10.0).cpu_ms_per_pair
    note = f"dis, {passes} passes, {workers} workers, least of {rounds} rounds, without start-up"
    for name, checkout in (("before", other), ("after", ROOT)):
        record("extraction", f"cpu_per_pair_command_{name}", min(used[checkout]), "ms", note)
        record("extraction", f"cpu_per_pair_beside_flow_{name}", min(used[checkout]) - flow_ms, "ms", note)


def _command(checkout: Path, videos: Path, passes: int, workers: int) -> tuple[float, int]:
    """(CPU s, pairs)."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "pipeline", "extract", "--dataset", "folder", "--root", str(videos)]
        command += ["--out", f"{home}/set", "--passes", str(passes), "--workers", str(workers), "--json"]
        with open(f"{home}/said", "w+") as said:
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=said, stderr=subprocess.DEVNULL)
            used_s = _cpu_of_family(process)
            assert process.returncode == 0, command
            said.seek(0)
            counts = json.loads(said.read().splitlines()[-1])
    return used_s, sum(counts["pairs"].values())


def _cpu_of_family(process: subprocess.Popen[bytes]) -> float:
    """Watch it to its end. Processes that are killed without being waited for are in nobody's books, so each is watched by itself."""
    used: dict[int, float] = {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for member in [parent, *parent.children(recursive=True)]:
                times = member.cpu_times()
                used[member.pid] = times.user + times.system
        except psutil.Error:
            continue
        time.sleep(0.05)
    return sum(used.values())


if __name__ == "__main__":
    main()
