"""Stage 2: shards in, a feature decoder out. Never imports pipeline.

Other code needs `from trainer import FlowFeat`. Names are resolved at first use, so that `import trainer` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.decoder import DPTDecoder
    from trainer.encoder import ENCODERS, EncoderSpec, FrozenViT
    from trainer.extract_features import Extracted
    from trainer.flowfeat import FlowFeat
    from trainer.lattice import LatticeSums, lattice_share
    from trainer.model import Encoded
    from trainer.sweep.record import RowRecord, RunRecord, SweepRecord, read_record
    from trainer.sweep.run_state import loss_curve

__all__ = [
    "ENCODERS",
    "DPTDecoder",
    "Encoded",
    "EncoderSpec",
    "Extracted",
    "FlowFeat",
    "FrozenViT",
    "LatticeSums",
    "RowRecord",
    "RunRecord",
    "SweepRecord",
    "lattice_share",
    "loss_curve",
    "read_record",
]

_HOMES = {
    "DPTDecoder": "trainer.decoder",
    "ENCODERS": "trainer.encoder",
    "Encoded": "trainer.model",
    "EncoderSpec": "trainer.encoder",
    "Extracted": "trainer.extract_features",
    "FlowFeat": "trainer.flowfeat",
    "FrozenViT": "trainer.encoder",
    "LatticeSums": "trainer.lattice",
    "RowRecord": "trainer.sweep.record",
    "RunRecord": "trainer.sweep.record",
    "SweepRecord": "trainer.sweep.record",
    "lattice_share": "trainer.lattice",
    "loss_curve": "trainer.sweep.run_state",
    "read_record": "trainer.sweep.record",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
