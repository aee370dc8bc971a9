"""A volume: what `open_volume` answers.

Defined here and only here: `open_volume` and `XfsVolume`. Used by the table of file systems.
Thread-safe and immutable.
"""

from typing import Final

from store.image import Image
from timefs.guest.posix import PosixFolder, root_of
from timefs.guest.xfs.files import XfsFiles
from timefs.guest.xfs.inode import Table
from timefs.guest.xfs.superblock import Superblock, read_superblock

NOT_REPLAYED: Final = "journal not replayed: this version does not read the log of XFS"


class XfsVolume:
    """An open volume."""

    def __init__(self, root: PosixFolder, label: str, state: str) -> None:
        self.root = root
        self.label = label
        self.state = state


def open_volume(image: Image, identity: bytes) -> XfsVolume:
    """The volume in `image`; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not XFS, or with a feature that is not decoded.
        CorruptError: damaged beyond opening.
    """
    superblock = read_superblock(image)
    state = _state(superblock)
    root = root_of(identity, XfsFiles(Table(image, superblock), state))
    root.attributes()
    return XfsVolume(root, superblock.label, state)


def _state(superblock: Superblock) -> str:
    return NOT_REPLAYED + ("; it needs repair" if superblock.needs_repair else "")
