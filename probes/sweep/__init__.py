"""The judging of sweeps: a probe per finished run of `python -m trainer sweep`, one table of them all."""
