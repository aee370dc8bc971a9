"""What a disk shows where it has nothing itself: the disk beneath it, or zeros.

Defined here and only here: `beneath`. Used by the formats that know parents and backing files.
"""

from collections.abc import Iterator

from store.image import Extent, ExtentKind, Image


def beneath(parent: Image | None, start: int, length: int) -> Iterator[Extent]:
    """The parent's bytes at the same addresses, zeros beyond its end or without one."""
    inside = 0 if parent is None else min(max(parent.size - start, 0), length)
    if inside:
        yield Extent(start, inside, ExtentKind.DATA, parent, start)
    if inside < length:
        yield Extent(start + inside, length - inside, ExtentKind.ZERO, None, 0)
