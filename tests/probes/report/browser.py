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
const page = f.contentDocument, wait = (node, event) => new Promise(done => { node.addEventListener(event, () => done(1));
  node.addEventListener("error", () => done(0)); });
const pictures = [...page.querySelectorAll("img")], clips = [...page.querySelectorAll("video")];
const seen = await Promise.all(pictures.map(one => { one.loading = "eager"; return one.decode().then(() => 1, () => 0); }));
const played = await Promise.all(clips.map(one => one.readyState ? 1 : (one.load(), wait(one, "loadedmetadata"))));
const boxes = [...page.querySelectorAll("figure")].map(figure => figure.getBoundingClientRect());
const sum = list => list.reduce((a, b) => a + b, 0);
const requests = f.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
return { width: page.documentElement.scrollWidth, left: Math.min(...boxes.map(box => box.left)),
  right: Math.max(...boxes.map(box => box.right)), narrowest: Math.min(...boxes.map(box => box.width)),
  figures: boxes.length, pictures: pictures.length, seen: sum(seen), clips: clips.length, played: sum(played),
  outside: requests.filter(name => !name.startsWith("file://")).length };
"""


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
