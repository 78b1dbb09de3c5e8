"""The paper's protocols, and its figures (`paper_tables.py`) as tasks and reports want them.

A task's tables stand whole below ours; `report/beside.py` puts single figures beside a row of ours, with a difference where the
protocol is the paper's and with what differs where it isn't. Table 5a and Table 6 are protocols of their own (`--decoder-grid
tokens`, `--knn-grid 2`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from probes.paper_tables import TABLES, PaperTable
from probes.task import Metric, Reference, Scalar, Settings

PAPER = "FlowFeat, NeurIPS 2025"
BACKBONES = {
    "mae_vitb16": "MAE-B16",
    "mae_vitl16": "MAE-L16",
    "dino_vits16": "DINO-S16",
    "dino_vitb16": "DINO-B16",
    "dinov2_vits14": "DINO2-S14",
    "dinov2_vitb14": "DINO2-B14",
    "dinov2_vitl14": "DINO2-L14",
}
"""The paper's name of an encoder by ours. Its MAE-L is called L14 in Table 5b and is the published L16."""


@dataclass(frozen=True)
class PaperProtocol:
    """What a run needs to be the paper's.

    choice: the settings that make it this protocol and no other of the same task. settings: those that must be as here. units,
    facts: how many of them, and what is said of each. device_bound: metrics that compare on a device with `device` in its name only.
    """

    task: str
    data: str
    settings: Mapping[str, Scalar]
    units: int
    choice: Mapping[str, Scalar] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    device_bound: tuple[str, ...] = ()
    device: str = ""

    def differing(self, settings: Settings, facts: list[dict[str, int]], unit: str) -> list[str]:
        """What a run has otherwise, in words; empty for the paper's protocol."""
        found = [
            f"{name} {settings.get(name)}, not {value}"
            for name, value in self.settings.items()
            if settings.get(name) != value
        ]
        if len(facts) != self.units:
            found.append(f"{len(facts)} {unit}, not {self.units}")
        for name, value in self.facts.items():
            if any(one.get(name) != value for one in facts):
                found.append(f"{name} {facts[0].get(name) if facts else 'none'}, not {value}")
        return found

    def compares(self, metric: str, settings: Settings) -> bool:
        return metric not in self.device_bound or self.device in str(settings.get("device"))


DAVIS = "DAVIS-2017 val"
LINEAR: Settings = {"height": 480, "iterations": 500, "standardise": False, "objects": "separate"}
KNN: Settings = {"protocol": "dino480", "height": 480, "objects": "separate"}
PROTOCOLS: Mapping[str, PaperProtocol] = {
    "vos": PaperProtocol("vos", DAVIS, LINEAR, 30, choice={"decoder grid": None}),
    "vos, tokens": PaperProtocol("vos", DAVIS, LINEAR, 30, choice={"decoder grid": "tokens"}),
    "vos-knn": PaperProtocol("vos-knn", DAVIS, KNN, 30, choice={"grid": 1}),
    "vos-knn, doubled": PaperProtocol("vos-knn", DAVIS, KNN, 30, choice={"grid": 2}),
    "segmentation": PaperProtocol(
        "segmentation", "COCO-Stuff 27", {"size": 256, "iterations": 100_000, "batch": 32}, 1, facts={"classes": 27}
    ),
    "depth": PaperProtocol(
        "depth", "NYUv2", {"height": 480, "iterations": 100_000, "batch": 16, "bins": 256}, 1, facts={"tested on": 654}
    ),
    "efficiency": PaperProtocol(
        "efficiency", "a picture of 224 px", {"batch": 1}, 1, device_bound=("rate_224",), device="RTX 8000"
    ),
}


def protocol_of(task: str, settings: Settings) -> str | None:
    """The key of the paper's protocol that a run comes nearest to; None where the paper has none."""
    for key, protocol in PROTOCOLS.items():
        if protocol.task == task and all(settings.get(name) == value for name, value in protocol.choice.items()):
            return key
    return None


@dataclass(frozen=True)
class Published:
    """value: as the paper prints it (per cent, metres, billions), and as text."""

    source: str
    metric: str
    trained_on: str
    value: float
    text: str


def published(task: str, settings: Settings) -> Iterator[Published]:
    """The paper's figures for the encoder of a run (`variant` of its settings), and those that stand on none of ours."""
    backbone = BACKBONES.get(str(settings.get("variant")))
    for table in _tables(task, settings):
        for row in table.rows:
            if not row.source or row.backbone not in ("", backbone):
                continue
            for column, metric in enumerate(table.metrics):
                value = row.values[column]
                if value is not None:
                    yield Published(row.source, metric, row.trained_on, value, table.text(column, value))


def references(task: str, metrics: Sequence[Metric], settings: Settings, note: str) -> list[Reference]:
    """The paper's tables under the run's protocol, whole; rows of the run's encoder are starred."""
    variant = settings.get("variant")
    backbone = BACKBONES.get(str(variant), "none")
    headings = {metric.name: metric.heading for metric in metrics}
    found = []
    for table in _tables(task, settings):
        stars = [" *" if row.backbone == backbone else "" for row in table.rows]
        whose = (
            f"Starred: this run's encoder ({variant})." if any(stars) else f"None is of this run's encoder ({variant})."
        )
        rows = [
            [
                f"{row.method}{star}",
                *("-" if one is None else table.text(place, one) for place, one in enumerate(row.values)),
            ]
            for row, star in zip(table.rows, stars, strict=True)
        ]
        header = ["method", *(table.titles or [headings[name] for name in table.metrics])]
        found.append(Reference(f"The paper's {table.name}", f"{note} {whose}", header, rows))
    return found


def _tables(task: str, settings: Settings) -> list[PaperTable]:
    key = protocol_of(task, settings)
    return [table for table in TABLES if table.protocol == key]
