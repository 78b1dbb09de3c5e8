"""What a training objective is: a class that says what it reads of a sample and turns views into a loss.

`trainer.train` runs the loop for any class of this kind: the loader delivers the members it asks for, `trainer.views` cuts two
views out of each, `trainer.update` makes one optimiser step of its loss. FlowFeat's own is
`trainer.update.FlowDistillation`; another is one more class, listed in `trainer.objectives` under the name that a config gives, or
handed to `train(config, run_dir, objective=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from shards.sample import Member
from trainer.config import Config
from trainer.flowfeat import FlowFeat
from trainer.pictures import Picture
from trainer.views import Views

PREDICTED, STUDENT = "predicted", "student"


class Loss(NamedTuple):
    """total: scalar that carries the gradient. terms: scalars of which it is made, for the log. shown: detached tensors that
    `Objective.picture` wants to see again; a prediction of the second view's standardised flow, [b, 2, h, w], goes under
    PREDICTED, and dense features [b, c, h, w] under STUDENT: the held-out figures are made from both."""

    total: Tensor
    terms: Mapping[str, Tensor]
    shown: Mapping[str, Tensor]


class Objective(Protocol):
    """A motion-based objective for the decoder of one FlowFeat model.

    members: what is read of every sample; "frame" is always among them. "neighbour" and "confidence" need a set extracted
    with --keep-neighbours or --keep-confidence; samples without them are left out.
    """

    members: ClassVar[frozenset[Member]]

    def __init__(self, config: Config, model: FlowFeat) -> None:
        """model: with initial weights, on the training device; its decoder is what gets exported in the end."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parts, in an order that never changes: the optimiser's state is kept by position."""
        ...

    def loss(self, views: Views) -> Loss:
        """The loss of one part of a batch: a mean over its samples, so that equal parts add up to the whole batch."""
        ...

    def after_step(self) -> None:
        """Follows every optimiser step, such as the update of a teacher."""
        ...

    def facts(self) -> dict[str, float]:
        """Numbers of its own for the log line."""
        ...

    def picture(self, views: Views, shown: Mapping[str, Tensor]) -> Picture:
        """A picture of the last part of a batch: its views and what `loss` left in `shown`."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that is trained or follows: the model under its own keys, the rest under "objective." (FlowFeat's
        teacher under the published name), so that the model can be read out of a checkpoint."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`'s tensors."""
        ...
