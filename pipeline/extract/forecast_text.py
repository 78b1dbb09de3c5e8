"""A forecast in lines for a person, and as one object for machines.

A forecast and the machines that it is asked for come in; each machine's time with the stage that decides, and its break-even, go out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.progress import duration
from pipeline.extract.forecast import (
    FEWEST_FOR_RANGES,
    BreakEven,
    Forecast,
    Machine,
    Measured,
    WallTime,
    break_even,
    wall_time,
)
from pipeline.extract.forecast_beside import count, gib, ranged
from shards.counting import counted, plural


@dataclass(frozen=True)
class OnMachine:
    """What the whole set takes on a machine. gpu_pairs_per_s: what one GPU is taken to do. assumed: whether that was said, not measured.

    cores_to_keep_up: so that decoding and encoding are no slower than flow on the GPUs.
    """

    machine: Machine
    wall: WallTime
    break_even: BreakEven
    gpu_pairs_per_s: float | None = None
    assumed: bool = False
    cores_to_keep_up: float | None = None


@dataclass(frozen=True)
class Told:
    """All that is said. elsewhere: on the GPUs asked for; None where none were, or nothing is known of their speed (then `unknown`)."""

    forecast: Forecast
    sampled: int
    sampled_rejected: dict[str, int]
    timed_pairs: int
    device: str
    seconds: float
    load: float
    train_samples_per_s: float | None
    here: OnMachine
    elsewhere: OnMachine | None
    unknown: str = ""


def told(
    measured: Measured,
    found: Forecast,
    here: Machine,
    elsewhere: Machine | None,
    gpu_pairs_per_s: float | None,
    train_samples_per_s: float | None,
    load: float,
) -> Told:
    """elsewhere: a machine with GPUs to say the time for as well. gpu_pairs_per_s: of each of them; None: as measured here."""
    there, unknown = None, ""
    if elsewhere is not None:
        if gpu_pairs_per_s is None and not here.gpus:
            unknown = (
                f"on {counted(elsewhere.gpus, 'GPU')}: unknown, for flow was measured on a CPU; run this on a GPU (--device cuda), or give "
                "--gpu-pairs-per-s"
            )
        else:
            there = _on(measured, found, elsewhere, gpu_pairs_per_s, train_samples_per_s)
    return Told(
        forecast=found,
        sampled=len(measured.videos),
        sampled_rejected=measured.rejected,
        timed_pairs=sum(pairs for pairs, _ in measured.calls),
        device=measured.device,
        seconds=measured.seconds,
        load=load,
        train_samples_per_s=train_samples_per_s,
        here=_on(measured, found, here, None, train_samples_per_s),
        elsewhere=there,
        unknown=unknown,
    )


def _on(
    measured: Measured, found: Forecast, machine: Machine, gpu_pairs_per_s: float | None, train: float | None
) -> OnMachine:
    stages = found.stages
    if gpu_pairs_per_s is not None:
        stages = replace(stages, flow_s=found.pairs * (1 / gpu_pairs_per_s))
    wall, even = wall_time(stages, machine), break_even(measured, found, machine, stages, train)
    if not machine.gpus:
        return OnMachine(machine, wall, even)
    keep_up = (stages.decoding_s.best + stages.encoding_s.best) * machine.gpus / stages.flow_s.best
    rate = gpu_pairs_per_s or found.pairs_per_s.best
    return OnMachine(machine, wall, even, rate, gpu_pairs_per_s is not None, keep_up)


def forecast_lines(said: Told) -> list[str]:
    """For a terminal."""
    found, work = said.forecast, said.forecast.work
    rejects = ", ".join(f"{reason} {n}" for reason, n in said.sampled_rejected.items()) or "none"
    lines = [
        f"sample: {said.sampled} of {work.videos:,} {plural(work.videos, 'video')} drawn at random, rejected: {rejects}; "
        f"{counted(said.timed_pairs, 'pair')} timed on "
        f"{said.device}; {said.seconds:.0f} s"
    ]
    if said.sampled < min(FEWEST_FOR_RANGES, work.videos):
        lines.append(f"too few for ranges: give at least {FEWEST_FOR_RANGES} videos (--sample, --seconds)")
    if said.load > said.here.machine.cores * 1.25:
        lines.append(
            f"this machine is busy (load {said.load:.1f} on {counted(said.here.machine.cores, 'core')}): alone it is faster than said here"
        )
    rows = [
        ("videos", f"{work.videos:,}"),
        ("rejected", ranged(found.rejected, count)),
        ("samples", ranged(found.samples, count)),
        ("pairs computed", ranged(found.pairs, count)),
        ("pairs stored", ranged(found.stored, count)),
        ("KiB per sample", ranged(found.sample_bytes, lambda size: f"{size / 1024:.1f}")),
        ("GiB", ranged(found.bytes, gib)),
        ("flow, pairs/s", f"{ranged(found.pairs_per_s, lambda rate: f'{rate:.3g}')} per {_flow_process(said)}"),
    ]
    stages = (
        ("decoding", found.stages.decoding_s),
        ("flow", found.stages.flow_s),
        ("encoding", found.stages.encoding_s),
    )
    rows += [(f"{name}, one process", ranged(seconds, hours)) for name, seconds in stages]
    wide = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{wide}}  {text}" for name, text in rows]
    lines += _machine_lines("here", said.here, work.share_left, said.train_samples_per_s)
    if said.elsewhere is not None:
        lines += _machine_lines("there", said.elsewhere, work.share_left, said.train_samples_per_s)
    return lines + ([said.unknown] if said.unknown else [])


def _flow_process(said: Told) -> str:
    return "GPU" if said.here.machine.gpus else "worker, alone"


def _machine_lines(where: str, on: OnMachine, share_left: float, train: float | None) -> list[str]:
    machine, wall = on.machine, on.wall
    name = counted(machine.cores, "core")
    if machine.gpus:
        rate = f"{on.gpu_pairs_per_s:,.0f} pairs/s each, {'ASSUMED' if on.assumed else 'measured'}"
        name = f"{counted(machine.gpus, 'GPU')} ({rate}) and {name}"
    lines = [f"{where}, {name}: {ranged(wall.seconds, hours)}; what decides: {wall.limit}"]
    if share_left < 1:
        left = wall.seconds * share_left
        lines.append(f"  of which is left to do: {share_left:.0%}, {ranged(left, hours)}".replace("%", " %"))
    if on.cores_to_keep_up is not None:
        lines.append(f"  cores that keep these GPUs busy: {on.cores_to_keep_up:.0f}")
    return [*lines, f"  {_break_even_line(on, train)}"]


def _break_even_line(on: OnMachine, train: float | None) -> str:
    even = on.break_even
    if even.epoch is None:
        return "flow inside training is never slower on this machine: decoding or the step decides there"
    more = f"{1000 * even.online_extra_s:.3g} ms more per sample"
    words = f"pays for itself from epoch {even.epoch:.1f} on, against flow inside training ({more})"
    if not on.machine.gpus:
        return f"{words}; on a CPU the rate of training plays no part"
    if train is None:
        unknown = "the rate of training is unknown (--train-samples-per-s)"
        if even.earliest is None or even.earliest > 0.95 * even.epoch:
            return f"{words}; {unknown}, and plays hardly a part"
        return (
            f"pays for itself from epoch {even.earliest:.1f} on if training is faster than these cores decode, from epoch "
            f"{even.epoch:.1f} on if it is so slow that they keep up; {unknown}"
        )
    return f"{words}; at {train:g} samples/s of training from shards, as said"


def hours(seconds: float) -> str:
    """Hours from one hour on, minutes and seconds below."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else duration(seconds)
