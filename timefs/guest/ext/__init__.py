"""ext2, ext3 and ext4, read-only: from a volume's image to its tree of names.

`open_volume` is the whole interface; everything else is private to this package. All of it may be
called from any thread. A volume that was in use is shown as its guest would find it after a crash:
the journal is replayed in memory, over the image and never into it, and the root's
`user.timefs.volume_state` says so, or why not. What is not decoded (encrypted or compressed files)
raises `UnsupportedError` when it is opened; damage raises `CorruptError`.
"""

from timefs.guest.ext.volume import ExtVolume, open_volume

__all__ = ["ExtVolume", "open_volume"]
