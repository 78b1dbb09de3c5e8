"""What tells the networks of the RAFT family apart, as plain data. Imports no torch: listing networks must stay cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Norm = Literal["batch", "instance", "none"]
SlowAxis = Literal["x", "y"]


@dataclass(frozen=True)
class EncoderPlan:
    """What tells one encoder from another. widths: stem and the three stages; depths: blocks per stage."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int]
    norm: Norm
    out_channels: int
    in_channels: int = 3
    bottleneck: bool = False


@dataclass(frozen=True)
class RaftPlan:
    """What tells RAFT, RAFT small and SMURF apart. The context encoder's channels are [hidden | context]."""

    fnet: EncoderPlan
    cnet: EncoderPlan
    hidden: int
    corr_widths: tuple[int, ...]
    flow_widths: tuple[int, int]
    motion: int
    head_width: int
    kernels: Mapping[str, tuple[int, int]]
    radius: int
    default_iterations: int
    slow_axis: SlowAxis = "x"
    has_mask: bool = True

    has_uncertainty: ClassVar[bool] = False


@dataclass(frozen=True)
class SeaRaftPlan:
    """depths: blocks per stage of both encoders, which is what tells sizes S and M apart."""

    depths: tuple[int, int, int]
    default_iterations: int = 4

    has_uncertainty: ClassVar[bool] = True
