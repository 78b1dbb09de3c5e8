"""What the tests of remote storage share: an extraction between addresses in this process, and a bucket's content as a folder's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.extract.at_work import PartEnd
from pipeline.extract.places import Places
from pipeline.extract.run import ExtractionRequest, extract_part
from pipeline.extract.runner import Event, Runner
from pipeline.video.decoder import Decoder
from shards.schema import Manifest
from shards.storage import Patience
from tests.pipeline.extract.in_process import InProcessRunner
from tests.pipeline.extract.small_extraction import request

HASTY = Patience(attempts=3, timeout_s=2.0, pause_s=0.001)


class KeptRunner(InProcessRunner):
    """Lends its decoding process to many runs. Chunks are made in the plan's order."""

    def __init__(self, decoder: Decoder, choice: Any) -> None:
        super().__init__(choice)
        self.decoder.close()
        self.decoder = decoder

    def __exit__(self, *_: object) -> None:
        """The decoder is somebody else's."""

    def run(self, jobs: Any, on_event: Callable[[Event], None]) -> None:
        super().run(list(reversed(jobs)), on_event)


@contextmanager
def prepared(
    root: Path | str, out: Path | str, scratch: Path, decoder: Decoder, *, scratch_gib: float = 1.0, **changes: Any
) -> Iterator[tuple[Places, ExtractionRequest, Runner]]:
    """An extraction that can begin."""
    places = Places(root, out, scratch, scratch_gib, HASTY)
    wanted = request(places.root, places.out, **changes)
    with places.opened(KeptRunner(decoder, wanted.estimator), writing=True, part=wanted.part) as runner:
        yield places, wanted, runner


def part_to(
    root: Path | str,
    out: Path | str,
    scratch: Path,
    decoder: Decoder,
    on_event: Callable[[Event], None] = lambda event: None,
    **changes: Any,
) -> PartEnd:
    """A small extraction; see `small_extraction.request` for the changes."""
    with prepared(root, out, scratch, decoder, **changes) as (places, wanted, runner):
        ended = extract_part(wanted, runner, lambda event, tally: on_event(event), lambda plan, tally: None)
    return places.at_end(ended)


def extract_to(
    root: Path | str,
    out: Path | str,
    scratch: Path,
    decoder: Decoder,
    on_event: Callable[[Event], None] = lambda event: None,
    **changes: Any,
) -> Manifest:
    """As `part_to`, where a manifest is made."""
    ended = part_to(root, out, scratch, decoder, on_event, **changes)
    assert ended.manifest is not None, "nobody else is at work in the local folder"
    return ended.manifest
