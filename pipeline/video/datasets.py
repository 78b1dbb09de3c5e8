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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from common.command import nearest
from pipeline.video.list_files import plain_entries, read_list, select_kinetics
from pipeline.video.video_ids import VIDEO_EXTENSIONS, ids_of, utf8_name
from shards.counting import counted

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})

DAVIS_FPS = 24.0
YTVOS_ALL_FRAMES_FPS = 30.0
YTVOS_ANNOTATED_FPS = 6.0
LISTED_FRAMES_FPS = 24.0
"""For frame folders that a list file names. The rate only scales the recorded times: offsets are counted in frame intervals."""


@dataclass(frozen=True, slots=True)
class Video:
    """One input. kind: "file" is decoded by a video library, "frames" is a folder of images at `fps` frames per second."""

    id: str
    path: Path
    kind: Literal["file", "frames"]
    fps: float | None = None


@dataclass(frozen=True)
class Listing:
    """videos: sorted by id. ignored: number of files that are no videos by name; examples: a few of them, for a message.

    unreadable: directories whose content the file system does not give, with its reason.
    """

    videos: list[Video]
    ignored: int = 0
    examples: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def remark(self) -> str:
        """What was found and not taken, in one line; empty where everything was."""
        like = f" (such as {', '.join(map(utf8_name, self.examples))})" if self.examples else ""
        files = "file is no video by its name and was", "files are no videos by their names and were"
        parts = [f"{counted(self.ignored, *files)} ignored{like}"] if self.ignored else []
        if self.unreadable:
            folders = counted(len(self.unreadable), "directory", "directories")
            parts.append(f"{folders} could not be read, for example {self.unreadable[0]}")
        return "; ".join(parts)


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
        raise ValueError(
            f"the root of the {dataset} dataset, {root}, is not a directory; "
            "name the directory of the videos (ROOT=dir with make, else --root dir)"
        )
    if list_file is not None:
        if dataset not in ("kinetics", "list"):
            raise ValueError(f"the {dataset} layout takes no list file (got {list_file}); use kinetics or list")
        if not Path(list_file).is_file():
            raise ValueError(f"the list file {list_file} does not exist or is no file; name a text file")
    listing = LAYOUTS[dataset](root, list_file)
    if not listing.videos:
        unread = f"; could not be read: {', '.join(listing.unreadable[:3])}" if listing.unreadable else ""
        raise ValueError(
            f"{root} holds no videos in the {dataset} layout: expected {EXPECTED[dataset]}; {_what_is_there(root)}{unread}"
        )
    return replace(listing, videos=sorted(listing.videos, key=lambda video: video.id))


# ---- layouts of video files


def _folder(root: Path, list_file: Path | None) -> Listing:
    return _video_files(root)[0]


def _kinetics(root: Path, list_file: Path | None) -> Listing:
    found, names = _video_files(root)
    if list_file is None:
        return found
    wanted = select_kinetics(plain_entries(read_list(list_file), root), names)
    present = [found.videos[place] for place in wanted.present]
    missing = _with_ids([(root / entry, entry.removeprefix("./")) for entry in wanted.missing], "file", None)
    taken = {video.id for video in present}
    for video in missing:  # every entry is accounted for, also one that differs from a file only in its extension
        inside = video.path.is_relative_to(root)
        name = utf8_name(video.path.relative_to(root).as_posix() if inside else str(video.path))
        present.append(
            video if video.id not in taken else replace(video, id=name if name not in taken else f"{name} (missing)")
        )
    return replace(found, videos=present)


def _synthetic(root: Path, list_file: Path | None) -> Listing:
    for base in (root / "videos", root):
        if base.is_dir():
            direct = [path for path in _visible(base) if path.is_file() and path.suffix.lower() in VIDEO_EXTENSIONS]
            if direct:
                return Listing(_with_ids([(path, path.name) for path in direct], "file", None))
    return _davis(root, list_file)


def _video_files(base: Path) -> tuple[Listing, list[str]]:
    """With the name of each video relative to `base`."""
    unreadable: list[str] = []
    videos: list[tuple[Path, str]] = []
    ignored, examples = 0, list[str]()
    for folder, inside, names in _walk(base, unreadable):
        for name in names:
            if os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS:
                videos.append((folder / name, inside + name))
                continue
            ignored += 1
            if len(examples) < 3:
                examples.append(inside + name)
    listing = Listing(_with_ids(videos, "file", None), ignored, tuple(examples), tuple(unreadable))
    return listing, [name for _, name in videos]


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
    try:
        return base.is_dir() and any(path.is_dir() and _has_picture(path) for path in _visible(base))
    except PermissionError:
        return False


def _has_picture(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(PurePath(entry.name).suffix.lower() in IMAGE_EXTENSIONS for entry in entries)
    except PermissionError:
        return False  # as a video it is listed all the same, and rejected as unreadable


# ---- a list of either


def _list(root: Path, list_file: Path | None) -> Listing:
    if list_file is None:
        if not root.is_file():
            raise ValueError(f"the list layout needs a list file, or a root that is one; {root} is a directory")
        list_file, root = root, root.parent
    entries = plain_entries(read_list(list_file), root)
    paths = [root / entry for entry in entries]
    relative = {path for path, entry in zip(paths, entries, strict=True) if not os.path.isabs(entry)}
    files: list[tuple[Path, str]] = []
    folders: list[tuple[Path, str]] = []
    below = "" if root == Path() else _below(str(root))
    for path in paths:
        name = str(path) if path != root else "."
        if name.startswith(below) and (below or not path.is_absolute()):
            name = name[len(below) :]
        elif (root / name.lstrip("/")) not in relative:
            name = name.lstrip("/")
        # os.path and not Path.is_dir, which raises for what can be no path, such as a name that is too long
        (folders if os.path.isdir(path) else files).append((path, name))
    videos = _with_ids(files, "file", None)
    taken = {video.id for video in videos}
    for video in _with_ids(folders, "frames", LISTED_FRAMES_FPS):
        videos.append(video if video.id not in taken else Video(f"{video.id}/", video.path, "frames", video.fps))
    return Listing(videos)


# ---- shared by the layouts


def _with_ids(named: Iterable[tuple[Path, str]], kind: Literal["file", "frames"], fps: float | None) -> list[Video]:
    """Videos of (path, relative name); a path that is named twice counts once."""
    name_of = dict(named)
    ids = ids_of(list(name_of.values()), extensions=kind == "file")
    return [Video(video_id, path, kind, fps) for path, video_id in zip(name_of, ids, strict=True)]


def _visible(base: Path) -> Iterator[Path]:
    return (path for path in sorted(base.iterdir()) if not path.name.startswith("."))


def _walk(base: Path, unreadable: list[str]) -> Iterator[tuple[Path, str, list[str]]]:
    """The visible files below `base` by folder: the folder, what its files' names begin with relative to `base`, their names. Directory
    links are followed, each real directory comes once.

    unreadable: takes the directories that cannot be listed; `base` itself must be. Raises OSError for that.
    """

    def note(error: OSError) -> None:
        if error.filename is None or Path(os.fsdecode(error.filename)) == base:
            raise error
        unreadable.append(utf8_name(f"{os.fsdecode(error.filename)} ({error.strerror or error})"))

    seen: set[str] = set()
    start = len(_below(str(base)))
    for folder, subfolders, names in os.walk(base, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield Path(folder), _below(folder)[start:], sorted(name for name in names if not name.startswith("."))


def _below(folder: str) -> str:
    """What the paths of a folder's entries begin with."""
    return folder.rstrip(os.sep) + os.sep


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
