"""Memory for pixels on their way, kept from frame to frame.

Fresh arrays of a frame's size come from the kernel page by page and go back there, which takes as long as filling them. What is taken under
a name is overwritten by whoever takes the same name next, so nothing that is handed out may be part of it.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray


class ReusedArrays(threading.local):
    """One set of arrays per thread, each as large as the largest that was asked for under its name."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of any content, C-contiguous; it is valid until the next call with this name."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, np.uint8)
        return held[:size].reshape(shape)
