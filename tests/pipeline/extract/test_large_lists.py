"""What a list of many videos costs: questions to the file system are counted; what is written is what it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.extract.plan import make_plan, plan_text, save_plan
from pipeline.video.datasets import list_videos
from shards import schema
from shards.schema import Settings

SETTINGS = Settings("folder", {"name": "none"}, chunk_videos=7)
FOLDERS, PER_FOLDER = 4, 10


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in range(FOLDERS):
        (tmp_path / "tree" / f"class {folder}").mkdir(parents=True)
        for video in range(PER_FOLDER):
            (tmp_path / "tree" / f"class {folder}" / f"é{video}.mp4").touch()
    return tmp_path / "tree"


def test_real_paths_are_found_once_per_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []
    realpath = os.path.realpath

    def note(path: str | Path) -> str:
        resolved.append(str(path))
        return realpath(path)

    videos = list_videos("folder", tree)
    monkeypatch.setattr(os.path, "realpath", note)
    plan = make_plan(tree.parent / "set", videos, tree, SETTINGS, 2)
    assert len(resolved) == FOLDERS + 1 and len(plan.videos) == FOLDERS * PER_FOLDER
    assert plan.videos[0].path == "class 0/é0.mp4"


def test_links_that_stay_inside_are_written_down_as_what_they_lead_to(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.mp4"
    elsewhere.touch()
    (tree / "class 1" / "out.mp4").symlink_to(elsewhere)
    (tree / "class 1" / "in.mp4").symlink_to("é3.mp4")
    (tree / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.mp4").touch()
    plan = make_plan(tmp_path / "set", list_videos("folder", tree), tree, SETTINGS, 2)
    found = {v.video.id: v.path for v in plan.videos}
    assert found["class 1/in"] == "class 1/é3.mp4"
    assert found["class 1/out"] == str(tree / "class 1" / "out.mp4")
    assert found["linked/a"] == str(tree / "linked" / "a.mp4")


@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_plan_is_written_as_a_list_with_a_value_per_line(tree: Path, count: int) -> None:
    plan = make_plan(tree.parent / "set", list_videos("folder", tree)[:count], tree, SETTINGS, 2)
    save_plan(tree.parent / "set", plan_text(plan))
    entries = [[v.video.id, v.path, v.video.kind, v.chunk, v.position] for v in plan.videos]
    body = {"settings": SETTINGS.to_json(), "passes": 2, "videos": entries}
    assert (tree.parent / "set" / schema.PLAN).read_text() == json.dumps(body, sort_keys=True, indent=0) + "\n"


def test_a_list_of_kinetics_is_matched_by_every_name_that_it_may_use(tree: Path) -> None:
    clip = tree / "class 0" / "abcdefghijk_000001_000011.mp4"
    clip.touch()
    (tree / "class 1" / "ABCDEFGHIJK.mp4").touch()
    names = ["class 0/é0.mp4", "class 0/é1", "class 2/é2.mp4 17", str(tree / "class 3" / "é3.mp4"), "abcdefghijk"]
    names += [clip.stem, "ABCDEFGHIJK_000003_000013", "lost_clip"]
    (tree.parent / "list.txt").write_text("\n".join(names))
    found = [video.id for video in list_videos("kinetics", tree, list_file=tree.parent / "list.txt")]
    assert found == sorted(
        [
            "class 0/é0",
            "class 0/é1",
            "class 2/é2",
            "class 3/é3",
            "class 0/abcdefghijk_000001_000011",
            "class 1/ABCDEFGHIJK",
            "lost_clip",
        ]
    )
