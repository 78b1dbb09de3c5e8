"""One file per probe: data in, records and pictures out."""
