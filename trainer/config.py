"""A TOML file and `key=value` overrides in, one frozen, fully checked Config out.

Defaults are the paper's. Nothing is ignored: an unknown key, a wrong type or a value out of range is an error that names
the key, the value, the file and the nearest keys that exist. `to_toml` writes the resolved config beside the run, from
which the same run can be started again.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from trainer.config_field import checked, takes_text, toml_value
from trainer.config_sections import (
    DataConfig,
    EncoderConfig,
    LogConfig,
    LossConfig,
    ObjectiveConfig,
    TeacherConfig,
    TrainConfig,
    ViewsConfig,
)


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        low, high = self.views.crop_scale
        if low > high:
            raise ValueError(f"views.crop_scale = [{low}, {high}]: the first number must not exceed the second")
        if self.train.batch_size % self.train.accumulate:
            raise ValueError(
                f"train.accumulate = {self.train.accumulate} does not divide train.batch_size = {self.train.batch_size}"
            )
        if self.data.weights and self.data.sets and len(self.data.weights) != len(self.data.sets):
            raise ValueError(
                f"data.weights has {len(self.data.weights)} numbers for {len(self.data.sets)} shard sets (data.shards): give one each"
            )
        if self.encoder.weights and self.encoder.init == "random":
            raise ValueError(
                f'encoder.init = "random" and encoder.weights = {self.encoder.weights!r} exclude each other: '
                'for weights from a file leave encoder.init at "pretrained"'
            )
        if not (self.loss.flow_weight or self.loss.grad_weight):
            raise ValueError("loss.flow_weight and loss.grad_weight are both 0: there is nothing to train on")
        if self.train.warmup_steps and self.train.warmup_steps >= self.train.steps:
            raise ValueError(
                f"train.warmup_steps = {self.train.warmup_steps} must be fewer than train.steps = {self.train.steps}"
            )
        if self.data.neighbours > 1 and self.objective.name != "flowfeat":
            raise ValueError(
                f'data.neighbours = {self.data.neighbours} is for objective.name = "flowfeat", not {self.objective.name!r}'
            )
        if self.loss.confidence and self.objective.name != "flowfeat":
            raise ValueError(
                f'loss.confidence = true is for objective.name = "flowfeat", not {self.objective.name!r}: leave one out'
            )


# Settings that may change between a run and its continuation: they alter speed, length or logging, never the samples that
# are seen or the arithmetic done on them.
FREE_ON_RESUME = frozenset(
    {
        *("data.shards", "data.workers", "data.prefetch_batches", "data.timeout_s"),
        *("data.max_failed_share", "data.allow_partial", "train.steps", "train.max_minutes", "encoder.weights"),
        "teacher.export",
        *(f"log.{f.name}" for f in dataclasses.fields(LogConfig)),
    }
)
# These may change too (a run may move to another machine), but other kernels and other thread counts add in another order:
# the continued run is then equal to the uninterrupted one up to rounding only, and its log says so.
ROUNDING_ON_RESUME = frozenset({"train.device", "train.threads", "train.compile"})


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (None: the defaults), then apply overrides such as "train.steps=500". ValueError on anything odd."""
    table: dict[str, Any] = {}
    where = "the command line"
    if path is not None:
        where = str(path)
        if not path.is_file():
            raise ValueError(f"config file {path} does not exist")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"config file {path} is not valid TOML: {error}") from error
    config: Config = _build(Config, table, "", where)
    return _overridden(config, overrides)


def flatten(config: Config) -> dict[str, Any]:
    """{"section.key": value} of every setting, in order."""
    return dict(_walk(config, ""))


def to_toml(config: Config) -> str:
    """The resolved config as TOML that `load_config` reads back to an equal Config."""
    lines: list[str] = []
    for section in dataclasses.fields(config):
        lines += ["", f"[{section.name}]"]
        values = getattr(config, section.name)
        lines += [f"{f.name} = {toml_value(getattr(values, f.name))}" for f in dataclasses.fields(values)]
    return "\n".join(lines[1:]) + "\n"


def changed_settings(old: Config, new: Config) -> list[str]:
    """Lines "key: old -> new" of the settings that a continued run must not change but does."""
    free = FREE_ON_RESUME | ROUNDING_ON_RESUME
    if "cosine" in (old.train.schedule, new.train.schedule):
        free = free - {"train.steps"}  # every step's learning rate depends on how many there are
    return [line for key, line in _changes(old, new) if key not in free]


def rounding_changes(old: Config, new: Config) -> list[str]:
    """Lines "key: old -> new" of the settings that change how sums are rounded, and nothing else."""
    return [line for key, line in _changes(old, new) if key in ROUNDING_ON_RESUME]


def _changes(old: Config, new: Config) -> Iterator[tuple[str, str]]:
    before, after = flatten(old), flatten(new)
    for key in before:
        if before[key] != after[key]:
            yield key, f"{key}: {before[key]!r} -> {after[key]!r}"


def _walk(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for f in dataclasses.fields(value):
        inner, name = getattr(value, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(inner):
            yield from _walk(inner, f"{name}.")
        else:
            yield name, inner


def _unknown_key(name: str, where: str) -> ValueError:
    sections = [f.name for f in dataclasses.fields(Config)]
    known = [*flatten(Config()), *sections]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    last = name.rsplit(".", 1)[-1]
    near += [key for key in known if key.rsplit(".", 1)[-1] == last and key not in near]
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; sections are {', '.join(sections)}"
    return ValueError(f"{where}: unknown setting {name!r}{hint}")


def _build(kind: Any, table: dict[str, Any], prefix: str, where: str) -> Any:
    hints, fields = get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, raw in table.items():
        name = f"{prefix}{key}"
        if key not in fields:
            raise _unknown_key(name, where)
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(raw, dict):
                raise ValueError(f"{where}: {name} = {raw!r} must be a section of settings, written [{name}]")
            values[key] = _build(hints[key], raw, f"{name}.", where)
        else:
            values[key] = checked(raw, hints[key], fields[key], name, where)
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _overridden(config: Config, texts: Sequence[str]) -> Config:
    """The config with all overrides at once: what two of them allow together may not depend on which comes first."""
    changed: dict[str, dict[str, Any]] = {}
    for text in texts:
        section, key, value = _override(config, text)
        changed.setdefault(section, {})[key] = value
    sections = {name: dataclasses.replace(getattr(config, name), **values) for name, values in changed.items()}
    return dataclasses.replace(config, **sections)


def _override(config: Config, text: str) -> tuple[str, str, Any]:
    """(section, key, checked value) of "section.key=value"."""
    name, equals, written = text.partition("=")
    name, written = name.strip(), written.strip()
    if not equals or not name:
        raise ValueError(f"{text!r} is not of the form section.key=value")
    section, _, key = name.partition(".")
    if name not in flatten(config):
        raise _unknown_key(name, "the command line")
    values = getattr(config, section)
    kind = get_type_hints(type(values))[key]
    try:
        raw = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        raw = written
    if takes_text(kind) and not isinstance(raw, str) and not (isinstance(raw, list) and kind is not str):
        raw = written  # a bare word that happens to read as another type, such as a directory called 2024
    spec = next(f for f in dataclasses.fields(values) if f.name == key)
    return section, key, checked(raw, kind, spec, name, "the command line")
