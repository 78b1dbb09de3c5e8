"""Text that may go to a terminal, whatever file names and damaged files have put into it.

Comes in: a message. Goes out: the same with control characters and bytes that are no text written as escapes: a file name must not move
the cursor, retitle the window, forge a line of its own or end the program that prints it.
"""

from __future__ import annotations

import re

_NEVER_IN_A_NAME = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs that do not stand for a byte of a file name."""


def printable(text: str) -> str:
    """Each line of `text` made `printable_line`; line ends stay."""
    return "\n".join(printable_line(line) for line in text.split("\n"))


def printable_line(text: str) -> str:
    """`text` on one line: what is not printable becomes an escape such as \\x1b or \\n."""
    if text.isprintable():
        return text
    whole = _NEVER_IN_A_NAME.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    decoded = whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in decoded)
