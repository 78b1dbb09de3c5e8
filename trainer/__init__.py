"""Stage 2: shards in, a feature decoder out. Never imports pipeline.

Other code needs `from trainer import FlowFeat`. Names are resolved at first use, so that `import trainer` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.decoder import DPTDecoder
    from trainer.distill import fit_linear_map, predict_flow
    from trainer.encoder import ENCODERS, EncoderSpec, FrozenViT
    from trainer.extract_features import Extracted
    from trainer.flowfeat import FlowFeat
    from trainer.holdout import FlowSums, affine_flow, mean_flow, px_per_unit
    from trainer.images import denormalise
    from trainer.model import Encoded
    from trainer.model_file import training_set
    from trainer.sweep.record import RowRecord, RunRecord, SweepRecord, read_record
    from trainer.sweep.run_state import loss_curve
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
    "Pixels",
    "RowRecord",
    "RunRecord",
    "SweepRecord",
    "affine_flow",
    "cut_views",
    "denormalise",
    "draw_boxes",
    "fit_linear_map",
    "loss_curve",
    "mean_flow",
    "predict_flow",
    "px_per_unit",
    "read_record",
    "training_set",
]

_HOMES = {
    "affine_flow": "trainer.holdout",
    "cut_views": "trainer.views",
    "denormalise": "trainer.images",
    "DPTDecoder": "trainer.decoder",
    "draw_boxes": "trainer.views",
    "Encoded": "trainer.model",
    "ENCODERS": "trainer.encoder",
    "EncoderSpec": "trainer.encoder",
    "Extracted": "trainer.extract_features",
    "fit_linear_map": "trainer.distill",
    "FlowFeat": "trainer.flowfeat",
    "FlowSums": "trainer.holdout",
    "FrozenViT": "trainer.encoder",
    "loss_curve": "trainer.sweep.run_state",
    "mean_flow": "trainer.holdout",
    "Pixels": "trainer.views",
    "predict_flow": "trainer.distill",
    "px_per_unit": "trainer.holdout",
    "read_record": "trainer.sweep.record",
    "RowRecord": "trainer.sweep.record",
    "RunRecord": "trainer.sweep.record",
    "SweepRecord": "trainer.sweep.record",
    "training_set": "trainer.model_file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
