"""What a person sees of a running extraction: the plan, every rejected video, and how far it is."""

from __future__ import annotations

from common.progress import ProgressDisplay
from pipeline.extract.plan import ChunkPlan
from pipeline.extract.run import Tally
from pipeline.extract.runner import Event, VideoReport
from shards import schema


def planned(display: ProgressDisplay, plan: ChunkPlan, tally: Tally) -> None:
    """Say what there is to do, once it is known."""
    todo = f"{tally.chunks} chunks to do" if tally.chunks else "nothing left to do"
    display.say(f"{len(plan.videos)} videos in {plan.chunks} chunks, {plan.passes} passes: {todo}")
    display.begin(tally.total)


def happened(display: ProgressDisplay, event: Event, tally: Tally) -> None:
    """Name a rejected video; bring the totals up to date."""
    if isinstance(event, VideoReport) and event.status == schema.REJECTED:
        display.say(f"rejected {event.video}: {event.reason}: {event.detail}")
    display.update(len(tally.videos), status=describe(tally))


def describe(tally: Tally) -> str:
    """For example "2/5 chunks, rejected 3 (corrupt 2, too_short 1)"."""
    text = f"{tally.chunks_done}/{tally.chunks} chunks"
    if tally.rejects:
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejects.most_common())
        text += f", rejected {tally.rejects.total()} ({reasons})"
    return text
