"""What learns in a run: a FlowFeat model, the objective that trains its decoder, and the optimiser.

Views come in and are handed to `trainer.update`; state goes out as a checkpoint, the model as a model file.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from trainer.config import Config
from trainer.device import set_precision
from trainer.distributed import Place, Ranks
from trainer.flowfeat import FlowFeat
from trainer.model import EncoderDecoder
from trainer.model_file import TEACHER
from trainer.objective import Objective
from trainer.objectives import objective_of
from trainer.schedule import learning_rate
from trainer.tensor_file import content_digest
from trainer.update import Update, update
from trainer.views import Views

ALONE = Ranks(Place())


def check_sizes(model: EncoderDecoder, config: Config, stored_size: int) -> int:
    """Side in pixels of the frames that views are cut from. ValueError where the sizes do not fit together."""
    view, multiple = config.views.image_size, model.size_multiple
    if view % multiple:
        down, up = view // multiple * multiple, -(-view // multiple) * multiple
        near = " or ".join(str(n) for n in (down, up) if n)
        raise ValueError(
            f"views.image_size = {view} does not suit {model.variant}: it must be a multiple of {multiple} "
            f"(twice the patch of {model.patch_size}), such as {near}"
        )
    source = config.data.source_size or min(2 * view, stored_size)
    if source > stored_size:
        raise ValueError(f"data.source_size = {source} is larger than the frames in the set ({stored_size} pixels)")
    return source


class Learner:
    """Model, objective and optimiser of a run; only what the objective names as its parameters is trained."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        state: dict[str, Any] | None = None,
        objective: type[Objective] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """A new run's learner, or with `state` (from `state_dict`) one that continues; then no encoder file is needed.

        objective: another than the config names. ranks: those that have the other shares of each batch.
        """
        self.config, self.device, self.ranks = config, device, ranks
        set_precision(config, device)
        init: str | Path = Path(config.encoder.weights) if config.encoder.weights else config.encoder.init
        self.model = FlowFeat.create(
            config.encoder.variant, init="random" if state else init, seed=config.train.seed
        ).to(device)
        self.objective = (objective or objective_of(config))(config, self.model)
        self.parameters = self.objective.parameters()
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=config.train.lr,
            betas=config.train.betas,
            weight_decay=config.train.weight_decay,
            fused=True if device.type == "cuda" else None,
        )
        self.steps, self.lr = 0, config.train.lr
        if config.teacher.export:
            self._teacher_weights()
        if state:
            self.load_state_dict(state)
            self.model.encoder_source = state["encoder_source"]

    def learn(self, views: Views) -> Update:
        """One optimiser step on one batch, or on this rank's share of it; see `trainer.update`."""
        self.lr = learning_rate(self.steps, self.config.train)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.steps += 1
        return update(self.objective, self.optimiser, views, self.config.train.accumulate, self.ranks.average)

    def digest(self) -> str:
        """What all ranks must agree on before the first step: a hash of everything in `state_dict()["model"]`."""
        return content_digest({k: v.detach().cpu() for k, v in self.objective.state_dict().items()}, {})

    def exported(self) -> EncoderDecoder:
        """The model that the run leaves: with the student's decoder, or with `teacher.export` the teacher's."""
        if not self.config.teacher.export:
            return self.model
        model = copy.deepcopy(self.model, memo={id(self.model.encoder): self.model.encoder})
        model.decoder.load_state_dict(self._teacher_weights())
        return model

    def _teacher_weights(self) -> dict[str, torch.Tensor]:
        """The teacher's decoder as the objective publishes it. ValueError where it has none."""
        state = self.objective.state_dict()
        weights = {key.removeprefix(TEACHER): value for key, value in state.items() if key.startswith(TEACHER)}
        if not weights:
            name = type(self.objective).__name__
            raise ValueError(
                f"teacher.export = true, but the objective {name} has no teacher: leave teacher.export out"
            )
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues exactly; "model" is a complete published layout."""
        return {
            "encoder_source": self.model.encoder_source,
            "model": self.objective.state_dict(),
            "optim": self.optimiser.state_dict(),
            "step": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`'s content."""
        self.objective.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optim"])
        self.steps = int(state["step"])
