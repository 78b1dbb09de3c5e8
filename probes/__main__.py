"""`python -m probes`: see `probes/cli.py`."""

from probes.cli import main

if __name__ == "__main__":
    main()
