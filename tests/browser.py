"""A page in headless Chromium, as wide as a phone; a script looks at it and says what it finds."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE_PX = 390
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

LOOK = """
const page = f.contentDocument, all = name => [...page.querySelectorAll(name)], pictures = all("img"), clips = all("video");
const shows = one => one.naturalWidth > 0 ? 1 : 0, sum = list => list.reduce((a, b) => a + b, 0);
const loaded = one => new Promise(done => { one.onload = () => done(shows(one)); one.onerror = () => done(0);
  one.loading = "eager"; if (one.complete) done(shows(one)); });
const seen = await Promise.all(pictures.map(loaded));
const boxes = all("figure").map(figure => figure.getBoundingClientRect());
const requests = f.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
return { width: page.documentElement.scrollWidth, left: Math.min(...boxes.map(box => box.left)),
  right: Math.max(...boxes.map(box => box.right)), narrowest: Math.min(...boxes.map(box => box.width)),
  figures: boxes.length, pictures: pictures.length, seen: sum(seen), clips: clips.length,
  plays: clips.every(one => one.canPlayType('video/mp4; codecs="vp09.00.10.08"') === "probably") ? 1 : 0,
  outside: requests.filter(name => !name.startsWith("file://")).length };
"""
"""Clips are asked for by their codec: a browser under virtual time does not wait for media to load."""


def looked_at(page: Path, width_px: int = PHONE_PX) -> dict[str, float]:
    """What `LOOK` finds on a page that lies at `page`. A frame in a page beside it stands for the phone."""
    asking = page.with_name("asking.html")
    asking.write_text(
        f'<body><iframe id="f" src="{page.name}" width="{width_px}" height="2000"></iframe><pre id="said"></pre>'
        f"<script>onload = async () => {{ const look = async () => {{ {LOOK} }};\n"
        'said.textContent = "found " + Object.entries(await look()).map(pair => pair.join("=")).join(" ") + " end"; }}'.replace(
            "}}", "}"
        )
        + "</script>"
    )
    with tempfile.TemporaryDirectory() as profile:
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", f"file://{asking}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    asking.unlink()
    found = re.search(r">found (.*?) end<", done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return {name: float(value) for name, value in (pair.split("=") for pair in found[1].split())}
