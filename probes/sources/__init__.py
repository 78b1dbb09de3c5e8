"""Feature sources: the networks, and what is made of them, that the rows of a table compare."""
