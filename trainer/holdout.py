"""How well motion can be read out of videos that are never trained on, while the training runs.

The held-out samples of a set come in (`trainer.training_samples` says which), always the same ones with the same crops; the
objective's own loss is taken on them without a gradient, and its prediction of the second view's flow is compared with that
flow. Out go figures for the log. Nothing of the training is touched: no order, no random number, no parameter.

Shapes: b samples, h x w pixels of a view, i a sample, p one of its N = h w pixels, c = x, y a channel of flow.
u_ipc is the standardised flow of the second view and v_ipc a prediction of it.

Share of flow variance explained, over all samples, in standardised units so that each counts alike:
    R2 = 1 - sum_ipc (v_ipc - u_ipc)^2 / sum_ipc (u_ipc - u_ic)^2,  u_ic = sum_p u_ipc / N
End-point error in pixels of the stored flow map, s_ic pixels being one standardised unit (`px_per_unit`):
    EPE = mean_ip sqrt(sum_c (s_ic (v_ipc - u_ipc))^2)
Two baselines need no features. Both are fitted to the very flow they are judged on, whereas the readout was fitted to the other
view: no constant and no affine flow has a larger R2.
    mean flow    v_ipc = u_ic                                   (its R2 is 0)
    affine fit   v_ipc = u_ic + x_p a_ic + y_p b_ic,  a_ic = sum_p x_p u_ipc / sum_p x_p^2,  b_ic likewise with y_p
x_p and y_p are columns and rows counted from the middle of the view; on a full grid they are orthogonal to each other and to
the constant, so that this is the least-squares solution.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.batch import Plan, SampleSource, Slots, fill_rows
from trainer.config import Config
from trainer.feed import to_device
from trainer.lattice import LatticeSums
from trainer.objective import PREDICTED, STUDENT, Objective
from trainer.views import STD_EPS, Pixels, cut_views, draw_boxes

# --- formulas --------------------------------------------------------------------------------------------------------


def mean_flow(u_b2hw: Tensor) -> Tensor:
    """The best constant flow of each sample."""
    return u_b2hw.mean(dim=(-2, -1), keepdim=True).expand_as(u_b2hw)


def affine_flow(u_b2hw: Tensor) -> Tensor:
    """The best flow of each sample that is affine in the position, in closed form."""
    height, width = u_b2hw.shape[-2:]
    x_1w = (torch.arange(width, dtype=u_b2hw.dtype, device=u_b2hw.device) - (width - 1) / 2)[None, :]
    y_h1 = (torch.arange(height, dtype=u_b2hw.dtype, device=u_b2hw.device) - (height - 1) / 2)[:, None]
    fitted = mean_flow(u_b2hw)
    for position in (x_1w, y_h1):
        position_hw = position.expand(height, width)
        slope = (position_hw * u_b2hw).sum(dim=(-2, -1), keepdim=True) / position_hw.square().sum()
        fitted = fitted + slope * position_hw
    return fitted


def px_per_unit(flow_px_b2hw: Tensor) -> Tensor:
    """What one unit of standardised flow is in pixels of the stored map, [b, 2, 1, 1]: `views.standardise_flow` divides by
    std + eps in half image extents, which are width / 2 and height / 2 pixels."""
    height, width = flow_px_b2hw.shape[-2:]
    half_extent = flow_px_b2hw.new_tensor([width / 2, height / 2]).view(1, 2, 1, 1)
    return flow_px_b2hw.std(dim=(-2, -1), keepdim=True) + STD_EPS * half_extent


def end_point_error_px(v_b2hw: Tensor, u_b2hw: Tensor, px_b211: Tensor) -> Tensor:
    """Mean length of the error in pixels, a scalar."""
    return ((v_b2hw - u_b2hw) * px_b211).norm(dim=1).mean()


def squared_error(v_b2hw: Tensor, u_b2hw: Tensor) -> Tensor:
    """Sum over everything, a scalar."""
    return (v_b2hw - u_b2hw).square().sum()


# --- figures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlowFigures:
    """Share of flow variance explained and end-point error in pixels of the stored map, beside the baselines'."""

    explained: float
    explained_by_affine: float
    epe_px: float
    epe_px_of_mean: float
    epe_px_of_affine: float


@dataclass(frozen=True)
class Figures:
    """One evaluation. flow: None where the objective predicts none. unreadable: samples that others stood in for. lattice: share
    of the dense features' variance within patches that repeats from patch to patch (`trainer.lattice`)."""

    samples: int
    loss: float
    terms: Mapping[str, float]
    flow: FlowFigures | None
    unreadable: int
    seconds: float
    lattice: float | None = None


@dataclass
class FlowSums:
    """What R2 and the end-point errors are made of, added up batch by batch."""

    batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, v_b2hw: Tensor, u_b2hw: Tensor, px_b211: Tensor) -> None:
        mean, affine = mean_flow(u_b2hw), affine_flow(u_b2hw)
        found = {
            "variance": squared_error(mean, u_b2hw),
            "left": squared_error(v_b2hw, u_b2hw),
            "left_by_affine": squared_error(affine, u_b2hw),
            "epe": end_point_error_px(v_b2hw, u_b2hw, px_b211),
            "epe_of_mean": end_point_error_px(mean, u_b2hw, px_b211),
            "epe_of_affine": end_point_error_px(affine, u_b2hw, px_b211),
        }
        for name, value in zip(found, torch.stack(list(found.values())).tolist(), strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.batches += 1

    def figures(self) -> FlowFigures | None:
        """None where nothing was added."""
        if not self.batches:
            return None
        s, count = self.sums, self.batches
        variance = s["variance"] or float("nan")
        return FlowFigures(
            explained=1 - s["left"] / variance,
            explained_by_affine=1 - s["left_by_affine"] / variance,
            epe_px=s["epe"] / count,
            epe_px_of_mean=s["epe_of_mean"] / count,
            epe_px_of_affine=s["epe_of_affine"] / count,
        )


class HeldOut:
    """The held-out samples of a run, read anew for every evaluation into memory for one batch."""

    def __init__(self, source: SampleSource, plan: Plan, config: Config) -> None:
        """plan: over the held-out samples; its batches are all equal, and no sample is in two of them."""
        assert plan.batch_size <= len(plan.order)
        self.source, self.plan, self.config = source, plan, config
        self.batches = min(config.log.holdout_batches, len(plan.order) // plan.batch_size)
        self.slots = Slots(plan, 1)

    @torch.no_grad()
    def evaluate(
        self, objective: Objective, device: torch.device, source_size: int, patch: int | None = None
    ) -> Figures:
        """Loss and figures of the held-out samples with the weights as they are. LoaderError where too many are unreadable.

        patch: side of the encoder's patches in pixels, for the lattice.
        """
        started, unreadable = time.perf_counter(), 0
        sums: dict[str, float] = {}
        flow, lattice = FlowSums(), LatticeSums(patch or 1)
        for step in range(self.batches):
            positions = self.plan.positions(step)
            batch = self.slots.batch(0, step, positions, [])
            unreadable += len(fill_rows(self.source, self.plan, batch, slice(None)))
            pixels = to_device(batch, device).pixels
            boxes = draw_boxes(self.config.train.seed, positions, self.config.views.crop_scale, source_size)
            views = cut_views(pixels, boxes, view_size=self.config.views.image_size, source_size=source_size)
            loss = objective.loss(views)
            for name, value in {"total": loss.total, **loss.terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / self.batches
            if views.u2 is not None and PREDICTED in loss.shown:
                flow.add(loss.shown[PREDICTED].float(), views.u2, px_per_unit(_flow_px(pixels)))
            if patch and STUDENT in loss.shown:
                lattice.add(loss.shown[STUDENT])
        samples = self.batches * self.plan.batch_size
        seconds = time.perf_counter() - started
        share = lattice.share() if lattice.within else None
        return Figures(samples, sums.pop("total"), sums, flow.figures(), unreadable, seconds, share)


def _flow_px(pixels: Pixels) -> Tensor:
    assert pixels.flow_b2hw is not None and pixels.quantum_px is not None
    return pixels.flow_b2hw.float() * pixels.quantum_px.view(-1, 1, 1, 1)
