"""The paper's figures, as data: FlowFeat (Araslanov, Sonnweber, Cremers, NeurIPS 2025), by probe, backbone and features.

Tasks make of them the tables that stand below ours; `report/beside.py` puts single ones beside a row of ours, with a difference
where the protocol is the paper's and with what differs where it isn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from probes.task import Scalar, Settings

PAPER = "FlowFeat, NeurIPS 2025"
BACKBONES = {
    "mae_vitb16": "MAE-B16",
    "dino_vits16": "DINO-S16",
    "dino_vitb16": "DINO-B16",
    "dinov2_vits14": "DINO2-S14",
    "dinov2_vitb14": "DINO2-B14",
}
"""The paper's name of an encoder by ours."""
YT, KINETICS = "YouTube-VOS", "Kinetics"
Figures = dict[str, tuple[float | None, ...]]

VOS_COLUMNS = (("encoder", ""), ("random_decoder", ""), ("flowfeat", YT), ("flowfeat", KINETICS))
"""Our source, and what the paper's decoder was trained on."""
LINEAR_PROBE: Figures = {
    "MAE-B16": (40.8, None, None, 53.8),
    "DINO-S16": (49.6, None, 54.1, 56.2),
    "DINO-B16": (52.3, None, 55.5, 56.9),
    "DINO2-S14": (57.5, 58.7, 65.8, 64.6),
    "DINO2-B14": (61.6, None, 65.7, 66.1),
}
TOKEN_GRID: Figures = {"DINO2-S14": (57.5, None, 62.2, 62.3)}
"""Linear probe with the decoder's map averaged to the token grid (Table 5a); the encoder's figure is the main table's."""
LABEL_PROPAGATION: Figures = {
    "MAE-B16": (44.3, None, None, 59.1),
    "DINO-S16": (61.5, None, 63.7, 66.5),
    "DINO-B16": (62.3, None, 64.0, 66.0),
    "DINO2-S14": (65.1, None, 67.6, 68.5),
    "DINO2-B14": (66.4, None, 69.0, 69.9),
}
STILL_COLUMNS = (("encoder", ""), ("flowfeat", YT))
PLUS_COLUMNS = (*STILL_COLUMNS, ("flowfeat++", YT))
COCO_STUFF_IOU: Figures = {"DINO-S16": (39.6, 44.7, 45.9), "DINO2-S14": (56.2, 58.0, 59.4)}
COCO_STUFF_ACCURACY: Figures = {"DINO-S16": (67.5, 71.4, 72.5), "DINO2-S14": (77.3, 78.7, 79.7)}
NYU_RMSE: Figures = {"DINO-S16": (0.4634, 0.4410), "DINO2-S14": (0.3294, 0.3072)}
NYU_DELTA1: Figures = {"DINO-S16": (83.60, 85.26), "DINO2-S14": (92.97, 93.91)}


@dataclass(frozen=True)
class Table:
    """Figures of one metric of one probe, a row per backbone and a column per entry of `columns`."""

    task: str
    metric: str
    columns: tuple[tuple[str, str], ...]
    figures: Figures


TABLES = (
    Table("vos", "JF", VOS_COLUMNS, LINEAR_PROBE),
    Table("vos-knn", "JF", VOS_COLUMNS, LABEL_PROPAGATION),
    Table("segmentation", "IoU", PLUS_COLUMNS, COCO_STUFF_IOU),
    Table("segmentation", "accuracy", PLUS_COLUMNS, COCO_STUFF_ACCURACY),
    Table("depth", "rmse", STILL_COLUMNS, NYU_RMSE),
    Table("depth", "delta1", STILL_COLUMNS, NYU_DELTA1),
)


@dataclass(frozen=True)
class Published:
    """value: as the paper prints it (per cent or metres)."""

    source: str
    metric: str
    trained_on: str
    value: float


def published(task: str, variant: str) -> Iterator[Published]:
    """The paper's figures of a probe for one of our encoders."""
    backbone = BACKBONES.get(variant, "")
    for table in TABLES:
        if table.task == task and backbone in table.figures:
            for (source, trained_on), value in zip(table.columns, table.figures[backbone], strict=True):
                if value is not None:
                    yield Published(source, table.metric, trained_on, value)


@dataclass(frozen=True)
class PaperProtocol:
    """What a run needs to be the paper's. settings: None for one that it must not have. units, facts: how many of them, and
    what is said of each."""

    data: str
    settings: Mapping[str, Scalar]
    units: int
    facts: Mapping[str, int]

    def differing(self, settings: Settings, facts: list[dict[str, int]], unit: str) -> list[str]:
        """What a run has otherwise, in words; empty for the paper's protocol."""
        found = [
            f"{name} {settings.get(name)}" + ("" if value is None else f", not {value}")
            for name, value in self.settings.items()
            if settings.get(name) != value
        ]
        if len(facts) != self.units:
            found.append(f"{len(facts)} {unit}, not {self.units}")
        for name, value in self.facts.items():
            if any(one.get(name) != value for one in facts):
                found.append(f"{name} {facts[0].get(name) if facts else 'none'}, not {value}")
        return found


PROTOCOLS: Mapping[str, PaperProtocol] = {
    "vos": PaperProtocol(
        "DAVIS-2017 val",
        {"height": 480, "iterations": 500, "standardise": False, "objects": "separate", "decoder grid": None},
        30,
        {},
    ),
    "vos-knn": PaperProtocol(
        "DAVIS-2017 val", {"protocol": "dino480", "height": 480, "grid": 1, "objects": "separate"}, 30, {}
    ),
    "segmentation": PaperProtocol(
        "COCO-Stuff 27", {"size": 256, "iterations": 100_000, "batch": 32}, 1, {"classes": 27}
    ),
    "depth": PaperProtocol(
        "NYUv2", {"height": 480, "iterations": 100_000, "batch": 16, "bins": 256}, 1, {"tested on": 654}
    ),
}
