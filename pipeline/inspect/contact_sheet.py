"""A shard set → one PNG contact sheet: what was stored, as a person would check it.

One row per sample: the anchor, then every neighbour's flow on the colour wheel (one scale per row, so that ±1 and
±2 compare), each with its statistics. Flow that was not stored, or not to be trained on, says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.flow_colors import flow_to_color
from common.printable import printable_line
from shards import schema
from shards.codec import decode_flow
from shards.files import write_atomic
from shards.reader import ShardSet, decode_image
from shards.storage import is_url

_CELL, _TEXT, _GAP = 224, 44, 6


def sheet_path(shard_set: Path, wanted: Path | None) -> Path:
    """Where the sheet goes: beside the set unless told otherwise.

    Raises ValueError for a path inside the set: nothing may lie there that its manifest does not list; and for a name that is no PNG's.
    """
    if wanted is not None and wanted.suffix.lower() != ".png":
        raise ValueError(f"--out is {wanted}, and a contact sheet is a PNG; give a name that ends in .png")
    inside = shard_set.resolve()
    path = wanted or inside.with_name(f"{inside.name}-contact-sheet.png")
    place_beside(str(shard_set), path, "--out")
    return path


def place_beside(shard_set: Path | str, path: Path, option: str) -> None:
    """Raises ValueError for a path inside the set, or the set itself. option: what names the path."""
    if not is_url(shard_set):
        inside = Path(shard_set).resolve()
        if inside == path.resolve() or inside in path.resolve().parents:
            raise ValueError(f"{path} lies inside the set {shard_set}; give {option} another place")


def choose_samples(data: ShardSet, count: int, keys: Sequence[str]) -> list[int]:
    """Samples to draw: the named ones, or `count` spread evenly over the set. Raises ValueError for an unknown key."""
    if keys:
        position = {key: i for i, key in enumerate(data.keys)}
        unknown = [k for k in keys if k not in position]
        if unknown and not len(data):
            raise ValueError(f"no sample is called {unknown[0]!r}: the set holds none")
        if unknown:
            raise ValueError(
                f"no sample is called {unknown[0]!r}; the first is {data.keys[0]!r}, the last {data.keys[-1]!r}"
            )
        return [position[k] for k in keys]
    return sorted(set(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int).tolist()))


def contact_sheet(data: ShardSet, samples: Sequence[int]) -> NDArray[np.uint8]:
    """[H, W, 3] uint8: a row per sample, a column for the anchor and one per neighbour."""
    columns = 1 + len(data.offsets)
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, len(samples) * (_CELL + _TEXT + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, i in enumerate(samples):
        top = _GAP + row * (_CELL + _TEXT + _GAP)
        anchor = Image.fromarray(decode_image(data.image_bytes(i), data.manifest.settings.image_size))
        sheet.paste(anchor.resize((_CELL, _CELL), Image.Resampling.BILINEAR), (_GAP, top))
        name = printable_line(data.video[i])
        name = name if len(name) <= 34 else "…" + name[-33:]
        draw.text((_GAP, top + _CELL + 2), f"{data.keys[i]}\n{name}\nframe {data.frame[i]}", fill="black", spacing=1)
        flows = _flows(data, i)
        scale = max((float(np.hypot(*f).max()) for f in flows if f is not None), default=1.0)
        for k, flow in enumerate(flows):
            left = _GAP + (k + 1) * (_CELL + _GAP)
            if flow is not None:
                picture = Image.fromarray(flow_to_color(flow, max(scale, 1e-3)))
                sheet.paste(picture.resize((_CELL, _CELL), Image.Resampling.NEAREST), (left, top))
            draw.text((left, top + _CELL + 2), _caption(data, i, k, flow), fill="black", spacing=1)
    return np.asarray(sheet)


def _flows(data: ShardSet, i: int) -> list[NDArray[np.float32] | None]:
    side = data.manifest.settings.flow_size
    flows: list[NDArray[np.float32] | None] = []
    for k in range(len(data.offsets)):
        if data.status(i, k) not in (schema.STORED, schema.STILL):
            flows.append(None)
            continue
        decoded = decode_flow(data.flow_bytes(i, k), (side, side))
        flows.append(decoded.values_chw * np.float32(decoded.quantum_px))
    return flows


def _caption(data: ShardSet, i: int, k: int, flow: NDArray[np.float32] | None) -> str:
    head = f"t{data.offsets[k]:+d}  {data.status(i, k)}"
    if flow is None:
        return head
    dx, dy = data.std_px[i, k]
    quantum = f"1/{2 ** -int(data.quantum_exponent[i, k])}"
    peak = float(np.hypot(*flow).max())
    return f"{head}  quantum {quantum} px\nstd {dx:.2f}, {dy:.2f} px\nmax {peak:.2f} px"


def write_png(path: Path, picture_hwc: NDArray[np.uint8]) -> None:
    """PNG through the atomic writer."""
    buffer = BytesIO()
    Image.fromarray(picture_hwc).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
