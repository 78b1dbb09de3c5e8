"""What a command says when nobody listens, and how it ends when it is interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from common.command import INTERRUPTED, Suggesting

ROOT = Path(__file__).resolve().parents[2]

TELLING = "from common.command import tell; tell('first'); tell('second'); raise SystemExit(3)"
SHOWING = """
from common.progress import ProgressDisplay
from rich.console import Console
with ProgressDisplay("extract", "videos", plain_every_s=0.0) as display:
    display.begin(2)
    display.advance()
    display.say("rejected")
print("done")
"""


def end_of(code: str, redirected: str) -> subprocess.CompletedProcess[str]:
    command = f'exec "$0" -c "$1" {redirected}'
    return subprocess.run(["sh", "-c", command, sys.executable, code], cwd=ROOT, capture_output=True, text=True)


def test_an_interrupt_is_one_line_and_130_for_every_command() -> None:
    @click.command()
    def waits() -> None:
        raise KeyboardInterrupt

    group = Suggesting(commands={"inner": Suggesting(commands={"waits": waits})})
    ended = CliRunner().invoke(group, ["inner", "waits"])
    assert (ended.exit_code, ended.stderr, ended.stdout) == (INTERRUPTED, "interrupted\n", "")


def test_who_has_stopped_listening_misses_it_and_the_command_ends_as_it_would() -> None:
    shell = [
        "sh",
        "-c",
        '{ "$0" -c "$1"; echo $? >&2; } | true',
        sys.executable,
        f"import time; time.sleep(.2); {TELLING}",
    ]
    assert subprocess.run(shell, cwd=ROOT, capture_output=True, text=True).stderr == "3\n"


def test_a_full_standard_output_is_named_and_a_full_standard_error_is_not() -> None:
    full = end_of(TELLING, ">/dev/full")
    assert full.returncode == 1
    assert full.stderr.endswith("UnheardError: standard output takes no more: No space left on device\n")
    dropped = end_of(TELLING.replace("'first'", "'first', err=True"), "2>/dev/full")
    assert (dropped.returncode, dropped.stdout) == (3, "second\n")


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_progress_that_cannot_be_written_is_dropped(redirected: str) -> None:
    shown = end_of(SHOWING, redirected)
    assert (shown.returncode, shown.stdout) == (0, "done\n")
