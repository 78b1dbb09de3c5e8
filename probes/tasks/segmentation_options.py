"""Options that the segmentation probes share, with each one's own defaults, and the check of their values."""

from __future__ import annotations

from dataclasses import field

from probes.options import option


def require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} {value} must be above 0")


def size_option(default: int) -> int:
    return field(default=default, metadata=option("--segmentation-size", int, "Side of the square input, px."))


def iterations_option(default: int | None, help: str) -> int | None:
    return field(default=default, metadata=option("--segmentation-iterations", int, help))


def batch_option(default: int) -> int:
    return field(default=default, metadata=option("--segmentation-batch", int, "Pictures per iteration."))


def rate_option(default: float) -> float:
    return field(default=default, metadata=option("--segmentation-rate", float, "Learning rate of the head."))


def memory_option() -> float:
    return field(
        default=2.0, metadata=option("--feature-memory", float, "GB for features of the train split, if all fit.")
    )
