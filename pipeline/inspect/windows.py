"""Windows of a set as pictures in a page: the anchor, the flow to every neighbour in colour, the neighbours' frames where they are kept.

Members of a few samples come in through `ShardSet`, checked; HTML goes out, with the pictures in it as data, so that the page is one file.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.flow_colors import flow_to_color, wheel_picture
from common.printable import printable_line
from shards import schema
from shards.codec import decode_flow
from shards.reader import ShardSet, decode_image
from shards.sample import optional_name

SIDE_PX, WHEEL_PX = 224, 132
LONGEST_NAME = 160
SATURATED = 99.5
"""Percentile of a window's motion that is drawn fully saturated, so that one wrong vector does not leave the rest white."""


def random_samples(data: ShardSet, count: int, seed: int) -> list[int]:
    """Samples to show, each equally likely, in the order of the index; the same for the same set and seed."""
    chosen = np.random.default_rng(seed).choice(len(data), min(count, len(data)), replace=False)
    return sorted(int(i) for i in chosen)


def wheel_html() -> str:
    """The one legend of all windows."""
    wheel = wheel_picture(WHEEL_PX)
    words = (
        "Colours of flow: the hue is where a pixel of the anchor has moved to, white has not moved, and the rim of the wheel is as many "
        "pixels as each window says (of the grid that flow is stored on); longer motion is darker. Black was not stored."
    )
    return f'<div class="legend">{_picture(wheel, "colour wheel of flow", "wheel")}<p class="dim">{words}</p></div>'


def window_html(data: ShardSet, i: int) -> str:
    """One sample. Raises SampleError where a member is damaged."""
    about, settings = data.json(i), data.manifest.settings
    flows = [_flow(data, i, k) for k in range(len(data.offsets))]
    scale = _scale_px([flow for flow in flows if flow is not None])
    anchor = decode_image(data.image_bytes(i), settings.image_size)
    title = f"anchor: {_when(about)}"
    figures = [_column([_figure(anchor, title)])]
    for k, flow in enumerate(flows):
        label = schema.offset_label(data.offsets[k])
        figures.append(_column(_neighbour(data, i, k, flow, scale, about["neighbours"][label])))
    name = printable_line(data.video[i])
    name = name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
    legend = f"{data.keys[i]}, pass {data.pass_index[i]}; rim of the wheel: {scale:.3g} px"
    return (
        f'<h4>{escape(name)} <span class="dim">{escape(legend)}</span></h4><div class="group">{"".join(figures)}</div>'
    )


def _neighbour(
    data: ShardSet, i: int, k: int, flow: NDArray[np.float32] | None, scale: float, about: dict[str, Any]
) -> list[str]:
    settings = data.manifest.settings
    words = f"{data.offsets[k]:+d}: {_when(about)}; {about['status'].replace('_', ' ')}"
    if flow is None:
        picture = np.zeros((settings.flow_size, settings.flow_size, 3), np.uint8)
    else:
        picture = flow_to_color(flow, scale)
        dx, dy = data.std_px[i, k]
        words += f", std {dx:.2f}, {dy:.2f} px, longest {float(np.hypot(*flow).max()):.3g} px"
    found = [_figure(picture, f"flow to {words}")]
    if settings.keep_neighbours:
        frame = decode_image(data.optional_bytes(i, k, "neighbour"), settings.image_size)
        found.append(_figure(frame, f"neighbour {data.offsets[k]:+d}"))
    if settings.keep_reverse and optional_name("reverse", data.offsets[k]) in [m.name for m in data.members(i)]:
        back = data.reverse(i, k)
        picture = flow_to_color(np.asarray(back.values_chw * np.float32(back.quantum_px), np.float32), scale)
        found.append(_figure(picture, f"flow back from {data.offsets[k]:+d}, on its own grid"))
    return found


def _flow(data: ShardSet, i: int, k: int) -> NDArray[np.float32] | None:
    if data.status(i, k) not in (schema.STORED, schema.STILL):
        return None
    side = data.manifest.settings.flow_size
    decoded = decode_flow(data.flow_bytes(i, k), (side, side))
    return np.asarray(decoded.values_chw * np.float32(decoded.quantum_px), np.float32)


def _scale_px(flows: Sequence[NDArray[np.float32]]) -> float:
    longest = max((float(np.percentile(np.hypot(*flow), SATURATED)) for flow in flows), default=0.0)
    return max(longest, 0.05)  # else the noise of a still window would shine


def _when(about: dict[str, Any]) -> str:
    return f"frame {about['frame']}, {about['time_s']:.3f} s"


def _column(figures: Sequence[str]) -> str:
    return f'<div class="column">{"".join(figures)}</div>'


def _figure(picture_hwc: NDArray[np.uint8], words: str) -> str:
    return f"<figure>{_picture(picture_hwc, words)}<figcaption>{escape(words)}</figcaption></figure>"


def _picture(picture_hwc: NDArray[np.uint8], words: str, kind: str = "") -> str:
    image = Image.fromarray(picture_hwc)
    if max(image.size) > SIDE_PX:
        image = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    data = b64encode(buffer.getvalue()).decode("ascii")
    mark = f' class="{kind}"' if kind else ""
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(words, quote=True)}" {size}{mark}>'
