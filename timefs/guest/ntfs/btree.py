"""B-trees of indexes: their root, their blocks and where the entries of a node are.

Defined here and only here: `Tree` and `scan_node`. Used by `index` (names) and `view` (other keys),
which know what the keys mean. Immutable and thread-safe.

The tree itself says which blocks are in use; the bitmap beside it is not consulted, since in a
volume captured while it was written the two may differ.
"""

import struct
from functools import cached_property
from typing import Final

from store.errors import CorruptError, TimefsError
from store.image import Image, read_exactly
from timefs.guest.ntfs.record import INDEX_ALLOCATION, INDEX_ROOT, STRIDE_BYTES, mend
from timefs.guest.ntfs.table import FileRecord

BLOCK_BYTES_MAX: Final = 64 << 10

PIECE_BYTES: Final = 32 << 10
"""Blocks are read in pieces of this size, as neighbours are wanted together; one is kept."""

ROOT_HEADER: Final = 16
BLOCK_HEADER: Final = 24
"""Where the index header is: in the root's value, in a block."""

ENTRY_BYTES_MIN: Final = 16
HAS_CHILD: Final = 1
LAST: Final = 2
NO_CHILD: Final = -1

_ROOT: Final = struct.Struct("<III")
_HEADER: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<8xHHH")
_CLUSTER: Final = struct.Struct("<q")


class Tree:
    """The nodes of one index: the root in the file's record, the others in blocks."""

    def __init__(self, file: FileRecord, name: bytes, kind: int, cluster_bytes: int) -> None:
        """`name` and `kind` are the index's (UTF-16LE) and that of the attribute it orders.

        Raises:
            CorruptError: the root is damaged.
        """
        self.where = f"{file.record.where}: index {name.decode('utf-16-le', 'replace')}"
        root = file.first(INDEX_ROOT, name)
        if root is None or root.value is None or len(root.value) < 32:
            raise CorruptError(f"{self.where}: expected a resident root, found none")
        own, _, block_bytes = _ROOT.unpack_from(root.value)
        powers = block_bytes & (block_bytes - 1) == 0
        if own != kind or not (powers and STRIDE_BYTES <= block_bytes <= BLOCK_BYTES_MAX):
            raise CorruptError(f"{self.where}: absurd blocks of {block_bytes} bytes")
        self.root = root.value
        self._block_bytes = block_bytes
        # Blocks smaller than a cluster are counted in pieces of 512 bytes.
        self._unit_bytes = cluster_bytes if cluster_bytes <= block_bytes else STRIDE_BYTES
        self._file = file
        self._name = name
        self._held = (-1, b"")
        """The piece that was read last, and its number."""

    @cached_property
    def blocks(self) -> Image:
        """Where all nodes but the root are."""
        return self._file.open(INDEX_ALLOCATION, self._name)

    def block(self, cluster: int) -> bytes:
        """A block, mended.

        Raises:
            CorruptError: it is damaged or another one.
        """
        where = f"{self.where}: block {cluster}"
        place = cluster * self._unit_bytes
        data = bytearray(self._stored(place))
        if len(data) != self._block_bytes:
            data[:] = read_exactly(self.blocks, place, self._block_bytes, where)
        mend(data, b"INDX", where)
        own = _CLUSTER.unpack_from(data, 16)[0]
        if own != cluster:
            raise CorruptError(f"{where}: it says it is block {own}")
        return bytes(data)

    def _stored(self, place: int) -> bytes:
        """The block at a place, less of it where it has to be read apart from its neighbours."""
        number, at = divmod(place, PIECE_BYTES)
        held, piece = self._held
        if held != number:
            try:
                piece = self.blocks.read(number * PIECE_BYTES, PIECE_BYTES)
            except TimefsError:
                return b""  # a neighbour's bytes cannot be had: its own perhaps can
            self._held = (number, piece)
        return piece[at : at + self._block_bytes]


def scan_node(data: bytes, header: int, where: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Place and key length of each entry of a node, and the children between and around them.

    Source: NTFS documentation of the Linux-NTFS project, "Index Header" and "Index Entry".

    Raises:
        CorruptError: entries out of bounds or without an end.
    """
    start, used = _HEADER.unpack_from(data, header)
    at, end = header + start, header + used
    entries: list[tuple[int, int]] = []
    children: list[int] = []
    while end - at >= ENTRY_BYTES_MIN and end <= len(data):
        length, key_bytes, flags = _ENTRY.unpack_from(data, at)
        fixed = 24 if flags & HAS_CHILD else 16
        if length % 8 or length < fixed or at + length > end:
            break
        child = _CLUSTER.unpack_from(data, at + length - 8)[0] if flags & HAS_CHILD else NO_CHILD
        if flags & HAS_CHILD and child < 0:
            break
        children.append(child)
        if flags & LAST:
            return entries, children
        if fixed + key_bytes > length:
            break
        entries.append((at, key_bytes))
        at += length
    raise CorruptError(f"{where}: absurd entry at {at}, the node's end is at {end}")
