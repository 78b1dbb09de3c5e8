"""What a person sees of a running extraction: the plan, every rejected video, and how far it is."""

from __future__ import annotations

from common.printable import printable_line
from common.progress import ProgressDisplay
from pipeline.extract.plan import ChunkPlan
from pipeline.extract.runner import Event, IndexBegun, StageLoad, VideoReport
from pipeline.extract.tally import Tally
from shards.counting import counted, plural


def planned(display: ProgressDisplay, plan: ChunkPlan, tally: Tally) -> None:
    """Say what there is to do, once it is known."""
    todo = f"{counted(tally.chunks, 'chunk')} to do" if tally.chunks else "nothing left to do"
    if plan.remark:
        display.say(plan.remark)
    if tally.lost:
        gone = "shard that had landed is gone or damaged: it is", "shards that had landed are gone or damaged: they are"
        display.say(f"{counted(tally.lost, *gone)} made again")
    display.say(
        f"{counted(len(plan.current), 'video')} in {counted(plan.chunks, 'chunk')}, {counted(plan.passes, 'pass')}: {todo}"
    )
    display.begin(tally.total)


def happened(display: ProgressDisplay, event: Event, tally: Tally) -> None:
    """Name a rejected video, once; bring the totals, and who waits for whom, up to date."""
    if isinstance(event, VideoReport) and tally.newly_rejected:
        display.say(printable_line(f"rejected {event.video}: {event.reason}: {event.detail}"))
    if isinstance(event, IndexBegun):  # some seconds for a large set, in which nothing else is said
        display.update(
            tally.videos_done, status=f"writing the index of up to {counted(event.samples, 'sample')}", at_once=True
        )
        return
    display.update(tally.videos_done, status=describe(tally))


def describe(tally: Tally) -> str:
    """For example "2/5 chunks, flow waits for frames 12 %, rejected 3 (corrupt 2, too_short 1)"."""
    text = f"{tally.chunks_done}/{tally.chunks} chunks"
    if tally.load is not None:
        text += f", {who_waits(tally.load)}"
    if tally.rejects:
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejects.most_common())
        text += f", rejected {tally.rejects.total()} ({reasons})"
    if tally.across_cuts:
        text += f", {counted(tally.across_cuts, 'anchor')} not drawn: across cuts"
    return text


def who_waits(load: StageLoad) -> str:
    """For example "flow waits for frames 12 %, decoding for room 40 %, 96 windows before flow, 3 videos before writing"."""
    parts = [f"flow waits for frames {load.flow_waits:.0%}".replace("%", " %")]
    if load.decoding_waits >= 0.005:
        parts.append(f"decoding for room {load.decoding_waits:.0%}".replace("%", " %"))
    queues = (
        (load.for_flow, f"{plural(load.for_flow, 'window')} before flow"),
        (load.for_encoding, "before encoding"),
        (load.for_writing, f"{plural(load.for_writing, 'video')} before writing"),
    )
    parts += [f"{count} {what}" for count, what in queues if count]
    return ", ".join(parts)
