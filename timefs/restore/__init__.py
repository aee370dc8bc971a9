"""Restoring: a guest file, a folder or a whole disk out of the tree, verified, onto this host.

Used by `timefs restore`: `Restore(…).run(node, name, target)`.
"""

from timefs.restore.restore import Restore, Restored, content_bytes

__all__ = ["Restore", "Restored", "content_bytes"]
