"""The five networks by name: plan and the layouts that their checkpoints are published in. Data only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.flow.networks.plans import EncoderPlan, RaftPlan, SeaRaftPlan

_WIDTHS, _DEPTHS = (64, 64, 96, 128), (2, 2, 2)
_SMALL = (32, 32, 64, 96)
_SEPARABLE = {"1": (1, 5), "2": (5, 1)}  # horizontal first

_RAFT = RaftPlan(
    fnet=EncoderPlan(_WIDTHS, _DEPTHS, "instance", 256),
    cnet=EncoderPlan(_WIDTHS, _DEPTHS, "batch", 256),
    hidden=128, corr_widths=(256, 192), flow_widths=(128, 64), motion=126, head_width=256,
    kernels=_SEPARABLE, radius=4, default_iterations=20,
)  # fmt: skip
_SMURF = RaftPlan(
    fnet=EncoderPlan(_WIDTHS, _DEPTHS, "instance", 256),
    cnet=EncoderPlan(_WIDTHS, _DEPTHS, "instance", 256),
    hidden=128, corr_widths=(256, 192), flow_widths=(128, 64), motion=126, head_width=256,
    kernels=_SEPARABLE, radius=4, default_iterations=12, slow_axis="y",
)  # fmt: skip
_RAFT_SMALL = RaftPlan(
    fnet=EncoderPlan(_SMALL, _DEPTHS, "instance", 128, bottleneck=True),
    cnet=EncoderPlan(_SMALL, _DEPTHS, "none", 160, bottleneck=True),
    hidden=96, corr_widths=(96,), flow_widths=(64, 32), motion=80, head_width=128,
    kernels={"": (3, 3)}, radius=3, default_iterations=20, has_mask=False,
)  # fmt: skip


@dataclass(frozen=True)
class NetworkKind:
    """plan: what the network is made of. layouts: names of the checkpoint layouts that it is published in."""

    plan: RaftPlan | SeaRaftPlan
    layouts: tuple[str, ...]


NETWORKS = {
    "raft": NetworkKind(_RAFT, ("official", "torchvision")),
    "raft-small": NetworkKind(_RAFT_SMALL, ("official", "torchvision")),
    "sea-raft-s": NetworkKind(SeaRaftPlan(depths=(2, 2, 2)), ("sea-raft",)),
    "sea-raft-m": NetworkKind(SeaRaftPlan(depths=(3, 4, 6)), ("sea-raft",)),
    "smurf": NetworkKind(_SMURF, ("torchvision",)),
}
