"""One update of FlowFeat, top to bottom on one screen: encoder, teacher, student, ridge, losses, optimiser step, EMA.

Two views of each frame with their flow come in from `trainer.views`; the formulas are those of `trainer.distill`, the teacher's
schedule is that of `trainer.ema`. `update` serves any objective; `FlowDistillation` is FlowFeat's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from shards.sample import Member
from trainer.config import Config
from trainer.config_sections import LossConfig
from trainer.distill import fit_linear_map, flow_loss, gradient_loss, predict_flow
from trainer.ema import Teacher
from trainer.flowfeat import FlowFeat
from trainer.objective import PREDICTED, STUDENT, Loss, Objective
from trainer.pictures import Picture, training_table
from trainer.views import Views

EMA = "decoder_ema."


GRADIENT_NORM = "gradient_norm"


class Update(NamedTuple):
    """What one optimiser step did: the loss's terms, "total" and the gradient's norm (`names`) as one vector on the device
    (`values`, float32), and what the objective shows of the last part of the batch."""

    names: tuple[str, ...]
    values: Tensor
    shown: Mapping[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """The values by name; waits for the device."""
        return dict(zip(self.names, self.values.tolist(), strict=True))


class Distilled(NamedTuple):
    """Losses of one part of a batch (scalars; `total` carries the gradient), the flow that the student's features gave, the map."""

    flow: Tensor
    grad: Tensor
    total: Tensor
    predicted_b2hw: Tensor
    map_bD2: Tensor


# --- one update ------------------------------------------------------------------------------------------------------


def update(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    views: Views,
    parts: int = 1,
    average: Callable[[Sequence[Tensor]], None] | None = None,
) -> Update:
    """One optimiser step on one batch, in equal parts (same gradient, less memory). Never waits for the device.

    average: replaces the gradients by their means over the ranks that have equal shares of the batch (`trainer.distributed`).
    """
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for part in views.parts(parts):
        loss = objective.loss(part)
        (loss.total / parts).backward()
        for name, value in {**loss.terms, "total": loss.total}.items():
            share = value.detach() / parts
            sums[name] = sums[name] + share if name in sums else share
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    if average:
        average(gradients)
    norm = torch.nn.utils.get_total_norm(gradients)
    optimiser.step()
    objective.after_step()
    return Update((*sums, GRADIENT_NORM), torch.stack([*sums.values(), norm]), loss.shown)


def distill(
    taught_bdhw: Tensor,
    studied_bdhw: Tensor,
    u1_b2hw: Tensor,
    u2_b2hw: Tensor,
    settings: LossConfig,
    trust1_b1hw: Tensor | None = None,
    trust2_b1hw: Tensor | None = None,
) -> Distilled:
    """Fit on the teacher's view, predict in the student's, compare: total = grad_weight L_grad + flow_weight L_flow.

    trust: how much each pixel's flow counts in either view, 0..1; None: all alike. Where the flows to K neighbours of every
    sample are given, [b, 2 K, h, w] (and trust [b, K, h, w]), there are K maps, and the losses are the means over them.
    """
    # ridge: the teacher's features -> flow of view 1; the same map on the student's features -> flow of view 2
    map_bD2 = _maps(taught_bdhw, u1_b2hw, settings.alpha, trust1_b1hw)
    predicted = predict_flow(studied_bdhw, map_bD2)
    pairs = u1_b2hw.shape[1] // 2
    if pairs == 1:
        return Distilled(*compare(predicted, u2_b2hw, settings, trust2_b1hw), predicted, map_bD2)
    trust = [None] * pairs if trust2_b1hw is None else trust2_b1hw.split(1, dim=1)
    terms = [
        torch.stack(compare(guess, u2, settings, trusted))
        for guess, u2, trusted in zip(predicted.split(2, dim=1), u2_b2hw.split(2, dim=1), trust, strict=True)
    ]
    flow, grad, total = torch.stack(terms).mean(dim=0)
    return Distilled(flow, grad, total, predicted, map_bD2)


def _maps(taught_bdhw: Tensor, u_b2hw: Tensor, alpha: float, trust_b1hw: Tensor | None) -> Tensor:
    """The maps of all neighbours, side by side; each needs a system of its own only where its pixels are trusted differently."""
    if trust_b1hw is None:
        return fit_linear_map(taught_bdhw, u_b2hw, alpha)
    pairs = zip(u_b2hw.split(2, dim=1), trust_b1hw.split(1, dim=1), strict=True)
    return torch.cat([fit_linear_map(taught_bdhw, u, alpha, trust) for u, trust in pairs], dim=2)


def compare(
    predicted_b2hw: Tensor, u2_b2hw: Tensor, settings: LossConfig, trust2_b1hw: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Flow term, gradient term and their weighted sum."""
    target = u2_b2hw.float()
    flow = flow_loss(predicted_b2hw, target, settings.flow_kind, trust2_b1hw)
    grad = gradient_loss(predicted_b2hw, target, settings.sigma, settings.grad_kind, trust2_b1hw)
    return flow, grad, settings.grad_weight * grad + settings.flow_weight * flow


class FlowDistillation:
    """What is linearly decodable as motion in the teacher's view must be so, with the same coefficients, in the student's."""

    members: ClassVar[frozenset[Member]] = frozenset({"frame", "flow"})

    def loss(self, views: Views) -> Loss:
        """Encoder on both views, teacher on the first, student on the second; the networks may run in bfloat16."""
        assert views.u1 is not None and views.u2 is not None
        half, size = len(views.image1), (views.image1.shape[-2], views.image1.shape[-1])
        with torch.autocast(views.image1.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"):
            with torch.no_grad():
                maps = self._encode(torch.cat((views.image1, views.image2))).maps_bdhw
                taught = self._teach(tuple(m[:half] for m in maps), size)
            studied = self._study(tuple(m[half:] for m in maps), size)
        trust = views.confidence1, views.confidence2  # None but in ConfidentFlow
        found = distill(taught, studied, views.u1, views.u2, self.config.loss, *trust)
        shown = {PREDICTED: found.predicted_b2hw.detach(), STUDENT: studied.detach()}
        return Loss(found.total, {"flow": found.flow, "grad": found.grad}, shown)

    def after_step(self) -> None:
        """EMA: the teacher follows the student that has just taken its step."""
        self.teacher.update(self.model.decoder)

    # --- what the update works on ------------------------------------------------------------------------------------

    def __init__(self, config: Config, model: FlowFeat) -> None:
        """`model.decoder` is the student; the encoder is frozen, the teacher a copy that only `after_step` moves."""
        self.config, self.model = config, model
        self.model.encoder.requires_grad_(False)
        self.teacher = Teacher(model.decoder, max_decay=config.teacher.max_decay, every=config.teacher.every)
        wrap: Callable[[Any], Any] = torch.compile if config.train.compile else lambda f: f
        self._encode, self._teach, self._study = (
            wrap(part) for part in (model.encode, self.teacher.decoder, model.decoder)
        )

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.decoder.parameters())

    def facts(self) -> dict[str, float]:
        return {"ema_decay": self.teacher.last_decay}

    def picture(self, views: Views, shown: Mapping[str, Tensor]) -> Picture:
        assert views.u2 is not None
        return training_table(views.image1, views.image2, views.u2, shown[PREDICTED], shown[STUDENT])

    def state_dict(self) -> dict[str, Tensor]:
        """A complete published layout: the model, and the teacher under `decoder_ema.`."""
        teacher = {f"{EMA}{key}": value for key, value in self.teacher.state_dict().items()}
        return {**self.model.state_dict(), **teacher}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.teacher.load_state_dict({k.removeprefix(EMA): v for k, v in tensors.items() if k.startswith(EMA)})
        self.model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(EMA)})


class ConfidentFlow(FlowDistillation):
    """The same where every pixel counts as much as its flow is trusted, in the ridge and in both losses (`loss.confidence`)."""

    members: ClassVar[frozenset[Member]] = frozenset({"frame", "flow", "confidence"})
