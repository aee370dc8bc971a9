"""What is inside a captured disk: disk formats, partitions, file systems."""
