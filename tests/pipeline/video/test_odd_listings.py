"""What a listing meets in the wild: unreadable directories, odd rows, nothing where the root should be. Nothing is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.video.datasets import list_videos, survey
from tests.pipeline.video.test_datasets import ids, touch


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `folder` unreadable, also for the superuser that tests may run as."""
    real: Callable[..., Any] = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(os.fsdecode(path)) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_an_unreadable_directory_is_named_and_the_rest_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4", "open/c.mp4")
    refuse(monkeypatch, tmp_path / "locked")
    found = survey("folder", tmp_path)
    assert ids(found.videos) == ["a", "open/c"]
    assert "1 directory could not be read" in found.remark()
    assert "locked (Permission denied)" in found.remark()


def test_an_unreadable_root_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4")
    refuse(monkeypatch, tmp_path)
    with pytest.raises(PermissionError):
        survey("folder", tmp_path)


def test_an_unreadable_frame_folder_stays_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "JPEGImages/480p/bear/0.jpg", "JPEGImages/480p/dog/0.jpg")
    refuse(monkeypatch, tmp_path / "JPEGImages/480p/bear")
    assert ids(list_videos("davis", tmp_path)) == ["bear", "dog"]


def test_what_was_ignored_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "notes.txt", "b.jpg")
    said = survey("folder", tmp_path).remark()
    assert said.startswith("2 files are no videos by their names and were ignored") and "notes.txt" in said
    (tmp_path / "b.jpg").unlink()
    assert survey("folder", tmp_path).remark() == "1 file is no video by its name and was ignored (such as notes.txt)"
    (tmp_path / "notes.txt").unlink()
    assert survey("folder", tmp_path).remark() == ""


def test_a_missing_root_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone, is not a directory; name the directory of the videos \(ROOT=dir"):
        list_videos("folder", tmp_path / "gone")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("x,aaaaaaaaaaa,,20,train", "time_start is '', not a number of seconds"),
        ("x,aaaaaaaaaaa,10,soon,train", "time_end is 'soon'"),
        ("x,aaaaaaaaaaa,10,inf,train", "time_end is 'inf'"),
        ("x,aaaaaaaaaaa,-10,20,train", "time_start is '-10', not a number of seconds"),
        ("x,aaaaaaaaaaa,10,1e300,train", "time_end is '1e300'"),
        ("x,aaaaaaaaaaa", "2 fields where the first line names 5"),
        ("x,aaaaaaaaaaa,10,20,train,more", "6 fields"),
        ("x,,10,20,train", "youtube_id is empty"),
        ("x" * 140_000 + ",aaaaaaaaaaa,10,20,train", "field larger than field limit"),
        ("x,aaaa\0aaaaaa,10,20,train", "a zero byte"),
    ],
)
def test_an_odd_kinetics_row_is_named_by_file_and_line(tmp_path: Path, row: str, complaint: str) -> None:
    touch(tmp_path, "aaaaaaaaaaa_000010_000020.mp4")
    listed = tmp_path / "train.csv"
    listed.write_text(f"label,youtube_id,time_start,time_end,split\n\nx,aaaaaaaaaaa,10,20,train\n{row}\n")
    with pytest.raises(ValueError, match=f"train.csv, line 4: .*{complaint}"):
        list_videos("kinetics", tmp_path, list_file=listed)


def test_a_quoted_kinetics_row_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "aaaaaaaaaaa_000010_000020.mp4")
    listed = tmp_path / "train.csv"
    listed.write_text('"label","youtube_id","time_start","time_end","split"\n"a, b","aaaaaaaaaaa","10","20","train"\n')
    assert ids(list_videos("kinetics", tmp_path, list_file=listed)) == ["aaaaaaaaaaa_000010_000020"]


def test_a_list_names_files_whatever_they_are_called(tmp_path: Path) -> None:
    """A line separator of Unicode is no line end; what can be no path is listed, and rejected when it is its turn."""
    odd, long = "two\u2028parts.mp4", "x" * 5000 + ".mp4"
    touch(tmp_path, odd)
    listed = tmp_path / "videos.txt"
    listed.write_text(f"{odd}\r\n{long}\n")
    assert {video.path.name for video in list_videos("list", tmp_path, list_file=listed)} == {odd, long}
    listed.write_text(f"{odd}\na\0b.mp4\n")
    with pytest.raises(ValueError, match=r"videos.txt, line 2: a zero byte"):
        list_videos("list", tmp_path, list_file=listed)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("dataset", ["list", "kinetics"])
def test_a_file_that_is_listed_in_two_spellings_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, relative: bool
) -> None:
    root = touch(tmp_path / "vids", "a.mp4", "deep/b.mp4")
    touch(tmp_path / "other", "c.mp4")
    spellings = ["a.mp4", "../vids/a.mp4", "./a.mp4", "deep/../a.mp4", str(root / "deep" / ".." / "a.mp4")]
    spellings += ["deep/../deep/b.mp4", "../other/c.mp4", "../vids/../other/c.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(spellings))
    if relative:
        monkeypatch.chdir(tmp_path)
    home = Path("vids") if relative else root
    found = list_videos(dataset, home, list_file=tmp_path / "list.txt")
    assert sorted(video.path.resolve().relative_to(tmp_path).as_posix() for video in found) == [
        "other/c.mp4",
        "vids/a.mp4",
        "vids/deep/b.mp4",
    ]
    assert ids(found) == ["../other/c", "a", "deep/b"]


def test_two_dots_behind_a_link_lead_elsewhere(tmp_path: Path) -> None:
    root = touch(tmp_path / "vids", "a.mp4")
    touch(tmp_path / "far" / "vids", "a.mp4")
    (tmp_path / "far" / "deep").mkdir()
    (root / "link").symlink_to(tmp_path / "far" / "deep")
    (tmp_path / "list.txt").write_text("a.mp4\nlink/../vids/a.mp4")
    found = list_videos("list", root, list_file=tmp_path / "list.txt")
    assert [video.path.resolve().parent.parent.name for video in found] == [tmp_path.name, "far"]
