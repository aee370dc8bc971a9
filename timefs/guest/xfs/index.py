"""The hash index of a large folder: where the names of a hash are.

Defined here and only here: `indexed`. Used by `files`. Stateless.

What the index says is taken for an answer only if nothing on the way is in doubt: a name that it
leads to is there, but that there is none is believed only where checksums prove each block of the
way (version 5). Everything else is left to a search of the whole folder.

Source: "XFS Algorithms & Data Structures", 3rd edition, Directories, Leaf and Node Directories.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from store.budget import spend
from store.errors import CorruptError
from timefs.guest.posix_volume import Name
from timefs.guest.xfs.content import Content, mapped
from timefs.guest.xfs.folder import FOLDER_BYTES_MAX, name_at, verified
from timefs.guest.xfs.inode import Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, checked

INDEX_BYTES_MAX: Final = 32 << 30
DEPTH_MAX: Final = 5
HASHES_MAX: Final = 4096
"""Names of one hash that are looked at; with more of them the whole folder is no slower."""

_LEAVES: Final = {0xD2F1: 16, 0xD2FF: 16, 0x3DF1: 64, 0x3DFF: 64}
"""Of a folder with one leaf, and of one with several: the bytes before the entries."""
_NODES: Final = {0xFEBE: 16, 0x3EBE: 64}
_CHECKSUM_AT: Final = 12
_OWNER_AT: Final = 48
_PLACE_BYTES: Final = 8
"""What the places of names are counted in."""
_ALL_ONES: Final = 0xFFFFFFFF


def name_hash(name: bytes) -> int:
    """A name's hash: seven bits on for each byte, turned round."""
    found = 0
    for byte in name:
        found = byte ^ (found << 7 | found >> 25) & _ALL_ONES
    return found


def indexed(table: Table, inode: Inode, name: bytes) -> list[Name] | None:
    """The names of a folder that are `name`, none or one; None if the index cannot tell."""
    superblock = table.superblock
    has_index = inode.size > superblock.folder_block_bytes and inode.data.form != Form.LOCAL
    if superblock.folded or not has_index:
        return None
    try:
        found = list(_Search(table, inode).matching(name))
    except CorruptError:
        return None
    return found[:1] if found or superblock.version == CHECKSUMMED else None


class _Block(NamedTuple):
    """A node or leaf: hashes in order, and for each a block below, or a name's place."""

    is_leaf: bool
    following: int
    hashes: Sequence[int]
    places: Sequence[int]


class _Search:
    """A search in one folder; anything that is not as it should be raises CorruptError."""

    def __init__(self, table: Table, inode: Inode) -> None:
        self._table = table
        self._inode = inode
        self._step = table.superblock.folder_block_bytes
        end = FOLDER_BYTES_MAX + INDEX_BYTES_MAX
        self._content: Content = mapped(table, inode, inode.data, end)

    def matching(self, name: bytes) -> Iterator[Name]:
        """The names that are `name`, among those of its hash."""
        superblock = self._table.superblock
        for place in self._places(name_hash(name)):
            block, at = divmod(place * _PLACE_BYTES, self._step)
            content = self._read(block * self._step)
            if not verified(superblock, content):
                raise self._doubt(f"no block of names at {block * self._step}")
            found, _ = name_at(superblock, content, at)
            if found.name == name:
                yield found

    def _places(self, sought: int) -> Iterator[int]:
        """Where the names of a hash are."""
        block = self._leaf(sought)
        at = bisect_left(block.hashes, sought)
        for _ in range(HASHES_MAX):
            if at == len(block.hashes):
                if block.following == 0:
                    return
                block, at = self._block(block.following), 0
                if not block.is_leaf:
                    raise self._doubt("its index leads from a leaf to what is none")
            elif block.hashes[at] != sought:
                return
            else:
                if block.places[at]:  # else the name is gone
                    yield block.places[at]
                at += 1
        raise self._doubt(f"more than {HASHES_MAX} names of one hash")

    def _leaf(self, sought: int) -> _Block:
        """The first leaf that can hold a hash."""
        block = self._block(FOLDER_BYTES_MAX // self._table.superblock.block_bytes)
        for _ in range(DEPTH_MAX):
            if block.is_leaf:
                return block
            at = bisect_left(block.hashes, sought)
            block = self._block(block.places[min(at, len(block.places) - 1)])
        raise self._doubt(f"its index is deeper than {DEPTH_MAX}")

    def _block(self, number: int) -> _Block:
        """A block of the index, checked."""
        content = self._read(number * self._table.superblock.block_bytes)
        following, _, magic = struct.unpack_from(">IIH", content)
        is_leaf = magic in _LEAVES
        header = _LEAVES.get(magic) or _NODES.get(magic)
        if header is None:
            raise self._doubt(f"no block of its index at {number}")
        if self._table.superblock.version == CHECKSUMMED:
            own = int.from_bytes(content[_OWNER_AT : _OWNER_AT + 8], "big")
            if header == 16 or own != self._inode.number or not checked(content, _CHECKSUM_AT):
                raise self._doubt(f"block {number} of its index has a wrong checksum")
        (count,) = struct.unpack_from(">H", content, 56 if header == 64 else 12)
        if not 0 < count <= (len(content) - header) // 8:
            raise self._doubt(f"block {number} of its index holds {count} entries")
        fields = struct.unpack_from(f">{2 * count}I", content, header)
        hashes = fields[::2]
        if list(hashes) != sorted(hashes):
            raise self._doubt(f"block {number} of its index is not in order")
        return _Block(is_leaf, following, hashes, fields[1::2])

    def _read(self, offset: int) -> bytes:
        spend(self._step)
        content = self._content.read(offset, self._step)
        if len(content) < self._step:
            raise self._doubt(f"its index leads to {offset}, beyond its end")
        return content

    def _doubt(self, why: str) -> CorruptError:
        return CorruptError(f"{self._inode.where}: {why}")
