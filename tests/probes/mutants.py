"""Mutants: a module's source with one formula changed. A mutant that passes every check shows a hole in the checks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

Check = Callable[[ModuleType], None]


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """The module with `old`, which must occur exactly once in its source, replaced by `new`."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {module.__file__}, not once"
    name = f"{module.__name__}_mutant"
    made = ModuleType(name)
    made.__file__ = module.__file__
    sys.modules[name] = made  # dataclasses look their module up
    exec(compile(source.replace(old, new), f"<{name}: {new}>", "exec"), made.__dict__)
    return made


def noticed(module: ModuleType, old: str, new: str, checks: Sequence[Check]) -> bool:
    """Whether one of the checks fails on the mutant. Any error counts: a formula that can't be computed is noticed too."""
    changed = mutant(module, old, new)
    for check in checks:
        try:
            check(changed)
        except (
            pytest.fail.Exception,
            AssertionError,
            ArithmeticError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ):
            return True
    return False
