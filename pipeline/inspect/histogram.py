"""Histograms as inline SVG; colours are the page's own, words stay readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, TOP, BOTTOM, SIDE = 340, 150, 18, 34, 6

STYLE = """
svg rect { fill: var(--bar); } svg rect:hover { fill: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1.25rem; }
.charts figcaption { max-width: 22rem; }
"""


def histogram(counts: Sequence[int], names: Sequence[str], ticks: Sequence[tuple[float, str]], axis: str) -> str:
    """A bar per count. names: of the bars, shown when one points at them. ticks: (place in bars from the left, label).

    Empty without counts.
    """
    most = max(counts, default=0)
    if not most:
        return ""
    wide, high = (WIDTH - 2 * SIDE) / len(counts), HEIGHT - TOP - BOTTOM
    label = escape(f"{axis}: histogram of {sum(counts):,}", quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">']
    for number, (count, name) in enumerate(zip(counts, names, strict=True)):
        if count:
            tall = max(1.0, high * count / most)
            x, y = SIDE + number * wide, TOP + high - tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, wide - 1):.1f}" height="{tall:.1f}">'
                f"<title>{escape(name)}: {count:,}</title></rect>"
            )
    bottom = TOP + high
    parts.append(f'<line class="rule" x1="{SIDE}" x2="{WIDTH - SIDE}" y1="{bottom}" y2="{bottom}"/>')
    for edge, text in ticks:
        x = SIDE + edge * wide
        anchor = "start" if edge == 0 else "end" if edge == len(counts) else "middle"
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="{anchor}">{escape(text)}</text>')
    parts.append(f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(axis)}</text>')
    parts.append(f'<text class="tick" x="{SIDE}" y="11">tallest bar: {most:,}</text>')
    return "".join(parts) + "</svg>"
