"""The hash index of a large folder: the blocks that can hold a name.

Defined here and only here: `indexed`. Used by `files`. Stateless.

What the index says is taken for an answer only if nothing on the way is in doubt: a name that it
leads to is there, but that there is none is believed only where checksums prove each block of the
way. Everything else is left to a search of the whole folder.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Hash Tree Directories.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

from store.errors import CorruptError
from timefs.guest.ext.content import Content, mapped
from timefs.guest.ext.folder import parse_names, verified
from timefs.guest.ext.inode import Flag, Inode
from timefs.guest.ext.name_hash import TEA, UNSIGNED, NameHash
from timefs.guest.ext.superblock import Incompatible
from timefs.guest.ext.table import Table
from timefs.guest.names import Refusals
from timefs.guest.posix_volume import Name

_INFO: Final = struct.Struct("<IBBBB")
_INFO_AT: Final = 0x18
_ROOT_AT: Final = 0x20
_NODE_AT: Final = 8
_INFO_BYTES: Final = 8
_COUNTS: Final = struct.Struct("<HH")
_ENTRY_BYTES: Final = 8
_BLOCK_MASK: Final = 0x0FFFFFFF
LEAVES_MAX: Final = 64
"""With more blocks for one hash a search of the whole folder is no slower."""

LEVELS_MAX: Final = 2
LEVELS_MAX_LARGE: Final = 3
"""Below the root, the leaves not counted; the second where folders may be large."""


class _Node(NamedTuple):
    """Hashes, the first of which is 0, and the blocks of the folder where they begin."""

    hashes: Sequence[int]
    blocks: Sequence[int]


def indexed(table: Table, inode: Inode, name: bytes) -> list[Name] | None:
    """The names of a folder that are `name`, none or one; None if the index cannot tell."""
    if not inode.flags & Flag.INDEXED or inode.flags & (Flag.INLINE | Flag.ENCRYPTED | Flag.FOLDED):
        return None
    try:
        found = list(_Search(table, inode).matching(name))
    except CorruptError:
        return None
    return found[:1] if found or inode.seed is not None else None


class _Search:
    """A search in one folder; anything that is not as it should be raises CorruptError."""

    def __init__(self, table: Table, inode: Inode) -> None:
        self._table = table
        self._inode = inode
        self._content: Content = mapped(table, inode)

    def matching(self, name: bytes) -> Iterator[Name]:
        """The names that are `name`, in the blocks where its hash leads."""
        root = self._block(0)
        zero, kind, info_bytes, levels, _ = _INFO.unpack_from(root, _INFO_AT)
        superblock = self._table.superblock
        large = superblock.incompatible & Incompatible.LARGE_FOLDERS
        if zero or info_bytes != _INFO_BYTES:
            raise self._doubt("its index begins wrong")
        if levels >= (LEVELS_MAX_LARGE if large else LEVELS_MAX):
            raise self._doubt(f"its index has {levels} levels")
        leaves = self._leaves(self._node(root, _ROOT_AT), levels, self._hash(name, kind))
        for number in islice(leaves, LEAVES_MAX):
            refusals = Refusals()
            names = parse_names(superblock, self._block(number), self._inode.where, refusals)
            refusals.end()
            for one in names:
                if one.name == name:
                    yield one
        if next(leaves, None) is not None:
            raise self._doubt("its index has too many blocks for one hash")

    def _hash(self, name: bytes, kind: int) -> int:
        superblock = self._table.superblock
        if kind <= TEA:
            if superblock.signed_hash is None and not name.isascii():
                raise self._doubt("whether its hashes count signs is not known")
            kind += 0 if superblock.signed_hash or superblock.signed_hash is None else UNSIGNED
        sought = NameHash(superblock.hash_seed).of(name, kind)
        if sought is None:
            raise self._doubt(f"its hashes are of kind {kind}")
        return sought

    def _leaves(self, node: _Node, levels: int, sought: int) -> Iterator[int]:
        """The blocks where names of a hash may be: one, and more if it goes on in the next."""
        at = max(0, bisect_right(node.hashes, sought) - 1)
        while True:
            if levels:
                below = self._node(self._block(node.blocks[at]), _NODE_AT)
                yield from self._leaves(below, levels - 1, sought)
            else:
                yield node.blocks[at]
            at += 1
            if at == len(node.hashes) or node.hashes[at] & ~1 != sought:
                return

    def _node(self, content: bytes, at: int) -> _Node:
        """The entries of a node; the first has no hash, but the counts in its place."""
        most, count = _COUNTS.unpack_from(content, at)
        if not 0 < count <= most <= (len(content) - at) // _ENTRY_BYTES:
            raise self._doubt(f"a node of its index holds {count} of {most}")
        fields = struct.unpack_from(f"<{2 * count}I", content, at)
        hashes = (0, *fields[2::2])
        if any(following < hash_ for hash_, following in pairwise(hashes)):
            raise self._doubt("a node of its index is not in order")
        return _Node(hashes, [block & _BLOCK_MASK for block in fields[1::2]])

    def _block(self, number: int) -> bytes:
        """A block of the folder, whole."""
        block_bytes = self._table.superblock.block_bytes
        content = self._content.read(number * block_bytes, block_bytes)
        if len(content) < block_bytes:
            raise self._doubt(f"its index leads to block {number}, beyond its end")
        if self._inode.seed is not None and not verified(self._inode.seed, content):
            raise self._doubt(f"block {number} has a wrong checksum")
        return content

    def _doubt(self, why: str) -> CorruptError:
        return CorruptError(f"{self._inode.where}: {why}")
