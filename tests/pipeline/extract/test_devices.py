"""--device: one process per GPU that is named, or per visible one."""

from __future__ import annotations

import pytest

from pipeline.extract.devices import devices_of, first_device
from pipeline.extract.local import LocalRunner
from pipeline.extract.progress import who_waits
from pipeline.extract.runner import StageLoad
from pipeline.flow.estimator import EstimatorOptions, choose

torch = pytest.importorskip("torch")


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cuda", ("cuda:0", "cuda:1", "cuda:2")),
        ("auto", ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:1", ("cuda:1",)),
        ("cuda:2,cuda:0", ("cuda:2", "cuda:0")),
        ("cpu", ()),
    ],
)
def test_each_device_gets_a_process(text: str, devices: tuple[str, ...]) -> None:
    choice = choose("raft-small", EstimatorOptions("random:0", first_device(text)))
    assert devices_of(choice, text) == devices
    LocalRunner(2, choice, devices)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("text", "said"),
    [("cuda:0,cuda:0", "each device once"), ("cuda:0,", "each device once"), ("cpu,cuda:0", "give cpu alone")],
)
def test_lists_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        devices_of(choose("raft-small", EstimatorOptions("random:0", first_device(text))), text)


@pytest.mark.usefixtures("three_gpus")
def test_a_device_that_is_not_there() -> None:
    choice = choose("raft-small", EstimatorOptions("random:0", "cuda:0"))
    with pytest.raises(ValueError, match="'cuda:3' was asked for"):
        LocalRunner(2, choice, ("cuda:0", "cuda:3"))
    with pytest.raises(ValueError, match="dis does not run on cuda:0"):
        LocalRunner(2, choose("dis"), ("cuda:0",))


def test_the_line_says_who_waits_for_whom() -> None:
    assert who_waits(StageLoad(0.12, 0.0, 0, 0, 0)) == "flow waits for frames 12 %"
    busy = who_waits(StageLoad(0.0, 0.4, 96, 5, 3))
    assert busy == (
        "flow waits for frames 0 %, decoding for room 40 %, 96 windows before flow, 5 before encoding, 3 videos before writing"
    )
