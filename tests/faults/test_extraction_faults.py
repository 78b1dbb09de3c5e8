"""Extraction under kill -9, dying workers, full disks and long runs.

FLOWFEAT_KILLS=100 python -m pytest -s tests/faults -k any_process    that many kills instead of a dozen, and what was killed
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shards.verify import verify
from tests.pipeline.extract.small_extraction import digests, make_videos

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
ANY_KILLS = int(os.environ.get("FLOWFEAT_KILLS", "12"))
LEAST_KILLS = ANY_KILLS if "FLOWFEAT_KILLS" in os.environ else 3
"""A run that gets through sooner is begun again."""


def command(videos: Path, out: Path, *more: str) -> list[str]:
    start = [
        sys.executable,
        "-m",
        "pipeline",
        "extract",
        "--dataset",
        "folder",
        "--root",
        str(videos),
        "--out",
        str(out),
    ]
    small = ["--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--passes", "2", "--workers", "2"]
    return [*start, *small, *more]


def start(args: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def finish(args: list[str]) -> str:
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 12)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    out = tmp_path_factory.mktemp("whole") / "set"
    began = time.monotonic()
    finish(command(videos, out))
    return digests(out), time.monotonic() - began


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_kill_at_random_moments_then_rerun_gives_the_same_bytes(
    videos: Path, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """kill -9 of the parent at 20 moments spread over the run; whatever is there afterwards is continued, never repaired by hand."""
    expected, seconds = whole
    generator = random.Random(1)
    out = tmp_path / "set"
    interrupted = 0
    while interrupted < KILLS:
        if out.exists() and digests(out) == expected:
            shutil.rmtree(out)  # a run got through: begin again, so that every kill hits work in progress
        process = start(command(videos, out))
        time.sleep(generator.uniform(0.1, 1.0) * seconds)
        children = descendants(process)
        if process.poll() is None:
            interrupted += 1
        else:  # the machine is faster now than when the whole run was timed
            assert process.returncode == 0
            seconds *= 0.9
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, f"{len(alive)} workers outlived their parent"
    finish(command(videos, out))
    assert digests(out) == expected and verify(out) == []
    assert not list((out / ".tmp").glob("*"))


def test_killing_any_process_changes_nothing(videos: Path, whole: tuple[dict[str, str], float], tmp_path: Path) -> None:
    """kill -9 of decoders, workers and the parent at random moments, until a run gets through.

    The first kills hit a run at any moment, its start included; the others wait until it has children, whatever the load
    of the machine, and every second of them hits a child. However a run ends, what it leaves is continued; whenever one gets through, its
    set is the one that was never disturbed.
    """
    expected, seconds = whole
    generator = random.Random(2)
    out = tmp_path / "set"
    killed: list[bool] = []  # whether it was the parent
    whole_sets, status = 0, -1
    while status != 0 or len(killed) < LEAST_KILLS or all(killed):
        if status == 0:  # it got through before enough could be killed
            shutil.rmtree(out)
        process = start(command(videos, out, "--passes", "2"))
        while len(killed) >= ANY_KILLS // 2 and process.poll() is None and not descendants(process):
            time.sleep(0.01)
        while process.poll() is None:
            time.sleep(generator.uniform(0.05, 0.3) * seconds)
            children = descendants(process) if process.poll() is None else []
            family = [psutil.Process(process.pid), *children] if process.poll() is None else []
            if family and (len(killed) < ANY_KILLS or all(killed)):
                alone = children and len(killed) >= ANY_KILLS // 2 and len(killed) % 2
                victim = generator.choice(children if alone else family)
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid == process.pid)
        status = process.wait()
        if status == 0:
            whole_sets += 1
            assert digests(out) == expected and verify(out, deep=True) == []
    print(
        f"{len(killed)} kills, {sum(killed)} of them of the parent; {whole_sets} times a run got through, each time to the same bytes"
    )


def test_a_killed_worker_costs_one_try(videos: Path, whole: tuple[dict[str, str], float], tmp_path: Path) -> None:
    out = tmp_path / "set"
    process = start(command(videos, out))
    victim = None
    while victim is None and process.poll() is None:
        with suppress(psutil.NoSuchProcess):  # between the listing and the question
            workers = [c for c in descendants(process) if "spawn_main" in " ".join(c.cmdline())]
            if workers and list(out.glob(".tmp/*")):  # at work
                victim = workers[0]
        time.sleep(0.01)
    assert victim is not None
    victim.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert digests(out) == whole[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_what_has_landed(
    videos: Path, whole: tuple[dict[str, str], float], tmp_path: Path, number: signal.Signals
) -> None:
    for attempt in range(5):
        out = tmp_path / str(attempt) / "set"
        process = start(command(videos, out, "--workers", "1"))
        while len(list(out.glob("records/pass-*/*.parquet"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        if process.returncode != 0:  # else the run was over before the signal came: on a busy machine it can be
            break
    assert process.returncode == 130 and b"run the same command again" in output, output
    assert b"Traceback" not in output
    assert (out / "manifest.json").is_file()
    finish(command(videos, out))
    assert digests(out) == whole[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    mount = tmp_path / "small-disk"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("whose", ["the parent's plan", "a worker's shard"])
def test_a_full_disk_is_one_line_and_a_rerun_continues(
    videos: Path, whole: tuple[dict[str, str], float], small_disk: Path, whose: str
) -> None:
    """The same line whoever meets it first."""
    out = small_disk / "set"
    if whose == "the parent's plan":
        with suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(2**20))
    full = subprocess.run(command(videos, out, "--passes", "4"), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert full.returncode == 1, full.stdout + full.stderr
    assert full.stderr.splitlines()[-1] == (
        f"Error: no space left on the device of {out}: free some and rerun the same command; chunks that have landed are safe"
    )
    assert "Traceback" not in full.stderr
    assert (out / "records" / "plan.json").exists() == (whose == "a worker's shard")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    finish(command(videos, out, "--passes", "4"))
    assert verify(out, deep=True) == []


def resident(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Bytes of memory of a run's processes, by process number."""
    found = {}
    for member in [process.pid, *(one.pid for one in descendants(process))]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found[member] = psutil.Process(member).memory_info().rss
    return found


def test_memory_stays_flat_over_1000_videos(videos: Path, tmp_path: Path) -> None:
    """Resident memory of every process and of all together: the run's last third holds no more than its first, plus 5 %.

    Thirds are counted in shards that have landed, not in time: how long the processes take to start differs between machines, and the first
    shards bring in what writing them needs. The last shard stays out of it, because the manifest is written after it."""
    many = tmp_path / "many"
    many.mkdir()
    clips = sorted(videos.glob("*.mp4"))
    for i in range(1000):
        os.link(clips[i % len(clips)], many / f"{i:04d}.mp4")
    out = tmp_path / "set"
    process = start(command(many, out, "--workers", "1", "--chunk-videos", "40", "--passes", "1"))
    thirds: tuple[list[dict[int, int]], list[dict[int, int]]] = ([], [])
    while process.poll() is None:
        landed = sum(1 for _ in out.glob("pass-00/*.tar"))
        if 2 <= landed < 9:
            thirds[0].append(resident(process))
        elif 17 <= landed < 24:
            thirds[1].append(resident(process))
        time.sleep(0.02)
    assert process.returncode == 0 and sum(1 for _ in out.glob("pass-00/*.tar")) == 25
    assert all(len(third) > 5 for third in thirds), "too few readings"
    first, last = ({pid: max(sample.get(pid, 0) for sample in third) for pid in third[0]} for third in thirds)
    lasting = first.keys() & last.keys()
    assert process.pid in lasting and len(lasting) >= 3, (first, last)
    assert all(last[pid] <= 1.05 * first[pid] for pid in lasting), (first, last)
    assert max(sum(s.values()) for s in thirds[1]) <= 1.05 * max(sum(s.values()) for s in thirds[0]), (first, last)
