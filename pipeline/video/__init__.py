"""From a data set on disk to windows: layouts, frame sources, a decoder that may be killed, sampling."""
