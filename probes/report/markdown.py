"""The report as Markdown: the page's tables as text.

Names from outside (sequences, files, settings) are text and nothing else: no name becomes a link, a tag, a formula or a
column of its own, in CommonMark and in GitHub's dialect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from probes.report import tables
from probes.report.beside import beside_note, beside_table
from probes.report.tables import Section, Table
from probes.report.training import Training

ESCAPED = re.compile(r"[\\`*_\[\]|~$]")
BARE_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
"""Where to break what GitHub makes a link of without any brackets: http://..., www...., and addresses of mail."""


def escape(text: str) -> str:
    """Text that every renderer shows as it is."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", re.sub(r"\s", " ", text))
    text = ESCAPED.sub(lambda found: "\\" + found[0], text)
    text = text.replace("<", "&lt;").replace(">", "&gt;")
    return BARE_LINK.sub("<!-- -->", text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(escape, header)) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _set(table: Table) -> str:
    return markdown_table(table.header, table.rows)


def section_text(section: Section) -> str:
    task, results = section.task, section.results
    parts = [f"# {escape(task.title)}", escape(tables.coverage_note(section))]
    if results.complete():
        parts += [escape(task.description), escape(tables.scope_note(section)), _set(tables.main_table(section))]
        for reference in task.references(results.settings, len(results.complete())):
            parts += [f"## {escape(reference.title)}", escape(reference.note)]
            parts += [markdown_table(reference.header, reference.rows)]
        beside = beside_table(section)
        if beside is not None:
            parts += ["## Beside the paper", escape(beside_note(section)), _set(beside)]
        headline = task.metric(task.headline).heading
        parts += [f"## {escape(headline)} per {escape(task.unit.one)}", _set(tables.unit_table(section))]
        by_part = tables.part_table(section)
        if by_part is not None:
            parts += [f"## {escape(tables.parts_title(section))}", _set(by_part)]
    parts += _others(section)
    parts += ["## Settings", _set(tables.settings_table(section))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _others(section: Section) -> list[str]:
    parts = []
    for other in section.others:
        if other.results.complete():
            note = f"{tables.scope_note(other)} {tables.difference_note(section, other)}"
            parts += [escape(note), _set(tables.main_table(other))]
    return ["## Under other protocols", escape(tables.NEVER_RANKED), *parts] if parts else []


def markdown_text(sections: Sequence[Section], training: Training | None = None) -> str:
    made = ["# How it was made", *map(escape, [*tables.made_notes(sections), tables.NEVER_RANKED])]
    if training is not None:
        made.append(escape(f"Trained in {training.name}: {training.summary()}"))
    made.append(_set(tables.made_table(sections)))
    top = [escape(note) + "\n" for note in tables.embedded_notes(sections)]
    return "\n".join([*top, *map(section_text, sections), "\n\n".join(made) + "\n"])
