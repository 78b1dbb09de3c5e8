"""The training loop, top to bottom: load, resume, for batch, step, log, save.

A shard set, a config and a run directory come in. The directory gets config.toml, log.jsonl, curves.png, tensorboard/,
pictures/, checkpoints/ and, at the end, the student as flowfeat.safetensors and flowfeat.pth (with teacher.export the teacher).
An interrupted run continues with `resume` exactly where its last checkpoint was: the same samples, the same views, the same
arithmetic. Under torchrun every process is one rank of the run (`trainer.distributed`); all go through the same loop, rank 0 writes.

The host never waits for the device but where a step's numbers are read (`trainer.tally`): at log, checkpoint, picture, held-out
and stop steps.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from common.freed_memory import OF_A_STEP, keep_freed_memory
from trainer import checkpoint
from trainer.batch import Plan
from trainer.config import Config
from trainer.config_sections import LogConfig
from trainer.curves import write_curves
from trainer.device import cpu_threads, training_device
from trainer.distributed import Place, Ranks, Stop, joined
from trainer.feed import DataWait, on_device
from trainer.holdout import HeldOut
from trainer.interrupts import Interrupts
from trainer.learner import Learner, check_sizes
from trainer.loader import Loader
from trainer.model import EncoderDecoder
from trainer.model_file import export_model
from trainer.objective import Objective
from trainer.objectives import objective_of
from trainer.order import SampleOrder
from trainer.run_events import Beginning, Skipped, announce, jsonable, step_facts
from trainer.run_log import RunLog, SilentLog, Window
from trainer.shard_sets import ShardSets, open_sets
from trainer.tally import Tally
from trainer.training_samples import held_out_order, sample_order
from trainer.views import cut_views, draw_boxes


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
    when data cannot be delivered, NonFiniteLoss, OtherRank where another rank of the run failed.
    """
    started = time.monotonic()
    place = Place.of_environment()
    objective = objective or objective_of(config)
    device = training_device(config, place)
    place.check_batch(config.train.batch_size, config.train.accumulate)
    if device.type == "cpu":
        keep_freed_memory(OF_A_STEP)
    shards = open_sets(config.data)
    order = sample_order(shards, config, objective.members)
    plan = _plan(shards, order, config, objective, place)
    held_out = _held_out(shards, config, objective, place)
    state = checkpoint.find(run_dir, config, resume)
    arithmetic = checkpoint.Arithmetic(cpu_threads(config, place, state.get("threads") if state else None), place.count)
    rounding = checkpoint.rounding_changes(run_dir, config, state, arithmetic) if state else []
    torch.set_num_threads(arithmetic.threads)
    first_step, saved = (int(state["step"]),) * 2 if state else (0, -1)

    # Workers are forked before anything touches the GPU; the run's directory is made once nothing speaks against the run.
    with (
        Loader(
            shards,
            plan,
            workers=config.data.workers,
            prefetch_batches=config.data.prefetch_batches,
            timeout_s=config.data.timeout_s,
            max_failed_share=config.data.max_failed_share,
        ) as loader,
        joined(place, device, config.data.timeout_s) as ranks,
    ):
        learner = Learner(config, device, state, objective, ranks)
        source_size = check_sizes(learner.model, config, shards.image_size)
        ranks.check_equal("step and weights", (first_step, learner.digest() if place.count > 1 else ""))
        with (
            checkpoint.sole_trainer(run_dir, state, resume) if ranks.writes else nullcontext(),
            _open_log(run_dir, config, first_step, console, ranks) as log,
            Interrupts() as interrupts,
        ):
            if ranks.writes:
                checkpoint.record_config(run_dir, config)
            beginning = Beginning(first_step, str(state["shards"]) if state else None, rounding, arithmetic)
            announce(log, config, shards, order, learner, beginning)
            if held_out and state is None and ranks.writes:
                log.holdout(0, held_out.evaluate(learner.objective, device, source_size, learner.model.patch_size))
            waited, tally = DataWait(loader, device), Tally(shards.keys, ranks)
            window = Window(waited.seconds(), state and state.get("window"))
            skipped = Skipped(log, shards, ranks)
            step, state = first_step, None

            def wish() -> Stop | None:
                if interrupts.asked and step > first_step:
                    return "interrupted"
                late = config.train.max_minutes and time.monotonic() - started >= 60 * config.train.max_minutes
                return "max_minutes" if late and step > first_step else None

            batches = on_device(loader, device, first_step, waited)
            for batch in ranks.together(batches, wish) if step < config.train.steps else ():
                boxes = draw_boxes(config.train.seed, batch.host.positions, config.views.crop_scale, source_size)
                views = cut_views(batch.pixels, boxes, view_size=config.views.image_size, source_size=source_size)
                update = learner.learn(views)
                step += 1

                log.reached(step)
                tally.add(step, batch.host.sample, update)
                skipped.add(step, batch.host.failures)
                last = step == config.train.steps
                due = Due.at(step, last, config.log, held_out is not None)
                if tally.full or any(due):
                    window.add(tally.read(), config.train.batch_size)
                    skipped.collect()
                if due.log:
                    facts = step_facts(
                        config, learner, window, waited.seconds(), order, step, skipped.count, update.shown
                    )
                    log.step(step, facts)
                    window = Window(waited.seconds())
                if due.picture and ranks.writes:
                    last_part = views.rows(-(len(views.image1) // config.train.accumulate), None)
                    log.picture(step, "training", learner.objective.picture(last_part, update.shown))
                if due.holdout and held_out and ranks.writes:
                    figures = held_out.evaluate(learner.objective, device, source_size, learner.model.patch_size)
                    log.holdout(step, figures)
                    window.leave_out(figures.seconds)
                if last:
                    break
                if due.checkpoint:
                    saved = _save(
                        log, run_dir, step, learner, shards, config, asdict(arithmetic) | {"window": window.state()}
                    )

            reason = ranks.stop or "steps"
            if saved != step:
                window.add(tally.read(), config.train.batch_size)
                skipped.collect()
                _save(log, run_dir, step, learner, shards, config, asdict(arithmetic) | {"window": window.state()})
            model_file = None
            if reason != "interrupted":
                model_file = run_dir / "flowfeat.safetensors"
                if ranks.writes:
                    export(run_dir, learner.exported(), config, step, shards)
            log.event("stop", step=step, reason=reason, minutes=round((time.monotonic() - started) / 60, 3))
            log.say(f"stopped after step {step} ({reason}); " + _whereabouts(run_dir, model_file))
            return Outcome(step, reason, model_file)


class Due(NamedTuple):
    """What follows a step besides the next one."""

    log: bool
    picture: bool
    holdout: bool
    checkpoint: bool

    @classmethod
    def at(cls, step: int, last: bool, every: LogConfig, held_out: bool) -> Due:
        return cls(
            last or step % every.every == 0,
            every.pictures_every > 0 and (last or step % every.pictures_every == 0),
            held_out and (last or step % every.holdout_every == 0),
            step % every.checkpoint_every == 0,
        )


def _plan(shards: ShardSets, order: SampleOrder, config: Config, objective: type[Objective], place: Place) -> Plan:
    """This rank's share of the run's batches."""
    sizes = (config.train.batch_size, shards.image_size, shards.flow_size)
    mine, members = {"rank": place.rank, "ranks": place.count}, frozenset(objective.members)
    return Plan(order, *sizes, **mine, members=members, neighbours=config.data.neighbours)


def _held_out(
    shards: ShardSets, config: Config, objective: type[Objective], place: Place | None = None
) -> HeldOut | None:
    """What is evaluated beside the training, in batches no larger than the parts it trains in; None where nothing is."""
    order = held_out_order(shards, config, objective.members)
    if order is None:
        return None
    part = config.train.batch_size // config.train.accumulate // (place.count if place else 1)
    sizes = (min(part, len(order)), shards.image_size, shards.flow_size)
    return HeldOut(shards, Plan(order, *sizes, members=frozenset(objective.members)), config)


def export(run_dir: Path, model: EncoderDecoder, config: Config, step: int, shards: ShardSets) -> None:
    """Write the model as run_dir/flowfeat.safetensors and flowfeat.pth."""
    decoder = "teacher" if config.teacher.export else "student"
    facts = {"step": step, "shards": shards.identity, "decoder": decoder, **jsonable(config)}
    for suffix in (".pth", ".safetensors"):
        export_model(model, run_dir / f"flowfeat{suffix}", facts)


def _open_log(run_dir: Path, config: Config, first_step: int, console: bool, ranks: Ranks) -> RunLog:
    if not ranks.writes:
        return SilentLog(run_dir, steps=config.train.steps, first_step=first_step)
    return RunLog(
        run_dir, steps=config.train.steps, first_step=first_step, tensorboard=config.log.tensorboard, console=console
    )


def _save(
    log: RunLog, run_dir: Path, step: int, learner: Learner, shards: ShardSets, config: Config, more: dict[str, object]
) -> int:
    """Write a checkpoint; every step before it has been read, so nothing in it can be other than finite."""
    if learner.ranks.writes:
        state = {"shards": shards.identity, "variant": config.encoder.variant, **more, **learner.state_dict()}
        path = checkpoint.save(run_dir, step, state, config.log.keep_checkpoints)
        log.event("checkpoint", step=step, file=str(path.relative_to(run_dir)))
        write_curves(run_dir)
    return step


def _whereabouts(run_dir: Path, model_file: Path | None) -> str:
    if model_file is None:
        return f"saved; --resume with --out {run_dir} continues"
    return f"the model is {model_file}"
