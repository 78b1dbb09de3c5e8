"""One video to its windows, inside the decoding process: open, draw, sweep, crop.

Comes in: a `DecodeRequest`. The time stamps give the valid anchors, (seed, id, pass) draws one for each pass, and the union of all
frames that these windows need is read in one ascending sweep; every frame is cropped and resized once. Where the set leaves out
windows across shot cuts, the sweep is over all frames, which are kept until the cuts are known and the anchors drawn. Goes out: a
`DecodeHeader` and the arrays of each pass, or a Reject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.video.cut_rule import CutRule
from pipeline.video.cuts import crossing, find_cuts
from pipeline.video.decord_frames import DecordFrames
from pipeline.video.folder_frames import FolderFrames
from pipeline.video.frame_source import EngineFailure, FrameSource, RepeatedFrames
from pipeline.video.geometry import FrameSizeError, centre_square, shrink_square
from pipeline.video.kept_frames import KeptFrames
from pipeline.video.messages import DecodeHeader, DecodeRequest, VideoFacts, WindowFrames
from pipeline.video.pyav_frames import PyAVFrames, import_av
from pipeline.video.rejects import Reject, check_file, is_container
from pipeline.video.sampling import draw_anchor, nominal_interval_s, valid_anchors


@dataclass(frozen=True)
class Squares:
    """A frame as it is stored and as the flow network sees it. image_hwc is None where only the flow square is needed."""

    image_hwc: NDArray[np.uint8] | None
    flow_hwc: NDArray[np.uint8]


def decode(request: DecodeRequest) -> tuple[DecodeHeader, list[list[NDArray[np.uint8]]]]:
    """(header, per pass the arrays of its message). Raises Reject.

    decord is asked first; where it runs past the last real frame the file is counted and read again, where it fails PyAV takes over.
    """
    path = Path(request.path)
    if request.kind == "frames":
        assert request.fps is not None
        return gather(FolderFrames(path, request.fps), request)
    head = check_file(path)
    with plainly_named(path) as alias:
        try:
            return _from_file(alias, head, request)
        except Reject as reject:
            raise Reject(reject.reason, reject.detail.replace(str(alias), str(path))) from reject


def _from_file(path: Path, head: bytes, request: DecodeRequest) -> tuple[DecodeHeader, list[list[NDArray[np.uint8]]]]:
    try:
        try:
            return gather(DecordFrames(path, head), request)
        except RepeatedFrames:
            return gather(DecordFrames(path, head, counted=True), request)
    except EngineFailure as failure:
        return gather(_second_engine(path, head, failure), request)


@contextmanager
def plainly_named(path: Path) -> Iterator[Path]:
    """`path` under a name that video libraries take: they want UTF-8, and file names may be any bytes."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield Path(f"/dev/fd/{file.fileno()}")
    else:
        yield path


def _second_engine(path: Path, head: bytes, failure: EngineFailure) -> FrameSource:
    """PyAV, or the Reject that decord's message stands for where PyAV is not installed."""
    try:
        import_av()
    except ImportError as error:
        raise Reject(*explain_decord(path, head, str(failure))) from error
    return PyAVFrames(path, head)


def explain_decord(path: Path, head: bytes, message: str) -> tuple[str, str]:
    """(reason, detail) for a failure of decord alone. FFmpeg's error codes: 'STR' (stream not found) and 'DEC' (decoder not found)."""
    detail = f"{path}: {message}"
    if not is_container(head):
        return "not_a_video", detail
    if "-1381258232" in message:
        return "no_video_stream", detail
    if any(sign in message for sign in ("-1128613112", "duration/frame-count", "loses count")):
        return "unsupported_codec", f"{detail} (PyAV may read it: pip install av)"
    return "corrupt", detail


def gather(source: FrameSource, request: DecodeRequest) -> tuple[DecodeHeader, list[list[NDArray[np.uint8]]]]:
    """Draw the anchors, read every needed frame once, and put the windows together in the order of the passes."""
    times_s = source.times_s
    anchors, neighbours = valid_anchors(times_s, request.offsets)
    if not len(anchors):
        found = f"{len(times_s)} frame{'' if len(times_s) == 1 else 's'}"
        raise Reject(
            "too_short", f"{request.path}: none of its {found} has neighbours at all of {_signed(request.offsets)}"
        )
    n_cuts, across = 0, 0
    if request.cuts is not None:
        source = kept = KeptFrames(source)
        cuts = _cuts(kept, request.cuts, request.path)
        crosses = crossing(anchors, neighbours, cuts)
        n_cuts, across = len(cuts), int(crosses.sum())
        anchors, neighbours = anchors[~crosses], neighbours[~crosses]
        if not len(anchors):
            raise Reject(
                "only_across_cuts", f"{request.path}: {n_cuts} shot cuts, and all of its {across} windows cross one"
            )
    drawn = [draw_anchor(request.seed, request.video_id, p, len(anchors)) for p in request.passes]
    with_image = set(anchors[drawn].tolist()) | (
        set(neighbours[drawn].ravel().tolist()) if request.keep_neighbours else set()
    )
    needed = sorted(with_image | set(neighbours[drawn].ravel().tolist()))

    squares: dict[int, Squares] = {}
    size = (0, 0)
    try:
        for index, frame_hwc in source.fetch(needed):
            size = frame_hwc.shape[1], frame_hwc.shape[0]
            image_hwc = centre_square(frame_hwc, request.image_size)
            squares[index] = Squares(
                image_hwc if index in with_image else None, shrink_square(image_hwc, request.flow_size)
            )
    except FrameSizeError as error:
        raise Reject("too_small", f"{request.path}: {error}") from error
    finally:
        source.close()
    if len(squares) != len(needed):
        raise Reject(
            "corrupt",
            f"{request.path}: {len(needed) - len(squares)} of {len(needed)} frames did not come out of the decoder",
        )

    interval_s = nominal_interval_s(times_s)
    facts = VideoFacts(
        n_frames=len(times_s),
        n_anchors=len(anchors),
        fps=1.0 / interval_s,
        width=size[0],
        height=size[1],
        duration_s=float(times_s[-1] - times_s[0] + interval_s),
        engine=source.engine,
        frames_decoded=len(needed),
        n_cuts=n_cuts,
        n_anchors_across=across,
    )
    windows = tuple(
        WindowFrames(
            anchor_index=int(anchors[d]),
            anchor_time_s=float(times_s[anchors[d]]),
            neighbour_indices=tuple(neighbours[d].tolist()),
            neighbour_times_s=tuple(times_s[neighbours[d]].tolist()),
        )
        for d in drawn
    )
    arrays = [_arrays(squares, int(anchors[d]), neighbours[d].tolist(), request.keep_neighbours) for d in drawn]
    return DecodeHeader(facts, windows), arrays


def _cuts(source: KeptFrames, rule: CutRule, path: str) -> NDArray[np.int64]:
    """The cuts of a video, out of all of its frames: which anchors can be drawn depends on all of them.

    Raises Reject("many_cuts").
    """
    times_s = source.times_s
    cuts = find_cuts(source.all_frames(), rule)
    duration_s = float(times_s[-1] - times_s[0] + nominal_interval_s(times_s))
    if rule.too_many(len(cuts), duration_s):
        raise Reject(
            "many_cuts",
            f"{path}: {len(cuts)} shot cuts in {duration_s:.1f} s, more than {rule.most_per_minute:g} per minute",
        )
    return cuts


def _arrays(
    squares: dict[int, Squares], anchor: int, neighbours: Sequence[int], keep_neighbours: bool
) -> list[NDArray[np.uint8]]:
    """The arrays of one message, neighbours not stacked yet: they are views of shared squares until they are sent."""
    image_hwc = squares[anchor].image_hwc
    assert image_hwc is not None
    arrays = [image_hwc, squares[anchor].flow_hwc] + [squares[n].flow_hwc for n in neighbours]
    if keep_neighbours:
        arrays += [image for n in neighbours if (image := squares[n].image_hwc) is not None]
    return arrays


def _signed(offsets: Sequence[int]) -> str:
    return ", ".join(f"{k:+d}" for k in offsets)
