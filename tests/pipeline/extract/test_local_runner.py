"""Worker processes that die: a chunk gets a second try, then the run ends and says how it died."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.extract.run import ExtractionRequest, stated
from pipeline.extract.runner import ExtractionError
from pipeline.flow.dis import DisFlow
from pipeline.flow.estimator import FlowEstimator, choose
from pipeline.window import Window, WindowFlow
from shards.schema import Settings, Statement
from tests.pipeline.extract.small_extraction import SMALL, digests, make_videos, request, run


class Dying:
    """DIS in a process that ends as long as there are fewer marks than deaths wanted."""

    name = "dis"

    def __init__(self, marks: Path, deaths: int) -> None:
        self.marks, self.deaths, self.dis = marks, deaths, DisFlow()

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        if len(list(self.marks.iterdir())) < self.deaths:
            (self.marks / str(os.getpid())).touch()
            os._exit(7)
        return self.dis.estimate(windows)


@dataclass(frozen=True)
class DyingChoice:
    """deaths: of workers before the estimator works; below 0, while it is being built."""

    marks: Path
    deaths: int
    name = "dis"
    smallest_side_px = 1

    def statement(self) -> Statement:
        return choose("dis").statement()

    def build(self) -> FlowEstimator:
        if self.deaths < 0:
            os._exit(7)
        return Dying(self.marks, self.deaths)


def dying(tmp_path: Path, deaths: int) -> ExtractionRequest:
    videos, marks = make_videos(tmp_path / "videos", 5), tmp_path / "marks"
    marks.mkdir()
    choice = DyingChoice(marks, deaths)
    settings = Settings(dataset="folder", estimator=stated(choice), **SMALL)
    return ExtractionRequest(videos, tmp_path / "set", settings, choice, passes=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_death_costs_one_try(tmp_path: Path, workers: int) -> None:
    run(dying(tmp_path, deaths=1), workers)
    run(request(tmp_path / "videos", tmp_path / "whole"))
    assert digests(tmp_path / "set") == digests(tmp_path / "whole")


def test_a_second_death_at_the_same_chunk_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"the worker for chunk 0 died 2 times \(exit code 7; .*fewer --workers"):
        run(dying(tmp_path, deaths=2))


def test_a_death_while_building_the_estimator_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"died while building the flow estimator \(exit code 7;"):
        run(dying(tmp_path, deaths=-1))
    assert not (tmp_path / "set").exists()
