"""videos.parquet: one row per video that has landed, from the plan and from what became of the videos of each chunk.

Comes in: places of the plan, outcomes chunk by chunk, counts of samples. Goes out: the table, in the order of the plan. It is kept as
one small Arrow table per chunk, so that a set that grows makes only those of the chunks that have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shards import schema

PLACE = ("video", "path", "chunk", "position")

PlanRow = Mapping[str, Any]
"""video, path, chunk and position of a video of the set."""


class PlannedVideos:
    """The places of a plan by chunk. repeats: whether a video has several, for it was tried again."""

    def __init__(self, rows: Iterable[PlanRow]) -> None:
        self.rows = list(rows)
        self.by_chunk = {chunk: list(places) for chunk, places in groupby(self.rows, key=itemgetter("chunk"))}
        self.repeats = len(set(map(itemgetter("video"), self.rows))) < len(self.rows)

    def rows_of(self, chunk: int, outcome: Mapping[str, Mapping[str, Any]], anchors: Mapping[str, int]) -> pa.Table:
        """The rows of one chunk. outcome: by video, what became of it; anchors: samples that it has."""
        rows = [
            {**row, **outcome[row["video"]], "anchors": anchors.get(row["video"], 0)}
            for row in self.by_chunk.get(chunk, ())
            if row["video"] in outcome
        ]
        return pa.Table.from_pylist(rows, schema=schema.VIDEOS_SCHEMA)

    def joined(self, chunks: Mapping[int, pa.Table]) -> pa.Table:
        """The tables of all chunks as one; of a video that was tried again the latest place that has landed."""
        tables = [chunks[chunk] for chunk in self.by_chunk if chunk in chunks]
        table = pa.concat_tables([schema.VIDEOS_SCHEMA.empty_table(), *tables]).combine_chunks()
        if not self.repeats:
            return table
        last = {video: row for row, video in enumerate(table.column("video").to_pylist())}
        return table.take(pa.array(sorted(last.values()), pa.int64()))

    def agrees(self, table: pa.Table, chunks: set[int]) -> bool:
        """Whether a table has all videos of these chunks, and them alone, where the plan has them."""
        places = [row for chunk, rows in self.by_chunk.items() if chunk in chunks for row in rows]
        if self.repeats:
            last = {row["video"]: number for number, row in enumerate(places)}
            places = [places[number] for number in sorted(last.values())]
        if len(places) != table.num_rows:
            return False
        wanted = (list(map(itemgetter(name), places)) for name in PLACE)
        return all(
            table.column(name).combine_chunks().equals(pa.array(values, schema.VIDEOS_SCHEMA.field(name).type))
            for name, values in zip(PLACE, wanted, strict=True)
        )


def by_chunk(table: pa.Table) -> dict[int, pa.Table]:
    """The table's rows chunk by chunk; it is in the order of a plan."""
    runs = pc.run_end_encode(table.column("chunk").combine_chunks())
    edges = [0, *runs.run_ends.to_pylist()]
    return {
        chunk: table.slice(start, stop - start)
        for chunk, start, stop in zip(runs.values.to_pylist(), edges, edges[1:], strict=False)
    }


def counts(table: pa.Table, samples: int, pairs: Mapping[str, int], across_cuts: int | None = None) -> dict[str, Any]:
    """What a manifest says of a set in numbers. across_cuts: None where cuts were not looked for, or not noted of every video."""
    rejected = table.filter(pc.equal(table.column("status"), schema.REJECTED)).column("reason")
    reasons = {str(reason): int(n) for reason, n in _counted(rejected)}
    ok = table.num_rows - sum(reasons.values())
    by_status = {status: pairs.get(status, 0) for status in schema.PAIR_STATUS}
    found = {"videos": table.num_rows, "ok": ok, "rejected": reasons, "samples": samples, "pairs": by_status}
    return found if across_cuts is None else {**found, "across_cuts": across_cuts}


def _counted(column: pa.ChunkedArray) -> Sequence[tuple[Any, int]]:
    return [(found["values"], found["counts"]) for found in pc.value_counts(column).to_pylist()]
