"""What the number of CPU threads, and how they wait for each other, does to a training step beside other load.

    python bench/cpu_threads.py [--loads 0 --loads 1] [--steps 4]

Every row is a process of its own, since OpenMP reads OMP_WAIT_POLICY once: one thread, all usable cores that spin while they wait,
all usable cores that sleep. Beside them so many processes compute without end as `--loads` says, and whatever else the machine
does. Rows of one load alternate; medians over their steps are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.cores import usable_cores

SETTINGS = ("encoder.variant=demo_vit8", "encoder.init=random", "views.image_size=64", "train.batch_size=8")


def measure(threads: int, steps: int) -> None:
    """In a process of its own: milliseconds of wall clock and of CPU time of every step, as JSON."""
    import torch  # reads the environment that its parent has set

    from bench.train_step import resident_views
    from common.freed_memory import OF_A_STEP, keep_freed_memory
    from trainer.config import load_config
    from trainer.learner import Learner

    keep_freed_memory(OF_A_STEP)
    torch.set_num_threads(threads)
    config = load_config(None, SETTINGS)
    learner = Learner(config, torch.device("cpu"))
    views, found = resident_views(config, learner), []
    for _ in range(steps + 1):
        started, cpu = time.perf_counter(), time.process_time()
        learner.learn(next(views)).numbers()
        found.append((1000 * (time.perf_counter() - started), 1000 * (time.process_time() - cpu)))
    print(json.dumps(found[1:]))


@click.command(context_settings={"show_default": True})
@click.option("--loads", multiple=True, default=(0, 1), help="Processes that compute beside it; repeatable.")
@click.option("--steps", default=4)
@click.option("--rounds", default=2, help="How often every row is measured, in turn.")
@click.option("--measure", "threads", default=0, hidden=True)
def main(loads: tuple[int, ...], steps: int, rounds: int, threads: int) -> None:
    """One thread against all, spinning against sleeping."""
    if threads:
        measure(threads, steps)
        return
    cores = usable_cores()
    rows = {
        "one": (1, "PASSIVE"),
        "spinning": (cores, "ACTIVE"),
        "default": (cores, ""),
        "sleeping": (cores, "PASSIVE"),
    }
    for load in loads:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load)]
        try:
            for _ in range(rounds):
                for name, (count, policy) in rows.items():
                    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
                    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
                    command = [sys.executable, __file__, "--measure", str(count), "--steps", str(steps)]
                    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                    found[name] += [tuple(pair) for pair in json.loads(done.stdout)]
        finally:
            for process in beside:
                process.kill()
                process.wait()
        others = (
            f"beside {load} busy processes and a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors in all"
        )
        for name, (count, policy) in rows.items():
            wall, cpu = sorted(ms for ms, _ in found[name]), sorted(ms for _, ms in found[name])
            middle, note = len(wall) // 2, f"{count} threads, OMP_WAIT_POLICY {policy or 'unset'}, {others}"
            record("cpu_threads", f"load_{load}_{name}_ms_per_step", wall[middle], "ms", f"median; {note}")
            record("cpu_threads", f"load_{load}_{name}_cpu_ms_per_step", cpu[middle], "ms", f"median; {note}")


if __name__ == "__main__":
    main()
