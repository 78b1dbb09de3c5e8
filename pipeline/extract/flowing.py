"""Videos through decoding, flow, encoding and writing, all at once: who may start what, and how much may be under way.

    jobs ─▶ DecodingPool ─▶ frames (arena) ─▶ flow workers ─▶ flow (arena) ─▶ encoding workers ─▶ Writer
            in the plan's order               batches as `batches` says          Assembly: whole videos, in the plan's order

On a CPU flow workers encode at once and there is no arena of flow. Nothing is unbounded: a video is decoded only when there is a free
place for each of its windows and what is encoded and not yet written is below ENCODED_MOST. Videos are begun in the plan's order, so the
oldest unfinished video always has all it needs and nothing can wait in a circle. Where a batch takes the same pass of 64
videos, the places are two such groups, so that one is decoded while the other flows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.extract.assembly import Assembly, sample_bytes
from pipeline.extract.batches import Place, blocks
from pipeline.extract.blame import FlowFailure
from pipeline.extract.crew import Crew, Crews, Death, Order
from pipeline.extract.decoding import DecodeTask
from pipeline.extract.room import Places, Room
from pipeline.extract.runner import ChunkFailed, ChunkJob
from pipeline.extract.stages import MEMORY_HINT, Encoded
from pipeline.extract.worker import (
    Answer,
    EncodeTask,
    FlowStored,
    FlowTask,
    StoredWindow,
    TaskDone,
    flow_bytes,
)
from pipeline.extract.writing import Writer
from pipeline.video.arena import Arena
from pipeline.video.messages import DecodeHeader, DecodeRefusal
from shards.writer import EncodedSample

ENCODED_MOST_BYTES = 256 << 20
"""Encoded samples that wait for their turn or for the disk, beyond which no further video is begun."""


@dataclass(eq=False)
class _Block:
    """One job (or a block of its passes) under way. undecoded: index of its next video. stored: windows that have pixels in the arena.

    running: those of them that a worker has. held_bytes: of encoded samples that are not the writer's yet.
    """

    job: ChunkJob
    assembly: Assembly
    stored: dict[Place, StoredWindow] = field(default_factory=dict)
    running: set[Place] = field(default_factory=set)
    undecoded: int = 0
    held_bytes: int = 0
    begun: bool = False
    failed: ChunkFailed | None = None


class Production:
    """One run over jobs. flow_workers, decoders: how many there may be, which decides how many places there are."""

    def __init__(
        self,
        jobs: Sequence[ChunkJob],
        crews: Crews,
        writer: Writer,
        arenas: tuple[Arena, Arena],
        *,
        flow_workers: int,
        decoders: int,
    ) -> None:
        """arenas: of frames, of flow."""
        self._crews, self._writer = crews, writer
        self._starved_since: float | None = None
        self._starved_s = 0.0
        self._batches: deque[tuple[_Block, list[Place]]] = deque()
        self._open: deque[_Block] = deque()
        self._at_hand: _Block | None = None
        room = [Room.of(job, flow_workers, decoders) for job in jobs]
        made = [block for job, need in zip(jobs, room, strict=True) for block in blocks(job, need.most_passes)]
        self._new = deque(made)
        self.blocks_of = Counter(block.chunk for block in made)
        crews.decoders.expect(planned.video for block in made for planned in block.videos)
        self._frames = Places(max(need.window_bytes for need in room), max(need.windows for need in room))
        arenas[0].grow(self._frames.size * self._frames.count)
        batch = max(job.batch for job in jobs)
        self._flows = Places(max(flow_bytes(job.settings) for job in jobs), 2 * (1 + flow_workers) * batch)
        if crews.encoders is not None:
            arenas[1].grow(self._flows.size * self._flows.count)

    @property
    def windows_waiting(self) -> int:
        """Decoded windows whose batch is complete and has no worker yet."""
        return sum(len(batch) for _, batch in self._batches) + self._crews.flow.queued

    @property
    def windows_encoding(self) -> int:
        """Windows with flow that wait to be encoded."""
        return self._crews.encoders.queued if self._crews.encoders is not None else 0

    def starved_s(self) -> float:
        """Seconds since the last call in which there were videos and decoders, and no room."""
        self._note_starvation(self._starved_since is not None)
        starved, self._starved_s = self._starved_s, 0.0
        return starved

    def advance(self) -> None:
        """Begin whatever can begin."""
        while self._begin_video():
            pass
        self._begin_batches()

    def _begin_video(self) -> bool:
        """Start decoding the next video, if there is one, a decoder and room."""
        block = self._block_at_hand()
        if block is None or self._crews.decoders.idle <= 0:
            self._note_starvation(False)
            return False
        held = sum(block.held_bytes for block in self._open)
        full = held + self._writer.waiting_bytes >= ENCODED_MOST_BYTES
        if full or self._frames.free < len(block.job.passes):
            self._note_starvation(True)
            return False
        self._note_starvation(False)
        video, began = block.undecoded, time.perf_counter()
        block.undecoded += 1
        places = self._frames.take(len(block.job.passes))

        def tell(answer: DecodeHeader | DecodeRefusal) -> None:
            self._decoded(block, video, began, places, answer)

        job = block.job
        planned = job.videos[video].video
        self._crews.decoders.submit(DecodeTask(planned, job.passes, job.settings, places, job.deadline_s, tell))
        return True

    def _block_at_hand(self) -> _Block | None:
        """The block whose videos are being begun; the next where one is through."""
        while True:
            block = self._at_hand
            if block is not None and block.failed is None and block.undecoded < len(block.job.videos):
                return block
            if not self._new:
                return None
            job = self._new.popleft()
            self._at_hand = _Block(job, Assembly(job))
            self._open.append(self._at_hand)
            self._hand_over()

    def _note_starvation(self, starved: bool) -> None:
        now = time.perf_counter()
        if self._starved_since is not None:
            self._starved_s += now - self._starved_since
        self._starved_since = now if starved else None

    def _decoded(
        self, block: _Block, video: int, began: float, places: tuple[int, ...], answer: DecodeHeader | DecodeRefusal
    ) -> None:
        if isinstance(answer, DecodeRefusal):
            for place in places:
                self._frames.give_back(place)
            ready = block.assembly.refused(video, began, answer.reason, answer.detail)
        elif block.failed is not None:
            for place in places:
                self._frames.give_back(place)
            return
        else:
            job, source = block.job, block.job.videos[video].video
            found = zip(job.passes, answer.windows, places, strict=True)
            for turn, (pass_index, frames, offset) in enumerate(found):
                block.stored[Place(video, turn)] = StoredWindow(source, pass_index, frames, offset)
            ready = block.assembly.decoded(video, began, answer.facts)
        self._batches += [(block, batch) for batch in ready]
        self._hand_over()

    def _begin_batches(self) -> None:
        """Hand batches to flow workers, as many as they take at once and the arena of flow has room for."""
        separate = self._crews.encoders is not None
        while self._batches and self._crews.flow.room:
            block, batch = self._batches[0]
            if separate and self._flows.free < len(batch):
                return
            self._batches.popleft()
            if block.failed is not None:
                continue
            block.running.update(batch)
            windows = tuple(block.stored[place] for place in batch)
            flow_places = self._flows.take(len(batch)) if separate else ()
            task = FlowTask(block.job.settings, windows, flow_places)
            self._order(self._crews.flow, block, batch, task)

    def _order(
        self, crew: Crew, block: _Block, batch: Sequence[Place], task: FlowTask | EncodeTask, deaths: int = 0
    ) -> None:
        """Have a task done whose windows are those of `batch`."""

        def done(answered: TaskDone) -> None:
            self._answered(block, batch, task, answered.answers)

        def lost(order: Order, death: Death) -> None:
            self._lost(crew, block, batch, order, death)

        crew.submit(Order(task, done, lost, deaths), first=deaths > 0)

    def _answered(
        self, block: _Block, batch: Sequence[Place], task: FlowTask | EncodeTask, answers: Sequence[Answer]
    ) -> None:
        flow_places = task.flow_places or (None,) * len(batch)
        to_encode: list[tuple[Place, int, bool]] = []
        for place, flow_place, answer in zip(batch, flow_places, answers, strict=True):
            if isinstance(answer, FlowStored):
                assert flow_place is not None
                to_encode.append((place, flow_place, answer.with_confidence))
                continue
            self._frames.give_back(block.stored.pop(place).offset)
            block.running.discard(place)
            if flow_place is not None:
                self._flows.give_back(flow_place)
            if isinstance(answer, EncodedSample):
                block.held_bytes += sample_bytes([answer])
                block.assembly.encoded(place, answer)
            else:
                assert isinstance(answer, FlowFailure)
                block.assembly.failed(place, answer.detail)
        for place, flow_place, with_confidence in to_encode:
            assert self._crews.encoders is not None
            window = block.stored[place]
            encode = EncodeTask(task.settings, (window,), (flow_place,), with_confidence)
            self._order(self._crews.encoders, block, [place], encode)
        self._hand_over()

    def _lost(self, crew: Crew, block: _Block, batch: Sequence[Place], order: Order, death: Death) -> None:
        """A worker has died over a batch: again, then in halves, then without the video that it dies of."""
        task, broken = order.task, death.broken
        if order.deaths < death.allowed and (broken is None or (crew.successes and not broken.out_of_memory)):
            self._order(crew, block, batch, task, order.deaths)
        elif not crew.successes or (broken is not None and broken.out_of_memory):
            self._fail(block, _why(block.job.chunk, order.deaths, death))
            self._answered(block, batch, task, [FlowFailure("its chunk has failed")] * len(batch))
        elif len(batch) > 1:
            half = len(batch) // 2
            for start, stop in ((half, len(batch)), (0, half)):  # the first half goes to the front last
                part = replace(task, windows=task.windows[start:stop], flow_places=task.flow_places[start:stop])
                self._order(crew, block, batch[start:stop], part, deaths=death.allowed - 1)
        else:
            said = broken.error if broken is not None else f"it has ended {order.deaths} workers ({death.said})"
            self._answered(block, batch, task, [FlowFailure(said)])

    def _fail(self, block: _Block, ended: ChunkFailed) -> None:
        """Give a block up. The writer says so, once the blocks before it have ended."""
        if block.failed is None:
            block.failed = ended
            for place in block.stored.keys() - block.running:
                self._frames.give_back(block.stored.pop(place).offset)
            self._hand_over()

    def _hand_over(self) -> None:
        """Give whole videos to the writer, of one block after the other."""
        while self._open:
            block = self._open[0]
            if not block.begun:
                self._writer.begin(block.job)
                block.begun = True
            if block.failed is not None:
                self._writer.fail(block.failed)
            else:
                for video in block.assembly.finished():
                    self._writer.put(video)
                    block.held_bytes -= sample_bytes(video.samples) if isinstance(video, Encoded) else 0
                if not block.assembly.complete:
                    return
                self._writer.end()
            self._open.popleft()


def _why(chunk: int, deaths: int, death: Death) -> ChunkFailed:
    if death.broken is None:
        return ChunkFailed(
            chunk,
            f"the worker for chunk {chunk} died {deaths} times ({death.said}): use fewer --workers or a smaller --batch and rerun; "
            "chunks that have landed are safe",
        )
    hint = MEMORY_HINT if death.broken.out_of_memory else ""
    return ChunkFailed(chunk, f"chunk {chunk}: {death.broken.error}{hint}", death.broken.trace)
