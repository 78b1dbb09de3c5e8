"""A sweep's TOML file in, frozen rows out: which settings are tried, on which shard sets, how often, judged how.

    base = "../demo.toml"          # relative to this file
    baseline = "full"              # the row that others are compared with
    seeds = [0, 1]                 # every row once per seed
    settings.train.steps = 100     # over the base, in every row
    probe = { height = 96, iterations = 20 }

    [[rows]]
    name = "full"

    [[rows]]
    name = "raft"
    shards = "RAFT"                # a set of its own: --set RAFT=DIR

    [[grids]]                      # every combination becomes a row
    name = "loss"
    settings = { "loss.alpha" = [0.1, 1.0], "loss.sigma" = [0.05, 0.1] }

Here form and names are checked; whether settings and sets suit the trainer is `plan`'s business, whether the probe and its
options exist that of `python -m probes check-sweep`.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command import nearest
from trainer.sweep.toml_part import Part, Settings, Value, flat_settings, toml

TRAINED = "flowfeat"
"""The feature source of a row that is trained."""
OTHER_SOURCES = ("random_decoder", "encoder")
"""What a row may be instead: these are not trained but judged on the baseline's models, by the probes' names for them."""
OWN_KEYS = {"data.shards": "shards = NAME in the row and --set NAME=DIR", "train.seed": "seeds = [...]"}
"""Settings that a sweep decides otherwise."""


@dataclass(frozen=True)
class ProbeSettings:
    """How finished runs are judged: `python -m probes TASK` with its options by name, and which of its figures decides.

    metric: empty for the one that the probe itself ranks by. Which probes and options there are is not known here.
    """

    task: str = "vos"
    metric: str = ""
    options: Settings = ()


@dataclass(frozen=True)
class Row:
    """One line of the table. shards: name of its set, empty for the sweep's own. paper: the paper's difference, points.

    trained_by: a program outside that trains this row's runs (a sweep itself computes no flow); empty for the sweep's own.
    """

    name: str
    title: str
    settings: Settings = ()
    shards: str = ""
    source: str = TRAINED
    paper: float | None = None
    trained_by: str = ""

    @property
    def trained(self) -> bool:
        return self.source == TRAINED


@dataclass(frozen=True)
class SweepFile:
    """A whole sweep; `rows` holds those of the grids too."""

    path: Path
    base: Path | None
    baseline: str
    seeds: tuple[int, ...]
    settings: Settings
    rows: tuple[Row, ...]
    probe: ProbeSettings

    @property
    def name(self) -> str:
        return self.path.stem


def read_sweep_file(path: Path, *, base: Path | None = None, overrides: Sequence[str] = ()) -> SweepFile:
    """Parse and check. ValueError says where in the file something is wrong, and the nearest name for an unknown one.

    base: another one than the file's, relative to the working directory. overrides: KEY=VALUE for all rows, where KEY is a
    setting, `seeds`, or `probe.` and an entry of [probe]; what a row itself sets stays.
    """
    if not path.is_file():
        raise ValueError(f"sweep file {path} does not exist")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"sweep file {path} is not valid TOML: {error}") from error
    for text in overrides:
        _override(table, text)
    part = Part(table, str(path))
    part.only("base", "baseline", "seeds", "settings", "probe", "rows", "grids")
    rows = [_row(each) for each in part.parts("rows")]
    rows += [row for each in part.parts("grids") for row in _grid(each)]
    named = part.text("base", "")
    sweep = SweepFile(
        path,
        base or (path.parent / named if named else None),
        part.text("baseline", rows[0].name if rows else ""),
        part.whole_numbers("seeds", (0,)),
        _settings(part),
        tuple(rows),
        _probe(part.part("probe")),
    )
    _check(sweep)
    return sweep


def _override(table: dict[str, Any], text: str) -> None:
    """Put KEY=VALUE into the file's table, as if it stood there."""
    key, equals, written = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ValueError(f"{text!r} is not of the form KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written  # a bare word
    if key == "seeds":
        table[key] = value
    elif key.startswith("probe."):
        table["probe"] = {**table.get("probe", {}), key.removeprefix("probe."): value}
    else:
        settings = dict(flat_settings(table.get("settings", {}), "settings"))
        table["settings"] = {**settings, key: value}


def folder_name(row: str) -> str:
    """A row's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.=+-]+", "-", row).strip("-.") or "row"


def _row(part: Part) -> Row:
    part.only("name", "title", "settings", "shards", "source", "paper", "trained_by")
    name = part.text("name")
    part.where = f"{part.where} {name!r}"
    settings, source = _settings(part), part.text("source", TRAINED)
    shards, paper, trained_by = part.text("shards", ""), part.number("paper"), part.text("trained_by", "")
    if source not in (TRAINED, *OTHER_SOURCES):
        raise ValueError(f"{part.where}: no feature source is called {source!r}; {nearest(source, OTHER_SOURCES)}")
    if source != TRAINED and (settings or shards or trained_by):
        raise ValueError(
            f"{part.where}: source = {source!r} is judged on the baseline's runs, so it takes no settings, shards or trained_by"
        )
    return Row(name, part.text("title", name), settings, shards, source, paper, trained_by)


def _grid(part: Part) -> list[Row]:
    part.only("name", "settings", "shards")
    name, shards = part.text("name"), part.text("shards", "")
    part.where = f"{part.where} {name!r}"
    axes: dict[str, tuple[Any, ...]] = {}
    for key, values in _settings(part):
        if not isinstance(values, tuple) or not values:
            raise ValueError(f"{part.where}: {key} = {toml(values)} must be a list of the values to try")
        axes[key] = values
    if not axes:
        raise ValueError(f"{part.where}: settings must name at least one list of values to try")
    rows = []
    for combination in itertools.product(*axes.values()):
        settings = tuple(zip(axes, combination, strict=True))
        shown = " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in settings)
        rows.append(Row(f"{name} {shown}", f"{name} {shown}", settings, shards))
    return rows


def _settings(part: Part) -> Settings:
    settings = part.settings("settings")
    for name, _ in settings:
        if name in OWN_KEYS:
            raise ValueError(f"{part.where}: {name} is the sweep's to set; write {OWN_KEYS[name]}")
    return settings


def _probe(part: Part) -> ProbeSettings:
    default = ProbeSettings()
    options = {key: value for key, value in part.table.items() if key not in ("task", "metric")}
    flat = tuple(flat_settings(options, part.where))
    return ProbeSettings(part.text("task", default.task), part.text("metric", default.metric), flat)


def _check(sweep: SweepFile) -> None:
    where, names = sweep.path, [row.name for row in sweep.rows]
    if not names:
        raise ValueError(f"{where}: there is nothing to sweep; add [[rows]] or [[grids]]")
    folders = [folder_name(name) for name in names]
    twice = sorted({name for name, folder in zip(names, folders, strict=True) if folders.count(folder) > 1})
    if twice:
        raise ValueError(f"{where}: rows need names of their own (letters and digits count): {', '.join(twice)}")
    if sweep.baseline not in names:
        raise ValueError(f"{where}: baseline = {sweep.baseline!r} is no row; {nearest(sweep.baseline, names)}")
    baseline = next(row for row in sweep.rows if row.name == sweep.baseline)
    if not baseline.trained or baseline.trained_by:
        raise ValueError(
            f"{where}: baseline = {sweep.baseline!r} is not trained here; name a row without `source` and `trained_by`"
        )
    if not sweep.seeds or len(set(sweep.seeds)) != len(sweep.seeds) or min(sweep.seeds) < 0:
        raise ValueError(f"{where}: seeds = {list(sweep.seeds)} must be different whole numbers from 0 on")


def override(key: str, value: Value) -> str:
    """`key=value` as the trainer's command line takes it."""
    return f"{key}={toml(value)}"


def _short(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(_short(each) for each in value) or "all"
    return value if isinstance(value, str) else toml(value)
