"""Several ranks of a training, each a fork of one process that has imported everything but computed nothing yet.

    python -m tests.trainer.ranks SCENARIOS.json

A scenario is one run or continuation: directory, number of ranks, overrides, and what goes wrong on the last rank. Every rank
leaves `rank-<n>.json` in its directory: how it ended, and a digest of its student and teacher.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.trainer.runs import run
from trainer import learner as learner_module
from trainer import loader as loader_module
from trainer import train as train_module
from trainer.batch import LoaderError

TROUBLE_AT = 3  # the step in which the last rank meets its trouble


@dataclass(frozen=True)
class Scenario:
    """One command that all ranks are given."""

    shards: str
    out: str
    ranks: int
    overrides: tuple[str, ...] = ()
    resume: bool = False
    trouble: Literal["", "data", "death", "nan", "interrupt"] = ""

    def ended(self, rank: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((Path(self.out) / f"rank-{rank}.json").read_text())
        return found


def write(scenarios: list[Scenario], path: Path) -> None:
    path.write_text(json.dumps([asdict(scenario) for scenario in scenarios]))


def _prepare(trouble: str) -> None:
    """Let the trouble happen in this process."""
    learn, fill, cut = learner_module.Learner.learn, loader_module.fill_rows, train_module.cut_views
    calls: list[str] = []

    def learning(self: Any, views: Any) -> Any:
        calls.append("learn")
        if len(calls) == TROUBLE_AT and trouble == "death":
            os._exit(9)
        if len(calls) == TROUBLE_AT and trouble == "interrupt":
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, views)

    def filling(source: Any, plan: Any, batch: Any, rows: Any) -> Any:
        if batch.step + 1 == TROUBLE_AT:
            raise LoaderError("the storage is gone")
        return fill(source, plan, batch, rows)

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        views = cut(*args, **kwargs)
        assert views.u1 is not None
        return views._replace(u1=views.u1 * float("nan")) if len(calls) == TROUBLE_AT - 1 else views

    learner_module.Learner.learn = learning  # type: ignore[method-assign]
    if trouble == "data":
        loader_module.fill_rows = filling
    if trouble == "nan":
        train_module.cut_views = poisoned


def _one_rank(scenario: Scenario, rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(scenario.ranks), "LOCAL_WORLD_SIZE": str(scenario.ranks)}
    learners: list[learner_module.Learner] = []

    class Kept(learner_module.Learner):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            learners.append(self)

    if rank == scenario.ranks - 1:
        _prepare(scenario.trouble)
    train_module.Learner = Kept  # type: ignore[misc]
    out = Path(scenario.out)
    try:
        outcome = run(Path(scenario.shards), out, *scenario.overrides, resume=scenario.resume)
        ended: dict[str, Any] = {"step": outcome.step, "reason": outcome.reason}
    except Exception as error:
        ended = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
    out.mkdir(exist_ok=True)
    ended["digest"] = learners[0].digest() if learners else ""
    (out / f"rank-{rank}.json").write_text(json.dumps(ended))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(path: Path) -> None:
    for entry in json.loads(path.read_text()):
        scenario = Scenario(**entry | {"overrides": tuple(entry["overrides"])})
        port = _free_port()
        children = []
        for rank in range(scenario.ranks):
            child = os.fork()
            if not child:
                try:
                    _one_rank(scenario, rank, port)
                finally:
                    sys.stderr.flush()
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
