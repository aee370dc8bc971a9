"""Which parser shows which file system.

Defined here and only here: `open_file_system`. Used by timefs.guest.disktree. Parsers know neither
one another nor this table. Stateless.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from store.image import Image
from timefs.guest.detect import EXFAT, EXT, FAT12, FAT16, FAT32, NTFS, XFS
from timefs.guest.ext import open_volume as open_ext
from timefs.guest.fat import open_exfat, open_fat
from timefs.guest.ntfs import open_volume as open_ntfs
from timefs.guest.xfs import open_volume as open_xfs
from timefs.tree import Folder


class Volume(Protocol):
    """An open volume of any kind."""

    @property
    def root(self) -> Folder:
        """Its root folder."""
        ...

    @property
    def label(self) -> str:
        """Its name, empty if it has none."""
        ...


_OPENERS: Final[Mapping[str, Callable[[Image, bytes], Volume]]] = {
    NTFS: open_ntfs,
    EXT: open_ext,
    XFS: open_xfs,
    EXFAT: open_exfat,
    FAT32: open_fat,
    FAT16: open_fat,
    FAT12: open_fat,
}


def open_file_system(name: str, volume: Image, identity: bytes) -> Volume | None:
    """The volume, by the name that detection gave its file system; None if nothing shows it.

    Raises:
        CorruptError: it is damaged beyond opening.
        UnsupportedError: it has a feature that is not decoded.
    """
    opener = _OPENERS.get(name)
    return None if opener is None else opener(volume, identity)
