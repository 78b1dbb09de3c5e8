"""The smallest runner: every job in this process, last chunk first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.extract.run import ExtractionRequest, extract
from pipeline.extract.runner import ChunkJob, Event
from pipeline.extract.stages import run_job
from pipeline.flow.estimator import EstimatorChoice, FlowEstimator
from pipeline.video.decoder import Decoder
from shards.schema import Manifest


class InProcessRunner:
    """A `Runner` without workers. estimator: used instead of building the choice."""

    def __init__(self, choice: EstimatorChoice, estimator: FlowEstimator | None = None) -> None:
        self.choice, self.estimator = choice, estimator
        self.decoder = Decoder()

    def __enter__(self) -> InProcessRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.decoder.close()

    def prepare(self, jobs: int) -> None:
        self.estimator = self.estimator or self.choice.build()

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        assert self.estimator is not None, "prepare comes first"
        for job in reversed(jobs):
            on_event(run_job(job, self.decoder, self.estimator, on_event))


def run_here(
    wanted: ExtractionRequest,
    estimator: FlowEstimator | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Manifest:
    """Extract without worker processes, so that a test can reach into everything."""
    runner = InProcessRunner(wanted.estimator, estimator)
    return extract(wanted, runner, lambda event, tally: on_event(event), lambda plan, tally: None)
