"""The training loop, top to bottom: load, resume, for batch, step, log, save.

A shard set, a config and a run directory come in. The directory gets config.toml, log.jsonl, curves.png, tensorboard/,
pictures/, checkpoints/ and, at the end, the student as flowfeat.safetensors and flowfeat.pth (with teacher.export the teacher).
An interrupted run continues with `resume` exactly where its last checkpoint was: the same samples, the same views, the same arithmetic.
"""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from common.command import PlainError
from shards.reader import ShardSet
from trainer import checkpoint
from trainer.batch import Plan
from trainer.config import Config, flatten
from trainer.curves import write_curves
from trainer.device import keep_freed_memory, training_device
from trainer.feed import DeviceBatch, on_device
from trainer.holdout import HeldOut
from trainer.interrupts import Interrupts
from trainer.learner import Learner, check_sizes
from trainer.loader import Loader
from trainer.model_file import export_model
from trainer.objective import Objective
from trainer.objectives import objective_of
from trainer.order import SampleOrder
from trainer.run_log import RunLog, Window, peak_memory_mb
from trainer.training_samples import held_out_order, sample_order
from trainer.update import Update
from trainer.views import cut_views, draw_boxes


class NonFiniteLoss(PlainError):
    """The loss or its gradient is NaN or infinite; the last checkpoint is from before."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after how many steps, why, and the model file (None where it was interrupted)."""

    step: int
    reason: Literal["steps", "max_minutes", "interrupted"]
    model_file: Path | None


def train(
    config: Config,
    run_dir: Path,
    *,
    resume: bool = False,
    console: bool = True,
    objective: type[Objective] | None = None,
) -> Outcome:
    """Train until train.steps, train.max_minutes or an interrupt (which saves first). See the module docstring.

    objective: another than the config names, see `trainer.objective`. Raises ValueError or OSError for bad input, LoaderError
    when data cannot be delivered, NonFiniteLoss.
    """
    started = time.monotonic()
    objective = objective or objective_of(config)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = training_device(config)
    if device.type == "cpu":
        keep_freed_memory()
    shards = ShardSet(Path(config.data.shards), allow_partial=config.data.allow_partial)
    order = sample_order(shards, config, objective.members)
    stored = shards.manifest.settings
    plan = Plan(
        order, config.train.batch_size, stored.image_size, stored.flow_size, members=frozenset(objective.members)
    )
    held_out = _held_out(shards, config, objective)
    state = checkpoint.find(run_dir, config, resume)
    rounding = checkpoint.rounding_changes(run_dir, config) if state else []
    first_step, saved = (int(state["step"]),) * 2 if state else (0, -1)

    # Workers are forked before anything touches the GPU; the run's directory is made once nothing speaks against the run.
    with Loader(
        shards,
        plan,
        workers=config.data.workers,
        prefetch_batches=config.data.prefetch_batches,
        timeout_s=config.data.timeout_s,
        max_failed_share=config.data.max_failed_share,
    ) as loader:
        learner = Learner(config, device, state, objective)
        source_size = check_sizes(learner.model, config, stored.image_size)
        with (
            checkpoint.sole_trainer(run_dir, state, resume),
            _open_log(run_dir, config, first_step, console) as log,
            Interrupts() as interrupts,
        ):
            checkpoint.record_config(run_dir, config)
            _announce(log, config, shards, order, learner, first_step, state, rounding)
            if held_out and state is None:
                log.holdout(0, held_out.evaluate(learner.objective, device, source_size, learner.model.patch_size))
            step, state = first_step, None
            reason: Literal["steps", "max_minutes", "interrupted"] = "steps"
            window = Window(loader.wait_s)

            for batch in on_device(loader, device, first_step) if step < config.train.steps else ():
                boxes = draw_boxes(config.train.seed, batch.host.positions, config.views.crop_scale, source_size)
                views = cut_views(batch.pixels, boxes, view_size=config.views.image_size, source_size=source_size)
                update = learner.learn(views)
                _check_finite(update, batch, shards)
                step += 1

                last = step == config.train.steps
                log.reached(step)
                _log_failures(log, batch, shards, step)
                window.add(len(batch.host.positions), **_numbers(update))
                if step % config.log.every == 0 or last:
                    log.step(step, _facts(config, learner, loader, window, order, step))
                    window = Window(loader.wait_s)
                if config.log.pictures_every and (step % config.log.pictures_every == 0 or last):
                    last_part = views.rows(-(config.train.batch_size // config.train.accumulate), None)
                    log.picture(step, "training", learner.objective.picture(last_part, update.shown))

                if held_out and (step % config.log.holdout_every == 0 or last):
                    figures = held_out.evaluate(learner.objective, device, source_size, learner.model.patch_size)
                    log.holdout(step, figures)
                    window.leave_out(figures.seconds)

                if last:
                    break
                if interrupts.asked:
                    reason = "interrupted"
                    break
                if config.train.max_minutes and time.monotonic() - started >= 60 * config.train.max_minutes:
                    reason = "max_minutes"
                    break
                if step % config.log.checkpoint_every == 0:
                    saved = _save(log, run_dir, step, learner, shards, config)

            if saved != step:
                _save(log, run_dir, step, learner, shards, config)
            model_file = None if reason == "interrupted" else export(run_dir, learner.exported(), config, step, shards)
            log.event("stop", step=step, reason=reason, minutes=round((time.monotonic() - started) / 60, 3))
            log.say(f"stopped after step {step} ({reason}); " + _whereabouts(run_dir, model_file))
            return Outcome(step, reason, model_file)


def _held_out(shards: ShardSet, config: Config, objective: type[Objective]) -> HeldOut | None:
    """What is evaluated beside the training, in batches no larger than the parts it trains in; None where nothing is."""
    order = held_out_order(shards, config, objective.members)
    if order is None:
        return None
    stored, part = shards.manifest.settings, config.train.batch_size // config.train.accumulate
    sizes = (min(part, len(order)), stored.image_size, stored.flow_size)
    return HeldOut(shards, Plan(order, *sizes, members=frozenset(objective.members)), config)


def export(run_dir: Path, model: Any, config: Config, step: int, shards: ShardSet) -> Path:
    """Write the model as run_dir/flowfeat.safetensors and flowfeat.pth; returns the first."""
    decoder = "teacher" if config.teacher.export else "student"
    facts = {"step": step, "shards": _identity(shards), "decoder": decoder, **flatten(config)}
    for suffix in (".pth", ".safetensors"):
        export_model(model, run_dir / f"flowfeat{suffix}", {k: _jsonable(v) for k, v in facts.items()})
    return run_dir / "flowfeat.safetensors"


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _identity(shards: ShardSet) -> str:
    """Digest of the index: two sets with the same one hold the same samples in the same rows."""
    return str(shards.manifest.files["index.parquet"]["sha256"])


def _open_log(run_dir: Path, config: Config, first_step: int, console: bool) -> RunLog:
    return RunLog(
        run_dir, steps=config.train.steps, first_step=first_step, tensorboard=config.log.tensorboard, console=console
    )


def _announce(
    log: RunLog,
    config: Config,
    shards: ShardSet,
    order: SampleOrder,
    learner: Learner,
    first_step: int,
    state: dict[str, Any] | None,
    rounding: list[str],
) -> None:
    left_out = len(shards) - len(order)
    log.event(
        "start",
        step=first_step,
        resumed=state is not None,
        samples=len(order),
        samples_without_flow=left_out,
        shards=_identity(shards),
        device=str(learner.device),
        encoder_source=learner.model.encoder_source,
        config={key: _jsonable(value) for key, value in flatten(config).items()},
    )
    log.say(
        f"{config.encoder.variant} on {learner.device}, {len(order)} samples from {shards.root}"
        + (f" ({left_out} more have no usable flow)" if left_out else "")
        + (f", continuing after step {first_step}" if state else "")
    )
    if state and state["shards"] != _identity(shards):
        log.event("set_changed", step=first_step, before=state["shards"], now=_identity(shards))
        log.say("note: the shard set is not the one of the checkpoint; the order of samples changes from here on")

    if config.log.tensorboard:
        log.say(f"curves while it runs: tensorboard --logdir {shlex.quote(str(log.run_dir))}")
    if rounding:
        log.event("rounding_changed", step=first_step, changes=rounding)
        log.say(
            f"note: {'; '.join(rounding)}: sums are rounded differently from here on, so the run is no longer the "
            "uninterrupted one bit for bit"
        )


def _numbers(update: Update) -> dict[str, float]:
    terms = {f"loss_{name}": value for name, value in update.losses.items() if name != "total"}
    return {"loss": update.losses["total"], **terms, "grad_norm": update.grad_norm}


def _facts(
    config: Config, learner: Learner, loader: Loader, window: Window, order: SampleOrder, step: int
) -> dict[str, Any]:
    memory = {"peak_memory_mb": peak_memory_mb()}
    if learner.device.type == "cuda":
        memory["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(learner.device) / 2**20, 1)
    return {
        **window.facts(loader.wait_s),
        "lr": learner.lr,
        **learner.objective.facts(),
        "epoch": round(step * config.train.batch_size / len(order), 4),
        "skipped": loader.failed,
        **memory,
    }


def _check_finite(update: Update, batch: DeviceBatch, shards: ShardSet) -> None:
    values = {**update.losses, "gradient norm": update.grad_norm}
    if all(math.isfinite(value) for value in values.values()):
        return
    keys = [shards.keys[i] for i in batch.host.sample]
    shown = ", ".join(keys[:16]) + (f", and {len(keys) - 16} more" if len(keys) > 16 else "")
    raise NonFiniteLoss(
        f"step {batch.host.step + 1}: "
        + ", ".join(f"{name} = {value:g}" for name, value in values.items())
        + f"; stopped without saving, the last checkpoint is intact. Samples of the step: {shown}"
    )


def _log_failures(log: RunLog, batch: DeviceBatch, shards: ShardSet, step: int) -> None:
    for failure in batch.host.failures:
        key = shards.keys[failure.sample]
        log.event("skipped", step=step, key=key, position=failure.position, reason=failure.reason)
        log.say(f"step {step}: sample skipped, the next in order took its place: {failure.reason}")


def _save(log: RunLog, run_dir: Path, step: int, learner: Learner, shards: ShardSet, config: Config) -> int:
    state = {"shards": _identity(shards), "variant": config.encoder.variant, **learner.state_dict()}
    path = checkpoint.save(run_dir, step, state, config.log.keep_checkpoints)
    log.event("checkpoint", step=step, file=str(path.relative_to(run_dir)))
    write_curves(run_dir)
    return step


def _whereabouts(run_dir: Path, model_file: Path | None) -> str:
    if model_file is None:
        return f"saved; --resume with --out {run_dir} continues"
    return f"the model is {model_file}"
