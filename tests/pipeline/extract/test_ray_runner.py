"""Actors of a real Ray cluster, two nodes on this machine: a worker and a node die in the middle, and the bytes are those of one process.

The cluster is started once, for the tests of this file.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.extract import ray_runner as module
from pipeline.extract.places import Places
from pipeline.extract.ray_runner import RayRunner, on_cluster
from pipeline.extract.run import ExtractionRequest, extract
from pipeline.extract.runner import ChunkFailed, ChunkJob, Event, ExtractionError, VideoReport
from pipeline.flow.estimator import choose
from shards.schema import Manifest
from shards.verify import verify
from tests.module_graph import ROOT
from tests.pipeline.extract.fake_estimators import TogetherChoice, Trouble, TroubledChoice, asked
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos
from tests.pipeline.extract.test_local_runner import DyingChoice

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'flowfeat-shards[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with a core and what Ray is told is a GPU."""
    from ray.cluster_utils import Cluster

    patched = pytest.MonkeyPatch()
    patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patched.setenv("PYTHONPATH", str(ROOT))  # for actors, which must find this package
    memory = 100 << 20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 1, "object_store_memory": memory, "include_dashboard": False},
    )
    cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    patched.undo()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_videos(tmp_path_factory.mktemp("videos"), 12)
    (folder / "synth-00005.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def trouble(tmp_path: Path) -> Trouble:
    (tmp_path / "marks").mkdir()
    return Trouble(tmp_path / "marks")


def run(
    wanted: ExtractionRequest,
    actors: int,
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    on_gpus: bool = False,
) -> Manifest:
    runner = RayRunner(wanted.estimator, actors=actors, workers=1, on_gpus=on_gpus)
    return extract(wanted, runner, lambda event, tally: on_event(event), lambda plan, tally: None)


def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(
    cluster: Any, videos: Path, tmp_path: Path, trouble: Trouble
) -> None:
    wanted = asked(videos, tmp_path / "ray", TroubledChoice(trouble))
    family: list[psutil.Process] = []

    def kill(event: Event) -> None:
        if isinstance(event, VideoReport) and not family:
            working = int(next(trouble.marks.iterdir()).name.split("-")[-1])
            actor = psutil.Process(working).parent()
            assert actor is not None and "ray::Engine" in " ".join(actor.cmdline())
            family.extend([actor, *actor.children(recursive=True)])
            actor.kill()

    manifest = run(wanted, 2, kill)
    assert len(family) >= 3, "the actor, a decoder, a flow worker"
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, "what an actor has started dies with it"
    assert manifest.complete and manifest.counts["rejected"] == {"empty_file": 1}
    run_here(asked(videos, tmp_path / "here", TroubledChoice(trouble)))
    assert digests(tmp_path / "ray") == digests(tmp_path / "here") and verify(tmp_path / "ray", deep=True) == []


def test_actors_fetch_videos_from_an_address(cluster: Any, videos: Path, tmp_path: Path, trouble: Trouble) -> None:
    """Each into the scratch of all, under names of its own, where one video at a time has room."""
    places = Places(f"file://{videos}", tmp_path / "ray", tmp_path / "scratch", 1e-9)
    wanted = asked(places.root, places.out, TroubledChoice(trouble))
    runner = RayRunner(wanted.estimator, actors=2, workers=1, on_gpus=False, remote=places.remote)
    told: list[Event] = []
    with places.opened(runner, writing=True) as opened:
        extract(wanted, opened, lambda event, tally: told.append(places.told(event)), lambda plan, tally: None)
    run_here(asked(videos, tmp_path / "here", TroubledChoice(trouble)))
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")
    assert not any((tmp_path / "scratch").iterdir()), "nothing that was fetched is kept"
    rejected = [event.detail for event in told if isinstance(event, VideoReport) and event.reason]
    assert rejected == [f"file://{videos}/synth-00005.mp4 has 0 bytes"]


def test_an_estimator_that_cannot_be_built_is_refused_before_anything_is_written(
    cluster: Any, videos: Path, tmp_path: Path
) -> None:
    wanted = asked(videos, tmp_path / "set", DyingChoice(tmp_path, deaths=-1))  # type: ignore[arg-type]
    with pytest.raises(ExtractionError, match=r"died while building the flow estimator \(exit code 7;"):
        run(wanted, 1)
    assert not (tmp_path / "set").exists()


def test_a_node_that_does_not_see_the_set_makes_nothing_of_it(
    cluster: Any, videos: Path, tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes that would each write into a directory of their own."""
    monkeypatch.setattr(module, "SEEN_S", 0.1)
    monkeypatch.setattr(Path, "touch", lambda path: None)  # what this machine alone sees
    with pytest.raises(
        ExtractionError, match=r"does not see .*set/\.ray-\w+, which is there on this machine: mount it"
    ):
        run(asked(videos, tmp_path / "set", TroubledChoice(trouble)), 1)
    assert not list((tmp_path / "set").rglob("*.tar"))


def test_a_node_that_dies_in_the_middle_changes_no_byte(
    cluster: Any, videos: Path, tmp_path: Path, trouble: Trouble
) -> None:
    """On what Ray takes for GPUs, with batches whose size shapes the flow. The other node makes what is left. The cluster's last test."""
    node = cluster.list_all_nodes()[-1]
    choice = on_cluster(TogetherChoice(trouble, device="cpu"))
    assert isinstance(choice, TogetherChoice) and choice.device == "cuda:0"
    gone: list[Event] = []

    def end_node(event: Event) -> None:
        if isinstance(event, VideoReport) and not gone:
            gone.append(event)
            cluster.remove_node(node, allow_graceful=False)

    manifest = run(asked(videos, tmp_path / "ray", choice), 2, end_node, on_gpus=True)
    assert gone and manifest.complete
    run_here(asked(videos, tmp_path / "here", choice))
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")


class Killed:
    """Stands for Ray where a test needs only that actors can be ended, and that none of them answers."""

    def kill(self, actor: object) -> None:
        assert actor is not None

    def wait(self, calls: list[object], **_: object) -> tuple[list[object], list[object]]:
        return [], calls


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> RayRunner:
    made = RayRunner(choose("dis"), actors=1, workers=1, on_gpus=False)
    made._ray = Killed()
    monkeypatch.setattr(made, "_new_seat", lambda: module._Seat(object(), None, ready=True))
    return made


def test_a_chunk_that_ends_five_actors_counts_as_the_cause(
    videos: Path, tmp_path: Path, trouble: Trouble, runner: RayRunner
) -> None:
    """The others go on: they were only on the same actors."""
    plan = asked(videos, tmp_path / "set", TroubledChoice(trouble)).plan()
    jobs = [ChunkJob(tmp_path / "set", plan.settings, c, (0,), plan.chunk(c), 16, 60.0) for c in range(3)]
    waiting, deaths, told = deque(jobs), Counter[int](), list[Event]()
    for death in range(module.DEATHS):
        assert not told and [job.chunk for job in waiting] == [0, 1, 2], death
        seat = module._Seat(object(), None, ready=True, jobs=deque([waiting.popleft(), waiting.popleft()]))
        runner._seats = [seat]
        runner._lost(seat, "SIGKILL", deaths, waiting, told.append)
        assert seat not in runner._seats and len(runner._seats) == 1
    assert told == [ChunkFailed(0, "chunk 0: it has ended 5 Ray actors, the last by SIGKILL")]
    assert [job.chunk for job in waiting] == [1, 2]


def test_an_actor_that_is_stopped_counts_as_gone_when_its_time_is_up(
    videos: Path, tmp_path: Path, trouble: Trouble, runner: RayRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a debugger, or a batch system that suspends: Ray takes it for alive for ever."""
    plan = asked(videos, tmp_path / "set", TroubledChoice(trouble)).plan()
    job = ChunkJob(tmp_path / "set", plan.settings, 0, (0,), plan.chunk(0), 16, 60.0)
    now, waiting = time.monotonic(), deque[ChunkJob]()
    seats = [
        module._Seat(object(), object(), now - module.ANSWER_S - 1, "far", ready=True, jobs=deque([job])),
        module._Seat(object(), object(), now - module.ANSWER_S + 60, ready=True),
        module._Seat(object(), object(), now - module.ANSWER_S - 1),
    ]
    runner._seats = list(seats)
    runner._hear(lambda event: None, Counter(), waiting)
    assert runner._seats[1:] == seats[1:], "who is about to answer, and who waits for a place"
    assert runner._seats[0] is not seats[0] and list(waiting) == [job]
    assert "a Ray actor on far is gone (no answer for 901 s); chunks that go to others: 1" in caplog.text


def test_actors_that_die_before_they_begin_end_the_run(runner: RayRunner) -> None:
    for _ in range(module.STILLBORN - 1):
        runner._seats = [module._Seat(object(), None)]
        runner._lost(runner._seats[0], "SIGKILL", Counter(), deque(), lambda event: None)
    runner._seats = [module._Seat(object(), None)]
    with pytest.raises(
        ExtractionError, match="3 Ray actors died while building the flow estimator: SIGKILL; use fewer"
    ):
        runner._lost(runner._seats[0], "SIGKILL", Counter(), deque(), lambda event: None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runner", "ray", "--actors", "0"], "actors is 0; it must be at least 1"),
        (["--runner", "ray", "--workers", "0"], "workers is 0; it must be at least 1"),
        (["--runner", "ray", "--device", "cuda:1"], "Ray says which GPU an actor gets: give cpu or cuda"),
        (["--runner", "ray", "--device", "cuda"], "dis does not run on GPUs; leave --device out"),
        (["--actors", "2"], "--actors is 2; it goes with --runner ray"),
    ],
)
def test_senseless_options_are_refused(videos: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    base = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(tmp_path / "set")]
    refused = CliRunner().invoke(main, [*base, *flags])
    assert refused.exit_code == 1 and said in refused.output
    assert not (tmp_path / "set").exists()


def test_what_ray_is_not_for_is_one_line(videos: Path, tmp_path: Path) -> None:
    base = ["--dataset", "folder", "--root", str(videos), "--out", str(tmp_path / "set"), "--runner", "ray"]
    planned = CliRunner().invoke(main, ["plan", *base])
    assert planned.exit_code == 1 and "plan measures this machine and no cluster: leave --runner out" in planned.output


def test_a_cluster_that_is_not_there_is_one_line(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def absent(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nMore words.")

    monkeypatch.setattr(ray, "init", absent)
    runner = RayRunner(choose("dis"), actors=1, workers=1, on_gpus=False, address="far:6379")
    with pytest.raises(
        ExtractionError, match=r"^no Ray cluster at far:6379: Could not find any running Ray instance\.$"
    ):
        runner.prepare(3)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Ray: pip install 'flowfeat-shards\[ray\]'"):
        RayRunner(choose("dis"), actors=1, workers=1, on_gpus=False)
