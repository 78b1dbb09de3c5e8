"""What a training says of itself in its log: how it begins, which samples it had to leave out, what every step line holds.

`trainer.train` calls these at the right moments; lines go to `trainer.run_log`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from common.cores import usable_cores
from trainer.batch import Failure
from trainer.checkpoint import Arithmetic
from trainer.config import Config, flatten
from trainer.distributed import Ranks
from trainer.lattice import lattice_share
from trainer.learner import Learner
from trainer.objective import STUDENT
from trainer.order import SampleOrder
from trainer.run_log import RunLog, Window, peak_memory_mb
from trainer.shard_sets import ShardSets

LATTICE_SAMPLES = 4  # of a step's batch: full-resolution features are large, and the share hardly changes with more


@dataclass(frozen=True)
class Beginning:
    """Where a run begins: after how many steps, from which set's checkpoint (None: anew), with which other rounding, with how
    many threads and ranks."""

    step: int
    earlier_set: str | None
    rounding: list[str]
    arithmetic: Arithmetic


def announce(
    log: RunLog, config: Config, shards: ShardSets, order: SampleOrder, learner: Learner, beginning: Beginning
) -> None:
    """The start event, and lines about what a continued run finds changed."""
    left_out, step = len(shards) - len(order), beginning.step
    log.event(
        "start",
        step=step,
        resumed=beginning.earlier_set is not None,
        samples=len(order),
        samples_without_flow=left_out,
        shards=shards.identity,
        sets=[asdict(facts) for facts in shards.facts(order.samples)],
        device=str(learner.device),
        **asdict(beginning.arithmetic),
        encoder_source=learner.model.encoder_source,
        config=jsonable(config),
    )
    threads, ranks = beginning.arithmetic.threads, beginning.arithmetic.ranks
    where = (
        str(learner.device) if learner.device.type != "cpu" else f"cpu ({threads} thread{'s' if threads > 1 else ''})"
    )
    log.say(
        f"{config.encoder.variant} on {where}{f', {ranks} ranks' if ranks > 1 else ''}, {len(order)} samples from {shards.place}"
        + (f" ({left_out} more have no usable flow)" if left_out else "")
        + (f", continuing after step {step}" if beginning.earlier_set is not None else "")
    )
    if len(shards.sets) > 1:
        for one in shards.facts(order.samples):
            log.say(f"  {one.place}: {one.trained} of {one.samples} samples")
    if shards.held_mib:
        log.say(
            f"read in blocks, {shards.window_blocks} to a window: up to {shards.held_mib:.0f} MiB of memory hold them"
        )
    if beginning.earlier_set not in (None, shards.identity):
        log.event("set_changed", step=step, before=beginning.earlier_set, now=shards.identity)
        log.say("note: the shard set is not the one of the checkpoint; the order of samples changes from here on")

    if config.train.precision == "fp32" and learner.device.type == "cuda":
        log.say(
            "note: train.precision = fp32; bf16 is several times faster here (ridge and losses stay fp32): train.precision=bf16"
        )
    if learner.device.type == "cpu" and threads > usable_cores():
        log.say(
            f"note: this run uses {threads} threads on {usable_cores()} cores, as it began; train.threads changes that"
        )
    if config.log.tensorboard:
        log.say(f"curves while it runs: tensorboard --logdir {shlex.quote(str(log.run_dir))}")
    if beginning.rounding:
        log.event("rounding_changed", step=step, changes=beginning.rounding)
        log.say(
            f"note: {'; '.join(beginning.rounding)}: sums are rounded differently from here on, so the run is no longer "
            "the uninterrupted one bit for bit"
        )


class Skipped:
    """Samples that could not be read: one line each in the log, those of other ranks when they are collected.

    count: how many of the run so far, of all ranks that have been collected.
    """

    def __init__(self, log: RunLog, shards: ShardSets, ranks: Ranks) -> None:
        self.log, self.shards, self.ranks = log, shards, ranks
        self.count = 0
        self._elsewhere: list[tuple[int, Failure]] = []

    def add(self, step: int, failures: list[Failure]) -> None:
        """What this rank could not read of the step's batch."""
        if not self.ranks.writes:
            self._elsewhere += [(step, failure) for failure in failures]
            return
        for failure in failures:
            self._write(step, failure)

    def collect(self) -> None:
        """Write what other ranks could not read since the last call; every rank calls it after the same step."""
        for step, failure in (entry for entries in self.ranks.gather(self._elsewhere) for entry in entries):
            self._write(step, failure)
        self._elsewhere = []

    def _write(self, step: int, failure: Failure) -> None:
        self.count += 1
        key = self.shards.keys[failure.sample]
        self.log.event("skipped", step=step, key=key, position=failure.position, reason=failure.reason)
        self.log.say(f"step {step}: sample skipped, the next in order took its place: {failure.reason}")


def step_facts(
    config: Config,
    learner: Learner,
    window: Window,
    wait_s: float,
    order: SampleOrder,
    step: int,
    skipped: int,
    shown: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What a step line holds. shown: what the objective shows of the step; the lattice is that of its first features."""
    patch = learner.model.patch_size
    memory = {"peak_memory_mb": peak_memory_mb()}
    if learner.device.type == "cuda":
        memory["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(learner.device) / 2**20, 1)
    return {
        **window.facts(wait_s),
        "lr": learner.lr,
        **learner.objective.facts(),
        "epoch": round(step * config.train.batch_size / len(order), 4),
        "skipped": skipped,
        **({"lattice": lattice_share(shown[STUDENT][:LATTICE_SAMPLES], patch)} if STUDENT in shown else {}),
        **memory,
    }


def jsonable(config: Config) -> dict[str, Any]:
    """Every setting of a config as JSON can hold it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(config).items()}
