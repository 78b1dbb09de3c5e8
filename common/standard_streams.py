"""Standard streams of a process that was started without them (`<&-`, some daemons): nothing goes in, what comes out is dropped.

The system gives the lowest free number to whatever is opened next. Where 0, 1 or 2 are free, a file or shared memory becomes "standard
output", takes in what C libraries print, and is replaced in every child by the child's own streams without a word.
"""

from __future__ import annotations

import os


def open_standard_streams() -> None:
    """Have descriptors 0, 1 and 2 stand for something, the null device where they stood for nothing."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
