"""The naive objective, the paper's ablation (a): one learned linear map for all images instead of a fitted one per image.

The map is a layer of its own, trained together with the decoder on the same losses. It has to explain every image's flow with
the same coefficients, whatever moves where, which is what FlowFeat's ridge per image frees the features from. The published
code does not hold this variant, so what the paper leaves open is decided here: the student's view and its flow are those of
FlowFeat (the second), the map has a bias as the ridge has, it takes the decoder's learning rate, and its initial weights are
PyTorch's default, drawn from the run's seed. The teacher follows the student and is exported as ever; nothing asks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.distill import predict_flow
from trainer.flowfeat import FlowFeat
from trainer.objective import PREDICTED, STUDENT, Loss
from trainer.update import FlowDistillation, compare
from trainer.views import Views

SHARED_MAP = "objective.shared_map"
"""The map's key in a checkpoint."""


class NaiveFlow(FlowDistillation):
    """What is linearly decodable as motion must be so with the same coefficients in all images."""

    def __init__(self, config: Config, model: FlowFeat) -> None:
        super().__init__(config, model)
        channels, device = model.feature_dim, next(model.decoder.parameters()).device
        draw, bound = torch.Generator().manual_seed(config.train.seed), 1 / math.sqrt(channels)
        weights_D2 = torch.empty(channels + 1, 2).uniform_(-bound, bound, generator=draw)
        self.shared_map_D2 = nn.Parameter(weights_D2.to(device))

    def loss(self, views: Views) -> Loss:
        """Encoder and student on the second view; the shared map gives its flow."""
        assert views.u2 is not None
        size = (views.image2.shape[-2], views.image2.shape[-1])
        with torch.autocast(views.image2.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"):
            with torch.no_grad():
                maps = self._encode(views.image2).maps_bdhw
            studied = self._study(maps, size)
        predicted = predict_flow(studied, self.shared_map_D2.expand(len(studied), -1, -1))
        flow, grad, total = compare(predicted, views.u2, self.config.loss)
        shown = {PREDICTED: predicted.detach(), STUDENT: studied.detach()}
        return Loss(total, {"flow": flow, "grad": grad}, shown)

    def parameters(self) -> list[nn.Parameter]:
        return [*super().parameters(), self.shared_map_D2]

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), SHARED_MAP: self.shared_map_D2.detach()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_state_dict({key: value for key, value in tensors.items() if key != SHARED_MAP})
        with torch.no_grad():
            self.shared_map_D2.copy_(tensors[SHARED_MAP])
