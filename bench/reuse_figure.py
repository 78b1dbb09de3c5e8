"""The reuse sweep as a picture: how many anchors per video, and neighbours per anchor, a training needs at equal steps.

    make sweep SWEEP=configs/sweeps/reuse.toml SHARDS=dir DAVIS=dir
    python bench/reuse_figure.py --sweep runs/sweeps/reuse --out docs/reuse.svg

Comes in: the sweep's table, sweep.csv. Goes out: one SVG with a line per number of neighbours (mean over seeds, a dot per seed), the
seeds' range of fresh pairs as a band, and the untrained decoder as a dashed line, where the table has them.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.command import one_line_errors
from shards.files import write_atomic
from trainer.config import load_config

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 380, 64, 220, 34, 52
COLORS = ("#0b6fa4", "#c2571a", "#4b8b3b", "#7a4fa3")


@dataclass(frozen=True)
class Figures:
    """One row of the table: a figure per seed. passes 0: no row of the grid but a level (fresh pairs, untrained)."""

    title: str
    passes: int
    neighbours: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def read_rows(table: Path) -> tuple[str, list[Figures]]:
    """(metric, rows that were judged). ValueError for a table without any."""
    if not table.is_file():
        raise ValueError(f"{table} does not exist: judge the sweep first (make sweep ... DAVIS=dir)")
    with open(table, newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    seeds = [name for name in (lines[0] if lines else {}) if "_seed_" in name]
    rows = []
    for line in lines:
        values = tuple(float(line[name]) for name in seeds if line[name])
        if values:
            data = load_config(None, [each for each in line["settings"].split("; ") if each]).data
            rows.append(Figures(line["title"], data.passes, len(data.offsets), values))
    if not any(row.passes for row in rows):
        raise ValueError(f"{table} holds no judged row that sets data.passes: it is no reuse sweep, or not judged yet")
    return seeds[0].rpartition("_seed_")[0], rows


def draw(metric: str, rows: list[Figures]) -> str:
    """The SVG. Passes are spaced by their logarithm."""
    grid = [row for row in rows if row.passes]
    passes = sorted({row.passes for row in grid})
    values = [value for row in rows for value in row.values]
    pad = 0.05 * (max(values) - min(values)) or 1.0
    low, high = min(values) - pad, max(values) + pad
    first, last = math.log2(passes[0]), math.log2(passes[-1])

    def x(count: int) -> float:
        return LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * (math.log2(count) - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    right = WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="13" role="img" aria-label="probe figure over anchors per video">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{right}" fill="none" stroke="#888888"/>',
        _text(LEFT, TOP - 12, f"{metric} of the probe; a dot per seed, lines through their means"),
        _text((LEFT + right) / 2, HEIGHT - 10, "anchors per video (passes), equal steps", anchor="middle"),
    ]
    parts += [_text(x(count), HEIGHT - BOTTOM + 20, str(count), anchor="middle") for count in passes]
    for tick in _ticks(low, high):
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:g}", anchor="end"))
    labels: list[tuple[float, str, str]] = []
    for level in (row for row in rows if not row.passes):
        top, bottom, mean = y(max(level.values)), y(min(level.values)), y(level.mean)
        parts.append(
            f'<rect x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{bottom - top:.1f}" fill="#777777" fill-opacity="0.13"/>'
        )
        parts.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{mean:.1f}" y2="{mean:.1f}" stroke="#555555" stroke-dasharray="5 4"/>'
        )
        labels.append((mean, level.title, "#555555"))
    for number, neighbours in enumerate(sorted({row.neighbours for row in grid})):
        color = COLORS[number % len(COLORS)]
        line = sorted((row for row in grid if row.neighbours == neighbours), key=lambda row: row.passes)
        points = " ".join(f"{x(row.passes):.1f},{y(row.mean):.1f}" for row in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        shift = 3 * (2 * number - 1)  # so that dots of equal height stay visible
        parts += [
            f'<circle cx="{x(row.passes) + shift:.1f}" cy="{y(value):.1f}" r="3.5" fill="{color}" fill-opacity="0.65"/>'
            for row in line
            for value in row.values
        ]
        name = (
            "all neighbours" if not neighbours else f"{neighbours} neighbour{'s' if neighbours > 1 else ''} per anchor"
        )
        labels.append((y(line[-1].mean), name, color))
    parts += [_text(right + 8, place + 4, name, color=color) for place, name, color in _apart(labels)]
    return "".join(parts) + "</svg>\n"


def _apart(labels: list[tuple[float, str, str]], least: float = 16.0) -> list[tuple[float, str, str]]:
    """The labels from top to bottom, moved down where two would cover each other."""
    placed: list[tuple[float, str, str]] = []
    for place, name, color in sorted(labels):
        placed.append((max(place, placed[-1][0] + least) if placed else place, name, color))
    return placed


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside the range, about five of them."""
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [round(step * number, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", color: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


@click.command()
@click.option("--sweep", type=click.Path(path_type=Path), required=True, help="Directory of a judged reuse sweep.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The SVG.")
@one_line_errors(out_of_memory="close something")
def main(sweep: Path, out: Path) -> None:
    """Draw the reuse sweep."""
    metric, rows = read_rows(sweep / "sweep.csv")
    write_atomic(out, draw("J&F" if metric == "JF" else metric, rows))
    click.echo(f"{out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
