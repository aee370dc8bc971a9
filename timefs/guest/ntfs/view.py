"""Indexes of other things than names: data found by numbers.

Defined here and only here: `View`. Used by `secure` and `objects`. Immutable and thread-safe.
"""

import struct
from bisect import bisect_left
from typing import Final

from store.errors import CorruptError
from timefs.guest.ntfs.btree import BLOCK_HEADER, NO_CHILD, ROOT_HEADER, Tree, scan_node
from timefs.guest.ntfs.table import FileRecord

DEPTH_MAX: Final = 64
"""No honest tree is deeper; a hostile one may lead in circles."""

_DATA: Final = struct.Struct("<HH")


class View:
    """One index whose keys are 32-bit numbers, compared one after the other."""

    def __init__(self, file: FileRecord, name: bytes, cluster_bytes: int) -> None:
        """Raises CorruptError if the root of the tree is damaged."""
        self._tree = Tree(file, name, 0, cluster_bytes)

    def find(self, key: bytes) -> bytes | None:
        """What the index has for a key; None where its order says there is nothing.

        Source: NTFS documentation of the Linux-NTFS project, "Index Entry" and "$Secure".

        Raises:
            CorruptError: a node on the way is damaged.
        """
        wanted = _numbers(key)
        data, header = self._tree.root, ROOT_HEADER
        for _ in range(DEPTH_MAX):
            places, children = scan_node(data, header, self._tree.where)
            keys = [_numbers(data[at + 16 : at + 16 + length]) for at, length in places]
            position = bisect_left(keys, wanted)
            if position < len(keys) and keys[position] == wanted:
                start = places[position][0]
                at, length = _DATA.unpack_from(data, start)
                return data[start + at : start + at + length]
            if children[position] == NO_CHILD:
                return None
            data, header = self._tree.block(children[position]), BLOCK_HEADER
        raise CorruptError(f"{self._tree.where}: deeper than {DEPTH_MAX} nodes")


def _numbers(key: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(key) // 4}I", key[: len(key) & ~3])
