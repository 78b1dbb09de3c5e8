"""Results of the segmentation task as the report's tests read them, with names that bite; and the records they come from."""

from __future__ import annotations

from pathlib import Path

from probes.report import records
from probes.report.records import Protocol, RunLine, UnitLine
from probes.report.store import Results, UnitRecord
from probes.report.tables import Section
from probes.task import Row, Scalar
from probes.tasks.vos import LinearVos

SOURCES = ["encoder", "random_decoder", "flowfeat"]
EVIL = '"><script>alert(1)</script> & | [x](http://evil) ![y](http://evil/z.png)'
AT = "2026-01-01T00:00:00+00:00"


def row(part: int, j: float, f: float) -> Row:
    values = {"JF": (j + f) / 2, "J": j, "J_recall": j / 2, "J_decay": 0.1, "F": f, "F_recall": f / 2, "F_decay": -0.1}
    return Row(str(part), values)


def sample_results() -> Results:
    """Two sequences: one object and two objects, so that a mean over objects differs from a mean over sequences."""
    settings: dict[str, Scalar] = {"variant": "dinov2_vits14", "height": 480, "model": EVIL}
    results = Results("vos", settings, {"device": "cpu"}, ["one", EVIL], list(SOURCES), digest="d1ge5t")
    one = {source: [row(1, 0.2 + i / 10, 0.4)] for i, source in enumerate(SOURCES)}
    two = {source: [row(1, 0.5 + i / 10, 0.1), row(2, 0.8, 0.7)] for i, source in enumerate(SOURCES)}
    results.units["one"] = UnitRecord("f", {"frames": 9, "objects": 1}, one)
    results.units[EVIL] = UnitRecord("g", {"frames": 12, "objects": 2}, two)
    results.units["never asked for"] = UnitRecord("h", {"frames": 5}, {"encoder": [row(1, 0.0, 0.0)]})
    return results


def sample_section() -> Section:
    return Section(LinearVos, sample_results())


def write_run(
    out: Path,
    j: float,
    *,
    sources: list[str] | None = None,
    weights: str = "a" * 64,
    data: dict[str, str] | None = None,
    model: str = "a.safetensors",
    measured: bool = True,
    task: str = "vos",
    **settings: Scalar,
) -> Protocol:
    """A run in records.jsonl, of sequences of one object that all score `j`."""
    protocol = Protocol(task, {"height": 480, **settings}, 0, data or {"one": "f1", "two": "f2"})
    owner = {source: weights for source in sources or SOURCES}
    about: dict[str, Scalar] = {"model": model, "variant": "dinov2_vits14"}
    lines: list[RunLine | UnitLine] = [
        RunLine(
            AT, task, protocol.digest, dict(protocol.settings), 0, dict(protocol.data), owner, about, {}, {"torch": "9"}
        )
    ]
    for source in owner if measured else ():
        for name, fingerprint in protocol.data.items():
            where = (source, weights, name, fingerprint, {"frames": 9})
            lines.append(UnitLine(AT, task, protocol.digest, protocol.conditions, *where, [row(1, j, j)], 1.5, 0, {}))
    records.append(out, lines)
    return protocol
