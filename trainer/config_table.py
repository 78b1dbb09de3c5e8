"""Every setting of a config as Markdown tables: what docs/config.md holds, made of the sections themselves.

The dataclasses of `trainer.config_sections` come in, with their docstrings, types, defaults and bounds; `python -m trainer settings`
prints the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from typing import Any, get_type_hints

from trainer.config import Config
from trainer.config_field import kind_words, toml_value

HEAD = """# Every setting

Written by `python -m trainer settings > docs/config.md`; a test compares the two. A config is a TOML file with these sections, settings
that are left out have the default, which is the paper's, and any of them can be set on the command line:

    make train SHARDS=data/shards/clips RUN=runs/clips CONFIG=configs/real.toml TRAIN='train.steps=2000 views.image_size=224'

An unknown key, another type or a value out of range is an error that names the key, the value and the nearest keys. `RUN/config.toml`
holds all settings of a run.
"""


def config_table() -> str:
    """The whole page, ending in a line feed."""
    parts = [HEAD]
    for section, kind in get_type_hints(Config).items():
        hints = get_type_hints(kind)
        rows = [_row(f"{section}.{f.name}", hints[f.name], f) for f in dataclasses.fields(kind)]
        about = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
        parts.append(
            "\n".join(
                [
                    f"## [{section}]",
                    "",
                    *textwrap.wrap(about, 140),
                    "",
                    "| key | takes | default |",
                    "|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join(parts)


def _row(key: str, kind: Any, spec: dataclasses.Field[Any]) -> str:
    words = ("above", "from", "to")
    bounds = [
        f"{word} {spec.metadata[name]}"
        for word, name in zip(words, ("above", "low", "high"), strict=True)
        if spec.metadata.get(name) is not None
    ]
    takes = ", ".join(filter(None, [kind_words(kind), " ".join(bounds)]))
    return f"| `{key}` | {takes} | `{toml_value(spec.default)}` |"
