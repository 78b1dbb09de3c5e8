"""From a sweep file and shard sets to runs: every row checked whole before the first one starts.

Each row and seed becomes a `Run`: its resolved Config, its set, its directory. Rows whose set was not given are left out
with what to give. A directory that holds a run with other settings, or of another set, is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.command import nearest
from trainer.config import Config, changed_settings, load_config
from trainer.config_sections import DataConfig
from trainer.encoder_reference import describe
from trainer.objectives import objective_of
from trainer.shard_sets import ShardSets, open_sets
from trainer.sweep.run_state import read_state
from trainer.sweep.sweep_file import Row, SweepFile, folder_name, override
from trainer.training_samples import held_out_order, sample_order


@dataclass(frozen=True)
class Run:
    """One row at one seed. `shards`: identity of its set."""

    row: Row
    seed: int
    config: Config
    directory: Path
    shards: str

    @property
    def name(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    @property
    def settings_file(self) -> Path:
        """The settings it is started with; beside the directory, which belongs to the trainer."""
        return self.directory.with_suffix(".toml")

    @property
    def finished(self) -> bool:
        """Whether it has been trained as long as asked for, and its model lies there."""
        state = read_state(self.directory)
        if state.stopped == "max_minutes" and self.config.train.max_minutes:
            return True
        return state.stopped == "steps" and state.step == self.config.train.steps


@dataclass(frozen=True)
class SweepPlan:
    """What is to be done. left_out: name of a row → why it is not trained. outside: runs that another program trains."""

    file: SweepFile
    out: Path
    runs: tuple[Run, ...]
    left_out: Mapping[str, str]
    outside: tuple[Run, ...] = ()

    def runs_of(self, row: Row) -> list[Run]:
        return [run for run in (*self.runs, *self.outside) if run.row == row]


def run_directory(out: Path, row: str, seed: int) -> Path:
    """Where a row's run, or its report, lies."""
    return out / "rows" / folder_name(row) / f"seed-{seed}"


def plan_sweep(file: SweepFile, out: Path, shards: Sequence[str], sets: Mapping[str, str]) -> SweepPlan:
    """Check everything that can be known beforehand. shards: the sweep's own set, a folder or an address, or several; sets: those
    of rows, by name.

    Raises ValueError naming the row, or OSError; nothing is written.
    """
    wanted = {row.shards for row in file.rows if row.shards}
    for name in sets:
        if name not in wanted:
            raise ValueError(f"no row of {file.path} needs a shard set {name!r}; {nearest(name, sorted(wanted))}")
    if not shards and any(row.trained and not row.shards for row in file.rows):
        raise ValueError("no shard set given: use --shards DIR (make extract-flow creates one)")
    _check_base(file)
    opened: dict[DataConfig, ShardSets] = {}
    runs: list[Run] = []
    left_out: dict[str, str] = {}
    for row in file.rows:
        if not row.trained:
            continue
        try:
            named = [sets[row.shards]] if row.shards in sets else []
            places = named if row.shards else list(shards)
            configs = [_config(file, row, seed, places) for seed in file.seeds]
            if not places:
                left_out[row.name] = (
                    f"needs the shard set {row.shards}: give SHARDS_{row.shards}=dir (--set {row.shards}=DIR)"
                )
                continue
            data = _as_opened(configs[0].data)
            if data not in opened:
                opened[data] = open_sets(data)
            for config in configs:
                _check(config, opened[data])
        except (ValueError, OSError) as error:
            raise ValueError(f"{file.path}: row {row.name!r}: {_bare(error)}") from error
        identity = opened[data].identity
        runs += [
            Run(row, seed, config, run_directory(out, row.name, seed), identity)
            for seed, config in zip(file.seeds, configs, strict=True)
        ]
    if file.baseline in left_out:
        raise ValueError(f"{file.path}: the baseline {file.baseline!r} {left_out[file.baseline]}")
    _refuse_changed(runs)
    own, outside = (tuple(run for run in runs if bool(run.row.trained_by) == other) for other in (False, True))
    return SweepPlan(file, out, own, left_out, outside)


def _check_base(file: SweepFile) -> None:
    """The base and what holds for every row are faulted once, not as some row's."""
    try:
        load_config(file.base, [override(key, value) for key, value in file.settings])
    except ValueError as error:
        raise ValueError(f"{file.path}: {_bare(error)}") from error


def _as_opened(data: DataConfig) -> DataConfig:
    """What decides which sets are opened and how; rows that differ in the rest share them."""
    return replace(data, offsets=(), passes=0, source_size=0, holdout=0.0)


def _config(file: SweepFile, row: Row, seed: int, places: Sequence[str]) -> Config:
    config = load_config(file.base, [override(key, value) for key, value in (*file.settings, *row.settings)])
    data = replace(config.data, shards=places[0] if len(places) == 1 else tuple(places))
    return replace(config, data=data, train=replace(config.train, seed=seed))


def _check(config: Config, shards: ShardSets) -> None:
    """What a run would find out at its start, without training anything."""
    spec, view = describe(config.encoder.variant), config.views.image_size
    if view % (2 * spec.patch):
        raise ValueError(
            f"views.image_size = {view} does not suit {config.encoder.variant}: take a multiple of {2 * spec.patch}"
        )
    stored = shards.image_size
    if config.data.source_size > stored:
        raise ValueError(
            f"data.source_size = {config.data.source_size} is larger than the set's frames ({stored} pixels)"
        )
    weights = config.encoder.weights
    if weights and not Path(weights).is_file():
        raise ValueError(f"encoder.weights = {weights!r}: there is no such file")
    if config.train.device.startswith("cuda:"):
        raise ValueError(
            f'train.device = {config.train.device!r}: a sweep gives every run a GPU; write "cuda" or "auto"'
        )
    members = objective_of(config).members
    sample_order(shards, config, members)
    held_out_order(shards, config, members)


def _refuse_changed(runs: list[Run]) -> None:
    changed = []
    for run in runs:
        held = run.directory / "config.toml"
        if not held.is_file():
            continue
        before, state = load_config(held), read_state(run.directory)
        differences = changed_settings(before, run.config)
        if before.encoder.weights != run.config.encoder.weights:
            differences.append(f"encoder.weights: {before.encoder.weights!r} -> {run.config.encoder.weights!r}")
        if state.step > run.config.train.steps:
            differences.append(f"train.steps: {run.config.train.steps}, but {state.step} are done")
        if state.shards and state.shards != run.shards:
            differences.append(f"another shard set is at {run.config.data.shards} now")
        if differences:
            changed.append(f"{run.name} ({'; '.join(differences)})")
    if changed:
        raise ValueError(
            f"these runs were started otherwise than the file now says: {', '.join(changed)}. Restore the settings, remove "
            f"{'the directory' if len(changed) == 1 else 'the directories'} under {runs[0].directory.parents[1]}, or choose another --out"
        )


def _bare(error: Exception) -> str:
    """The sentence without the place it names for a user of the plain command line."""
    return str(error).removeprefix("the command line: ")


def parse_sets(texts: tuple[str, ...]) -> dict[str, str]:
    """--set NAME=DIR as given → folders or addresses by name."""
    sets: dict[str, str] = {}
    for text in texts:
        name, equals, directory = text.partition("=")
        if not equals or not name.strip() or not directory.strip():
            raise ValueError(f"--set {json.dumps(text)} is not of the form NAME=DIR")
        sets[name.strip()] = directory.strip()
    return sets
