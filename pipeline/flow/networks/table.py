"""The five networks by name, and their registration as flow estimators.

Importing this module is cheap: torch is imported when a network is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.flow.estimator import EstimatorOptions, FlowEstimator, register

if TYPE_CHECKING:
    from pipeline.flow.networks.network import FlowNetwork


@dataclass(frozen=True)
class NetworkKind:
    """build: makes the module with unset weights. layouts: names of the checkpoint layouts it is published in."""

    build: Callable[[], FlowNetwork]
    layouts: tuple[str, ...]


def _raft() -> FlowNetwork:
    from pipeline.flow.networks import raft

    return raft.Raft(raft.RAFT)


def _raft_small() -> FlowNetwork:
    from pipeline.flow.networks import raft

    return raft.Raft(raft.RAFT_SMALL)


def _smurf() -> FlowNetwork:
    from pipeline.flow.networks import raft

    return raft.Raft(raft.SMURF)


def _sea_raft_s() -> FlowNetwork:
    from pipeline.flow.networks import sea_raft

    return sea_raft.SeaRaft(sea_raft.DEPTHS_S)


def _sea_raft_m() -> FlowNetwork:
    from pipeline.flow.networks import sea_raft

    return sea_raft.SeaRaft(sea_raft.DEPTHS_M)


NETWORKS = {
    "raft": NetworkKind(_raft, ("official", "torchvision")),
    "raft-small": NetworkKind(_raft_small, ("official", "torchvision")),
    "sea-raft-s": NetworkKind(_sea_raft_s, ("sea-raft",)),
    "sea-raft-m": NetworkKind(_sea_raft_m, ("sea-raft",)),
    "smurf": NetworkKind(_smurf, ("torchvision",)),
}


def _register(name: str) -> None:
    @register(name)
    def make(options: EstimatorOptions) -> FlowEstimator:
        from pipeline.flow.raft_family import NetworkEstimator

        return NetworkEstimator(name, options)


for _name in NETWORKS:
    _register(_name)
