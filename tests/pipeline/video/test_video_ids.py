"""Names of files: ids that every format takes, never one for two, under any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.video.datasets import list_videos
from pipeline.video.video_ids import ids_of, utf8_name

ROOT = Path(__file__).resolve().parents[3]
LATIN = os.fsdecode(b"caf\xe9.mp4")


def test_two_names_never_become_one_id() -> None:
    """The bytes of one name, written as escapes, are the plain text of the other."""
    names = [LATIN, "caf\\xe9.mp4", "x.mp4"]
    ids = ids_of(names, extensions=True)
    assert len(set(ids)) == 3 and ids[1:] == ["caf\\xe9", "x"] and ids[0].startswith("caf\\xe9~")
    assert ids_of(names[::-1], extensions=True) == ids[::-1]
    assert ids_of([LATIN], extensions=True) == ["caf\\xe9"]


def test_a_listing_keeps_both_of_them(tmp_path: Path) -> None:
    for name in (LATIN, "caf\\xe9.mp4"):
        try:
            (tmp_path / name).write_bytes(b"x")
        except OSError:
            pytest.skip("this file system refuses such names")
    videos = list_videos("folder", tmp_path)
    assert len({video.id for video in videos}) == len({video.path for video in videos}) == 2


def test_a_path_outside_the_root_does_not_hide_one_inside(tmp_path: Path) -> None:
    outside = tmp_path / "else" / "v.mp4"
    root = tmp_path / "root"
    inside = root / str(outside).lstrip("/")
    for path in (outside, inside):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    listed = root / "list.txt"
    listed.write_text(f"{outside}\n{str(outside).lstrip('/')}\n")
    assert {video.path for video in list_videos("list", root, list_file=listed)} == {outside, inside}


def test_a_missing_entry_beside_a_file_of_its_stem_is_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    listed = tmp_path / "list.txt"
    listed.write_text("a.mp4\na.avi\n")
    assert [video.id for video in list_videos("kinetics", tmp_path, list_file=listed)] == ["a", "a.avi"]


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_the_locale_does_not_change_ids(tmp_path: Path, utf8: str) -> None:
    (tmp_path / "café.mp4").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("café.mp4\n", encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from pipeline.video.datasets import list_videos as f\n"
        "from pipeline.video.video_ids import utf8_name\n"
        "root = Path(sys.argv[1]); videos = f('folder', root) + f('list', root, list_file=root / 'list.txt')\n"
        "print(ascii([(v.id, utf8_name(v.path.name), v.path.exists()) for v in videos]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=env, capture_output=True, text=True)
    assert said.stdout.strip() == ascii([("café", "café.mp4", True)] * 2), said.stderr


def test_names_become_text() -> None:
    assert utf8_name("plain/é.mp4") == "plain/é.mp4" and utf8_name(LATIN) == "caf\\xe9.mp4"
