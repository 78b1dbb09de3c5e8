"""Every objective that a config can name. A new one is a class as `trainer.objective` describes, one line here, and its name in
`trainer.config.ObjectiveConfig`."""

from __future__ import annotations

from trainer.config import Config
from trainer.naive import NaiveFlow
from trainer.objective import Objective
from trainer.update import ConfidentFlow, FlowDistillation

OBJECTIVES: dict[str, type[Objective]] = {"flowfeat": FlowDistillation, "naive": NaiveFlow}


def objective_of(config: Config) -> type[Objective]:
    """The class that `objective.name` stands for, or with `loss.confidence` the one that reads confidence as well."""
    if config.loss.confidence:
        return ConfidentFlow
    return OBJECTIVES[config.objective.name]
