"""A volume: what `open_volume` answers.

Defined here and only here: `open_volume` and `XfsVolume`. Used by the table of file systems.
Thread-safe and immutable.
"""

from store.image import Image
from timefs.guest.posix import PosixFolder, root_of
from timefs.guest.xfs.files import XfsFiles
from timefs.guest.xfs.inode import Table
from timefs.guest.xfs.superblock import read_superblock


class XfsVolume:
    """An open volume."""

    def __init__(self, root: PosixFolder, label: str) -> None:
        self.root = root
        self.label = label


def open_volume(image: Image, identity: bytes) -> XfsVolume:
    """The volume in `image`; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not XFS, or with a feature that is not decoded.
        CorruptError: damaged beyond opening.
    """
    superblock = read_superblock(image)
    root = root_of(identity, XfsFiles(Table(image, superblock)))
    root.attributes()
    return XfsVolume(root, superblock.label)
