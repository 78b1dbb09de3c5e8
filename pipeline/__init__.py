"""Stage 1: videos in, compressed flow+image shards out. Never imports trainer or probes."""
