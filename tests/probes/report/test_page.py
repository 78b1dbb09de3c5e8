"""The page: escaped, self-contained, readable on a phone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from probes.report.page import page
from probes.report.pictures import PictureFolder
from probes.report.records import Picture
from probes.report.store import Results
from probes.report.tables import Section
from probes.sources.features import Source
from probes.tasks.vos import LinearVos
from tests.browser import PHONE_PX, looked_at, needs_chromium
from tests.probes.report.sample_results import EVIL, SOURCES, sample_results


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parsed(results: Results, out: Path) -> _Tags:
    parsed = _Tags()
    parsed.feed(page([Section(LinearVos, results)], out))
    return parsed


def test_the_page_escapes_names_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    results = sample_results()
    name = "pictures/a b&c/00001.frame.jpg"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"x")
    results.units["one"].pictures = [
        Picture("00001", "frame", "", name),
        Picture("00001", "annotation", "", "pictures/gone.jpg"),
    ]
    parsed = _parsed(results, tmp_path)
    assert not {"script", "a"} & set(parsed.tags)
    assert EVIL in parsed.text
    assert parsed.addresses == ["pictures/a%20b%26c/00001.frame.jpg"], "pictures that aren't there are left out"
    assert any("65.8" in text for text in parsed.text)


def test_a_unit_without_pictures_has_no_heading_among_them(tmp_path: Path) -> None:
    assert "Pictures" not in _parsed(sample_results(), tmp_path).text


def _with_pictures(out: Path) -> Results:
    results = sample_results()
    folder = PictureFolder(out, "vos", "one")
    image = Image.new("RGB", (480, 270), "teal")
    for caption in ("frame", "annotation"):
        folder.save("00001", caption, image)
    for name in SOURCES:
        for caption in ("mask", "features"):
            source = Source(name, None, None)  # type: ignore[arg-type]
            folder.save("00001", caption, image, source)
    folder.clip("00001", "clip", [image] * 3)
    results.units["one"].pictures = folder.saved
    return results


def test_every_source_has_a_column_of_its_pictures(tmp_path: Path) -> None:
    text = page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path)
    columns = [re.findall('alt="([^"]+)"', column) for column in text.split('<div class="column">')[1:]]
    assert columns[0] == ["frame 00001", "annotation 00001"], "the clip is no picture"
    assert columns[3] == ["mask: encoder + FlowFeat", "features: encoder + FlowFeat"]


def test_scrolling_needs_no_mouse_and_clips_have_controls(tmp_path: Path) -> None:
    text = page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path)
    assert text.count('<div class="scroll"') == text.count('<div class="scroll" tabindex="0"') > 2
    (clip,) = re.findall("<video[^>]*>", text)
    assert " controls" in clip and ' aria-label="clip 00001"' in clip and "autoplay" not in clip


def test_no_least_width_exceeds_a_phone(tmp_path: Path) -> None:
    """Two picture columns, their gap and the page's margins fit 390 pixels; nothing else sets a width."""
    text = page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path)
    rem = [float(value) for value in re.findall(r"(?:min-width: |minmax\()([\d.]+)rem", text)]
    assert rem and all(16 * (2 * value + 0.5 + 2 * 1.25) <= PHONE_PX for value in rem), rem
    assert re.search(r"\.group \{[^}]*repeat\(auto-fit, minmax\(", text), "columns wrap"
    assert 'style="grid-template-columns' not in text


@needs_chromium
def test_every_picture_is_in_sight_on_a_phone(tmp_path: Path) -> None:
    """In headless Chromium at 390 pixels: the page does not scroll sideways, all pictures lie inside and can be seen."""
    (tmp_path / "index.html").write_text(page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path))
    found = looked_at(tmp_path / "index.html")
    assert found["figures"] == 2 + 2 * len(SOURCES) + 1
    assert found["width"] <= PHONE_PX
    assert found["left"] >= 0 and found["right"] <= PHONE_PX
    assert found["narrowest"] >= 120
    assert found["seen"] == found["pictures"] == 2 + 2 * len(SOURCES)
    assert found["clips"] == found["plays"] == 1
    assert found["outside"] == 0
