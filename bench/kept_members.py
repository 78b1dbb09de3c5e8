"""What optional members weigh in a shard set: KiB per pair of neighbour frames, confidence and reverse flow, beside image and flow.

    python -m pipeline extract --dataset folder --root VIDEOS --out SET --passes 1 --keep-neighbours --keep-confidence --keep-reverse
    python bench/kept_members.py --shards SET [--record]

Bytes of the members alone; a tar adds 512 of header to each, and fills up to 512.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from shards.reader import ShardSet


def kib_per_pair(data: ShardSet) -> dict[str, float]:
    """Mean size in KiB of an anchor's image, of a stored flow, and of every kind of optional member that the set holds."""
    members = [member for i in range(len(data)) for member in data.members(i)]
    flows = [member.size for member in members if member.name.endswith(".flow")]
    images = [member.size for member in members if member.name == "jpg"]
    found = {"image": sum(images) / len(images) / 1024, "flow": sum(flows) / len(flows) / 1024}
    return found | {kind: size / n / 1024 for kind, (n, size) in data.kept().items() if n}


@click.command()
@click.option("--shards", "root", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--record", "keep", is_flag=True, help="Append the figures to bench/results.csv.")
def main(root: Path, keep: bool) -> None:
    data = ShardSet(root)
    settings = data.manifest.settings
    note = (
        f"{len(data)} samples, {settings.estimator['name']}, image {settings.image_size}, flow {settings.flow_size} px"
    )
    for name, kib in kib_per_pair(data).items():
        print(f"{name:12s} {kib:8.1f} KiB")
        if keep:
            record("kept_members", f"{name}_kib", kib, "KiB", note)


if __name__ == "__main__":
    main()
