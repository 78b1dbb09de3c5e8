"""--device → the devices that a flow network runs on, one process each."""

from __future__ import annotations

from pipeline.flow.estimator import EstimatorChoice, PairsTogether


def first_device(text: str) -> str:
    """What an estimator is chosen with. Raises ValueError where the list has an empty place or names a device twice."""
    names = _names(text)
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"--device is {text!r}; give each device once, such as cuda:0,cuda:1")
    return names[0]


def devices_of(choice: EstimatorChoice, text: str) -> tuple[str, ...]:
    """All devices to use: none for an estimator that runs on CPU cores, every visible GPU for `cuda` and `auto`, else those named.

    Raises ValueError for a list that names a CPU.
    """
    names = _names(text)
    if not isinstance(choice, PairsTogether) or choice.device == "cpu":
        if len(names) > 1:
            raise ValueError(f"--device is {text!r}; {choice.name} on a CPU uses --workers cores: give cpu alone")
        return ()
    if names == ["cuda"] or names == ["auto"]:
        import torch  # heavy; a choice of a device that is no CPU has loaded it

        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return tuple(names)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
