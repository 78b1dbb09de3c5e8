"""How the flow commands end on what a user can do something about."""

from __future__ import annotations

from common.command import one_line_errors

plain_errors = one_line_errors(out_of_memory="use a smaller --batch or --max-side")
