"""Charts as inline SVG: figures of rows as dots, training curves as lines. No script; colours are the page's own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from probes.sweep.comparison import Line

Curve = Sequence[tuple[int, float]]

WIDTH, ROW_HEIGHT, LABEL = 720, 26, 260
CURVE_WIDTH, CURVE_HEIGHT, MARGIN = 300, 150, 34


def dot_chart(lines: Sequence[Line], metric: str, digits: int = 1) -> str:
    """A line per row: a dot per seed, a stroke at their mean; the baseline's mean goes through all rows. Empty without figures."""
    shown = [line for line in lines if line.figure is not None]
    if not shown:
        return ""
    values = [value for line in shown for value in line.by_seed.values()]
    low, high = _padded(min(values), max(values))
    height = ROW_HEIGHT * len(shown) + 24

    def x(value: float) -> float:
        return LABEL + (WIDTH - LABEL - 12) * (value - low) / (high - low)

    parts = [_svg(WIDTH, height, f"{metric} of every row and seed")]
    for line in shown:
        if line.verdict == "baseline" and line.figure is not None:
            place = x(line.figure.mean)
            parts.append(f'<line class="base" x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{height - 20}"/>')
    for number, line in enumerate(shown):
        y = ROW_HEIGHT * number + ROW_HEIGHT / 2
        parts.append(f'<text x="{LABEL - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(_cut(line.row.title))}</text>')
        parts.append(f'<line class="rule" x1="{LABEL}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for seed, value in sorted(line.by_seed.items()):
            tip = f"<title>{escape(line.row.title)}, seed {seed}: {value:.{digits + 1}f}</title>"
            parts.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4">{tip}</circle>')
        if line.figure is not None:
            place = x(line.figure.mean)
            parts.append(f'<line class="mean" x1="{place:.1f}" x2="{place:.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}"/>')
    parts += [
        f'<text class="tick" x="{x(value):.1f}" y="{height - 6}" text-anchor="{anchor}">{value:.{digits}f}</text>'
        for value, anchor in ((low, "start"), (high, "end"))
    ]
    return "".join(parts) + "</svg>"


def curve_chart(title: str, curves: dict[int, Curve]) -> str:
    """The loss over steps, a line per seed. Empty without two points of any."""
    known = {seed: curve for seed, curve in curves.items() if len(curve) > 1}
    if not known:
        return ""
    steps = [step for curve in known.values() for step, _ in curve]
    losses = [loss for curve in known.values() for _, loss in curve]
    first, last = min(steps), max(steps)
    low, high = _padded(min(losses), max(losses))

    def point(step: int, loss: float) -> str:
        across = (CURVE_WIDTH - MARGIN - 6) * (step - first) / max(last - first, 1)
        down = (CURVE_HEIGHT - MARGIN) * (high - loss) / (high - low)
        return f"{MARGIN + across:.1f},{8 + down:.1f}"

    bottom = CURVE_HEIGHT - MARGIN + 8
    parts = [_svg(CURVE_WIDTH, CURVE_HEIGHT, f"loss of {title}")]
    parts.append(f'<line class="rule" x1="{MARGIN}" x2="{CURVE_WIDTH - 6}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<line class="rule" x1="{MARGIN}" x2="{MARGIN}" y1="8" y2="{bottom}"/>')
    for seed, curve in sorted(known.items()):
        points = " ".join(point(step, loss) for step, loss in curve)
        parts.append(f'<polyline points="{points}"><title>seed {seed}</title></polyline>')
    parts.append(f'<text class="tick" x="{MARGIN - 4}" y="14" text-anchor="end">{high:.2g}</text>')
    parts.append(f'<text class="tick" x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.2g}</text>')
    parts.append(f'<text class="tick" x="{CURVE_WIDTH - 6}" y="{bottom + 16}" text-anchor="end">step {last}</text>')
    return "".join(parts) + "</svg>"


def _svg(width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{escape(label)}">'


def _padded(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty, a little wider than the data."""
    pad = 0.04 * (high - low) or max(0.5, 0.01 * abs(high))
    return low - pad, high + pad


def _cut(text: str, most: int = 38) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
