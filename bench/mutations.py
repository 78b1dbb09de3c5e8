"""Damaged copies of real clips through the decoder: what becomes of each, `docs/decoders.md`.

Comes in: a folder of clips and a count. Goes out: a table of outcomes, and with --record rows of results.csv. Mutation number N of a list
of clips is a pure function of N: it names a clip, a kind of damage and the bytes. Each copy is decoded as extraction does it, by a
process with a deadline, and read once more by PyAV in a process of its own, whose mark on every frame says whether FFmpeg's
decoder had to make something up. No copy with such a frame may yield windows.

    python bench/mutations.py ../shared/data/videos --count 300 --record
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.decoders import Library, Places, Reading
from bench.record import record
from pipeline.video.datasets import Video
from pipeline.video.decoder import Decoder
from pipeline.video.rejects import Reject
from shards.schema import Settings

LARGEST_CLIP_BYTES = 900_000
"""Of the clips that are damaged: 300 of them shall take minutes."""
COUNTED_BOXES = (
    b"stts",
    b"ctts",
    b"stss",
    b"stsz",
    b"stsc",
    b"stco",
    b"mvhd",
    b"tkhd",
    b"mdhd",
    b"elst",
    b"avc1",
    b"mp4v",
)
"""MP4 boxes whose numbers say how many frames there are, where, when and how large."""


def flipped(data: bytearray, draw: random.Random) -> None:
    """1 to 64 bits anywhere."""
    for _ in range(draw.choice((1, 4, 16, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def flipped_in_media(data: bytearray, draw: random.Random) -> None:
    """1 to 64 bits behind the first tenth and before the last: pictures and not tables."""
    for _ in range(draw.choice((1, 4, 16, 64))):
        data[draw.randrange(len(data) // 10, len(data) * 9 // 10)] ^= 1 << draw.randrange(8)


def truncated(data: bytearray, draw: random.Random) -> None:
    """A download that stopped."""
    del data[max(1, int(len(data) * draw.uniform(0.01, 0.99))) :]


def zeroed(data: bytearray, draw: random.Random) -> None:
    """A hole: 64 bytes to a tenth of the file."""
    size = int(64 * (len(data) / 640) ** draw.random())
    at = draw.randrange(len(data) - size)
    data[at : at + size] = bytes(size)


def swapped(data: bytearray, draw: random.Random) -> None:
    """Two blocks of 512 bytes to 64 KiB change places."""
    size = min(512 << draw.randrange(8), len(data) // 4)
    one = draw.randrange(len(data) // 2 - size)
    other = draw.randrange(len(data) // 2, len(data) - size)
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def header_damaged(data: bytearray, draw: random.Random) -> None:
    """Up to 16 bytes of the first 400."""
    for _ in range(draw.randrange(1, 17)):
        data[draw.randrange(min(400, len(data)))] = draw.randrange(256)


def lying(data: bytearray, draw: random.Random) -> None:
    """A number in one to three tables of the container becomes another: small, huge, or one off."""
    places = [at for name in COUNTED_BOXES for at in _occurrences(data, name)] or [draw.randrange(len(data) - 40)]
    for _ in range(draw.randrange(1, 4)):
        at = draw.choice(places) + 4 + 4 * draw.randrange(9)
        if at + 4 > len(data):
            continue
        old = int.from_bytes(data[at : at + 4], "big")
        new = draw.choice((0, 1, old + 1, old - 1, 2 * old, old // 2, 1 << 20, (1 << 32) - 1, 1 << 31))
        data[at : at + 4] = (new % (1 << 32)).to_bytes(4, "big")


def left_out(data: bytearray, draw: random.Random) -> None:
    """1 byte to 16 KiB are gone: all that follows is at another place."""
    size = min(1 << draw.randrange(15), len(data) // 4)
    at = draw.randrange(len(data) - size)
    del data[at : at + size]


def repeated(data: bytearray, draw: random.Random) -> None:
    """A block stands in the place of the one behind it as well."""
    size = min(512 << draw.randrange(8), len(data) // 4)
    at = draw.randrange(len(data) - 2 * size)
    data[at + size : at + 2 * size] = data[at : at + size]


KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bits flipped": flipped,
    "bits flipped in media": flipped_in_media,
    "truncated": truncated,
    "zeroed": zeroed,
    "blocks swapped": swapped,
    "header damaged": header_damaged,
    "lying counts": lying,
    "bytes left out": left_out,
    "block repeated": repeated,
}


def _occurrences(data: bytearray, name: bytes) -> list[int]:
    found, at = [], data.find(name)
    while at >= 0:
        found.append(at)
        at = data.find(name, at + 1)
    return found[:8]


@dataclass(frozen=True)
class Mutation:
    """number: what it is a function of. data: of the damaged copy."""

    number: int
    clip: Path
    kind: str
    data: bytes


def mutation(number: int, clips: Sequence[Path]) -> Mutation:
    """The kinds take turns; clip and damage are drawn. clips: in an order that does not depend on the machine."""
    draw = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    clip = draw.choice(list(clips))
    data = bytearray(clip.read_bytes())
    KINDS[kind](data, draw)
    return Mutation(number, clip, kind, bytes(data))


def small_clips(folder: Path, largest: int = LARGEST_CLIP_BYTES) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= largest)


@dataclass(frozen=True)
class Outcome:
    """ended: "windows" or a reason for a reject. engine: that gave the windows. seconds: until it was known.

    flagged: frames that FFmpeg's decoder marks as damaged, by PyAV; altered: frames that are not the clip's. Both only of accepted copies.
    """

    mutation: Mutation
    ended: str
    engine: str = ""
    seconds: float = 0.0
    detail: str = ""
    flagged: int = 0
    altered: int = 0


def outcome(decoder: Decoder, found: Mutation, folder: Path, settings: Settings, deadline_s: float) -> Outcome:
    """Decode one mutation. Two passes are asked for; all of the file is read whatever they are."""
    path = folder / f"{found.number:04d}{found.clip.suffix}"
    path.write_bytes(found.data)
    began = time.monotonic()
    try:
        decoded = decoder.windows(Video(path.stem, path, "file"), [0, 1], settings, deadline_s=deadline_s)
        n_anchors = len(list(decoded.anchors))
        assert n_anchors == 2
    except Reject as reject:
        return Outcome(found, reject.reason, seconds=time.monotonic() - began, detail=reject.detail)
    return Outcome(found, "windows", decoded.facts.engine, time.monotonic() - began)


def checked(known: Outcome, path: Path, clip: Reading, pyav: Library, deadline_s: float) -> Outcome:
    """With what PyAV says about the frames of an accepted copy. clip: PyAV's reading of the undamaged file."""
    seen = pyav.read(path, deadline_s, sweep_only=True)
    altered = sum(a != b for a, b in zip(seen.digests, clip.digests, strict=False))
    altered += abs(len(seen.digests) - len(clip.digests))
    return Outcome(known.mutation, known.ended, known.engine, known.seconds, seen.error, seen.flagged, altered)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: kinds of damage against outcomes."""
    endings = sorted({o.ended for o in outcomes}, key=lambda ended: (ended != "windows", ended))
    lines = ["| damage | " + " | ".join(endings) + " | altered |", "|---" * (len(endings) + 2) + "|"]
    for kind in KINDS:
        mine = [o for o in outcomes if o.mutation.kind == kind]
        counts = Counter(o.ended for o in mine)
        lines.append(
            f"| {kind} | " + " | ".join(str(counts[e]) for e in endings) + f" | {sum(o.altered > 0 for o in mine)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--start", type=int, default=0, help="the first number")
    parser.add_argument("--deadline", type=float, default=60.0)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    settings = Settings(dataset="folder", estimator={"name": "none"}, image_size=112, flow_size=56)
    clips, plain, outcomes = small_clips(arguments.clips), dict[Path, Reading](), []
    pyav = Library("pyav", Places({}, {}))
    with Decoder() as decoder, tempfile.TemporaryDirectory() as name:
        for number in range(arguments.start, arguments.start + arguments.count):
            found = mutation(number, clips)
            known = outcome(decoder, found, Path(name), settings, arguments.deadline)
            path = Path(name) / f"{number:04d}{found.clip.suffix}"
            if known.ended == "windows":
                if found.clip not in plain:
                    plain[found.clip] = pyav.read(found.clip, arguments.deadline, sweep_only=True)
                known = checked(known, path, plain[found.clip], pyav, arguments.deadline)
            path.unlink()
            outcomes.append(known)
            print(f"{number:4d} {found.kind:22s} {found.clip.name:40s} {known.ended:16s} {known.engine:8s} {known.seconds:6.1f} s "
                  f"flagged {known.flagged:3d} altered {known.altered:3d}  {known.detail}", flush=True)  # fmt: skip
        children = decoder.children_started
    pyav.close()
    print("\n".join(table(outcomes)))
    accepted = [o for o in outcomes if o.ended == "windows"]
    figures = {
        "accounted_for": (len(outcomes), f"of {arguments.count}; {children} decoding processes"),
        "accepted": (len(accepted), ", ".join(f"{n} by {e}" for e, n in Counter(o.engine for o in accepted).items())),
        "accepted_flagged": (sum(o.flagged > 0 for o in accepted), "frames of them FFmpeg marks as damaged"),
        "accepted_altered": (
            sum(o.altered > 0 for o in accepted),
            "some frame is not the clip's, and no decoder says so",
        ),
        "timeouts": (sum(o.ended == "timeout" for o in outcomes), f"deadline {arguments.deadline:g} s"),
        "crashes": (sum(o.ended == "decoder_crashed" for o in outcomes), "of the decoding process, accounted for"),
    }
    for figure, (value, note) in figures.items():
        print(f"{figure}: {value} ({note})")
        if arguments.record:
            record("mutations", figure, value, "files", note)


if __name__ == "__main__":
    main()
