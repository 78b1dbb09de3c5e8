"""The tests that need a CUDA device, and only those: what the suite skips on a machine without one.

They are found by the reason of their skipif mark, which says "needs a CUDA device". Only files with these words are read, so that the
packages of all other tests are not needed. Ends with an error if one fails, or if on CUDA none was run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.command import PlainError, one_line_errors
from common.device import pick_device

ROOT = Path(__file__).resolve().parents[1]
REASON = "needs a CUDA device"


class OnlyCuda:
    """A pytest plugin: leaves the marked tests, counts how they end."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if needs_cuda(item)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":  # a set-up that passed is no passed test
            self.counts[report.outcome] += 1


def needs_cuda(item: pytest.Item) -> bool:
    return any(REASON in str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skipif"))


def files_with_such_tests(tests: Path) -> list[Path]:
    return sorted(path for path in tests.rglob("test_*.py") if REASON in path.read_text())


@click.command()
@click.option("--device", default="auto", show_default=True)
@one_line_errors(out_of_memory="other processes use the device")
def main(device: str) -> None:
    """Run them and count."""
    on_cuda = pick_device(device).type == "cuda"
    plugin = OnlyCuda()
    files = [str(path) for path in files_with_such_tests(ROOT / "tests")]
    status = pytest.main(["-p", "no:cacheprovider", "-rs", "--rootdir", str(ROOT), *files], plugins=[plugin])
    for name, count in plugin.counts.items():
        record("cuda_tests", name, count, "tests", f"of {len(files)} files")
    if status != pytest.ExitCode.OK:
        raise PlainError(f"pytest ended with status {int(status)}, {plugin.counts['failed']} tests failed")
    if on_cuda and not plugin.counts["passed"]:
        raise PlainError("no test that needs a CUDA device was run")


if __name__ == "__main__":
    main()
