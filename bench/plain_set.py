"""A shard set without its optional members (neighbour frames, confidence, reverse flow), as a training by the paper needs it.

    python bench/plain_set.py --shards DIR --out DIR

Members are copied byte for byte; only their places in the tars change.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shards import schema
from shards.reader import ShardSet
from shards.writer import ChunkWriter, EncodedSample, finalize

PAIR_COLUMNS = (
    *("neighbour_frame", "neighbour_time_s", "status", "quantum_exponent", "mean_dx_px", "mean_dy_px"),
    *("std_dx_px", "std_dy_px", "max_px", "confidence"),
)


def without_optional(root: Path, out: Path) -> Path:
    """Write the set at `root` again, at `out`, with frames, flows and JSON only; returns `out`."""
    data = ShardSet(root)
    settings = replace(data.manifest.settings, keep_neighbours=False, keep_confidence=False, keep_reverse=False)
    rows = pq.read_table(root / schema.INDEX).to_pylist()
    videos = pq.read_table(root / schema.VIDEOS).to_pylist()
    for chunk in range(data.manifest.chunks):
        writer = ChunkWriter(out, settings, chunk, range(data.manifest.passes))
        for i, row in enumerate(rows):
            if row["shard"] == schema.shard_path(chunk, row["pass"]):
                flows = [data.flow_bytes(i, k) if row["flow_size"][k] else None for k in range(len(data.offsets))]
                columns = {name: row[name] for name in PAIR_COLUMNS}
                about = (row["video"], row["frame"], row["time_s"])
                sample = EncodedSample(*about, data.image_bytes(i), flows, columns, {})
                writer.add(row["pass"], int(row["key"].rsplit("-", 1)[1]), sample)
        landed = [{k: v for k, v in video.items() if k != "anchors"} for video in videos if video["chunk"] == chunk]
        writer.commit(landed)
    finalize(out, settings, data.manifest.chunks, data.manifest.passes, videos)
    return out


@click.command()
@click.option("--shards", "root", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(root: Path, out: Path) -> None:
    without_optional(root, out)


if __name__ == "__main__":
    main()
