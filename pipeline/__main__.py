"""Entry point of `python -m pipeline`."""

import sys

from common.standard_streams import open_standard_streams

open_standard_streams()
try:
    from pipeline.cli import main
except KeyboardInterrupt:  # importing takes a second, in which nothing has begun
    sys.exit(130)

main(prog_name="python -m pipeline")
