"""What a person sees of a running extraction: the plan, every rejected video, and how far it is."""

from __future__ import annotations

from common.printable import printable_line
from common.progress import ProgressDisplay
from pipeline.extract.plan import ChunkPlan
from pipeline.extract.run import Tally
from pipeline.extract.runner import Event, StageLoad, VideoReport
from shards import schema


def planned(display: ProgressDisplay, plan: ChunkPlan, tally: Tally) -> None:
    """Say what there is to do, once it is known."""
    todo = f"{tally.chunks} chunks to do" if tally.chunks else "nothing left to do"
    if plan.remark:
        display.say(plan.remark)
    if tally.lost:
        display.say(f"{tally.lost} shards that had landed are gone: they are made again")
    display.say(f"{len(plan.current)} videos in {plan.chunks} chunks, {plan.passes} passes: {todo}")
    display.begin(tally.total)


def happened(display: ProgressDisplay, event: Event, tally: Tally) -> None:
    """Name a rejected video; bring the totals, and who waits for whom, up to date."""
    if isinstance(event, VideoReport) and event.status == schema.REJECTED:
        display.say(printable_line(f"rejected {event.video}: {event.reason}: {event.detail}"))
    display.update(len(tally.videos), status=describe(tally))


def describe(tally: Tally) -> str:
    """For example "2/5 chunks, flow waits for frames 12 %, rejected 3 (corrupt 2, too_short 1)"."""
    text = f"{tally.chunks_done}/{tally.chunks} chunks"
    if tally.load is not None:
        text += f", {who_waits(tally.load)}"
    if tally.rejects:
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejects.most_common())
        text += f", rejected {tally.rejects.total()} ({reasons})"
    if tally.across_cuts:
        text += f", {tally.across_cuts} anchors not drawn: across cuts"
    return text


def who_waits(load: StageLoad) -> str:
    """For example "flow waits for frames 12 %, decoding for room 40 %, 96 windows before flow, 3 videos before writing"."""
    parts = [f"flow waits for frames {load.flow_waits:.0%}".replace("%", " %")]
    if load.decoding_waits >= 0.005:
        parts.append(f"decoding for room {load.decoding_waits:.0%}".replace("%", " %"))
    queues = (("windows before flow", load.for_flow), ("before encoding", load.for_encoding))
    parts += [f"{count} {what}" for what, count in (*queues, ("videos before writing", load.for_writing)) if count]
    return ", ".join(parts)
