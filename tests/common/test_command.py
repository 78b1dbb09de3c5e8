"""Errors become one line, mistyped commands get a suggestion, progress says how long it still takes."""

from __future__ import annotations

import errno
import io

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from common.command import PlainError, Suggesting, nearest, one_line_errors
from common.device import pick_device
from common.memory import is_out_of_memory
from common.progress import ProgressDisplay, duration, rate_text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad --size 3; give 16"), "Error: bad --size 3; give 16"),
        (PlainError("worker 3 died; rerun"), "Error: worker 3 died; rerun"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Error: [Errno 13] Permission denied: '/x'"),
        (OSError(errno.ENOSPC, "No space left", "/x"), "free some space and run the same command again"),
        (RuntimeError("CUDA out of memory. Tried\nmore"), "Error: CUDA out of memory. Tried: use a smaller --batch"),
    ],
)
def test_what_a_user_can_act_on_is_one_line(error: Exception, said: str) -> None:
    @click.command()
    @one_line_errors(out_of_memory="use a smaller --batch")
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    assert result.exit_code == 1
    assert said in result.output and result.output.count("\n") == 1


def test_a_defect_keeps_its_traceback() -> None:
    @click.command()
    @one_line_errors(out_of_memory="")
    def command() -> None:
        raise RuntimeError("shapes do not agree")

    assert isinstance(CliRunner().invoke(command).exception, RuntimeError)


def test_the_nearest_name_is_suggested() -> None:
    group = Suggesting("tool", commands=[click.Command("extract"), click.Command("verify")])
    assert "did you mean extract?" in CliRunner().invoke(group, ["extrat"]).output
    assert nearest("zzz", ["a", "b"]) == "known: a, b"


def test_devices_that_are_not_here_are_refused() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in ("tpu", "cuda:x", "cpu:1", "cuda:99"):
        with pytest.raises(ValueError, match=name):
            pick_device(name)


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("size mismatch")) and not is_out_of_memory(ValueError("out of memory"))


def test_durations_do_not_wrap_at_a_day() -> None:
    assert [duration(s) for s in (5, 65, 3_723, 90_000)] == ["0:05", "1:05", "1:02:03", "1d 01:00:00"]
    assert rate_text(14.23, "videos") == "14.2 videos/s" and rate_text(1 / 31, "videos") == "31 s each"


def plain(every_s: float = 0.0) -> tuple[ProgressDisplay, io.StringIO]:
    stream = io.StringIO()
    return ProgressDisplay(
        "extract", "videos", console=Console(file=stream, force_terminal=False), plain_every_s=every_s
    ), stream


def test_plain_lines_tell_done_total_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0] + [140.0] * 9)  # one unit every 40 s: rich's own estimate would never appear
    monkeypatch.setattr("common.progress.time.perf_counter", lambda: next(clock))
    shown, stream = plain()
    with shown:
        shown.begin(total=2162, done=1)
        shown.advance(status="rejected [red]1[/red]")
    assert stream.getvalue() == "extract: 2/2162 videos, 40 s each, 1d 00:00:00 left, rejected [red]1[/red]\n"


def test_a_terminal_gets_the_same_words_and_names_are_no_markup() -> None:
    stream = io.StringIO()
    with ProgressDisplay("probe", "frames", console=Console(file=stream, force_terminal=True, width=120)) as shown:
        shown.begin(10)
        shown.advance(3, status="[bold]dog")
        shown.say("done: [link]cat")
    assert "3/10 frames" in stream.getvalue() and "[bold]dog" in stream.getvalue()
    assert "done: [link]cat" in stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_end_of_the_line_is_seen_in_a_narrow_terminal(width: int) -> None:
    """Who waits for whom stands there; at 80 columns it had been cut off before its number."""
    stream = io.StringIO()
    with ProgressDisplay("extract", "videos", console=Console(file=stream, force_terminal=True, width=width)) as shown:
        shown.begin(9000)
        shown.advance(
            812, status="3/36 chunks, flow waits for frames 12 %, 96 windows before flow, rejected 3 (corrupt 3)"
        )
    text = stream.getvalue()
    assert "…" not in text and "frames 12 %" in " ".join(text.split()) and text.rstrip().count("(corrupt 3)") >= 1
