"""The report as one static HTML page: tables, feature colours and masks, with pictures as relative files.

Reads results, gives text; `report.py` writes it. No script, no font, no address outside the report's directory, so the
page opens from a disk or a mail attachment. Every name from outside (sequences, files, settings) is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from probes.report import tables
from probes.report.store import Results, SequenceRecord
from probes.sources.flowfeat import TITLES

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --dim: #5c6670; --line: #d9dee3; --paper: #fdfdfc; --card: #f3f5f6; --bar: #2a7f9e; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --dim: #98a2ac; --line: #343b42; --paper: #14181c; --card: #1d2328; --bar: #4fb0d1; } }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
p { max-width: 60rem; margin: .4rem 0; }
.dim, figcaption { color: var(--dim); }
.warn { border-left: 4px solid #d97706; padding-left: .75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 500; font-size: .9rem; }
th:first-child, td:first-child { text-align: left; }
tr.best td { font-weight: 650; }
table.settings th, table.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .35rem .8rem; align-items: center;
  max-width: 44rem; margin: 1rem 0; }
.bar { height: .9rem; background: var(--bar); border-radius: 2px; min-width: 1px; }
.track { background: var(--card); border-radius: 2px; }
.grid { display: grid; gap: .5rem; margin: .5rem 0 1rem; min-width: 46rem; }
figure { margin: 0; }
figcaption { font-size: .8rem; }
img { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--card); }
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, best: int | None = None, kind: str = "") -> str:
    """An HTML table of plain strings; row `best` is set in bold."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == best else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{name}><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def bars(results: Results) -> str:
    """J&F of each source as a bar on a scale of 0 to 100."""
    cells = []
    for source in results.sources:
        value = tables.summarise_source(results, source).JF
        cells.append(
            f'<span>{escape(TITLES[source])}</span><div class="track"><div class="bar" style="width:{value:.2f}%"></div></div>'
            f"<span>{value:.1f}</span>"
        )
    return f'<div class="bars">{"".join(cells)}</div>'


def _figure(files: dict[str, str], what: str, caption: str, out: Path) -> str:
    """One picture with its caption; an empty cell where there's no such picture."""
    name = files.get(what)
    if name is None or not (out / name).is_file():
        return "<figure></figure>"
    text = escape(caption)
    return f'<figure><img src="{quote(name)}" alt="{text}" loading="lazy"><figcaption>{text}</figcaption></figure>'


def frame_grid(frame: str, record: SequenceRecord, sources: Sequence[str], out: Path) -> str:
    """Two rows: the frame and the masks found in it, the annotation and the features they were found from."""
    files = record.pictures[frame]
    masks = [_figure(files, "frame", f"frame {frame}", out)]
    masks += [_figure(files, f"{source}.mask", f"mask: {TITLES[source]}", out) for source in sources]
    maps = [_figure(files, "truth", "annotation", out)]
    maps += [_figure(files, f"{source}.features", f"features: {TITLES[source]}", out) for source in sources]
    columns = f"grid-template-columns: repeat({len(sources) + 1}, 1fr)"
    return f'<div class="scroll"><div class="grid" style="{columns}">{"".join(masks + maps)}</div></div>'


def _pictures(results: Results, out: Path) -> str:
    parts = []
    for name in results.complete():
        record = results.sequences[name]
        figures = ", ".join(
            f"{TITLES[source]} {tables.sequence_mean(record.scores[source]):.1f}" for source in results.sources
        )
        parts.append(f'<h3>{escape(name)} <span class="dim">J&amp;F: {escape(figures)}</span></h3>')
        parts += [frame_grid(frame, record, results.sources, out) for frame in sorted(record.pictures)]
    return "\n".join(parts)


def page(results: Results, out: Path) -> str:
    """The whole page. `out` is where it will lie: pictures that are not there are left out."""
    summaries = [tables.summarise_source(results, source).JF for source in results.sources]
    header, rows = tables.main_table(results)
    settings = [[name, str(value)] for name, value in {**results.settings, **results.about}.items()]
    note = tables.coverage_note(results)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FlowFeat: video object segmentation</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Video object segmentation, linear probe</h1>
<p class="dim">One linear layer per video, fitted to the annotated first frame and applied to every other frame on its own.
All sources share one frozen encoder. J: region overlap; F: boundary accuracy; per cent, mean over
{len(tables.scores_of(results, results.sources[0]))} objects of {len(results.complete())} sequences.</p>
{f'<p class="warn">{escape(note)}</p>' if note else ""}
{bars(results)}
{table(header, rows, best=summaries.index(max(summaries)))}
<h2>The paper's figures</h2>
<p class="dim">{escape(tables.paper_note(results))}</p>
{table(*tables.paper_table(results))}
<h2>J&amp;F per sequence</h2>
{table(*tables.sequence_table(results))}
<h2>Pictures</h2>
<p class="dim">Features: three principal components as red, green and blue, fitted to the first frame of the sequence.
The encoder alone shows its token grid.</p>
{_pictures(results, out)}
<h2>Settings</h2>
{table(["setting", "value"], settings, kind="settings")}
</body>
</html>
"""
