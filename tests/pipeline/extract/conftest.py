"""Fixtures that several extraction tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.video.decoder import Decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """A decoding process that is started once."""
    with Decoder() as running:
        yield running
