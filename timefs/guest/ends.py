"""Ends: the first and the last bytes of a volume, where formats leave their marks.

Defined here and only here. Used by whatever recognises a volume: guest.filesystems, guest.raid and
guest.signatures. Each end is read once, when it is first asked for; what lies between is read as
it is asked for. One thread at a time.
"""

from functools import cached_property
from typing import Final

from store.image import Image

HEAD_BYTES: Final = 132 << 10
"""Enough for all marks but those of VMFS, bcachefs's second superblock and the like."""

TAIL_BYTES: Final = 64 << 10


class Ends:
    """What a volume's ends hold."""

    def __init__(self, volume: Image, *, whole: bool = False) -> None:
        """`whole`: it is a disk, and no part of one."""
        self.volume: Final = volume
        self.size: Final = volume.size
        self.whole: Final = whole

    @cached_property
    def head(self) -> bytes:
        """The first bytes, at most `HEAD_BYTES`."""
        return self.volume.read(0, HEAD_BYTES)

    @cached_property
    def tail(self) -> bytes:
        """The last bytes, at most `TAIL_BYTES`."""
        return self.volume.read(max(0, self.size - TAIL_BYTES), TAIL_BYTES)

    @property
    def blank(self) -> bool:
        """Whether both ends are all zeros."""
        return not self.head.strip(b"\0") and not self.tail.strip(b"\0")

    def at(self, offset: int, length: int) -> bytes:
        """The bytes there, fewer or none where the volume ends; negative counts from the end."""
        start = offset if offset >= 0 else self.size + offset
        if start < 0:
            return b""
        if start + length <= HEAD_BYTES:
            return self.head[start : start + length]
        tail_start = max(0, self.size - TAIL_BYTES)
        if start >= tail_start:
            return self.tail[start - tail_start : start - tail_start + length]
        return self.volume.read(start, length)

    def number(self, offset: int, width: int) -> int:
        """A little-endian number of so many bytes."""
        return int.from_bytes(self.at(offset, width), "little")

    def place(self, offset: int) -> int:
        """An offset, which may count from the end, as one from the start."""
        return offset if offset >= 0 else self.size + offset
