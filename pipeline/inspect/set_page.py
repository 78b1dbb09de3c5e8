"""A shard set as one static page: counts, drops, histograms, random windows, shards, settings.

Comes in: the manifest, the index and the table of videos, summed up by `statistics`, and the members of a few samples. Goes out:
index.html with its pictures inside, and shards.csv beside it. Nothing is asked from elsewhere, no script runs, and the page does not grow
with the set. Every name from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.page import document, table
from pipeline.extract.stages import FLOW_FAILED, NO_FLOW
from pipeline.inspect import histogram as charts
from pipeline.inspect import statistics as of_set
from pipeline.inspect.histogram import histogram
from pipeline.inspect.shard_table import CSV, shard_rows, shards_csv, shards_html
from pipeline.inspect.statistics import SetStatistics, statistics_of
from pipeline.inspect.windows import wheel_html, window_html
from pipeline.video.rejects import REJECT_REASONS
from shards.counting import plural
from shards.files import atomic_file
from shards.reader import ShardSet
from shards.sample import OptionalMember
from shards.schema import Manifest, SampleError

PAGE = "index.html"

MEANING = {
    **REJECT_REASONS,
    FLOW_FAILED: "the flow estimator raised an exception for it",
    NO_FLOW: "none of its pairs may be stored",
}
STATUS_MEANING = {
    "stored": "trained on",
    "still": "stored with its statistics, not trained on: it varies less than the noise floor",
    "non_finite": "not stored: the estimator gave NaN or infinity",
    "out_of_range": "not stored: motion beyond 2047 px",
}

STYLE = """
.legend { display: flex; gap: 1rem; align-items: center; flex-wrap: wrap; margin: .75rem 0; }
.legend p { flex: 1 1 16rem; margin: 0; }
img.wheel { width: 8.25rem; flex: none; border-radius: 50%; }
details { margin: .5rem 0; } summary { cursor: pointer; }
h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
table.words td:last-child, table.words th:last-child { text-align: left; white-space: normal; min-width: 12rem; }
"""


def write_set_page(data: ShardSet, samples: Sequence[int], out: Path) -> Path:
    """Write the page of a set into the folder `out`; returns its path. samples: those whose windows it shows."""
    found = statistics_of(data.place, data.manifest)
    rows = shard_rows(data.manifest, found)
    page, shards = set_page(data, found, samples, shards_html(rows)), shards_csv(rows)
    with atomic_file(out / PAGE) as page_file, atomic_file(out / CSV) as shards_file:  # neither without the other
        page_file.write(page.encode())
        shards_file.write(shards.encode())
    return out / PAGE


def set_page(data: ShardSet, found: SetStatistics, samples: Sequence[int], shards: str) -> str:
    """The whole page. shards: HTML of their table."""
    manifest = data.manifest
    name = Path(data.place.rstrip("/")).resolve().name if "://" not in data.place else data.place
    sections = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="dim">{escape(_subtitle(manifest))}</p>',
        *_partial(manifest),
        _counts(manifest, data.kept()),
        "<h2>What was left out</h2>",
        _rejected(manifest, found),
        drops_html(manifest, found),
        "<h2>Motion, offsets, confidence</h2>",
        _histograms(found),
        _offsets(found),
        "<h2>Windows drawn at random</h2>",
        *_windows(data, samples),
        "<h2>Shards</h2>",
        shards,
        "<h2>Settings of the set</h2>",
        table(("setting", "value"), _flat(manifest.settings.to_json()), kind="settings"),
    ]
    return document(f"Shard set {name}", "\n".join(part for part in sections if part), style=charts.STYLE + STYLE)


def _subtitle(manifest: Manifest) -> str:
    settings, estimator = manifest.settings, manifest.settings.estimator
    offsets = ", ".join(f"{offset:+d}" for offset in settings.offsets)
    return (
        f"{settings.dataset} videos; flow by {estimator['name']} to the frames at {offsets}; pictures of {settings.image_size} px, "
        f"flow of {settings.flow_size} px"
    )


def _partial(manifest: Manifest) -> list[str]:
    if manifest.complete:
        return []
    have, want = len(manifest.shards), manifest.chunks * manifest.passes
    words = f"{have:,} of {want:,} {plural(want, 'shard has', 'shards have')} landed"
    return [f'<p class="warn">The set is not complete: {words}.</p>']


def _counts(manifest: Manifest, kept: Mapping[OptionalMember, tuple[int, int]]) -> str:
    counts, size = manifest.counts, sum(info.bytes for info in manifest.shards)
    samples = int(counts["samples"])
    each = f" ({size / samples / 1024:.1f} KiB per sample)" if samples else ""
    rows = [
        ("videos", f"{counts['videos']:,}"),
        ("of these in the set", _share(counts["ok"], counts["videos"])),
        ("passes (anchors per video)", f"{manifest.passes:,}"),
        ("samples (anchors with their flow)", f"{samples:,}"),
        ("pairs that are trained on", f"{counts['pairs'].get('stored', 0):,}"),
        ("shards", f"{len(manifest.shards):,}"),
        ("size", f"{_size(size)}{each}"),
        *((f"kept of neighbours: {member}", f"{n:,} ({_size(whole)})") for member, (n, whole) in kept.items() if n),
    ]
    return table(("", ""), rows)


def _rejected(manifest: Manifest, found: SetStatistics) -> str:
    total = int(manifest.counts["videos"])
    if not found.rejected:
        return "<p>No video was rejected.</p>"
    rows = [[r.replace("_", " "), _share(n, total), MEANING.get(r, "")] for r, n in found.rejected.most_common()]
    return table(("videos rejected", "", "because"), rows, kind="words")


def drops_html(manifest: Manifest, found: SetStatistics) -> str:
    """Pairs by what became of them, shot cuts, still samples."""
    pairs = found.pairs
    total = sum(pairs.values())
    rows = [[s.replace("_", " "), _share(n, total), STATUS_MEANING[s]] for s, n in pairs.items() if n]
    parts = [table(("pairs", "", ""), rows, kind="words")] if rows else []
    settings = manifest.settings
    if settings.cut_detector:
        looked = f"Shot cuts ({settings.cut_detector}, threshold {settings.cut_threshold:g})"
        cuts = f"{looked}: none in the videos that were taken."
        if found.cuts:
            cuts = (
                f"{looked}: {found.cuts:,} in {found.cut_videos:,} of the videos that were taken; {_share(found.across, found.anchors)} of "
                "the anchors in these were not to be drawn because windows around them cross a cut."
            )
    else:
        cuts = "Shot cuts were not looked for (--cuts): windows may cross them."
    n = found.samples_still
    still = (
        f"{n:,} {plural(n, 'sample is', 'samples are')} still in all {plural(n, 'its', 'their')} pairs." if n else ""
    )
    return "".join([*parts, f"<p>{escape(cuts)}</p>", f"<p>{still}</p>" if still else ""])


def _histograms(found: SetStatistics) -> str:
    edges = of_set.MOTION_EDGES_PX
    names = [f"{low:.3g} to {high:.3g} px" for low, high in pairwise(edges)]
    labels = {2.0**-6: "1/64", 0.125: "1/8", 1.0: "1", 8.0: "8", 64.0: "64"}
    places = {value: int(np.argmin(np.abs(edges[:-1] - value))) for value in labels}
    ticks: list[tuple[float, str]] = [(places[value], text) for value, text in labels.items()]
    shown = [
        (
            histogram(found.motion.tolist(), names, ticks, "motion of a pair, px"),
            "Root mean square length of the flow of each stored pair, px of the flow grid, logarithmic.",
        ),
        (
            _steps(found),
            "Frames from the anchor to its neighbour; offsets count nominal intervals, so irregular videos differ.",
        ),
        (
            histogram(found.confidence.tolist(), _confidence_names(), [(0, "0"), (20, "0.5"), (40, "1")], "confidence"),
            "Mean confidence of each pair, as the estimator gives it.",
        ),
    ]
    figures = [f"<figure>{chart}<figcaption>{escape(words)}</figcaption></figure>" for chart, words in shown if chart]
    none = (
        "" if found.confidence.any() else '<p class="dim">The index holds no confidence: the estimator gave none.</p>'
    )
    return f'<div class="charts">{"".join(figures)}</div>{none}'


def _steps(found: SetStatistics) -> str:
    if not found.steps:
        return ""
    low, high = min(found.steps), max(found.steps)
    most = of_set.LARGEST_STEP
    names = [f"{step:+d} frames" + (" or more" if abs(step) == most else "") for step in range(low, high + 1)]
    wide = high - low + 1
    every = max(1, -(-wide // 9))
    counts = [found.steps[step] for step in range(low, high + 1)]
    ticks = [(step - low + 0.5, f"{step:+d}" if step else "0") for step in range(low, high + 1, every)]
    return histogram(counts, names, ticks, "frames to the neighbour")


def _confidence_names() -> list[str]:
    edges = of_set.CONFIDENCE_EDGES
    return [f"{low:.3f} to {high:.3f}" for low, high in pairwise(edges)]


def _offsets(found: SetStatistics) -> str:
    rows = []
    for of in found.offsets:
        total = sum(of.pairs.values())
        median = "" if of.median_px is None else f"{of.median_px:.2g}"
        mean_ms = f"{1000 * of.seconds / total:+.1f}" if total else ""
        dropped = total - of.pairs["stored"] - of.pairs["still"]
        counts = (f"{of.pairs['stored']:,}", f"{of.pairs['still']:,}", f"{dropped:,}")
        rows.append([f"{of.offset:+d}", *counts, median, mean_ms])
    return table(("offset", "stored", "still", "not stored", "median motion, px", "mean time, ms"), rows)


def _windows(data: ShardSet, samples: Sequence[int]) -> list[str]:
    if not samples:
        return ["<p>There is no sample.</p>"]
    parts = [wheel_html()]
    for i in samples:
        try:
            parts.append(window_html(data, i))
        except SampleError as error:
            parts.append(f'<p class="warn">{escape(str(error))}</p>')
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # digests fit, what they are of does not
            words = f"{data.keys[i]} is not as the format has it: {type(error).__name__}: {error}"
            parts.append(f'<p class="warn">{escape(words)}</p>')
    return parts


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})".replace("%", " %") if whole else f"{part:,}"


def _size(size: float) -> str:
    if size < 2**20:
        return f"{size / 2**10:,.1f} KiB"
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
