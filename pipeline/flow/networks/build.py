"""A name of the table → the module with unset weights."""

from __future__ import annotations

from pipeline.flow.networks.network import FlowNetwork
from pipeline.flow.networks.plans import RaftPlan
from pipeline.flow.networks.raft import Raft
from pipeline.flow.networks.sea_raft import SeaRaft
from pipeline.flow.networks.table import NETWORKS


def build_network(name: str) -> FlowNetwork:
    """The network of that name, on torch's current default device."""
    plan = NETWORKS[name].plan
    return Raft(plan) if isinstance(plan, RaftPlan) else SeaRaft(plan)
