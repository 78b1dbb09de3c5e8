"""Stage 2: shards in, a feature decoder out. Never imports pipeline.

Other code needs `from trainer import FlowFeat`. Names are resolved at first use, so that `import trainer` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.decoder import DPTDecoder
    from trainer.encoder import FrozenViT
    from trainer.encoder_protocol import Encoded
    from trainer.encoder_table import ENCODERS, EncoderSpec
    from trainer.extract_features import Extracted
    from trainer.flowfeat import FlowFeat
    from trainer.official_models import Official, find_model
    from trainer.sweep.record import RowRecord, RunRecord, SweepRecord, read_record
    from trainer.sweep.run_state import loss_curve
    from trainer.sweep.sweep_file import ProbeSettings, read_sweep_file

__all__ = [
    "ENCODERS",
    "DPTDecoder",
    "Encoded",
    "EncoderSpec",
    "Extracted",
    "FlowFeat",
    "FrozenViT",
    "Official",
    "ProbeSettings",
    "RowRecord",
    "RunRecord",
    "SweepRecord",
    "find_model",
    "loss_curve",
    "read_record",
    "read_sweep_file",
]

_HOMES = {
    "DPTDecoder": "trainer.decoder",
    "ENCODERS": "trainer.encoder_table",
    "Encoded": "trainer.encoder_protocol",
    "EncoderSpec": "trainer.encoder_table",
    "Extracted": "trainer.extract_features",
    "FlowFeat": "trainer.flowfeat",
    "FrozenViT": "trainer.encoder",
    "ProbeSettings": "trainer.sweep.sweep_file",
    "Official": "trainer.official_models",
    "RowRecord": "trainer.sweep.record",
    "RunRecord": "trainer.sweep.record",
    "SweepRecord": "trainer.sweep.record",
    "find_model": "trainer.official_models",
    "loss_curve": "trainer.sweep.run_state",
    "read_record": "trainer.sweep.record",
    "read_sweep_file": "trainer.sweep.sweep_file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
