"""The report of the segmentation probe: `vos.csv`, `report.md` and `index.html` from the results file beside them.

`rebuild` reads `<out>/vos.json`, which `vos.py` keeps up to date, and writes the three anew; it can be run at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.report import tables
from probes.report.page import page
from probes.report.store import Results
from shards.files import write_atomic

RESULTS_FILE = "vos.json"


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_markdown_cell, header)) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def markdown_text(results: Results) -> str:
    settings = {**results.settings, **results.about}
    parts = [
        "# Video object segmentation, linear probe",
        tables.coverage_note(results),
        f"J and F in per cent, over {len(tables.scores_of(results, results.sources[0]))} objects of {len(results.complete())} sequences.",
        markdown_table(*tables.main_table(results)),
        "## The paper's figures",
        tables.paper_note(results),
        markdown_table(*tables.paper_table(results)),
        "## J&F per sequence",
        markdown_table(*tables.sequence_table(results)),
        "## Settings",
        markdown_table(["setting", "value"], [[name, str(value)] for name, value in settings.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def rebuild(out: Path) -> Results:
    """Write `vos.csv`, `report.md` and `index.html` from `<out>/vos.json`.

    Raises
    ------
    ValueError: no results in `out`, damaged results, or no sequence measured with every source yet.
    """
    path = out / RESULTS_FILE
    if not path.is_file():
        raise ValueError(
            f"no results in {out}: {path} does not exist, run `python -m probes vos ... --out {out}` first"
        )
    results = Results.load(path)
    if not results.complete():
        raise ValueError(
            f"{path} holds no sequence that is measured with all of {', '.join(results.sources)}: run the probe again"
        )
    write_atomic(out / "vos.csv", tables.csv_text(results))
    write_atomic(out / "report.md", markdown_text(results))
    write_atomic(out / "index.html", page(results, out))
    return results
