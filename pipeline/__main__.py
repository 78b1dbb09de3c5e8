"""Entry point of `python -m pipeline`."""

from pipeline.extract.cli import main

main(prog_name="python -m pipeline")
