"""The figures of the paper's tables as they are printed: FlowFeat (Araslanov, Sonnweber, Cremers, NeurIPS 2025).

A line is a row of a table: the method as printed, the paper's name of the encoder ("" for networks that stand on none of ours),
our source ("" where there is none like it), what its decoder was trained on, and a figure per metric of the table (None where
the paper leaves it out). `paper.py` says under which protocol each table was measured and puts rows beside ours.

Table 3's ablations are in `configs/sweeps/table3.toml`, beside the rows that repeat them; of Table 3 the random decoder is here.
"""

from __future__ import annotations

from dataclasses import dataclass

YT, KINETICS, COCO, SA1B = "YouTube-VOS", "Kinetics", "COCO-Stuff", "SA1B"


@dataclass(frozen=True)
class PaperRow:
    """values: per metric of its table, as printed (per cent, metres, billions)."""

    method: str
    backbone: str
    source: str
    trained_on: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """protocol: a key of `paper.PROTOCOLS`. metrics: our metric by column; titles: what the columns are called, where not as ours."""

    name: str
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    titles: tuple[str, ...] = ()
    decimals: tuple[int, ...] = ()
    """Per column, as printed; 1 where nothing is said."""

    def text(self, column: int, value: float) -> str:
        """A figure as the paper prints it."""
        return f"{value:.{self.decimals[column] if self.decimals else 1}f}"


def _encoder(method: str, *values: float) -> PaperRow:
    return PaperRow(method, method, "encoder", "", values)


def _flowfeat(backbone: str, trained_on: str, *values: float) -> PaperRow:
    short = {YT: "YT", KINETICS: "K"}[trained_on]
    return PaperRow(f"{backbone} + FlowFeat-{short}", backbone, "flowfeat", trained_on, values)


def _refined(backbone: str, trained_on: str, *values: float | None) -> PaperRow:
    short = {YT: "YT", KINETICS: "K"}[trained_on]
    return PaperRow(f"{backbone} + FlowFeat-{short}++", backbone, "flowfeat++", trained_on, values)


def _rival(method: str, backbone: str, source: str, trained_on: str, *values: float | None) -> PaperRow:
    return PaperRow(method, backbone, source, trained_on, values)


VOS_METRICS = ("JF", "J", "F")
LINEAR_PROBE = PaperTable(
    "Table 1, linear probing; random decoder of Table 3; ViT-L of Table 5b",
    "vos",
    VOS_METRICS,
    (
        _rival("V-JEPA", "", "", "", 49.0, 46.1, 51.9),
        _rival("VideoMAE", "", "videomae", "", 43.3, 40.9, 45.8),
        _encoder("MAE-B16", 40.8, 38.5, 43.1),
        _flowfeat("MAE-B16", KINETICS, 53.8, 50.1, 57.5),
        _encoder("DINO-B16", 52.3, 49.1, 55.4),
        _flowfeat("DINO-B16", YT, 55.5, 52.5, 58.5),
        _flowfeat("DINO-B16", KINETICS, 56.9, 53.7, 60.1),
        _encoder("DINO-S16", 49.6, 46.8, 52.4),
        _rival("DINO-S16 + FeatUp", "DINO-S16", "featup_dino16", COCO, 52.4, 49.6, 55.2),
        _flowfeat("DINO-S16", YT, 54.1, 51.1, 57.0),
        _flowfeat("DINO-S16", KINETICS, 56.2, 52.9, 59.5),
        _encoder("DINO2-B14", 61.6, 58.5, 64.7),
        _flowfeat("DINO2-B14", YT, 65.7, 62.2, 69.2),
        _flowfeat("DINO2-B14", KINETICS, 66.1, 62.3, 69.9),
        _encoder("DINO2-S14", 57.5, 54.2, 60.7),
        _rival("DINO2-S14 + random DPT", "DINO2-S14", "random_decoder", "", 58.7, 55.2, 62.2),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 60.5, 57.4, 63.6),
        _rival("DINO2-S14 + LoftUp", "DINO2-S14", "loftup_dinov2s", SA1B, 63.0, 59.6, 66.4),
        _flowfeat("DINO2-S14", YT, 65.8, 62.0, 69.7),
        _flowfeat("DINO2-S14", KINETICS, 64.6, 61.0, 68.2),
        _encoder("DINO2-L14", 59.4, 55.8, 63.0),
        _flowfeat("DINO2-L14", YT, 66.9, 63.4, 70.4),
        _encoder("MAE-L16", 46.7, 44.4, 49.0),
        _flowfeat("MAE-L16", YT, 55.4, 52.0, 58.9),
    ),
)
TOKEN_GRID = PaperTable(
    "Table 5a: all features at the resolution of the tokens",
    "vos, tokens",
    VOS_METRICS,
    (
        _encoder("DINO2-S14", 57.5, 54.2, 60.7),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 59.5, 56.4, 62.6),
        _flowfeat("DINO2-S14", YT, 62.2, 58.2, 66.3),
        _flowfeat("DINO2-S14", KINETICS, 62.3, 58.1, 66.4),
    ),
)
LABEL_PROPAGATION = PaperTable(
    "Table 1, local KNN",
    "vos-knn",
    VOS_METRICS,
    (
        _rival("V-JEPA", "", "", "", 56.7, 55.6, 57.8),
        _rival("VideoMAE", "", "videomae", "", 55.1, 54.6, 55.6),
        _encoder("MAE-B16", 44.3, 42.8, 45.8),
        _flowfeat("MAE-B16", KINETICS, 59.1, 57.3, 60.8),
        _encoder("DINO-B16", 62.3, 60.7, 64.0),
        _flowfeat("DINO-B16", YT, 64.0, 62.7, 65.3),
        _flowfeat("DINO-B16", KINETICS, 66.0, 64.5, 67.5),
        _encoder("DINO-S16", 61.5, 59.9, 63.1),
        _rival("DINO-S16 + FeatUp", "DINO-S16", "featup_dino16", COCO, 63.7, 62.4, 64.9),
        _flowfeat("DINO-S16", YT, 63.7, 62.0, 65.5),
        _flowfeat("DINO-S16", KINETICS, 66.5, 64.5, 68.4),
        _encoder("DINO2-B14", 66.4, 64.4, 68.5),
        _flowfeat("DINO2-B14", YT, 69.0, 66.9, 71.2),
        _flowfeat("DINO2-B14", KINETICS, 69.9, 67.7, 72.1),
        _encoder("DINO2-S14", 65.1, 63.7, 66.6),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 65.5, 65.0, 66.1),
        _rival("DINO2-S14 + LoftUp", "DINO2-S14", "loftup_dinov2s", SA1B, 66.0, 64.7, 67.4),
        _flowfeat("DINO2-S14", YT, 67.6, 65.6, 69.6),
        _flowfeat("DINO2-S14", KINETICS, 68.5, 66.1, 70.9),
    ),
)
DOUBLED_GRID = PaperTable(
    "Table 6: local KNN on a grid twice as fine",
    "vos-knn, doubled",
    VOS_METRICS,
    (
        _rival("CRW-Res18", "", "", "", 65.2, 63.1, 67.3),
        _encoder("DINO2-S14", 63.3, 62.8, 63.7),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 64.6, 64.5, 64.6),
        _flowfeat("DINO2-S14", YT, 70.3, 68.0, 72.5),
        _flowfeat("DINO2-S14", KINETICS, 70.0, 67.5, 72.5),
    ),
)
COCO_STUFF = PaperTable(
    "Table 2, COCO-Stuff 27",
    "segmentation",
    ("IoU", "accuracy"),
    (
        _encoder("MAE-B16", 46.0, 71.5),
        _flowfeat("MAE-B16", KINETICS, 47.2, 72.9),
        _encoder("DINO-B16", 46.1, 72.0),
        _flowfeat("DINO-B16", KINETICS, 48.2, 73.7),
        _rival("DINO-S16 + FeatUp", "DINO-S16", "featup_dino16", COCO, 41.6, 69.5),
        _rival("DINO-S16 + FeatUp ++", "DINO-S16", "", COCO, 42.1, 69.9),
        _encoder("DINO-S16", 39.6, 67.5),
        _flowfeat("DINO-S16", YT, 44.7, 71.4),
        _refined("DINO-S16", YT, 45.9, 72.5),
        _flowfeat("DINO-S16", KINETICS, 44.2, 71.3),
        _refined("DINO-S16", KINETICS, 45.4, 72.3),
        _encoder("DINO2-B14", 58.1, 78.0),
        _flowfeat("DINO2-B14", KINETICS, 60.4, 79.8),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 58.3, 79.1),
        _rival("DINO2-S14 + FeatUp ++", "DINO2-S14", "", COCO, 58.5, 79.2),
        _encoder("DINO2-S14", 56.2, 77.3),
        _flowfeat("DINO2-S14", YT, 58.0, 78.7),
        _refined("DINO2-S14", YT, 59.4, 79.7),
        _flowfeat("DINO2-S14", KINETICS, 58.1, 78.9),
        _refined("DINO2-S14", KINETICS, 59.6, 79.9),
    ),
)
CLASSES = PaperTable(
    "Table 4: IoU of single classes of COCO-Stuff",
    "segmentation",
    (),
    (
        _encoder("DINO-S16", 69.3, 46.5, 43.9, 65.5, 33.3),
        _flowfeat("DINO-S16", YT, 75.6, 50.0, 50.8, 69.9, 37.0),
        _encoder("DINO-B16", 72.9, 51.4, 51.0, 70.3, 38.9),
        _flowfeat("DINO-B16", KINETICS, 77.8, 52.9, 53.1, 71.7, 39.6),
        _encoder("DINO2-S14", 76.9, 57.6, 59.2, 71.0, 44.6),
        _flowfeat("DINO2-S14", YT, 81.7, 59.3, 60.5, 73.0, 45.7),
        _encoder("DINO2-B14", 77.0, 59.2, 59.6, 70.3, 44.9),
        _flowfeat("DINO2-B14", KINETICS, 83.0, 61.7, 61.3, 72.3, 45.1),
        _encoder("MAE-B16", 72.2, 50.8, 52.7, 66.9, 36.1),
        _flowfeat("MAE-B16", KINETICS, 78.6, 51.3, 53.7, 69.9, 38.8),
    ),
    titles=("person", "wall", "landscape", "vegetation", "ground"),
)
NYU = PaperTable(
    "Table 2, NYUv2",
    "depth",
    ("rmse", "delta1", "delta2", "delta3"),
    (
        _encoder("MAE-B16", 0.4534, 83.68, 96.98, 99.28),
        _flowfeat("MAE-B16", KINETICS, 0.4400, 84.43, 97.18, 99.35),
        _encoder("DINO-B16", 0.4287, 86.15, 97.61, 99.47),
        _flowfeat("DINO-B16", KINETICS, 0.4176, 86.87, 97.71, 99.50),
        _rival("DINO-S16 + FeatUp", "DINO-S16", "featup_dino16", COCO, 0.4624, 83.54, 96.90, 99.32),
        _encoder("DINO-S16", 0.4634, 83.60, 96.94, 99.32),
        _flowfeat("DINO-S16", YT, 0.4410, 85.26, 97.17, 99.30),
        _flowfeat("DINO-S16", KINETICS, 0.4422, 84.81, 97.19, 99.37),
        _encoder("DINO2-B14", 0.3091, 94.14, 99.32, 99.89),
        _flowfeat("DINO2-B14", KINETICS, 0.2791, 95.55, 99.52, 99.93),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", COCO, 0.3207, 93.29, 99.18, 99.86),
        _encoder("DINO2-S14", 0.3294, 92.97, 99.11, 99.85),
        _flowfeat("DINO2-S14", YT, 0.3072, 93.91, 99.25, 99.86),
        _flowfeat("DINO2-S14", KINETICS, 0.3061, 94.12, 99.31, 99.88),
    ),
    decimals=(4, 2, 2, 2),
)
COST = PaperTable(
    "Table 7: cost at 224 px, on an RTX 8000",
    "efficiency",
    ("macs_224", "rate_224"),
    (
        _encoder("DINO2-S14", 6.14, 176.79),
        _rival("DINO2-S14 + FeatUp", "DINO2-S14", "featup_dinov2", "", 16.54, 25.12),
        _rival("DINO2-S14 + FlowFeat", "DINO2-S14", "flowfeat", "", 23.43, 105.82),
        _rival("FeatUp's decoder alone", "", "", "", 10.33, None),
        _rival("FlowFeat's decoder alone", "", "", "", 17.3, None),
    ),
    titles=("FLOPs (G; these are multiply-accumulates)", "frames/s"),
    decimals=(2, 2),
)
TABLES = (LINEAR_PROBE, TOKEN_GRID, LABEL_PROPAGATION, DOUBLED_GRID, COCO_STUFF, CLASSES, NYU, COST)
