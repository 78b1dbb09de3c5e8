"""As much of jsonargparse as the adapter asks of it: types come from a constructor's defaults."""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from typing import Any


class Namespace:
    """Values as attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]


class ArgumentParser:
    """Takes --model.NAME=VALUE."""

    def __init__(self, exit_on_error: bool = True) -> None:
        assert not exit_on_error, "a command must not end inside a library"
        self.defaults: dict[str, Any] = {}

    def add_class_arguments(self, kind: type, nested: str) -> None:
        assert nested == "model"
        self.defaults = {name: value.default for name, value in inspect.signature(kind).parameters.items()}

    def get_defaults(self) -> Namespace:
        return Namespace(model=Namespace(**self.defaults))

    def parse_args(self, words: list[str]) -> Namespace:
        values = dict(self.defaults)
        for word in words:
            name, _, text = word.removeprefix("--model.").partition("=")
            try:
                values[name] = type(values[name])(text)
            except ValueError as wrong:
                raise ArgumentError(
                    None, f'Parser key "model.{name}":\n  Expected an int. Got value: {text}'
                ) from wrong
        return Namespace(model=Namespace(**values))
