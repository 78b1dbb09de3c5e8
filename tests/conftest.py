"""What every test may ask for: the directory with reference fixtures and real clips, when it is there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Jobs in the background of a shell ignore SIGINT and hand that on; tests interrupt themselves and their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def find_shared() -> Path | None:
    """FLOWFEAT_SHARED if set, else `../shared` beside the checkout, else None."""
    named = os.environ.get("FLOWFEAT_SHARED")
    candidate = Path(named) if named else ROOT.parent / "shared"
    return candidate if (candidate / "reference").is_dir() else None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Path of the reference fixtures and real data; the test is skipped with a reason when they are absent."""
    found = find_shared()
    if found is None:
        pytest.skip("reference data not found: set FLOWFEAT_SHARED or place it at ../shared beside the checkout")
    return found


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Small fixtures that travel with the repository."""
    return ROOT / "tests" / "data"
