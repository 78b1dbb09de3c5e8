"""One training on several processes, as `torchrun` starts them: who is who, what they add up, when they stop together.

`torchrun --nproc-per-node=2 -m trainer train ...` tells every process its rank in environment variables. Every rank reads its
slice of the same global batch (`trainer.order.batch_positions`), takes the gradient of the mean over its slice, and the mean of
those is the gradient of the mean over the global batch, since slices are equal. So parameters, optimiser and teacher stay the same
on every rank without being sent, and the run is that of one rank up to rounding. Rank 0 alone writes.

The gradients are averaged by one all-reduce of one flat vector after the backward pass, not by DistributedDataParallel: an
objective is not one module, one residual unit of the published decoder never gets a gradient, and a decoder of a few million
parameters is averaged in a small part of a step, so there is next to nothing to hide behind the backward pass.

Before every step the ranks agree on the host (gloo, one integer, beside the device's work) whether all go on. An interrupt of one
stops all after the same step; data that one cannot read ends all with its message; a rank that dies closes its connections,
which the others see there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from common.command import PlainError
from trainer.batch import LoaderError

STARTUP_S = 300.0  # what a rank may take longer than another for the model, a checkpoint, an evaluation
T = TypeVar("T")
Stop = Literal["max_minutes", "interrupted"]
_CODES: tuple[Stop | None, ...] = (None, "max_minutes", "interrupted")
_FAILED = len(_CODES)  # the largest: it wins


class OtherRank(PlainError):
    """Another rank of the run failed, or is gone."""


@dataclass(frozen=True)
class Place:
    """This process among those of the run: rank of count, and local rank of those on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """As torchrun says; alone where it says nothing. ValueError for what it would never say."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if "TORCHELASTIC_RUN_ID" not in environment and not all(name in environment for name in names):
            return cls()
        try:
            place = cls(*(int(environment[name]) for name in names))
        except (KeyError, ValueError) as error:
            raise ValueError(f"torchrun's variables {', '.join(names)} are incomplete: {error}") from error
        if not (0 <= place.rank < place.count and 0 <= place.local < place.local_count):
            raise ValueError(f"RANK = {place.rank} of WORLD_SIZE = {place.count} is no rank")
        return place

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """ValueError unless every rank gets equally many samples, in `accumulate` equal parts."""
        if batch_size % (self.count * accumulate):
            raise ValueError(
                f"train.batch_size = {batch_size} cannot be shared by {self.count} ranks in train.accumulate = {accumulate} "
                f"equal parts each: choose a multiple of {self.count * accumulate}"
            )


class Ranks:
    """The processes of a run, joined. `group` is None where there is one: then nothing is sent and nothing waited for."""

    def __init__(self, place: Place, group: dist.ProcessGroup | None = None) -> None:
        self.place, self.group = place, group
        self.stop: Stop | None = None

    @property
    def writes(self) -> bool:
        """Whether this rank is the one that writes log, checkpoints, pictures and the model."""
        return self.place.rank == 0

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks, in place; all must be of one dtype and on the training device."""
        if self.group is None or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _peers():
            dist.all_reduce(flat, group=self.group)
        flat /= self.place.count
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def gather(self, value: T) -> list[T]:
        """What every rank gave, in their order. Plain values only: they travel pickled."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * self.place.count
        with _peers():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def check_equal(self, what: str, value: object) -> None:
        """PlainError on every rank unless all hold the same value."""
        found = self.gather(value)
        if any(other != found[0] for other in found):
            raise OtherRank(f"the ranks do not start from the same {what}: {', '.join(map(str, found))}")

    def together(self, batches: Iterator[T], wish: Callable[[], Stop | None]) -> Iterator[T]:
        """The batches until a rank wishes to stop; `stop` says afterwards what was wished. All ranks get equally many.

        Raises the LoaderError of this rank, or OtherRank where another one has failed.
        """
        while True:
            failure: LoaderError | None = None
            try:
                batch = next(batches)
            except LoaderError as error:
                failure = error
            code = self._largest(_FAILED if failure else _CODES.index(wish()))
            if code == _FAILED:
                messages = self.gather(str(failure) if failure else None)
                if failure:
                    raise failure
                number, message = next((n, text) for n, text in enumerate(messages) if text is not None)
                raise OtherRank(f"rank {number}: {message}")
            self.stop = _CODES[code]
            if self.stop is not None:
                return
            yield batch

    def _largest(self, code: int) -> int:
        if self.group is None:
            return code
        codes = torch.tensor([code])
        with _peers():
            dist.all_reduce(codes, dist.ReduceOp.MAX, group=self.group)
        return int(codes)


@contextmanager
def joined(place: Place, device: torch.device, timeout_s: float) -> Iterator[Ranks]:
    """The run's ranks, connected: gloo between hosts, NCCL between GPUs. timeout_s: after which silence is an error.

    Raises OtherRank where they cannot be.
    """
    if place.count == 1:
        yield Ranks(place)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _peers():
        dist.init_process_group(
            backend, rank=place.rank, world_size=place.count, timeout=timedelta(seconds=timeout_s + STARTUP_S)
        )
    yield Ranks(place, dist.group.WORLD)
    # Only after a good end: a rank that fails must not wait here for those that it has left behind.
    dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = re.sub(r"^\[\S+:\d+\] ", "", first).partition(". ")[
            0
        ]  # without the library's source line and its advice
        raise OtherRank(
            f"another rank of this run is gone or silent (its own message says why): {reason}; start it again with --resume"
        ) from error
