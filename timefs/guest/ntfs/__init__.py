"""NTFS, read-only: from a volume's image to its tree of names, each file an image of extents.

`open_volume` is the whole interface; everything else is private to this package. All of it may be
called from any thread. Compressed streams (LZNT1) and system-compressed files (WOF) are decoded;
symbolic links and junctions are links within the volume. What is not decoded (encrypted,
deduplicated and cloud files, reparse points of other kinds) raises `UnsupportedError` when it is
opened; damage raises `CorruptError`. What Windows keeps beside the content is in extended
attributes: see `xattrs`.

The journal ($LogFile) is not replayed: a volume is served as its blocks stand.
"""

from timefs.guest.ntfs.volume import NtfsVolume, open_volume

__all__ = ["NtfsVolume", "open_volume"]
