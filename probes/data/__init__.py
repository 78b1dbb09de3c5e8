"""Layouts of evaluation sets: from a directory to frames with their annotation."""
