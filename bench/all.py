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
    jobs = [
        (["codec.py", "--davis", davis], davis),
        (["extraction.py", "--videos", videos], videos),
        (["loader.py", "--shards", shards], shards),
        (["train_step.py", "--variant", "demo_vit8", "--size", "128", "--batch", "8", "--shards", shards], shards),
        (["synthetic_flow.py"], True),
        (["flow.py", "--quick", "--record"], True),
    ]
    for arguments, data in jobs:
        if not data:
            click.echo(f"skipped {arguments[0]}: no data was named for it", err=True)
            continue
        subprocess.run([sys.executable, str(HERE / arguments[0]), *[str(a) for a in arguments[1:]]], check=True)


if __name__ == "__main__":
    main()
