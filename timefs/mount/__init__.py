"""The mount: one file-system core and thin adapters to operating systems."""
