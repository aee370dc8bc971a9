"""timefs: a backup server whose history is a file system.

This package turns the store's images into what people use: time names, the tree, guest disks,
the mount, restore and the command line.
"""

__version__ = "0.1.0"
