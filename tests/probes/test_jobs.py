"""Videos shared out among processes: rows as of one process, and an end in one line where a process fails."""

from __future__ import annotations

import json
from pathlib import Path

from tests.probes.small_davis import write_sequence
from tests.probes.test_cli import invoke, probe

SOURCES = ("--sources", "encoder,flowfeat")


def _lines(out: Path) -> dict[tuple[str, str], object]:
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    return {(line["unit"], line["source"]): (line["rows"], line["pictures"]) for line in lines if "rows" in line}


def test_two_processes_give_the_rows_of_one(checkpoint: Path, davis: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = probe(checkpoint, davis, one, *SOURCES)
    shared = probe(checkpoint, davis, two, *SOURCES, "--jobs", 2)
    assert shared.exit_code == 0, shared.output
    assert (one / "vos.csv").read_bytes() == (two / "vos.csv").read_bytes()
    rows = _lines(two)
    assert len(rows) == 2 * 3 and rows == _lines(one)
    assert all((two / picture.relative_to(one)).is_file() for picture in one.rglob("*.jpg"))
    assert alone.stdout.replace(str(one), "") == shared.stdout.replace(str(two), "")
    assert "2/2" in shared.stderr
    again = probe(checkpoint, davis, two, *SOURCES, "--jobs", 2)
    assert "2 of 2 sequences are already measured" in again.stderr


def test_a_bad_frame_ends_in_one_line_and_keeps_the_other_video(checkpoint: Path, tmp_path: Path) -> None:
    root = tmp_path / "davis"
    for name in ("a", "b"):
        write_sequence(root, name)
    (root / "JPEGImages" / "480p" / "b" / "00003.jpg").write_bytes(
        (root / "JPEGImages" / "480p" / "b" / "00003.jpg").read_bytes()[:700]
    )
    result = invoke(
        "vos-knn", "--model", checkpoint, "--davis", root, "--out", tmp_path / "out", "--height", 64, *SOURCES,
        "--jobs", 2,
    )  # fmt: skip
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1 and "00003.jpg" in errors[0], result.stderr
