"""The curves of a run as one picture, curves.png beside log.jsonl: training loss and, where videos are held out, their figures.

The log's lines come in, also those from before a resume; of steps that were done again the later line counts.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

from shards.files import atomic_file

Curve = list[tuple[int, float]]
WIDTH, HEIGHT, MARGIN = 720, 220, 36
COLORS = {
    "training": "#1f4e9c",
    "held out": "#c8501e",
    "readout": "#1f4e9c",
    "mean flow": "#c8501e",
    "affine fit": "#2a8a4a",
}
# panel: title, and per curve its name, the event of the log and the key in it
PANELS = (
    ("loss", (("training", "step", "loss"), ("held out", "holdout", "loss"))),
    (
        "share of flow variance explained, held out",
        (("readout", "holdout", "explained"), ("affine fit", "holdout", "explained_by_affine")),
    ),
    (
        "end-point error in pixels, held out",
        (
            ("readout", "holdout", "epe_px"),
            ("mean flow", "holdout", "epe_px_of_mean"),
            ("affine fit", "holdout", "epe_px_of_affine"),
        ),
    ),
    (
        "patch lattice: share of the features' variance within patches",
        (("training", "step", "lattice"), ("held out", "holdout", "lattice")),
    ),
)


def read_curves(log: Path) -> dict[tuple[str, str], Curve]:
    """(event, key) -> (step, value) in order of steps, of every finite number in the log that `PANELS` shows."""
    wanted = {(event, key) for _, curves in PANELS for _, event, key in curves}
    points: dict[tuple[str, str], dict[int, float]] = {}
    for text in log.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # half a line, left by a killed machine
        for event, key in wanted:
            value = line.get(key) if line.get("event") == event else None
            if isinstance(value, int | float) and math.isfinite(value):
                points.setdefault((event, key), {})[int(line["step"])] = float(value)
    return {name: sorted(found.items()) for name, found in points.items()}


def write_curves(run_dir: Path) -> None:
    """Draw the log of a run; nothing where it holds no point yet."""
    found = read_curves(run_dir / "log.jsonl")
    panels = [
        (title, {name: found[event, key] for name, event, key in curves if (event, key) in found})
        for title, curves in PANELS
    ]
    drawn = [(title, curves) for title, curves in panels if curves]
    if not drawn:
        return
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(drawn)), "white")
    draw = ImageDraw.Draw(picture)
    for number, (title, curves) in enumerate(drawn):
        _panel(draw, number * HEIGHT, title, curves)
    with atomic_file(run_dir / "curves.png") as stream:
        picture.save(stream, format="PNG")


def _panel(draw: ImageDraw.ImageDraw, top: int, title: str, curves: dict[str, Curve]) -> None:
    steps = [step for curve in curves.values() for step, _ in curve]
    values = [value for curve in curves.values() for _, value in curve]
    (first, last), (low, high) = (min(steps), max(steps)), (min(values), max(values))
    left, right, upper, lower = 2 * MARGIN, WIDTH - MARGIN, top + MARGIN, top + HEIGHT - MARGIN
    draw.rectangle((left, upper, right, lower), outline="#999999")
    draw.text((left, top + 4), title, fill="black")
    draw.text((4, upper), f"{high:.4g}", fill="black")
    draw.text((4, lower - 10), f"{low:.4g}", fill="black")
    for step, x in ((first, left), (last, right - MARGIN)):
        draw.text((x, lower + 4), f"step {step}", fill="black")
    for number, (name, curve) in enumerate(curves.items()):
        places = [
            (
                left + (right - left) * (step - first) / max(last - first, 1),
                lower - (lower - upper) * (value - low) / ((high - low) or 1.0),
            )
            for step, value in curve
        ]
        draw.line(places, fill=COLORS[name], width=2)
        for across, down in places if len(places) < 40 else ():
            draw.ellipse((across - 2, down - 2, across + 2, down + 2), fill=COLORS[name])
        draw.text((left + 120 * number, top + 18), name, fill=COLORS[name])
