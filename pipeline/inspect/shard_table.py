"""The shards of a set as rows: all of them in a CSV file, as many as one can look through in the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.page import table
from pipeline.inspect.statistics import SetStatistics, ShardCount
from shards import schema
from shards.counting import plural
from shards.schema import Manifest, ShardInfo

CSV = "shards.csv"
MOST_ROWS = 400
"""Shards of a set whose page has a row for each."""
UNFOLDED = 32
"""Shards of a set whose rows are one table; more are folded by pass."""
OUTLIERS = 20
"""Of each kind, that the page of a larger set shows."""

HEADER = ("shard", "videos", "rejected", "samples", "MiB", "KiB per sample", "SHA-256")


@dataclass(frozen=True)
class ShardRow:
    """A shard and what became of the videos of its chunk."""

    info: ShardInfo
    chunk: int
    pass_index: int
    videos: ShardCount

    @property
    def sample_bytes(self) -> float:
        """Mean; 0 of an empty shard."""
        return self.info.bytes / self.info.samples if self.info.samples else 0.0

    def cells(self) -> list[str]:
        counted = f"{self.videos.ok + self.videos.rejected:,}", f"{self.videos.rejected:,}", f"{self.info.samples:,}"
        return [self.info.path, *counted, *_sizes(self.info.bytes, self.sample_bytes), self.info.sha256[:12]]


def shard_rows(manifest: Manifest, found: SetStatistics) -> list[ShardRow]:
    """In the manifest's order: by pass, then chunk."""
    places = (schema.shard_place(info.path) for info in manifest.shards)
    none = ShardCount()
    pairs = zip(manifest.shards, places, strict=True)
    return [ShardRow(info, chunk, number, found.chunks.get(chunk, none)) for info, (chunk, number) in pairs]


def shards_csv(rows: Iterable[ShardRow]) -> str:
    """A line per shard, with whole digests."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("shard", "chunk", "pass", "videos", "rejected", "samples", "bytes", "sha256"))
    for row in rows:
        videos = row.videos.ok + row.videos.rejected
        place = (row.info.path, row.chunk, row.pass_index, videos, row.videos.rejected)
        writer.writerow((*place, row.info.samples, row.info.bytes, row.info.sha256))
    return text.getvalue()


def shards_html(rows: Sequence[ShardRow]) -> str:
    """A row per shard, folded by pass where they are many; of a set with more than MOST_ROWS a row per pass,
    and the shards that differ most."""
    link = f'<a href="{CSV}">{CSV}</a>'
    if not rows:
        return "<p>No shard has landed.</p>"
    passes: dict[int, list[ShardRow]] = {}
    for row in rows:
        passes.setdefault(row.pass_index, []).append(row)
    if len(rows) <= MOST_ROWS:
        parts = [f'<p class="dim">{_counted(len(rows))}; {link} has them with whole digests.</p>']
        if len(rows) <= UNFOLDED:
            return "\n".join([*parts, table(HEADER, [row.cells() for row in rows])])
        for number, found in passes.items():
            unfolded = " open" if number == rows[0].pass_index else ""
            head = f"<summary>pass {number}: {_counted(len(found))}, {_total(found)}</summary>"
            parts.append(f"<details{unfolded}>{head}{table(HEADER, [row.cells() for row in found])}</details>")
        return "\n".join(parts)
    words = (
        f"{len(rows):,} shards are too many for a page: below is a row per pass, then the {OUTLIERS} shards with the fewest samples "
        f"and those with the most and the fewest bytes per sample. All {len(rows):,} rows, with whole digests, are in {link}."
    )
    orders = (
        ("Fewest samples", sorted(rows, key=lambda row: row.info.samples)),
        ("Most bytes per sample", sorted(rows, key=lambda row: -row.sample_bytes)),
        (
            "Fewest bytes per sample",
            sorted((row for row in rows if row.info.samples), key=lambda row: row.sample_bytes),
        ),
    )
    parts = [f'<p class="dim">{words}</p>', _passes_table(passes)]
    for title, ordered in orders:
        cells = [row.cells() for row in ordered[:OUTLIERS]]
        parts.append(f"<details><summary>{title}</summary>{table(HEADER, cells)}</details>")
    return "\n".join(parts)


def _passes_table(passes: dict[int, list[ShardRow]]) -> str:
    body = []
    for number, rows in passes.items():
        samples, size = sum(row.info.samples for row in rows), sum(row.info.bytes for row in rows)
        body.append([str(number), f"{len(rows):,}", f"{samples:,}", *_sizes(size, size / max(samples, 1))])
    return table(("pass", "shards", "samples", "MiB", "KiB per sample"), body)


def _counted(shards: int) -> str:
    return f"{shards:,} {plural(shards, 'shard')}"


def _total(rows: Sequence[ShardRow]) -> str:
    size = sum(row.info.bytes for row in rows) / 2**20
    samples = sum(row.info.samples for row in rows)
    return f"{samples:,} {plural(samples, 'sample')}, {size:,.1f} MiB"


def _sizes(size: int, each: float) -> tuple[str, str]:
    return f"{size / 2**20:,.1f}", f"{each / 1024:,.1f}"
