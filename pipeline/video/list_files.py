"""List files: which entries a text file names, and which files of a Kinetics tree they mean.

Comes in: a text file (UTF-8, one entry per line, blank lines and lines that begin with # skipped) or a Kinetics annotation CSV
(its first line names the columns, among them youtube_id). Goes out: entries, and for Kinetics the files that match them
together with the entries that match none.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLIP_NAME = re.compile(r"(?P<youtube_id>[\w-]{11})_\d{6}_\d{6}")
LINE_END = re.compile(r"\r\n|\r|\n")
CLASS_NUMBER = re.compile(r"\s+-?\d+$")


@dataclass(frozen=True)
class Selection:
    """present: places of the files that an entry names, each once. missing: entries that name no file."""

    present: list[int]
    missing: list[str]


def read_list(list_file: Path) -> list[str]:
    """The entries of a list file, as the operating system spells names.

    Raises ValueError for a file that is not UTF-8 text or lists nothing, for a line that can be no name, and for a line of a Kinetics CSV
    that names no clip.
    """
    try:
        text = Path(list_file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the list file {list_file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    # Not str.splitlines, which takes characters for line ends that names of files may hold.
    numbered = [(number, line.strip()) for number, line in enumerate(LINE_END.split(text), 1)]
    numbered = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    for number, line in numbered:
        if "\0" in line:
            raise ValueError(
                f"{list_file}, line {number}: a zero byte, which no name holds; correct or delete the line"
            )
    entries = [line for _, line in numbered]
    columns = _fields(entries[0], f"{list_file}, line {numbered[0][0]}") if entries else []
    if "youtube_id" in columns:
        entries = [_clip_name(line, columns, f"{list_file}, line {number}") for number, line in numbered[1:]]
    if not entries:
        raise ValueError(f"the list file {list_file} lists nothing")
    return [os.fsdecode(entry.encode()) for entry in entries]


def _fields(line: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(f"{where}: {error}; correct or delete the line") from error


def _clip_name(line: str, columns: Sequence[str], where: str) -> str:
    """Kinetics' own naming of a clip: <youtube id>_<start s, 6 digits>_<end s, 6 digits>."""
    fields = _fields(line, where)
    if len(fields) != len(columns):
        raise ValueError(
            f"{where}: {len(fields)} fields where the first line names {len(columns)}; correct or delete the line"
        )
    row = dict(zip(columns, fields, strict=True))
    if not row["youtube_id"].strip():
        raise ValueError(f"{where}: the youtube_id is empty; correct or delete the line")
    seconds = []
    for column in ("time_start", "time_end"):
        if column not in row:
            return row["youtube_id"]
        try:
            second = int(float(row[column]))
        except (ValueError, OverflowError):
            second = -1
        if not 0 <= second < 10**6:
            raise ValueError(
                f"{where}: {column} is {row[column]!r}, not a number of seconds; correct or delete the line"
            )
        seconds.append(second)
    return f"{row['youtube_id']}_{seconds[0]:06d}_{seconds[1]:06d}"


def plain_entries(entries: Sequence[str], root: Path) -> list[str]:
    """Each entry once. A path below `root` that is spelled otherwise than from there, such as `../vids/a.mp4`, becomes ./a.mp4."""
    folders: dict[str, str] = {}  # entries of a list share them
    return list(dict.fromkeys(_plain_entry(entry, root, folders) for entry in entries))


def _plain_entry(entry: str, root: Path, folders: dict[str, str]) -> str:
    if not {"", ".", ".."}.intersection(entry.split("/")):
        return entry
    folder, name = os.path.split(os.path.join(root, entry))
    if name in ("", ".", ".."):
        return entry
    if folder not in folders:
        plain = os.path.abspath(folder)  # of the words alone; behind a link to a folder, ".." is elsewhere
        folders[folder] = plain if os.path.realpath(plain) == os.path.realpath(folder) else ""
    if not folders[folder]:
        return entry
    path, home = os.path.join(folders[folder], name), os.path.abspath(root).rstrip("/") + "/"
    if path.startswith(home):
        return "./" + path[len(home) :]
    return path if os.path.isabs(entry) else os.path.relpath(path, root)


def select_kinetics(entries: Sequence[str], files: Sequence[str]) -> Selection:
    """Match entries with files, given each file's path relative to the root.

    An entry may be that path, with or without the extension, or behind "./"; a file name, with or without the extension; a YouTube id,
    which means every clip cut from that video; or a clip's full name where the mirror named the file by the YouTube id
    alone. A class number behind the entry, as some toolboxes write, is ignored.
    """
    asked = [(entry, bare, CLIP_NAME.fullmatch(bare)) for entry in entries for bare in (CLASS_NUMBER.sub("", entry),)]
    # Only names that somebody asks for are kept, or there would be half a dozen for every file.
    wanted = {name for entry, bare, clip in asked for name in (entry, bare, clip["youtube_id"] if clip else bare)}
    files_of: dict[str, list[int]] = {}
    stems = []
    for place, path in enumerate(files):
        name = path.rpartition("/")[2]
        stem, extension = os.path.splitext(name)
        stems.append(stem)
        clip = CLIP_NAME.fullmatch(stem)
        keys = {path, f"./{path}", path.removesuffix(extension), name, stem, clip["youtube_id"] if clip else stem}
        for key in keys & wanted:
            files_of.setdefault(key, []).append(place)

    present: dict[int, None] = {}
    missing: dict[str, None] = {}
    for entry, bare, clip in asked:
        matches = files_of.get(entry) or files_of.get(bare) or []
        if not matches and clip:
            matches = [place for place in files_of.get(clip["youtube_id"], []) if stems[place] == clip["youtube_id"]]
        present.update(dict.fromkeys(matches))
        if not matches:
            missing[bare] = None
    return Selection(list(present), list(missing))
