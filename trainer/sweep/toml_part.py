"""A table of a TOML file, read entry by entry with its type; every error says where in the file it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.command import nearest

Value = bool | int | float | str | tuple[Any, ...]
Settings = tuple[tuple[str, Value], ...]


class Part:
    """A table of the file, read entry by entry; every error says where it stands."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, Mapping):
            raise ValueError(f"{where} must be a table of settings, not {table!r}")
        self.table: Mapping[str, Any] = table
        self.where = where

    def only(self, *known: str) -> None:
        for key in self.table:
            if key not in known:
                raise ValueError(f"{self.where}: unknown entry {key!r}; {nearest(key, known)}")

    def part(self, key: str) -> Part:
        return Part(self.table.get(key, {}), f"{self.where}: {key}")

    def parts(self, key: str) -> list[Part]:
        found = self.table.get(key, [])
        if not isinstance(found, list):
            raise ValueError(f"{self.where}: {key} must be written as [[{key}]]")
        return [Part(each, f"{self.where}: {key.removesuffix('s')} {n}") for n, each in enumerate(found, start=1)]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.table.get(key, default)
        if value is None:
            raise ValueError(f"{self.where}: {key} is missing")
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self._wrong(key, "a text in quotes")
        return value

    def whole_numbers(self, key: str, default: Sequence[int]) -> tuple[int, ...]:
        value = self.table.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            raise self._wrong(key, "a list of whole numbers")
        return tuple(value)

    def number(self, key: str) -> float | None:
        value = self.table.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key, "a number")
        return float(value)

    def settings(self, key: str) -> Settings:
        """Settings by full name, whether written "loss.alpha" or loss.alpha."""
        part = self.part(key)
        flat = tuple(flat_settings(part.table, part.where))
        names = [name for name, _ in flat]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.where}: {key} names a setting twice")
        return flat

    def _wrong(self, key: str, wanted: str) -> ValueError:
        return ValueError(f"{self.where}: {key} = {self.table.get(key)!r} must be {wanted}")


def flat_settings(table: Mapping[str, Any], where: str, prefix: str = "") -> list[tuple[str, Value]]:
    """(full name, value) of a table's settings, nested or not."""
    flat: list[tuple[str, Value]] = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat += flat_settings(value, where, f"{name}.")
        else:
            flat.append((name, _frozen(value, f"{where}: {name}")))
    return flat


def _frozen(value: Any, where: str) -> Value:
    if isinstance(value, list | tuple):
        return tuple(_frozen(each, where) for each in value)
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"{where} = {value} must be a number, a text, true, false, or a list of these")
    return value


def toml(value: Value) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(value)  # JSON's texts, numbers and booleans are TOML's
