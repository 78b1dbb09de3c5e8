"""The page: escaped, self-contained, readable on a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from probes.report.page import page
from probes.report.pictures import PictureFolder
from probes.report.records import Picture
from probes.report.store import Results
from probes.report.tables import Section
from probes.sources.features import Source
from probes.tasks.vos import LinearVos
from tests.probes.report.sample_results import EVIL, SOURCES, sample_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE_PX = 390


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
    results.units["one"].pictures = folder.saved
    return results


def test_every_source_has_a_column_of_its_pictures(tmp_path: Path) -> None:
    text = page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path)
    columns = [re.findall('alt="([^"]+)"', column) for column in text.split('<div class="column">')[1:]]
    assert columns[0] == ["frame 00001", "annotation 00001"]
    assert columns[3] == ["mask: encoder + FlowFeat", "features: encoder + FlowFeat"]


def test_no_least_width_exceeds_a_phone(tmp_path: Path) -> None:
    """Two picture columns, their gap and the page's margins fit 390 pixels; nothing else sets a width."""
    text = page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path)
    rem = [float(value) for value in re.findall(r"(?:min-width: |minmax\()([\d.]+)rem", text)]
    assert rem and all(16 * (2 * value + 0.5 + 2 * 1.25) <= PHONE_PX for value in rem), rem
    assert re.search(r"\.group \{[^}]*repeat\(auto-fit, minmax\(", text), "columns wrap"
    assert 'style="grid-template-columns' not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_every_picture_is_in_sight_on_a_phone(tmp_path: Path) -> None:
    """In headless Chromium at 390 pixels: the page does not scroll sideways, all pictures lie inside and can be seen."""
    (tmp_path / "index.html").write_text(page([Section(LinearVos, _with_pictures(tmp_path))], tmp_path))
    (
        tmp_path / "phone.html"
    ).write_text(f"""<body><iframe id="f" src="index.html" width="{PHONE_PX}" height="2000"></iframe>
<pre id="said"></pre><script>onload = () => {{ const page = f.contentDocument;
const boxes = [...page.querySelectorAll("figure")].map(figure => figure.getBoundingClientRect());
said.textContent = ["measured", page.documentElement.scrollWidth, Math.min(...boxes.map(box => box.left)),
  Math.max(...boxes.map(box => box.right)), Math.min(...boxes.map(box => box.width)), boxes.length].join(" "); }}</script>""")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/phone.html"], capture_output=True, text=True, timeout=120)
    found = re.search(r">measured ([\d. ]+)<", done.stdout)
    assert found, done.stdout + done.stderr
    width, left, right, narrowest, count = map(float, found[1].split())
    assert count == 2 + 2 * len(SOURCES)
    assert width <= PHONE_PX
    assert left >= 0 and right <= PHONE_PX
    assert narrowest >= 120
