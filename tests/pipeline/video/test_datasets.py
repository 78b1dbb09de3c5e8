"""Layouts: what is listed, under which id, and what is said when nothing is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.video.datasets import DATASETS, Video, list_videos, survey


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def ids(videos: list[Video]) -> list[str]:
    return [video.id for video in videos]


def test_folder_lists_every_video_name_in_the_tree(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a/z.webm", "a/y.avi", "notes.txt", "a/cover.jpg", ".hidden.mp4", ".git/x.mp4")
    found = survey("folder", tmp_path)
    assert ids(found.videos) == ["a/y", "a/z", "b"]
    assert found.videos[2] == Video("b", tmp_path / "b.MP4", "file", None)
    assert found.ignored == 2 and set(found.examples) == {"notes.txt", "a/cover.jpg"}


def test_ids_keep_the_extension_only_where_two_files_would_clash(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.avi", "b.mp4", "c.mp4.mkv", "c.mp4", "c.avi", "d.x.mp4")
    assert ids(list_videos("folder", tmp_path)) == ["a.avi", "a.mp4", "b", "c.avi", "c.mp4", "c.mp4.mkv", "d.x"]


def test_order_and_ids_do_not_depend_on_where_the_root_is(tmp_path: Path) -> None:
    names = [f"{c}/{i}.mp4" for c in ("b", "a") for i in (10, 9, 1)]
    one, two = touch(tmp_path / "one", *names), touch(tmp_path / "two", *reversed(names))
    assert ids(list_videos("folder", one)) == ids(list_videos("folder", two)) == sorted(n[:-4] for n in names)


def test_linked_directories_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "real", "a.mp4")
    root = touch(tmp_path / "root", "b.mp4")
    (root / "linked").symlink_to(tmp_path / "real")
    (root / "loop").symlink_to(root)
    assert ids(list_videos("folder", root)) == ["b", "linked/a"]


def test_names_that_are_no_utf8_get_a_printable_id(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("this file system refuses such names")
    (video,) = list_videos("folder", tmp_path)
    assert video.id == "caf\\xe9" and video.path.exists()
    video.id.encode("utf-8")


@pytest.mark.parametrize("prefix", ["", "archery/", "train/archery/"])
def test_kinetics_flat_by_class_or_by_split(tmp_path: Path, prefix: str) -> None:
    touch(tmp_path, f"{prefix}abcdefghijk_000010_000020.mp4", f"{prefix}_bcdefghij-_000001_000011.mp4")
    assert ids(list_videos("kinetics", tmp_path)) == [
        f"{prefix}_bcdefghij-_000001_000011",
        f"{prefix}abcdefghijk_000010_000020",
    ]


def test_kinetics_list_of_ids_and_paths(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "k",
        *[f"train/c{i % 2}/{letter * 11}_{i:06d}_{i + 10:06d}.mp4" for i, letter in enumerate("abcdefg")],
        "train/c1/hhhhhhhhhhh.mp4",
    )
    listed = tmp_path / "list.txt"
    listed.write_text(
        "# comment\n\naaaaaaaaaaa\nbbbbbbbbbbb_000001_000011\ntrain/c0/ccccccccccc_000002_000012.mp4 17\n"
        "train/c1/ddddddddddd_000003_000013\neeeeeeeeeee_000004_000014.mp4\nhhhhhhhhhhh_000005_000015\nzzzzzzzzzzz\n"
    )
    videos = list_videos("kinetics", root, list_file=listed)
    assert [v.path.name[0] for v in videos if v.path.exists()] == ["a", "c", "e", "b", "d", "h"]
    assert [v.id for v in videos if not v.path.exists()] == ["zzzzzzzzzzz"]


def test_kinetics_annotation_csv(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "k",
        "aaaaaaaaaaa_000010_000020.mp4",
        "aaaaaaaaaaa_000100_000110.mp4",
        "bbbbbbbbbbb_000000_000010.mp4",
    )
    listed = tmp_path / "train.csv"
    listed.write_text(
        "label,youtube_id,time_start,time_end,split\narchery,aaaaaaaaaaa,10,20,train\nx,ccccccccccc,5,15,train\n"
    )
    assert ids(list_videos("kinetics", root, list_file=listed)) == [
        "aaaaaaaaaaa_000010_000020",
        "ccccccccccc_000005_000015",
    ]


@pytest.mark.parametrize(("split", "fps"), [("train_all_frames", 30.0), ("train", 6.0)])
@pytest.mark.parametrize("level", ["", "{split}", "{split}/JPEGImages"])
def test_ytvos_root_at_any_level(tmp_path: Path, split: str, fps: float, level: str) -> None:
    touch(
        tmp_path,
        *[f"{split}/JPEGImages/{v}/0000{i}.jpg" for v in ("0043f083b5", "003234408d") for i in range(3)],
        f"{split}/meta.json",
    )
    videos = list_videos("ytvos", tmp_path / level.format(split=split))
    assert ids(videos) == ["003234408d", "0043f083b5"]
    assert {(v.kind, v.fps) for v in videos} == {("frames", fps)}


def test_ytvos_prefers_all_frames(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/JPEGImages/a/00000.jpg",
        "train_all_frames/JPEGImages/a/00000.jpg",
        "train_all_frames/JPEGImages/b/00000.jpg",
    )
    videos = list_videos("ytvos", tmp_path)
    assert ids(videos) == ["a", "b"] and videos[0].fps == 30.0 and "train_all_frames" in str(videos[0].path)


@pytest.mark.parametrize("level", ["", "JPEGImages", "JPEGImages/480p"])
def test_davis_root_at_any_level(tmp_path: Path, level: str) -> None:
    touch(
        tmp_path,
        "JPEGImages/480p/dog/00000.jpg",
        "JPEGImages/480p/bear/00000.jpg",
        "Annotations/480p/dog/00000.png",
        "JPEGImages/480p/x.txt",
    )
    found = survey("davis", tmp_path / level)
    assert [(v.id, v.kind, v.fps) for v in found.videos] == [("bear", "frames", 24.0), ("dog", "frames", 24.0)]
    assert found.ignored == 1


def test_davis_other_resolution_and_empty_sequence(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/1080p/dog/00000.jpg")
    (tmp_path / "JPEGImages/1080p/empty").mkdir()
    assert ids(list_videos("davis", tmp_path)) == ["dog", "empty"]
    touch(tmp_path, "JPEGImages/480p/cat/00000.jpg")
    assert ids(list_videos("davis", tmp_path)) == ["cat"]


def test_list_of_files_and_folders(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/v.mp4", "a/w #1.mp4", "frames/seq/000.jpg", "unlisted.mp4")
    touch(tmp_path / "else", "far.mp4")
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"\ufeffa/v.mp4\r\n# no\n\na/w #1.mp4\nframes/seq\n{tmp_path}/else/far.mp4\ngone.mp4\na/v.mp4\n./a/v.mp4\n",
        encoding="utf-8",
    )
    videos = list_videos("list", root, list_file=listed)
    far = f"{tmp_path}/else/far".lstrip("/")
    assert sorted(ids(videos)) == ids(videos) == sorted(["a/v", "a/w #1", "frames/seq", "gone", far])
    assert {v.id: v.kind for v in videos}["frames/seq"] == "frames"
    assert ids(list_videos("list", listed, list_file=None))  # the list itself as root, entries relative to it


def test_synthetic_layouts(tmp_path: Path) -> None:
    root = touch(tmp_path, "videos/s1.mp4", "videos/s0.mp4", "videos/s0.json", "JPEGImages/480p/s0/00000.jpg")
    assert ids(list_videos("synthetic", root)) == ids(list_videos("synthetic", root / "videos")) == ["s0", "s1"]
    assert list_videos("synthetic", root / "JPEGImages")[0].kind == "frames"


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'davies'; did you mean davis"):
        list_videos("davies", tmp_path)
    with pytest.raises(ValueError, match="is not a directory"):
        list_videos("folder", tmp_path / "gone")
    with pytest.raises(ValueError, match="it is empty"):
        list_videos("folder", tmp_path)
    touch(tmp_path, "readme.txt", "pictures/a.jpg")
    for dataset in sorted(set(DATASETS) - {"list", "davis", "synthetic", "ytvos"}):
        with pytest.raises(ValueError, match=r"expected .*mp4.*found pictures/, readme.txt"):
            list_videos(dataset, tmp_path)
    with pytest.raises(ValueError, match="takes no list file"):
        list_videos("folder", tmp_path, list_file=tmp_path / "readme.txt")
    with pytest.raises(ValueError, match="needs a list file"):
        list_videos("list", tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        list_videos("list", tmp_path, list_file=tmp_path / "gone.txt")
    (tmp_path / "blank.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="lists nothing"):
        list_videos("list", tmp_path, list_file=tmp_path / "blank.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        list_videos("list", tmp_path, list_file=tmp_path / "binary.txt")


def test_the_real_clips(shared_dir: Path) -> None:
    assert len(list_videos("folder", shared_dir / "data" / "videos")) == 55
    assert len(list_videos("davis", shared_dir / "data" / "davis")) == 7
