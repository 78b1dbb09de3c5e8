"""Which videos of a listing a set knows already, and under which id the others join it.

Comes in: the (id, path) that a set has recorded, and a listing with the paths as they would be recorded. Goes out: the videos that the
set knows, under the ids that it gave them, and those that are new.

Ids alone do not tell: a.mp4 is called a until an a.avi appears beside it, and a.mp4 from then on. Paths alone do not either: a set
continues on data that has been moved. So what agrees in both comes first, then equal paths, then equal ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.video.datasets import Video


def match(
    recorded: Sequence[tuple[str, str]], listing: Sequence[tuple[Video, str]]
) -> tuple[dict[str, Video], list[Video]]:
    """(recorded id -> the video with that id, videos that are new, in the order of the listing).

    A new video whose id the set has given to another one keeps the extension of its file in its id. Raises ValueError where even that
    is taken.
    """
    at = {(video.id, path): place for place, (video, path) in enumerate(listing)}
    at_path = {path: place for place, (_, path) in enumerate(listing)}
    at_id = {video.id: place for place, (video, _) in enumerate(listing)}
    found = {video_id: at[video_id, path] for video_id, path in recorded if (video_id, path) in at}
    claimed = set(found.values())
    for by_path in (True, False):
        for video_id, path in recorded:
            place = None if video_id in found else at_path.get(path) if by_path else at_id.get(video_id)
            if place is not None and place not in claimed:
                found[video_id] = place
                claimed.add(place)
    present = {video_id: replace(listing[place][0], id=video_id) for video_id, place in found.items()}
    known = {video_id for video_id, _ in recorded}
    listed = {video.id for video, _ in listing}
    return present, [_joining(video, known, listed) for place, (video, _) in enumerate(listing) if place not in claimed]


def _joining(video: Video, known: set[str], listed: set[str]) -> Video:
    if video.id not in known:
        return video
    named = f"{video.id}{video.path.suffix}"
    if named in known | listed:
        raise ValueError(f"the set has another video with the id of {video.path} ({video.id}); rename the file")
    return replace(video, id=named)
