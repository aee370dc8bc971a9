"""The time tree: every second of every machine's history as folders (`/machine/instant/file`).

Used by the mount and by the commands, which walk the same tree: `TimeTree(history).root`.
"""

from timefs.timetree.tree import TimeTree

__all__ = ["TimeTree"]
