"""Published weight files of the flow networks: which there are, how they get here, how they load."""
