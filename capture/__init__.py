"""Capture: where changes come from. Today one source, the rescan of files and block devices."""
