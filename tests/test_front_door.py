"""What the README promises beside commands: links that lead somewhere, its picture, every extra, every key, a citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from PIL import Image

from tests.module_graph import ROOT
from tests.test_documented_commands import PAGES
from trainer.config import Config, flatten
from trainer.config_table import config_table

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_the_readme_is_three_screens_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 150
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README] == []


def test_the_readme_opens_with_a_small_picture_of_four_panels() -> None:
    opening = README.split("\n## ")[0]
    (name,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", opening)
    assert (ROOT / name).stat().st_size < 300_000
    with Image.open(ROOT / name) as picture:
        assert picture.size == (4 * 208 + 3 * 6, 160)
    assert "-m probes visualize" in opening


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = README.split("## What it installs")[1].split("\n## ")[0]
    names = [re.split(r"[\[<>=]", one)[0] for one in project["dependencies"]]
    assert [name for name in names if not re.search(rf"^\|.*\b{name}\b.*\|.+\|$", table, re.MULTILINE)] == []
    assert [one for one in project["optional-dependencies"] if f"| extra `{one}` |" not in table] == []


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_table(), "run: python -m trainer settings > docs/config.md"
    assert set(re.findall(r"^\| `(\w+\.\w+)` \|", page, re.MULTILINE)) == set(flatten(Config()))


def test_every_setting_is_named_in_what_its_section_says() -> None:
    silent = []
    for section, kind in get_type_hints(Config).items():
        silent += [f"{section}.{key}" for key in get_type_hints(kind) if f"`{key}`" not in kind.__doc__]
    assert silent == []


def test_the_citation_file_has_what_the_format_asks_for() -> None:
    """The required keys, and those of the paper, of Citation File Format 1.2.0."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["title"] and cited["type"] == "software"
    assert cited["authors"] and all(one.get("name") or one.get("family-names") for one in cited["authors"])
    assert (cited["license"], str(cited["version"])) == (project["license"], project["version"])
    paper = cited["preferred-citation"]
    assert paper["type"] == "conference-paper" and paper["year"] == 2025
    assert f"{{{paper['title']}}}" in README and paper["url"] in README
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in README
