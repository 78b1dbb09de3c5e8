"""The commands in Markdown code blocks, and whether the command lines and the Makefile would take them as written."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from tests.module_graph import ROOT

STARTS = ("make", "python", ".venv/bin/python", "pip", "FLOWFEAT_KILLS=40")
GROUPS = ("pipeline", "trainer", "probes")
SEPARATORS = ("&&", ";", "|")
_FENCE = re.compile(r"^```(\w*)")


def code_lines(text: str) -> Iterator[str]:
    """Lines of indented blocks and of fenced blocks that are shell or name no language; a line that ends in a backslash goes on."""
    fence: str | None = None
    lines = []
    for line in text.splitlines():
        found = _FENCE.match(line)
        if found:
            fence = found[1] if fence is None else None
        elif (fence is None and line.startswith("    ")) or fence in ("", "sh", "bash"):
            lines.append(line.strip())
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    yield from joined.splitlines()


def documented_commands(path: Path) -> Iterator[list[str]]:
    """The commands of a page, as words; `a && b` is two. What follows # is a remark, what follows > a file."""
    for line in code_lines(path.read_text(encoding="utf-8")):
        if line.partition(" ")[0] not in STARTS:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in SEPARATORS:
                yield words
                words = []
            else:
                words.append(word)


def check(words: list[str]) -> None:
    """Raise ValueError or click's UsageError for a command that would not be taken."""
    words = words[: words.index(">")] if ">" in words else words
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        check_make(rest)
    elif program == "pip":
        check_pip(rest)
    elif rest[0] == "-m" and "-m" in rest[1:]:  # torchrun's form
        check(["python", *rest[1 + rest[1:].index("-m") :]])
    elif rest[0] == "-m" and rest[1] in GROUPS:
        check_click(rest[1], rest[2:])
    elif rest[0] == "-m" and rest[1] == "pytest":
        check_files([word for word in rest[2:] if not word.startswith("-")])
    else:
        script = Path(rest[1].replace(".", "/") + ".py") if rest[0] == "-m" else Path(rest[0])
        check_files([str(script)])
        known = (ROOT / script).read_text(encoding="utf-8")
        for word in rest:
            if word.startswith("--") and f'"{word.partition("=")[0]}"' not in known:
                raise ValueError(f"{script} has no option {word}")


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    variables = set(re.findall(r"^([A-Z_]+)\s*\?=", makefile, re.MULTILINE))
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and not (name in variables or name.startswith("SHARDS_")):
            raise ValueError(f"the Makefile has no variable {name}")
        if not equals and word not in targets:
            raise ValueError(f"the Makefile has no target {word}")


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        for one in named.split(","):
            if one not in extras:
                raise ValueError(f"pyproject.toml has no extra {one}")


def check_click(package: str, words: list[str]) -> None:
    """Parse down to the command, with every option's type, and run nothing."""
    command: click.Command = importlib.import_module(f"{package}.cli").main
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        if isinstance(found, click.Group) and found.invoke_without_command and not words:
            return
        command = found
    command.make_context(command.name, words, parent=context)


def check_files(names: list[str]) -> None:
    for name in names:
        if not (ROOT / name).exists():
            raise ValueError(f"no {name} here")
