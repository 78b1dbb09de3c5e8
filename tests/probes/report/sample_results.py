"""Stored results of the segmentation task as the report's tests read them, with names that bite."""

from __future__ import annotations

from probes.report.store import Results, UnitRecord
from probes.report.tables import Section
from probes.task import Row, Scalar
from probes.tasks.vos import LinearVos

SOURCES = ["encoder", "random_decoder", "flowfeat"]
EVIL = '"><script>alert(1)</script> & | [x](http://evil) ![y](http://evil/z.png)'


def row(part: int, j: float, f: float) -> Row:
    values = {"JF": (j + f) / 2, "J": j, "J_recall": j / 2, "J_decay": 0.1, "F": f, "F_recall": f / 2, "F_decay": -0.1}
    return Row(str(part), values)


def sample_results() -> Results:
    """Two sequences: one object and two objects, so that a mean over objects differs from a mean over sequences."""
    settings: dict[str, Scalar] = {"variant": "dinov2_vits14", "height": 480, "model": EVIL}
    results = Results("vos", settings, {"device": "cpu"}, ["one", EVIL], list(SOURCES))
    one = {source: [row(1, 0.2 + i / 10, 0.4)] for i, source in enumerate(SOURCES)}
    two = {source: [row(1, 0.5 + i / 10, 0.1), row(2, 0.8, 0.7)] for i, source in enumerate(SOURCES)}
    results.units["one"] = UnitRecord("f", {"frames": 9, "objects": 1}, one)
    results.units[EVIL] = UnitRecord("g", {"frames": 12, "objects": 2}, two)
    results.units["never asked for"] = UnitRecord("h", {"frames": 5}, {"encoder": [row(1, 0.0, 0.0)]})
    return results


def sample_section() -> Section:
    return Section(LinearVos, sample_results())
