"""The paper's figures of video object segmentation, linear probe and label propagation, as they stand beside ours.

J&F on DAVIS-2017 val (FlowFeat, NeurIPS 2025): encoder alone, + random decoder, + FlowFeat trained on YouTube-VOS, + FlowFeat
trained on Kinetics.
"""

from __future__ import annotations

from probes.paper import BACKBONES, LABEL_PROPAGATION, LINEAR_PROBE, TOKEN_GRID, Figures
from probes.task import Reference, Settings

COLUMNS = ("encoder alone", "+ random decoder", "+ FlowFeat (YouTube-VOS)", "+ FlowFeat (Kinetics)")


def linear_reference(settings: Settings, sequences: int) -> Reference:
    """The paper's table of the linear probe; the row of this run's backbone is starred."""
    return _reference(LINEAR_PROBE, settings, sequences)


def token_grid_reference(settings: Settings, sequences: int) -> Reference:
    """The paper's Table 5a, for `--decoder-grid tokens`."""
    return _reference(TOKEN_GRID, settings, sequences)


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
