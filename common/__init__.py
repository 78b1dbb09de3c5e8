"""What every stage needs and no stage owns: images of flow, manners of the command line, downloads, devices. Imports shards only."""
