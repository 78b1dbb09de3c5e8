"""report.md: a name from outside is text, whatever it holds."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from probes.report.markdown import escape, markdown_table, markdown_text
from probes.report.tables import Section
from probes.tasks.vos import LinearVos
from tests.probes.report.sample_results import EVIL, sample_results, sample_section

NAMES = [
    "<i>drift & co",
    "[x](http://evil)",
    "![x](http://evil/y.png)",
    "<http://evil>",
    '<a href="http://evil">x</a>',
    "[x]: http://evil",
    "a`b`c|d",
    "*a* _b_ __c__ ~~d~~ $e$",
    "&lt;b&gt; &#60;i&#62; &amp",
    r"back\slash \[x](http://evil)",
    EVIL,
]


ALIVE = {"link_open", "image", "html_inline", "html_block", "em_open", "strong_open", "s_open", "code_inline"}


def _tokens(text: str) -> list[Token]:
    """What a renderer sees, without the empty comments that break addresses up."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    tokens = [token for block in blocks for token in [block, *(block.children or [])]]
    return [token for token in tokens if token.content != "<!-- -->"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are_and_do_nothing(name: str) -> None:
    tokens = _tokens(markdown_table(["sequence", "J"], [[name, "1.0"]]))
    assert not {token.type for token in tokens} & ALIVE
    children = (token.children or [] for token in tokens if token.type == "inline")
    cells = ["".join(child.content for child in several if child.type != "html_inline") for several in children]
    assert cells == ["sequence", "J", name, "1.0"]


@pytest.mark.parametrize("name", ["http://evil", "https://evil/x", "www.evil.com", "WWW.evil.com", "me@evil.com"])
def test_bare_addresses_are_broken_up(name: str) -> None:
    """GitHub makes links of them without any brackets."""
    written = escape(name)
    assert not re.search(r"://|www\.|@\w", written, re.IGNORECASE)
    plain = MarkdownIt("commonmark").render(written).replace("<!-- -->", "")
    assert plain == f"<p>{name}</p>\n"


def test_cells_cannot_break_the_table() -> None:
    lines = markdown_table(["a", "b"], [[EVIL + "\nnext", "1"]]).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 3


def test_the_whole_report_holds_no_live_name() -> None:
    text = markdown_text([sample_section()])
    assert not {token.type for token in _tokens(text)} & ALIVE
    assert "| encoder + FlowFeat |" in text
    assert "65.8" in text


def test_what_is_missing_is_said() -> None:
    results = sample_results()
    del results.units["one"].rows["flowfeat"]
    assert "Incomplete: 1 of 2" in markdown_text([Section(LinearVos, results)])
    del results.units[EVIL].rows["flowfeat"]
    assert "Incomplete: 2 of 2" in markdown_text([Section(LinearVos, results)])
