"""Sweeps: one file names many training runs over cached shards; each is trained in a process of its own."""
