"""A unit measured where memory runs out: smaller batches, said so, and an end where they can't become smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from probes.data.batching import BatchLimit
from probes.measure import Place, measure
from probes.sources.features import Encoding, Source
from probes.tasks.vos import LinearVos
from probes.tasks.vos_knn import KnnVos
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
