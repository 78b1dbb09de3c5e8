"""Every bench that the machine has data for, one after the other; rows go to bench/results.csv.

python bench/all.py --videos DIR --davis DIR --shards DIR
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent


@click.command()
@click.option("--videos", type=click.Path(exists=True), help="Folder of video files.")
@click.option("--davis", type=click.Path(exists=True), help="DAVIS directory.")
@click.option("--shards", type=click.Path(exists=True), help="A shard set at 448/224.")
def main(videos: str | None, davis: str | None, shards: str | None) -> None:
    size = ["--variant", "demo_vit8", "--size", "128", "--batch", "8"]
    jobs: list[tuple[str, list[str], str, str | None]] = [
        ("codec.py", [], "--davis", davis),
        ("jf.py", ["--record"], "--davis", davis),
        ("extraction.py", [], "--videos", videos),
        ("break_even.py", [], "--videos", videos),
        ("loader.py", ["--frames", f"{davis}/JPEGImages"] if davis else [], "--shards", shards),
        ("train_step.py", size, "--shards", shards),
    ]
    for script, arguments, option, data in jobs:
        if data is None:
            click.echo(f"skipped {script}: no data was named for it", err=True)
        else:
            start(script, *arguments, option, data)
    start("synthetic_flow.py")
    start("feature_cache.py", "--record")
    start("probe_memory.py", "--record")
    start("flow.py", "--quick", "--record")


def start(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)


if __name__ == "__main__":
    main()
