"""Dataset layouts: from a directory to a sorted list of videos with stable, unique ids.

Comes in: the name of a layout and a root directory (and, for some, a text file that lists entries). Goes out: `Video` rows.
Nothing is opened here: a broken file with a video's name is listed, and rejected with a reason when it is decoded, so
that every input is accounted for.

    folder      any tree of video files
    kinetics    <split>/<class>/*.mp4, <class>/*.mp4 or flat; with a list file of ids or paths only those
    ytvos       train_all_frames/JPEGImages/<id>/*.jpg (30 fps; preferred) or train/JPEGImages/<id>/*.jpg (every fifth frame, 6 fps)
    davis       JPEGImages/480p/<sequence>/*.jpg (24 fps), another resolution where there is no 480p
    list        a text file with one video file or frame folder per line
    synthetic   what this package's generator writes: videos/*.mp4, or DAVIS folders

An id is the path relative to the layout's base, with / and without the extension; where that would give two files one id, these keep
their extensions. The id, not the path, decides which anchors a video yields, so moving a dataset does not change a shard set.
Files and directories whose names begin with a dot are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from common.command import nearest
from pipeline.video.list_files import read_list, select_kinetics

VIDEO_EXTENSIONS = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".webm",
        ".mkv",
        ".avi",
        ".mpg",
        ".mpeg",
        ".m2ts",
        ".mts",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
    }
)
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})

DAVIS_FPS = 24.0
YTVOS_ALL_FRAMES_FPS = 30.0
YTVOS_ANNOTATED_FPS = 6.0
LISTED_FRAMES_FPS = 24.0
"""For frame folders that a list file names. The rate only scales the recorded times: offsets are counted in frame intervals."""


@dataclass(frozen=True)
class Video:
    """One input. kind: "file" is decoded by a video library, "frames" is a folder of images at `fps` frames per second."""

    id: str
    path: Path
    kind: Literal["file", "frames"]
    fps: float | None = None


@dataclass(frozen=True)
class Listing:
    """videos: sorted by id. ignored: number of files that are no videos by name; examples: a few of them, for a message."""

    videos: list[Video]
    ignored: int = 0
    examples: tuple[str, ...] = ()


def list_videos(dataset: str, root: Path, *, list_file: Path | None = None) -> list[Video]:
    """The videos of a layout, sorted by id. See `survey` for the errors."""
    return survey(dataset, root, list_file=list_file).videos


def survey(dataset: str, root: Path, *, list_file: Path | None = None) -> Listing:
    """As `list_videos`, with the number of files that were ignored.

    Raises ValueError for an unknown layout (naming near ones), a root or list file that does not exist, a list file given to a
    layout that takes none, and a root in which the layout finds nothing (saying what was expected and what is there).
    """
    if dataset not in LAYOUTS:
        raise ValueError(f"no dataset layout is called {dataset!r}; {nearest(dataset, sorted(LAYOUTS))}")
    root = Path(root)
    if not root.is_dir() and not (dataset == "list" and root.is_file()):
        raise ValueError(f"the root of the {dataset} dataset, {root}, is not a directory")
    if list_file is not None:
        if dataset not in ("kinetics", "list"):
            raise ValueError(f"the {dataset} layout takes no list file (got {list_file}); use kinetics or list")
        if not Path(list_file).is_file():
            raise ValueError(f"the list file {list_file} does not exist")
    listing = LAYOUTS[dataset](root, list_file)
    if not listing.videos:
        raise ValueError(
            f"{root} holds no videos in the {dataset} layout: expected {EXPECTED[dataset]}; {_what_is_there(root)}"
        )
    return Listing(sorted(listing.videos, key=lambda video: video.id), listing.ignored, listing.examples)


# ---- layouts of video files


def _folder(root: Path, list_file: Path | None) -> Listing:
    return _video_files(root, root)


def _kinetics(root: Path, list_file: Path | None) -> Listing:
    found = _video_files(root, root)
    if list_file is None:
        return found
    wanted = select_kinetics(
        read_list(list_file), {video.path: video.path.relative_to(root).as_posix() for video in found.videos}
    )
    by_path = {video.path: video for video in found.videos}
    present = [by_path[path] for path in wanted.present]
    missing = _with_ids([(root / entry, entry) for entry in wanted.missing], "file", None)
    taken = {video.id for video in present}
    return Listing(present + [video for video in missing if video.id not in taken], found.ignored, found.examples)


def _synthetic(root: Path, list_file: Path | None) -> Listing:
    for base in (root / "videos", root):
        if base.is_dir():
            direct = [path for path in _visible(base) if path.is_file() and path.suffix.lower() in VIDEO_EXTENSIONS]
            if direct:
                return Listing(_with_ids([(path, path.name) for path in direct], "file", None))
    return _davis(root, list_file)


def _video_files(base: Path, root: Path) -> Listing:
    files = list(_walk(base))
    videos = [path for path in files if path.suffix.lower() in VIDEO_EXTENSIONS]
    others = [path.relative_to(root).as_posix() for path in files if path.suffix.lower() not in VIDEO_EXTENSIONS]
    return Listing(
        _with_ids([(path, path.relative_to(root).as_posix()) for path in videos], "file", None),
        len(others),
        tuple(others[:3]),
    )


# ---- layouts of frame folders


def _ytvos(root: Path, list_file: Path | None) -> Listing:
    for base in (root / "train_all_frames" / "JPEGImages", root / "train" / "JPEGImages", root / "JPEGImages", root):
        if _holds_frame_folders(base):
            split = base.parent.name if base.name == "JPEGImages" else base.name
            return _frame_folders(base, YTVOS_ALL_FRAMES_FPS if split.endswith("_all_frames") else YTVOS_ANNOTATED_FPS)
    return Listing([])


def _davis(root: Path, list_file: Path | None) -> Listing:
    for images in (root / "JPEGImages", root):
        if not images.is_dir():
            continue
        resolutions = [path for path in _visible(images) if _holds_frame_folders(path)]
        at_480p = [path for path in resolutions if path.name == "480p"]
        for base in at_480p + resolutions[:1] + [images]:
            if _holds_frame_folders(base):
                return _frame_folders(base, DAVIS_FPS)
    return Listing([])


def _frame_folders(base: Path, fps: float) -> Listing:
    entries = list(_visible(base))
    folders = [path for path in entries if path.is_dir()]
    others = [path.name for path in entries if not path.is_dir()]
    return Listing(_with_ids([(path, path.name) for path in folders], "frames", fps), len(others), tuple(others[:3]))


def _holds_frame_folders(base: Path) -> bool:
    return base.is_dir() and any(path.is_dir() and _has_picture(path) for path in _visible(base))


def _has_picture(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(PurePath(entry.name).suffix.lower() in IMAGE_EXTENSIONS for entry in entries)


# ---- a list of either


def _list(root: Path, list_file: Path | None) -> Listing:
    if list_file is None:
        if not root.is_file():
            raise ValueError(f"the list layout needs a list file, or a root that is one; {root} is a directory")
        list_file, root = root, root.parent
    entries = list(dict.fromkeys(read_list(list_file)))
    files: list[tuple[Path, str]] = []
    folders: list[tuple[Path, str]] = []
    for entry in entries:
        path = root / entry
        try:
            name = path.relative_to(root).as_posix()
        except ValueError:
            name = path.as_posix().lstrip("/")
        (folders if path.is_dir() else files).append((path, name))
    videos = _with_ids(files, "file", None)
    taken = {video.id for video in videos}
    for video in _with_ids(folders, "frames", LISTED_FRAMES_FPS):
        videos.append(video if video.id not in taken else Video(f"{video.id}/", video.path, "frames", video.fps))
    return Listing(videos)


# ---- shared by the layouts


def _with_ids(named: Iterable[tuple[Path, str]], kind: Literal["file", "frames"], fps: float | None) -> list[Video]:
    """Ids from relative names. Files that would share an id without extension keep it; repeated until all ids differ."""
    path_of = {os.fsencode(name).decode("utf-8", "backslashreplace"): path for path, name in named}
    id_of = {name: _without_extension(name) if kind == "file" else name for name in path_of}
    while True:
        count = Counter(id_of.values())
        clashing = [name for name, video_id in id_of.items() if count[video_id] > 1 and video_id != name]
        if not clashing:
            return [Video(id_of[name], path, kind, fps) for name, path in path_of.items()]
        id_of.update({name: name for name in clashing})


def _without_extension(name: str) -> str:
    suffix = PurePath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_EXTENSIONS else name


def _visible(base: Path) -> Iterator[Path]:
    return (path for path in sorted(base.iterdir()) if not path.name.startswith("."))


def _walk(base: Path) -> Iterator[Path]:
    """All visible files below `base`, directory links followed, each real directory once."""
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(base, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _what_is_there(root: Path) -> str:
    entries: Iterable[Path] = _visible(root) if root.is_dir() else ()
    names = [path.name + ("/" if path.is_dir() else "") for path in entries]
    if not names:
        return "it is empty"
    return f"found {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"


LAYOUTS: dict[str, Callable[[Path, Path | None], Listing]] = {
    "folder": _folder,
    "kinetics": _kinetics,
    "ytvos": _ytvos,
    "davis": _davis,
    "list": _list,
    "synthetic": _synthetic,
}

DATASETS = tuple(LAYOUTS)

EXPECTED: dict[str, str] = {
    "folder": f"files ending in {' '.join(sorted(VIDEO_EXTENSIONS))}",
    "kinetics": "<split>/<class>/*.mp4, <class>/*.mp4 or *.mp4",
    "ytvos": "train_all_frames/JPEGImages/<id>/*.jpg or train/JPEGImages/<id>/*.jpg",
    "davis": "JPEGImages/480p/<sequence>/*.jpg",
    "list": "a list file with one path per line",
    "synthetic": "videos/*.mp4 or JPEGImages/480p/<sequence>/*.jpg, as written by `python -m pipeline synth`",
}
