"""A video with cuts is decoded once where its frames fit, and twice, to the same windows, where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.video import kept_frames
from pipeline.video.cut_rule import CutRule
from pipeline.video.kept_frames import KeptFrames
from pipeline.video.messages import DecodeRequest
from pipeline.video.rejects import Reject
from pipeline.video.windows import gather
from tests.pipeline.video.asking import OFFSETS

COUNT = 40
FRAMES = np.random.default_rng(0).integers(0, 8, (COUNT, 48, 64, 3), np.uint8)
FRAMES[:20] += np.array([200, 80, 20], np.uint8)
FRAMES[20:] += np.array([20, 80, 200], np.uint8)  # one cut


class Source:
    """COUNT frames in memory. sweeps: what has been asked for. lost: from which sweep on the last frame does not come."""

    engine = "memory"

    def __init__(self, lost: int = 99) -> None:
        self.times_s = np.arange(COUNT) / 25
        self.sweeps: list[list[int]] = []
        self.lost = lost

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        self.sweeps.append(list(indices))
        gone = COUNT - 1 if len(self.sweeps) >= self.lost else None
        yield from ((index, FRAMES[index]) for index in indices if index != gone)

    def close(self) -> None:
        self.sweeps.append([])


def request(passes: range) -> DecodeRequest:
    return DecodeRequest(
        path="a.mp4",
        kind="file",
        fps=None,
        video_id="a",
        seed=0,
        passes=tuple(passes),
        offsets=OFFSETS,
        image_size=32,
        flow_size=16,
        keep_neighbours=True,
        places=tuple(0 for _ in passes),
        cuts=CutRule("content", 27.0),
    )


def test_frames_that_fit_are_read_once() -> None:
    source = Source()
    kept = KeptFrames(source)
    assert np.array_equal(np.stack(list(kept.all_frames())), FRAMES)
    found = dict(kept.fetch([0, 7, COUNT - 1]))
    assert list(found) == [0, 7, COUNT - 1] and all(np.array_equal(found[index], FRAMES[index]) for index in found)
    assert source.sweeps == [list(range(COUNT))]
    kept.close()
    assert source.sweeps[1:] == [[]]


@pytest.mark.parametrize("room", [0, FRAMES.nbytes - 1, FRAMES.nbytes])
def test_more_frames_than_there_is_room_for_are_read_again(room: int) -> None:
    source = Source()
    kept = KeptFrames(source, room)
    assert sum(1 for _ in kept.all_frames()) == COUNT
    assert [index for index, _ in kept.fetch([3, 4])] == [3, 4]
    assert source.sweeps == [list(range(COUNT))] + ([] if room == FRAMES.nbytes else [[3, 4]])


def test_a_sweep_that_breaks_off_keeps_nothing() -> None:
    source = Source()
    kept = KeptFrames(source)
    next(kept.all_frames())
    assert [index for index, _ in kept.fetch([COUNT - 1])] == [COUNT - 1]
    assert source.sweeps[1:] == [[COUNT - 1]]


def test_windows_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")
    once, again = Source(), Source()
    header, arrays = gather(once, request(range(12)))
    assert header.facts.n_cuts == 1 and len(once.sweeps) == 2, "one sweep and the end"
    monkeypatch.setattr(kept_frames.KeptFrames.__init__, "__defaults__", (0,))
    other_header, other_arrays = gather(again, request(range(12)))
    assert header == other_header and len(again.sweeps) == 3
    for one, other in zip(arrays, other_arrays, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_frame_that_does_not_come_is_never_made_up() -> None:
    """The sweep for the cuts has lacked it: the block that frames are kept in would hold what memory held before."""
    pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")
    with pytest.raises(Reject, match=r"1 of \d+ frames did not come out of the decoder") as caught:
        gather(Source(lost=1), request(range(200)))
    assert caught.value.reason == "corrupt"
