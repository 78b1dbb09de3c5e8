"""The generator's difficulty drives every probe to what an answer scores that looks at no feature; plain scenes lie above it.

A probe that stays above chance where there is nothing to see has found something else than features; one that isn't above it where
everything is plain to see can't tell features apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.synth import Style, generate, write_stills
from probes import embedded
from probes.report.records import CHANCE
from probes.report.tables import CHANCE_TITLE, Section, main_table
from probes.run import Request, run_tasks
from probes.task import Task
from probes.tasks.table import TASKS

LEVELS = (0.0, 0.7, 1.0)
SOURCE = "flowfeat"
SMALL: dict[str, dict[str, Any]] = {
    "vos": {"height_px": 96, "iterations": 60},
    "vos-knn": {"height_px": 96},
    "segmentation": {"size_px": 64, "iterations": 60, "batch": 4, "learning_rate": 3e-2},
    "segmentation-linear": {"size_px": 64, "iterations": 60, "learning_rate": 2e-2},
    "segmentation-knn": {"size_px": 64},
    "depth": {"side_px": 64, "iterations": 60, "learning_rate": 1e-2, "bins": 32},
    "homography": {"height_px": 96, "views": 2, "points": 64, "warp": 0.45},
    "tracking": {"side_px": 128},
}
BETTER, NO_BETTER = 1.1, 1.03
"""Times chance: at least so good where all is plain to see, at most so good where nothing is."""

Scores = dict[float, dict[str, Section]]


@pytest.fixture(scope="module")
def scores(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Fast motion and strong warps, so that staying in place is a poor answer."""
    root, found = tmp_path_factory.mktemp("difficulty"), {}
    for level in LEVELS:
        folder = root / str(level)
        generate(folder, 0, 2, 3, frames=14, size=(96, 128), style=Style(speed=4.0, difficulty=level))
        write_stills(folder, 12, 3, size=(96, 128), style=Style(difficulty=level))
        kinds = [task for task in TASKS if task.name in SMALL]
        tasks = embedded.tasks(kinds, folder, lambda kind: SMALL[kind.name])
        request = Request(checkpoint, folder / "report", (SOURCE,), 0, False, "cpu", TASKS)
        found[level] = {section.task.name: section for section in run_tasks(tasks, request)}
    return found


def _gain(scores: Scores, level: float, task: type[Task]) -> float:
    """How many times chance the headline metric is, or chance of it where less is better."""
    section, metric = scores[level][task.name], task.metric(task.headline)
    score, chance = section.mean(SOURCE, metric.name), section.mean(CHANCE, metric.name)
    assert score is not None and chance is not None, f"{task.name} computes no chance level"
    return score / chance if metric.higher_is_better else chance / score


@pytest.mark.parametrize("task", [task for task in TASKS if task.name in SMALL], ids=lambda task: task.name)
def test_what_is_plain_is_found_and_what_is_hidden_is_not(scores: Scores, task: type[Task]) -> None:
    plain, veiled, hidden = (_gain(scores, level, task) for level in LEVELS)
    assert plain >= BETTER, f"{plain:.3f} times chance"
    assert hidden <= NO_BETTER, f"{hidden:.3f} times chance"
    assert veiled < plain


def test_chance_stands_below_and_is_never_ranked(scores: Scores) -> None:
    """On blank frames it scores more than any source of the VOS probe, and is still not the best of the table."""
    table = main_table(scores[1.0]["vos"])
    assert table.rows[-1][0] == CHANCE_TITLE and float(table.rows[-1][1]) > float(table.rows[0][1])
    assert table.best == 0
