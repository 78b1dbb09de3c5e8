"""Stage 1 on a folder of real clips with DIS flow: videos, samples and pairs per second, whole process, wall clock.

python bench/extraction.py --videos DIR
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record


@click.command()
@click.option("--videos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--passes", default=4, show_default=True)
def main(videos: Path, passes: int) -> None:
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-m",
                "pipeline",
                "extract",
                "--dataset",
                "folder",
                "--root",
                str(videos),
                "--out",
                out,
            ]
            command += ["--passes", str(passes), "--workers", str(workers), "--chunk-videos", "8", "--json"]
            began = time.perf_counter()
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1]
            )
            seconds = time.perf_counter() - began
        counts = json.loads(done.stdout.splitlines()[-1])
        note = f"{counts['videos']} clips, {passes} passes, {workers} workers, start-up included"
        record("extraction", f"videos_per_s_w{workers}", counts["videos"] / seconds, "1/s", note)
        record("extraction", f"pairs_per_s_w{workers}", sum(counts["pairs"].values()) / seconds, "1/s", note)
        record("extraction", f"kib_per_sample_w{workers}", counts["bytes"] / 1024 / counts["samples"], "KiB", note)


if __name__ == "__main__":
    main()
