"""Rows of results.csv that other programs' output gives: a report, a judged sweep, the two first commands of the README, a shell script."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import front_door, quality
from bench import record as record_module
from probes.report import records
from tests.module_graph import ROOT

RESULTS = """probe,protocol,source,weights,metric,value,paper,paper trained on,difference
vos,aa,encoder,,JF,58.945,,,
vos,aa,encoder,,J,64.843,,,
vos,aa,flowfeat,,JF,77.022,,,
motion,bb,flowfeat,,EPE,2.4769,,,
"""
SWEEP = """row,title,source,settings,shards,seeds,JF_mean,JF_low,JF_high,difference_mean,difference_low,difference_high,verdict
full,FlowFeat,flowfeat,,,3,44.7689,43.4708,45.4972,,,,baseline
random,random DPT,random_decoder,,,3,36.1791,35.5159,36.6751,-8.5898,-8.9925,-7.9549,below
left,left out,flowfeat,,,0,,,,,,,not judged
"""


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that rows go to instead of the repository's."""
    place = tmp_path / "rows.csv"
    monkeypatch.setattr(record_module, "RESULTS", place)
    return place


def rows(place: Path) -> list[dict[str, str]]:
    with open(place, newline="") as stream:
        return list(csv.DictReader(stream))


def write_report(out: Path) -> None:
    def run(task: str, digest: str, settings: dict[str, int | float | str | bool | None], at: str) -> records.RunLine:
        return records.RunLine(at, task, digest, settings, 0, {"a": "1", "b": "2"}, {}, {}, {}, {})

    lines = [
        run("vos", "aa", {"height": 160, "iterations": 500, "learning_rate": 0.005}, "2026-01-02T03:04:05+00:00"),
        run("vos", "cc", {"height": 96, "iterations": 9}, "2026-01-03T03:04:05+00:00"),
        run("motion", "bb", {"size": 128, "pairs": 2}, "2026-01-02T03:04:05+00:00"),
    ]
    records.append(out, lines)
    (out / "results.csv").write_text(RESULTS)


def test_a_report_gives_a_row_per_source_with_its_protocol(tmp_path: Path, results: Path) -> None:
    report = tmp_path / "clips" / "report"
    write_report(report)
    done = CliRunner().invoke(quality.main, [str(report), "--metric", "JF", "--metric", "EPE"])
    assert done.exit_code == 0, done.output
    found = {row["figure"]: row for row in rows(results)}
    assert {name: (row["value"], row["unit"]) for name, row in found.items()} == {
        "clips_vos_encoder_JF": ("58.945", "%"),
        "clips_vos_flowfeat_JF": ("77.022", "%"),
        "clips_motion_flowfeat_EPE": ("2.4769", "px"),
    }
    assert found["clips_vos_flowfeat_JF"]["note"] == "vos height=160 iterations=500 seed=0, 2 units, judged 2026-01-02"
    nothing = CliRunner().invoke(quality.main, [str(report), "--metric", "IoU"])
    assert nothing.exit_code == 1 and "holds no figure of IoU" in nothing.output


def test_a_sweep_gives_its_rows_and_their_distance_to_the_baseline(tmp_path: Path, results: Path) -> None:
    sweep = tmp_path / "table3"
    write_report(sweep / "rows" / "full" / "seed-0" / "report")
    named = [
        {"name": name, "runs": [{"directory": f"rows/{name}/seed-0"}, {"directory": f"rows/{name}/seed-1"}]}
        for name in ("full", "random", "left")
    ]
    (sweep / "sweep.json").write_text(json.dumps({"probe": {"task": "vos"}, "rows": named}))
    for seed, share in enumerate((0.02, 0.05)):
        (sweep / "rows" / "full" / f"seed-{seed}").mkdir(exist_ok=True)
        steps = [{"event": "step", "lattice": 0.9}, {"event": "step", "lattice": share}, {"event": "end"}]
        (sweep / "rows" / "full" / f"seed-{seed}" / "log.jsonl").write_text("\n".join(map(json.dumps, steps)))
    unjudged = CliRunner().invoke(quality.main, [str(sweep)])
    assert unjudged.exit_code == 1 and "judge the sweep first" in unjudged.output
    (sweep / "sweep.csv").write_text(SWEEP)
    assert CliRunner().invoke(quality.main, [str(sweep)]).exit_code == 0
    found = {row["figure"]: row for row in rows(results)}
    assert {name: row["value"] for name, row in found.items()} == {
        "table3: full, JF": "44.7689",
        "table3: full, lattice": "3.5",
        "table3: random, JF": "36.1791",
        "table3: random, JF over baseline": "-8.5898",
    }
    assert found["table3: full, lattice"]["note"] == "last step, seeds: 2.0, 5.0"
    note = found["table3: full, JF"]["note"]
    assert note == "3 seeds, 43.4708 to 45.4972; FlowFeat; vos height=96 iterations=9, judged 2026-01-03"


MAKEFILE = """.PHONY: demo probe-all install
install:
\t@mkdir runs && echo $@ >> runs/order
demo probe-all:
\t@mkdir -p runs/demo/report && echo $@ $(SEED) >> runs/order
\t@sh -c 'n=0; while [ $$n -lt 200000 ]; do n=$$((n + 1)); done'
\t@cp kept/* runs/demo/report
"""


def test_the_front_door_is_timed_in_a_fresh_checkout_only(tmp_path: Path, results: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    report = tmp_path / "runs" / "demo" / "report"
    (tmp_path / "Makefile").write_text(MAKEFILE)
    done = CliRunner().invoke(front_door.main, [str(tmp_path), "--only", "probe-all"])
    assert done.exit_code == 1 and "run `make demo` there first" in done.output
    write_report(tmp_path / "kept")
    done = CliRunner().invoke(front_door.main, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "runs" / "order").read_text().split("\n") == ["install", "demo 0", "probe-all 0", ""]
    found = {row["figure"]: float(row["value"]) for row in rows(results)}
    assert found.keys() == {
        *(f"{name}_{what}" for name in ("demo", "probe_all") for what in ("wall_s", "cpu_s", "peak_mib")),
        "demo_seed0_vos_encoder_JF",
        "demo_seed0_vos_flowfeat_JF",
    }
    assert found["demo_cpu_s"] > 0 and found["demo_peak_mib"] > 0 and found["demo_seed0_vos_flowfeat_JF"] == 77.022
    again = CliRunner().invoke(front_door.main, [str(tmp_path)])
    assert again.exit_code == 1 and "would only continue" in again.output
    (report.parent / "flowfeat.safetensors").touch()
    again = CliRunner().invoke(front_door.main, [str(tmp_path), "--only", "probe-all"])
    assert again.exit_code == 1 and "holds motion, vos already" in again.output


def test_a_command_that_fails_gives_its_last_line_and_no_row(tmp_path: Path, results: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    (tmp_path / "Makefile").write_text("install demo:\n\t@test $@ = install || { echo no disk; exit 3; }\n")
    done = CliRunner().invoke(front_door.main, [str(tmp_path)])
    assert done.exit_code == 1 and "ended with 2" in done.output and "demo.log has it all" in done.output
    assert not results.exists()


def test_a_shell_script_records_under_its_own_name(tmp_path: Path) -> None:
    place = tmp_path / "shell.csv"
    words = ["--command", "bash bench/user_way.sh DIR", "user_way", "all_wall_s", "1368", "s", "a note"]
    script = ROOT / "bench" / "record.py"
    subprocess.run([sys.executable, str(script), *words], check=True, env={"BENCH_RESULTS": str(place), "PATH": ""})
    (row,) = rows(place)
    assert (row["command"], row["bench"], row["figure"], row["value"]) == (words[1], "user_way", "all_wall_s", "1368")
    assert row["note"] == "a note" and row["commit"] == "unknown"
