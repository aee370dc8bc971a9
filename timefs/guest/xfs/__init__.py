"""XFS, versions 4 and 5, read-only: from a volume's image to its tree of names.

`open_volume` is the whole interface; everything else is private to this package. All of it may be
called from any thread. Checksums of version 5 are verified. The log is not replayed: a volume that
was in use is served as its blocks stand, and the root's `user.timefs.volume_state` says so. Files
on a realtime device raise `UnsupportedError`; damage raises `CorruptError`.
"""

from timefs.guest.xfs.volume import XfsVolume, open_volume

__all__ = ["XfsVolume", "open_volume"]
