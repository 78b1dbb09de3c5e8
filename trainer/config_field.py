"""One setting of a config: its bounds, how a written value is checked against its type, how it is written down."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Literal, Union, get_args, get_origin

UNIONS = (Union, types.UnionType)


def setting(default: Any, *, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A field whose number must satisfy low <= value <= high, value > above (each element of a tuple)."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "above": above})


def toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return json.dumps(value)  # JSON strings, numbers and booleans are TOML's


def checked(raw: Any, kind: Any, spec: dataclasses.Field[Any], name: str, where: str) -> Any:
    value = _converted(raw, kind)
    if value is None:
        raise ValueError(f"{where}: {name} = {raw!r} must be {kind_words(kind)}")
    low, high, above = (spec.metadata.get(bound) for bound in ("low", "high", "above"))
    for number in value if isinstance(value, tuple) else (value,):
        if low is not None and not number >= low:
            raise ValueError(f"{where}: {name} = {raw!r} must be at least {low}")
        if above is not None and not number > above:
            raise ValueError(f"{where}: {name} = {raw!r} must be greater than {above}")
        if high is not None and not number <= high:
            raise ValueError(f"{where}: {name} = {raw!r} must be at most {high}")
    return value


def _converted(raw: Any, kind: Any) -> Any:
    """`raw` as `kind`, or None where it is of another type. Whole numbers are accepted for floats, nothing else."""
    if get_origin(kind) is Literal:
        return raw if isinstance(raw, str) and raw in get_args(kind) else None
    if get_origin(kind) in UNIONS:
        fitting = (_converted(raw, one) for one in get_args(kind))
        return next((value for value in fitting if value is not None), None)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(raw, (list, tuple)) or (inner[-1] is not Ellipsis and len(raw) != len(inner)):
            return None
        values = tuple(_converted(item, inner[0]) for item in raw)
        return None if any(v is None for v in values) else values
    if kind is float:
        ok = isinstance(raw, (int, float)) and not isinstance(raw, bool) and abs(raw) != float("inf") and raw == raw
        return float(raw) if ok else None
    if kind is int:
        return raw if isinstance(raw, int) and not isinstance(raw, bool) else None
    assert kind in (bool, str), kind
    return raw if isinstance(raw, kind) else None


def takes_text(kind: Any) -> bool:
    """Whether a setting of this kind may be a bare word."""
    return kind is str or get_origin(kind) is Literal or (get_origin(kind) in UNIONS and str in get_args(kind))


def kind_words(kind: Any) -> str:
    """What a setting of this kind takes, in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "a list of" if inner[-1] is Ellipsis else f"a list of {len(inner)}"
        return f"{count} {'texts' if inner[0] is str else 'whole numbers' if inner[0] is int else 'numbers'}"
    if get_origin(kind) in UNIONS:
        return " or ".join(kind_words(one) for one in get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text in quotes"}[kind]
