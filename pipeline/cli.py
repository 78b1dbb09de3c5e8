"""python -m pipeline: extract | plan | verify (`extract/`), inspect (`inspect/`), synth (`synth/`), and the flow tools (`flow/`).

Errors that a user can do something about end as one line and a non-zero exit; 0 means that every input is accounted for.
"""

from __future__ import annotations

import click

from common.command import Suggesting
from pipeline.extract.cli import extract_command, verify
from pipeline.extract.plan_command import plan
from pipeline.flow.cli import commands as flow_commands
from pipeline.inspect.command import inspect
from pipeline.synth.cli import synth


@click.group(cls=Suggesting, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
def main() -> None:
    """Stage 1: videos in, compressed flow+image shards out."""


for _command in (extract_command, plan, verify, inspect, synth, *flow_commands.commands.values()):
    main.add_command(_command)
