"""Options of one estimator: NAME=VALUE on the command line → text by name → a typed value, or a refusal in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.command import nearest

_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def named_values(pairs: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary. Raises ValueError for a text without "="."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--flow-option takes NAME=VALUE, not {pair!r}")
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}


def check_names(owner: str, values: Mapping[str, str], known: Iterable[str]) -> None:
    """Raises ValueError on a name that is not among the known ones."""
    names = list(known)
    for name in values:
        if name not in names:
            raise ValueError(f"{owner} has no option {name!r}; {nearest(name, names)}")


def as_count(name: str, text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def as_switch(name: str, text: str) -> bool:
    """True or false."""
    if text.lower() not in _SWITCH:
        raise ValueError(f"{name} must be true or false, not {text!r}")
    return _SWITCH[text.lower()]
