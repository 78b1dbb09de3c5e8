"""What a set's index and table of videos say, summed up: counts, drops and histograms, batch by batch, in memory that does not grow.

Comes in: index.parquet and videos.parquet of a set. Goes out: `SetStatistics`, which `page` shows. No shard is opened.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards import schema
from shards.index import BATCH_ROWS, open_table
from shards.schema import Manifest, ShardSetError

MOTION_EDGES_PX = np.concatenate([[0.0], np.geomspace(2.0**-6, 64.0, 49), [np.inf]])
"""Bins of motion: a quarter of an octave each, from 1/64 px to 64 px, and what lies below and above."""
CONFIDENCE_EDGES = np.linspace(0.0, 1.0, 41)
LARGEST_STEP = 64
"""Frames between anchor and neighbour that are told apart; rarer, longer ones are counted together."""

_MOTION = ("mean_dx_px", "mean_dy_px", "std_dx_px", "std_dy_px")
_LISTS = ("neighbour_frame", "neighbour_time_s", "status", "confidence", *_MOTION)
_CUTS = re.compile(
    r"(\d+) cuts; windows of (\d+) of (\d+) anchors cross them"
)  # as the write stage of extraction puts it


@dataclass
class OffsetCount:
    """Of one nominal offset. pairs: by status. motion: histogram of the root mean square length of stored flows, by MOTION_EDGES_PX.

    seconds: sum of the time from the anchor to the neighbour, over all pairs.
    """

    offset: int
    pairs: Counter[str] = field(default_factory=Counter)
    motion: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MOTION_EDGES_PX) - 1, np.int64))
    seconds: float = 0.0

    @property
    def median_px(self) -> float | None:
        """Of the motion, to within a bin; None without flow."""
        total = int(self.motion.sum())
        if not total:
            return None
        found = int(np.searchsorted(np.cumsum(self.motion), total / 2))
        low, high = MOTION_EDGES_PX[found], MOTION_EDGES_PX[found + 1]
        return float(np.sqrt(low * high)) if low and np.isfinite(high) else float(low or high)


@dataclass
class ShardCount:
    """What became of the videos of a chunk."""

    ok: int = 0
    rejected: int = 0


@dataclass
class SetStatistics:
    """rejected, engines: videos by reason, by decoder. chunks: outcome by chunk. steps: pairs by frames from anchor to neighbour.

    cut_videos: videos with shot cuts, which have `cuts` in all; windows around `across` of their `anchors` anchors cross one.
    still_videos: videos all of whose pairs are below the noise floor. confidence: histogram of the pairs' means; pairs without one
    are in none.
    """

    offsets: list[OffsetCount]
    rejected: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    chunks: dict[int, ShardCount] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    confidence: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CONFIDENCE_EDGES) - 1, np.int64))
    cut_videos: int = 0
    cuts: int = 0
    across: int = 0
    anchors: int = 0
    samples_still: int = 0

    @property
    def motion(self) -> NDArray[np.int64]:
        """All offsets together."""
        return np.sum([found.motion for found in self.offsets], axis=0)

    @property
    def pairs(self) -> Mapping[str, int]:
        """By status, in the order of the format."""
        total = sum((found.pairs for found in self.offsets), Counter[str]())
        return {status: total[status] for status in schema.PAIR_STATUS}


def statistics_of(root: str, manifest: Manifest) -> SetStatistics:
    """Raises ShardSetError where a table is missing, damaged, or differs from the manifest."""
    found = SetStatistics([OffsetCount(offset) for offset in manifest.settings.offsets])
    for batch in _batches(root, schema.VIDEOS, manifest, ("chunk", "status", "reason", "detail", "engine")):
        _add_videos(found, batch)
    for batch in _batches(root, schema.INDEX, manifest, ("frame", "time_s", *_LISTS)):
        add_samples(found, batch)
    return found


def _batches(root: str, name: str, manifest: Manifest, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    table: pq.ParquetFile = open_table(root, name, manifest)
    try:
        missing = [column for column in columns if column not in table.schema_arrow.names]
        if missing:
            raise ShardSetError(
                f"{root}/{name} has no column {missing[0]!r}; rerun the extraction command to rebuild it"
            )
        yield from table.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ShardSetError(
            f"{root}/{name} is damaged ({error}); rerun the extraction command to rebuild it"
        ) from error


def _add_videos(found: SetStatistics, batch: pa.RecordBatch) -> None:
    columns = (batch.column(name).to_pylist() for name in ("chunk", "status", "reason", "detail", "engine"))
    for chunk, status, reason, detail, engine in zip(*columns, strict=True):
        count = found.chunks.setdefault(chunk, ShardCount())
        if status == schema.REJECTED:
            count.rejected += 1
            found.rejected[reason or "unknown"] += 1
            continue
        count.ok += 1
        found.engines[engine or "unknown"] += 1
        cuts = _CUTS.fullmatch(detail or "")
        if cuts:
            found.cut_videos += 1
            found.cuts += int(cuts[1])
            found.across += int(cuts[2])
            found.anchors += int(cuts[3])


def add_samples(found: SetStatistics, batch: pa.RecordBatch) -> None:
    """Count rows of index.parquet in."""
    width = len(found.offsets)
    lists = {name: _lists(batch.column(name), width) for name in _LISTS}
    frames, times = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("frame", "time_s"))
    status = lists["status"]
    squares = sum(np.square(lists[name].astype(np.float64)) for name in _MOTION)
    length_px = np.sqrt(squares)  # root mean square over the pixels: mean² + variance, both channels
    for k, of in enumerate(found.offsets):
        of.pairs += Counter(status[:, k].tolist())
        of.motion += np.histogram(_known(length_px[:, k]), MOTION_EDGES_PX)[0]
        of.seconds += float((lists["neighbour_time_s"][:, k] - times).sum())
    steps = np.clip(lists["neighbour_frame"] - frames[:, None], -LARGEST_STEP, LARGEST_STEP)
    values, counts = np.unique(steps, return_counts=True)
    found.steps += Counter(dict(zip(values.astype(int).tolist(), counts.tolist(), strict=True)))
    found.confidence += np.histogram(_known(lists["confidence"].astype(np.float64)), CONFIDENCE_EDGES)[0]
    found.samples_still += int((status == schema.STILL).all(axis=1).sum())


def _lists(column: pa.Array, width: int) -> NDArray[Any]:
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]
