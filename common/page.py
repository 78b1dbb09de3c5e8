"""Static HTML pages: the frame around a body, and tables, in one style for every stage's pages.

Text comes in, HTML goes out; whoever calls writes it. No script, no font, no address of its own, so a page opens from a disk or a mail
attachment. Whatever is given as text is escaped; a body is HTML already. Nothing but a wide table scrolls sideways, by keys too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from common.page_style import STYLE


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole page. body: HTML. style: more rules behind those that all pages share."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "", row_kinds: Mapping[int, str] | None = None
) -> str:
    """A table of plain strings. kind: class of the table. row_kinds: class of a row, by its number."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for number, row in enumerate(rows):
        mark = (row_kinds or {}).get(number, "")
        body.append(_opening("tr", mark) + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    # Focusable, so that arrow keys scroll what is wider than the window.
    return (
        f'<div class="scroll" tabindex="0">{_opening("table", kind)}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _opening(tag: str, kind: str) -> str:
    return f'<{tag} class="{escape(kind)}">' if kind else f"<{tag}>"
