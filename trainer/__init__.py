"""Stage 2: shards in, a feature decoder out. Never imports pipeline.

Other code needs `from trainer import FlowFeat`. Names are resolved at first use, so that `import trainer` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.decoder import DPTDecoder
    from trainer.distill import fit_linear_map, predict_flow
    from trainer.encoder import FrozenViT
    from trainer.encoder_protocol import Encoded
    from trainer.encoder_table import ENCODERS, EncoderSpec
    from trainer.extract_features import Extracted
    from trainer.flowfeat import FlowFeat
    from trainer.holdout import FlowSums, affine_flow, mean_flow, px_per_unit
    from trainer.images import denormalise
    from trainer.lattice import LatticeSums, lattice_share
    from trainer.model_file import training_set
    from trainer.official_models import Official, find_model
    from trainer.sweep.record import RowRecord, RunRecord, SweepRecord, read_record
    from trainer.sweep.run_state import loss_curve
    from trainer.sweep.sweep_file import ProbeSettings, read_sweep_file
    from trainer.views import Pixels, cut_views, draw_boxes

__all__ = [
    "ENCODERS",
    "DPTDecoder",
    "Encoded",
    "EncoderSpec",
    "Extracted",
    "FlowFeat",
    "FlowSums",
    "FrozenViT",
    "LatticeSums",
    "Official",
    "Pixels",
    "ProbeSettings",
    "RowRecord",
    "RunRecord",
    "SweepRecord",
    "affine_flow",
    "cut_views",
    "denormalise",
    "draw_boxes",
    "find_model",
    "fit_linear_map",
    "lattice_share",
    "loss_curve",
    "mean_flow",
    "predict_flow",
    "px_per_unit",
    "read_record",
    "read_sweep_file",
    "training_set",
]

_HOMES = {
    "affine_flow": "trainer.holdout",
    "cut_views": "trainer.views",
    "denormalise": "trainer.images",
    "DPTDecoder": "trainer.decoder",
    "ENCODERS": "trainer.encoder_table",
    "Encoded": "trainer.encoder_protocol",
    "EncoderSpec": "trainer.encoder_table",
    "draw_boxes": "trainer.views",
    "Extracted": "trainer.extract_features",
    "fit_linear_map": "trainer.distill",
    "FlowFeat": "trainer.flowfeat",
    "FlowSums": "trainer.holdout",
    "FrozenViT": "trainer.encoder",
    "ProbeSettings": "trainer.sweep.sweep_file",
    "Official": "trainer.official_models",
    "RowRecord": "trainer.sweep.record",
    "RunRecord": "trainer.sweep.record",
    "SweepRecord": "trainer.sweep.record",
    "find_model": "trainer.official_models",
    "LatticeSums": "trainer.lattice",
    "lattice_share": "trainer.lattice",
    "loss_curve": "trainer.sweep.run_state",
    "read_record": "trainer.sweep.record",
    "read_sweep_file": "trainer.sweep.sweep_file",
    "mean_flow": "trainer.holdout",
    "Pixels": "trainer.views",
    "predict_flow": "trainer.distill",
    "px_per_unit": "trainer.holdout",
    "training_set": "trainer.model_file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
