"""A volume: what `open_volume` answers.

Defined here and only here: `open_volume` and `ExtVolume`. Used by the detection of guest file
systems. Thread-safe and immutable.
"""

from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest.ext.files import ExtFiles
from timefs.guest.ext.journal import replayed
from timefs.guest.ext.superblock import (
    STATE_CLEAN,
    STATE_ERRORS,
    Compatible,
    Incompatible,
    Superblock,
    read_superblock,
)
from timefs.guest.ext.table import Table
from timefs.guest.posix import PosixFolder, root_of

CLEAN: Final = "clean"


class ExtVolume:
    """An open volume; `image` is its bytes with the journal replayed."""

    def __init__(self, image: Image, root: PosixFolder, label: str, state: str) -> None:
        self.image = image
        self.root = root
        self.label = label
        self.state = state


def open_volume(image: Image, identity: bytes) -> ExtVolume:
    """The volume in `image`, as its guest finds it; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not ext2/3/4, or with a feature that is not decoded.
        CorruptError: damaged beyond opening.
    """
    superblock = read_superblock(image)
    state = _state(superblock)
    settled = state == CLEAN
    if superblock.incompatible & Incompatible.RECOVER:
        try:
            replay = replayed(Table(image, superblock))
            superblock = read_superblock(replay.image)
            image = replay.image
            state = f"journal replayed: {replay.transactions} transactions"
            settled = True
        except (CorruptError, UnsupportedError) as error:
            state = f"journal not replayed: {error}"
            settled = False
    if superblock.state & STATE_ERRORS:
        state += "; its guest has recorded errors"
    table = Table(image, superblock)
    root = root_of(identity, ExtFiles(table, state, settled=settled))
    root.attributes()
    return ExtVolume(image, root, superblock.label.decode(errors="replace"), state)


def _state(superblock: Superblock) -> str:
    journal = superblock.compatible & Compatible.JOURNAL
    if journal or superblock.state & STATE_CLEAN:
        return CLEAN
    return "no journal, and it was not unmounted"
