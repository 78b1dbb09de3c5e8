"""Memory of every process of an extraction, from its first video to its last.

Comes in: a folder of clips, linked to as often as it takes. What happens: the command itself extracts them, and what each process holds
is read four times a second: its proportional set size, in which shared memory counts once. Goes out: rows of results.csv.

    python bench/extraction_memory.py --clips DIR --videos 1000
    python bench/extraction_memory.py --clips DIR_OF_1080P --videos 60 --passes 4
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_EVERY_S = 0.25
ROLES = {"pipeline.video.child": "decoders", "spawn_main": "flow workers", "resource_tracker": "tracker"}


@dataclass
class Seen:
    """MiB of all processes of one role together, at each look; processes: how many there were at most."""

    total: list[float] = field(default_factory=list)
    processes: int = 0

    def growth(self) -> float:
        """Peak of the last third over that of the middle third; the first is start-up and filling."""
        third = len(self.total) // 3
        return max(self.total[2 * third :]) / max(self.total[third : 2 * third]) if third else 1.0


def role_of(process: psutil.Process, parent: int) -> str:
    if process.pid == parent:
        return "parent"
    words = " ".join(process.cmdline())
    return next((role for sign, role in ROLES.items() if sign in words), "other")


def watch(process: subprocess.Popen[bytes], every_s: float = SAMPLE_EVERY_S) -> dict[str, Seen]:
    """Look until it ends. Looking holds the processes up: four times a second takes a fifth of a core where they are large."""
    seen: dict[str, Seen] = defaultdict(Seen)
    while process.poll() is None:
        now: dict[str, list[float]] = defaultdict(list)
        try:
            parent = psutil.Process(process.pid)
            for member in [parent, *parent.children(recursive=True)]:
                now[role_of(member, process.pid)].append(member.memory_full_info().pss / 2**20)
        except psutil.Error:  # one of them has just ended
            continue
        for role, sizes in now.items():
            seen[role].total.append(sum(sizes))
            seen[role].processes = max(seen[role].processes, len(sizes))
        seen["all"].total.append(sum(map(sum, now.values())))
        time.sleep(every_s)
    return seen


@click.command()
@click.option("--clips", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--videos", default=1000, show_default=True)
@click.option("--passes", default=1, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(clips: Path, videos: int, passes: int, workers: int) -> None:
    sources = sorted(path.resolve() for path in clips.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as home:
        links = Path(home) / "videos"
        links.mkdir()
        for number in range(videos):
            source = sources[number % len(sources)]
            (links / f"{number:06d}{source.suffix}").symlink_to(source)
        command = [sys.executable, "-m", "pipeline", "extract", "--dataset", "folder", "--root", str(links)]
        command += ["--out", f"{home}/set", "--passes", str(passes), "--workers", str(workers), "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        seen = watch(process)
        assert process.returncode == 0, command
    note = f"dis, {videos} videos, {len(sources)} clips, {passes} passes, {workers} workers, {time.monotonic() - began:.0f} s"
    for role, found in sorted(seen.items()):
        if role == "tracker" or not max(found.total):  # nothing is held by one that was seen while it ended
            continue
        name = role.replace(" ", "_")
        many = f", {found.processes} processes" if found.processes else ""
        record("extraction_memory", f"peak_{name}", max(found.total), "MiB", f"{note}{many}, proportional set size")
        record("extraction_memory", f"growth_{name}", found.growth(), "ratio", f"{note}, last third over middle third")


if __name__ == "__main__":
    main()
