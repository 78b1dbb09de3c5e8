"""Stage 2: shards in, a feature decoder out. Never imports pipeline."""
