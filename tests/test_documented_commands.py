"""Every command in the README and in docs/ is one that the command lines, the Makefile or a bench take as it stands there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.documented_commands import check, documented_commands
from tests.module_graph import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "shards" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"{page.parent.name}/{page.name}"
)
def test_every_command_parses_as_written(page: Path) -> None:
    wrong = []
    for words in documented_commands(page):
        try:
            check(words)
        except (ValueError, click.UsageError) as error:
            wrong.append(f"{' '.join(words)}: {error if isinstance(error, ValueError) else error.format_message()}")
    assert not wrong, "\n".join(wrong)


def test_pages_have_commands() -> None:
    assert sum(1 for page in PAGES for _ in documented_commands(page)) > 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make dmeo", "no target dmeo"),
        ("make train SHARD=a", "no variable SHARD"),
        ("python -m probes vos --model m --davis d", "Missing parameter: out"),
        ("python -m probes visualise x", "did you mean visualize"),
        ("python -m trainer train --out a --shard b", "--shard"),
        ("python -m pipeline extract --dataset cinema --root a --out b", "cinema"),
        ("python bench/loader.py --shards a --nothing", "no option --nothing"),
        ("python bench/none.py", "no bench/none.py here"),
        ("pip install 'flowfeat-shards[onyx]'", "no extra onyx"),
        ("make demo && make dmeo", "no target dmeo"),
        ("python -m torch.distributed.run --nproc-per-node=2 -m trainer trian --out a", "did you mean train"),
    ],
)
def test_what_would_not_run_is_found(tmp_path: Path, text: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Words.\n\n    {text}    # a remark\n")
    with pytest.raises((ValueError, click.UsageError), match=message):
        for words in documented_commands(page):
            check(words)


def test_continued_lines_and_fences_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("    make train \\\n        RUN='a b'\n\n```sh\nmake test\n```\n\n```python\nmake no\n```\n")
    assert list(documented_commands(page)) == [["make", "train", "RUN=a b"], ["make", "test"]]
