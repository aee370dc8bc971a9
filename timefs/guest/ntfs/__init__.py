"""NTFS, read-only: from a volume's image to its tree of names, each file an image of extents.

`open_volume` is the whole interface; everything else is private to this package. All of it may be
called from any thread. Compressed streams (LZNT1) are decoded. What is not decoded (encrypted,
deduplicated and system-compressed data, reparse points) raises `UnsupportedError` when it is
opened; damage raises `CorruptError`.

The journal ($LogFile) is not replayed: a volume is served as its blocks stand.
"""

from timefs.guest.ntfs.volume import NtfsVolume, open_volume

__all__ = ["NtfsVolume", "open_volume"]
