"""The engine: which video belongs to which chunk, and how a chunk becomes shards."""
