"""One file per probe: data in, rows of metrics and pictures out. `probes/task.py` says what a task is."""
