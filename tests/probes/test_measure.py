"""A unit measured where memory runs out: smaller batches, said so, and an end where they can't become smaller."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.data.batching import BatchLimit
from probes.heads.matching import best_cells
from probes.measure import Place, measure
from probes.sources.features import Encoding, Source
from probes.task import Unit
from probes.tasks.depth import Depth, Training
from probes.tasks.homography import HomographyMatching
from probes.tasks.tracking import Tracking
from probes.tasks.vos import LinearVos
from probes.tasks.vos_knn import KnnVos
from tests.probes.data.test_homographies import coordinate_picture
from tests.probes.small_depth import PIXELS as DEPTH_PIXELS
from tests.probes.small_depth import write_folder
from tests.probes.tasks.test_homography_task import PIXELS as PLACES
from tests.probes.tasks.test_vos import COLORS, Pixels

CPU = torch.device("cpu")


class Small(Pixels):
    """An encoder that has memory for `most` pictures."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.batches: list[int] = []

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        self.batches.append(len(images_bhwc))
        if len(images_bhwc) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")
        return super().encode(images_bhwc)


@pytest.mark.parametrize("task", [LinearVos, KnnVos])
def test_batches_are_halved_until_they_fit(davis: Path, tmp_path: Path, task: type[LinearVos | KnnVos]) -> None:
    (unit,) = task(root=davis, height_px=64, sequences=("boxes",)).units()
    said: list[str] = []
    steps: list[int] = []

    def rows(most: int) -> object:
        source = Source("flowfeat", Small(most), COLORS.decode)
        place = Place(tmp_path, task.name, "x")
        measured = measure(unit, [source], place, CPU, 0, step=steps.append, say=said.append)
        assert len(measured.pictures) == len({picture.file for picture in measured.pictures}), "each of them once"
        return measured.rows

    plenty = rows(8)
    assert said == []
    assert sum(steps) == unit.steps
    assert rows(1) == plenty
    assert said == [
        "boxes: memory ran out; once more with at most 4 pictures at a time",
        "boxes: memory ran out; once more with at most 2 pictures at a time",
        "boxes: memory ran out; once more with at most 1 pictures at a time",
    ]
    assert sum(steps) == 2 * unit.steps, "what was done in vain is taken back"
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        rows(0)


@dataclass(frozen=True)
class Limited:
    """The encoder of `source` with memory for `most` pictures."""

    source: Source
    most: int
    batches: list[int] = field(default_factory=list)

    @property
    def size_multiple(self) -> int:
        return self.source.encoder.size_multiple

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        self.batches.append(len(images_bhwc))
        if len(images_bhwc) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.source.encoder.encode(images_bhwc)


def _depth(root: Path) -> tuple[Unit, Source]:
    task = Depth(write_folder(root, 10), 48, iterations=4, batch=6, learning_rate=2e-2, bins=8, farthest_m=5.0)
    return task.units()[0], DEPTH_PIXELS


def _homography(root: Path) -> tuple[Unit, Source]:
    coordinate_picture().save(root / "a.png")
    return HomographyMatching(root, height_px=96, views=5, points=50, matched="decoder").units()[0], PLACES


def _tracking(root: Path) -> tuple[Unit, Source]:
    picture = np.asarray(coordinate_picture())
    video = np.stack([picture[16:80, 4 * t : 4 * t + 64] for t in range(6)])
    points = np.random.default_rng(0).uniform(0.5, 0.9, (9, 1, 2)) - np.arange(6)[None, :, None] * (4 / 64, 0)
    np.savez(root / "slide.npz", video=video, points=points, occluded=np.zeros((9, 6), bool))
    return Tracking(root, side_px=64, matched="decoder").units()[0], PLACES


@pytest.mark.parametrize("make", [_depth, _homography, _tracking])
def test_what_is_not_a_labelled_video_is_halved_too(
    tmp_path: Path, make: Callable[[Path], tuple[Unit, Source]]
) -> None:
    unit, source = make(tmp_path)
    said: list[str] = []

    def rows(most: int) -> object:
        limited = Limited(source, most)
        steps: list[int] = []
        small = replace(source, encoder=limited)
        place = Place(tmp_path / "out", "x", "x")
        found = measure(unit, [small], place, CPU, 0, step=steps.append, say=said.append).rows
        assert sum(steps) == unit.steps, "what was done in vain is taken back"
        assert limited.batches[-1] <= most
        return found

    plenty = rows(8)
    assert said == []
    assert rows(1) == plenty
    assert all("memory ran out; once more with at most" in line for line in said)
    assert re.search(r"at most 1 pictures", said[-1]), said
    with pytest.raises(RuntimeError, match="out of memory"):
        rows(0)


@pytest.mark.parametrize("make", [_homography, _tracking])
def test_fewer_points_are_looked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], tuple[Unit, Source]]
) -> None:
    unit, source = make(tmp_path)

    def cells(wanted: torch.Tensor, cells: torch.Tensor, size: tuple[float, float], chunk: int) -> torch.Tensor:
        if chunk > 40:
            raise MemoryError
        return best_cells(wanted, cells, size, chunk)

    said: list[str] = []
    for module in ("homography", "tracking"):
        monkeypatch.setattr(f"probes.tasks.{module}.best_cells", cells)
    measure(unit, [source], Place(tmp_path / "out", "x", "x"), CPU, 0, step=lambda _: None, say=said.append)
    assert "and 32 points at a time" in said[-1]


def test_features_are_no_longer_kept_where_memory_ran_out(tmp_path: Path) -> None:
    unit, source = _depth(tmp_path)
    assert isinstance(unit, Training)
    limit = BatchLimit()
    kept = [limit.keeps(5, 10), limit.halve(), limit.keeps(5, 10), limit.halve()]
    assert kept == [True, True, False, False]
    limited = Limited(source, 2)
    place, said = Place(tmp_path / "out", "x", "x"), list[str]()
    measure(unit, [replace(source, encoder=limited)], place, CPU, 0, step=lambda _: None, say=said.append)
    assert len(said) == 2, said
    assert sum(limited.batches[-12 - 3 :]) == 4 * 6 + 3, (
        "four batches of six in pairs, none of them kept, and three tests"
    )


def test_other_errors_are_not_taken_for_a_lack_of_memory(davis: Path, tmp_path: Path) -> None:
    class Broken(Pixels):
        def encode(self, images_bhwc: torch.Tensor) -> Encoding:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    (unit,) = LinearVos(root=davis, height_px=64, sequences=("boxes",)).units()
    with pytest.raises(RuntimeError, match="mat1"):
        source = Source("flowfeat", Broken(), COLORS.decode)
        measure(unit, [source], Place(tmp_path, "vos", "x"), CPU, 0, step=lambda steps: None, say=pytest.fail)


def test_a_limit_halves_what_was_taken() -> None:
    limit = BatchLimit()
    assert limit.pictures((256, 256), CPU) == 6
    assert limit.halve() and limit.pictures((256, 256), CPU) == 3
    assert limit.halve() and limit.pictures((256, 256), CPU) == 1
    assert not limit.halve()
