"""The paper's figures of video object segmentation, linear probe and label propagation, as they stand beside ours.

J&F on DAVIS-2017 val (FlowFeat, NeurIPS 2025): encoder alone, + random decoder, + FlowFeat trained on YouTube-VOS, + FlowFeat
trained on Kinetics.
"""

from __future__ import annotations

from probes.task import Reference, Settings

BACKBONES = {
    "mae_vitb16": "MAE-B16",
    "dino_vits16": "DINO-S16",
    "dino_vitb16": "DINO-B16",
    "dinov2_vits14": "DINO2-S14",
    "dinov2_vitb14": "DINO2-B14",
}
"""The paper's name of an encoder by ours."""
COLUMNS = ("encoder alone", "+ random decoder", "+ FlowFeat (YouTube-VOS)", "+ FlowFeat (Kinetics)")
Figures = dict[str, tuple[float | None, ...]]
LINEAR_PROBE: Figures = {
    "MAE-B16": (40.8, None, None, 53.8),
    "DINO-S16": (49.6, None, 54.1, 56.2),
    "DINO-B16": (52.3, None, 55.5, 56.9),
    "DINO2-S14": (57.5, 58.7, 65.8, 64.6),
    "DINO2-B14": (61.6, None, 65.7, 66.1),
}


LABEL_PROPAGATION: Figures = {
    "MAE-B16": (44.3, None, None, 59.1),
    "DINO-S16": (61.5, None, 63.7, 66.5),
    "DINO-B16": (62.3, None, 64.0, 66.0),
    "DINO2-S14": (65.1, None, 67.6, 68.5),
    "DINO2-B14": (66.4, None, 69.0, 69.9),
}


def linear_reference(settings: Settings, sequences: int) -> Reference:
    """The paper's table of the linear probe; the row of this run's backbone is starred."""
    return _reference(LINEAR_PROBE, settings, sequences)


def propagation_reference(settings: Settings, sequences: int) -> Reference | None:
    """The paper's table of label propagation, for the protocol and the grid that it was measured with only."""
    if settings.get("protocol") != "dino480" or settings.get("grid") != 1:
        return None
    return _reference(LABEL_PROPAGATION, settings, sequences)


def _reference(table: Figures, settings: Settings, sequences: int) -> Reference:
    variant = settings.get("variant")
    ours = BACKBONES.get(str(variant))
    rows = []
    for backbone, figures in table.items():
        name = f"{backbone} *" if backbone == ours else backbone
        rows.append([name, *("-" if value is None else f"{value:.1f}" for value in figures)])
    backbone = (
        f"the starred row is this run's backbone ({variant})"
        if ours
        else f"none of them is this run's backbone ({variant})"
    )
    note = (
        f"J&F on the 30 sequences of DAVIS-2017 val at 480 pixels with published encoder weights; {backbone}. "
        f"This run: {sequences} sequences at {settings.get('height')} pixels."
    )
    return Reference("The paper's figures", note, ["backbone", *COLUMNS], rows)
