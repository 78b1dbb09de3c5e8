"""RAFT, SMURF and SEA-RAFT: one family of networks with shared parts."""
