"""A sweep's [probe], which stage 2 hands on unread, against the probes that there are: task, options, metric, data.

`python -m probes check-sweep` asks before anything is trained, `python -m probes sweep` again before anything is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from common.command import nearest
from probes.options import CommaSeparated, Option
from probes.task import Metric, Task
from trainer import ProbeSettings

DataFlags = Mapping[str, Path | str]
"""Folders, or addresses where the task takes them."""
"""Data that a sweep is judged on: the flag of a task's data option → what was given."""


@dataclass(frozen=True)
class SweepProbe:
    """A [probe] that makes sense. metric: the figure that decides. values: of its task's fields, as the task takes them."""

    task: type[Task]
    metric: Metric
    values: Mapping[str, Any]  # of any type that an option of a task may have

    @property
    def needs_data(self) -> bool:
        return any(option.data for option in self.task.options().values())

    def arguments(self) -> list[str]:
        """The options for the command line of `python -m probes TASK`, without data."""
        options, words = self.task.options(), []
        for name, value in self.values.items():
            if options[name].kind is bool:
                words += [options[name].flag] if value else []
            else:
                words += [options[name].flag, ",".join(value) if isinstance(value, tuple) else str(value)]
        return words

    def data_arguments(self, data: DataFlags) -> list[str]:
        """The options that name the data. ValueError for data that the task has no use for."""
        needed = {option.flag for option in self.task.options().values() if option.data}
        for flag in data:
            if flag not in needed:
                wanted = " ".join(sorted(needed)) or "no data"
                raise ValueError(f"the sweep's probe {self.task.name} takes {wanted}, not {flag}")
        return [word for flag, path in data.items() for word in (flag, str(path))]

    def check_data(self, data: DataFlags) -> None:
        """Open the data as the task would, as far as is cheap. ValueError says what is wrong with it."""
        self.data_arguments(data)
        by_flag = {option.flag: name for name, option in self.task.options().items()}
        given = {by_flag[flag]: path for flag, path in data.items()}
        self.task(**{**self.values, **given}).units()


def sweep_probe(settings: ProbeSettings, known: Sequence[type[Task]]) -> SweepProbe:
    """Check the names and values of a [probe]. Raises ValueError with the nearest name for an unknown one."""
    tasks = {task.name: task for task in known}
    if settings.task not in tasks:
        raise ValueError(f"probe: no probe is called {settings.task!r}; {nearest(settings.task, tasks)}")
    task = tasks[settings.task]
    metrics = {metric.name: metric for metric in task.main()}
    name = settings.metric or task.headline
    if name not in metrics:
        raise ValueError(f"probe.metric = {name!r} is no figure of the probe {task.name!r}; {nearest(name, metrics)}")
    fields = {_entry(option): field for field, option in task.options().items() if not option.data}
    values: dict[str, Any] = {}
    for key, value in settings.options:
        entry = key.replace("_", "-")
        if entry not in fields:
            raise ValueError(f"probe: the probe {task.name!r} has no option {key!r}; {nearest(entry, fields)}")
        values[fields[entry]] = _converted(key, value, task.options()[fields[entry]])
    try:
        task(**values)
    except ValueError as error:
        raise ValueError(f"probe: {error}") from error
    return SweepProbe(task, metrics[name], values)


def _entry(option: Option) -> str:
    """What an option is called in [probe]: its flag without the dashes."""
    return option.flag.removeprefix("--")


def _converted(key: str, value: object, option: Option) -> object:
    """A value of TOML as the task's field takes it."""
    if option.kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"probe.{key} = {value!r} must be true or false")
        return value
    if isinstance(value, bool) or (isinstance(value, tuple) and not isinstance(option.kind, CommaSeparated)):
        raise ValueError(f"probe.{key} = {value!r} is not what {option.flag} takes")
    try:
        kind = click.types.convert_type(option.kind)
        return kind.convert(value if isinstance(value, tuple) else str(value), None, None)
    except click.BadParameter as error:
        raise ValueError(f"probe.{key} = {value!r}: {error.message}") from error
