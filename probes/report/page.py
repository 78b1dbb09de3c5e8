"""The report as one static HTML page: tables and pictures of every task, with pictures and clips as relative files.

Reads results, gives text; `build.py` writes it. No script, no font, no address outside the report's directory, so the page
opens from a disk or a mail attachment. Every name from outside (sequences, files, settings) is escaped. Nothing but a wide
table scrolls sideways, by keys too; pictures wrap, so that a phone shows every source of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from common.page import document, table
from probes.report import tables
from probes.report.beside import beside_note, beside_table
from probes.report.records import Picture
from probes.report.store import Results, UnitRecord
from probes.report.tables import Section, Table
from probes.report.training import Training
from probes.task import Reference

MOST_UNFOLDED = 6
"""Rows of a published table that stand open whatever they are of."""


def set_table(found: Table, *, kind: str = "") -> str:
    """An HTML table of plain strings; row `found.best` is set in bold."""
    return table(found.header, found.rows, kind=kind, row_kinds={} if found.best is None else {found.best: "best"})


def bars(section: Section) -> str:
    """The headline metric of each source as a bar: shares on a scale of 0 to 100 per cent, others up to the largest."""
    headline = section.task.metric(section.task.headline)
    means = {source: section.mean(source, headline.name) for source in section.results.sources}
    full = 1.0 if headline.percent else max((value for value in means.values() if value is not None), default=0.0)
    cells = []
    for source, value in means.items():
        width = 0.0 if value is None or full <= 0 else min(100.0, max(0.0, 100 * value / full))
        cells.append(
            f'<span>{escape(section.results.title(source))}</span><div class="track"><div class="bar" style="width:{width:.2f}%"></div>'
            f"</div><span>{headline.text(value)}</span>"
        )
    direction = "" if headline.higher_is_better else ", less is better"
    return f'<p class="dim">{escape(headline.heading)}{direction}</p><div class="bars">{"".join(cells)}</div>'


def _figure(picture: Picture, results: Results) -> str:
    what = (
        f"{picture.caption}: {results.title(picture.source)}"
        if picture.source
        else f"{picture.caption} {picture.group}".rstrip()
    )
    text, address = escape(what), quote(picture.file)
    if picture.file.endswith(".mp4"):
        shown = (
            f'<video src="{address}" controls loop muted playsinline preload="metadata" aria-label="{text}"></video>'
        )
    else:
        kind = ' class="crop"' if picture.file.endswith(".png") else ""
        shown = f'<img src="{address}" alt="{text}" loading="lazy"{kind}>'
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def picture_group(pictures: Sequence[Picture], results: Results) -> str:
    """A column for what belongs to all sources (a frame, its annotation), then one for each source."""
    columns = []
    for source in ("", *results.sources):
        figures = [_figure(picture, results) for picture in pictures if picture.source == source]
        if figures:
            columns.append(f'<div class="column">{"".join(figures)}</div>')
    return f'<div class="group">{"".join(columns)}</div>'


def unit_pictures(record: UnitRecord, results: Results, out: Path) -> list[str]:
    """The groups of one unit. Pictures that are not there are left out."""
    present = [picture for picture in record.pictures if (out / picture.file).is_file()]
    groups = sorted({picture.group for picture in present})
    return [picture_group([one for one in present if one.group == group], results) for group in groups]


def all_pictures(section: Section, out: Path) -> str:
    parts = []
    results = section.results
    headline = section.task.metric(section.task.headline).heading
    for name in results.complete():
        groups = unit_pictures(results.units[name], results, out)
        if groups:
            means = (f"{results.title(source)} {section.unit_mean(name, source)}" for source in results.sources)
            figures = escape(f"{headline}: {', '.join(means)}")
            parts += [f'<h4>{escape(name)} <span class="dim">{figures}</span></h4>', *groups]
    if not parts:
        return ""
    note = escape(section.task.pictures_note)
    return "\n".join(["<h3>Pictures</h3>", f'<p class="dim">{note}</p>' if note else "", *parts])


def section_html(section: Section, out: Path) -> str:
    task, results = section.task, section.results
    note = tables.coverage_note(section)
    parts = [f'<section id="{escape(task.name)}">', f"<h2>{escape(task.title)}</h2>"]
    parts += [f'<p class="warn">{escape(note)}</p>'] if note else []
    if results.complete():
        parts += [f'<p class="dim">{escape(task.description)} {escape(tables.scope_note(section))}</p>']
        parts += [bars(section), set_table(tables.main_table(section))]
        parts += [_reference(one) for one in task.references(results.settings, len(results.complete()))]
        parts += _beside(section)
        headline = task.metric(task.headline).heading
        parts += [f"<h3>{escape(headline)} per {escape(task.unit.one)}</h3>", set_table(tables.unit_table(section))]
        by_part = tables.part_table(section)
        if by_part is not None:
            parts += [f"<h3>{escape(tables.parts_title(section))}</h3>", set_table(by_part)]
        parts += [all_pictures(section, out)]
    parts += [_others(section)]
    settings = set_table(tables.settings_table(section), kind="settings")
    parts += [f"<details><summary><h3>Settings</h3></summary>{settings}</details>", "</section>"]
    return "\n".join(part for part in parts if part)


def _reference(reference: Reference) -> str:
    """Published figures; folded where they are many and none is starred, so that ours stay in sight."""
    table = set_table(Table([*reference.header], [[*row] for row in reference.rows]))
    starred = any(row[0].endswith("*") for row in reference.rows)
    shown = " open" if starred or len(reference.rows) <= MOST_UNFOLDED else ""
    return (
        f"<details{shown}><summary><h3>{escape(reference.title)}</h3></summary>"
        f'<p class="dim">{escape(reference.note)}</p>{table}</details>'
    )


def _beside(section: Section) -> list[str]:
    beside = beside_table(section)
    if beside is None:
        return []
    return ["<h3>Beside the paper</h3>", f'<p class="dim">{escape(beside_note(section))}</p>', set_table(beside)]


def _others(section: Section) -> str:
    """Tables of the same task under other protocols, each by itself."""
    parts = []
    for other in section.others:
        if other.results.complete():
            changes = escape(tables.difference_note(section, other))
            parts += [
                f'<p class="dim">{escape(tables.scope_note(other))} {changes}</p>',
                set_table(tables.main_table(other)),
            ]
    if not parts:
        return ""
    return "\n".join(["<h3>Under other protocols</h3>", f'<p class="warn">{escape(tables.NEVER_RANKED)}</p>', *parts])


def contents(sections: Sequence[Section]) -> str:
    """Links to the tasks of a report that has several."""
    if len(sections) < 2:
        return ""
    entries = (f'<li><a href="#{quote(s.task.name)}">{escape(s.task.title)}</a></li>' for s in sections)
    return f"<nav><ul>{''.join(entries)}</ul></nav>"


def _embedded(sections: Sequence[Section]) -> str:
    return "".join(f'<p class="warn">{escape(note)}</p>' for note in tables.embedded_notes(sections))


def training_html(training: Training | None) -> str:
    if training is None:
        return ""
    charts = "".join(f"<figure>{chart}</figure>" for chart in training.charts())
    where = escape(f"{training.name}: {training.summary()}")
    return f'<section id="training"><h2>Training</h2><p class="dim">{where}</p><div class="curves">{charts}</div></section>'


def made_html(sections: Sequence[Section]) -> str:
    """How the report came to be."""
    notes = "".join(f"<p>{escape(text)}</p>" for text in (*tables.made_notes(sections), tables.NEVER_RANKED))
    return f'<section id="made"><h2>How it was made</h2>{notes}{set_table(tables.made_table(sections))}</section>'


def page(sections: Sequence[Section], out: Path, training: Training | None = None) -> str:
    """The whole page. `out` is where it will lie."""
    body = "\n".join(
        [*(section_html(section, out) for section in sections), training_html(training), made_html(sections)]
    )
    title = f"FlowFeat: {', '.join(section.task.title for section in sections)}"
    return document(title, f"<h1>What the features are worth</h1>\n{_embedded(sections)}{contents(sections)}\n{body}")
