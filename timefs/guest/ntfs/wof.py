"""System-compressed files (WOF): content in chunks of a stream beside the empty main one.

Defined here and only here: `open_wof` and `WOF_STREAM`. Used by `file` and `node`. Images are
immutable and thread-safe.

Source: [MS-FSCC] 2.1.2.8 for the reparse point; wimlib's documentation of WIM resources for the
stream, which is one of them without its header: where each chunk but the first begins, as 32 or,
beyond 4 GiB, 64 bits, then the chunks. A chunk as long as what it stands for is stored.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest.compressed import CompressedImage
from timefs.guest.ntfs.lzx import decode_lzx
from timefs.guest.ntfs.record import DATA
from timefs.guest.ntfs.reparse import Reparse
from timefs.guest.ntfs.table import FileRecord
from timefs.guest.ntfs.xpress import decode_xpress

WOF_STREAM: Final = "WofCompressedData".encode("utf-16-le")

_INFORMATION: Final = struct.Struct("<IIII")
_FILE_PROVIDER: Final = 2


class Algorithm(NamedTuple):
    """One way of compressing: bytes that a chunk stands for, and how it is decoded."""

    chunk_bytes: int
    decode: Callable[[bytes, int, str], bytes]


ALGORITHMS: Final = {
    0: Algorithm(4 << 10, decode_xpress),
    1: Algorithm(32 << 10, decode_lzx),
    2: Algorithm(8 << 10, decode_xpress),
    3: Algorithm(16 << 10, decode_xpress),
}


def open_wof(file: FileRecord, reparse: Reparse) -> Image:
    """The content of a system-compressed file.

    Raises:
        CorruptError: it is damaged.
        UnsupportedError: it is in a WIM file, or compressed in a way not known.
    """
    where = f"{file.record.where}: system-compressed (WOF)"
    if len(reparse.data) < _INFORMATION.size:
        raise CorruptError(f"{where}: expected 16 bytes of information, got {len(reparse.data)}")
    version, provider, file_version, number = _INFORMATION.unpack_from(reparse.data)
    if version != 1 or provider != _FILE_PROVIDER or file_version != 1:
        raise UnsupportedError(f"{where}: its content is with provider {provider}, in a WIM file")
    algorithm = ALGORITHMS.get(number)
    if algorithm is None:
        raise UnsupportedError(f"{where}: compressed in a way ({number}) not known")
    data = file.first(DATA)
    if data is None:
        raise CorruptError(f"{where}: expected data that says its size, found none")
    return WofImage(data.size, file.open(DATA, WOF_STREAM), algorithm, where)


class WofImage(CompressedImage):
    """The decoded content."""

    def __init__(self, size: int, stored: Image, algorithm: Algorithm, where: str) -> None:
        super().__init__(size, algorithm.chunk_bytes)
        self._stored = stored
        self._algorithm = algorithm
        self._where = where
        self._chunks = -(-size // algorithm.chunk_bytes)
        self._entry_bytes = 4 if size <= 0xFFFFFFFF else 8
        self._start = max(0, self._chunks - 1) * self._entry_bytes

    def piece(self, number: int) -> bytes:
        where = f"{self._where}: bytes at {number * self._piece_bytes}"
        size = min(self._piece_bytes, self._size - number * self._piece_bytes)
        first = 0 if number == 0 else self._place(number)
        last = number == self._chunks - 1
        end = self._stored.size - self._start if last else self._place(number + 1)
        if not (0 < end - first <= size and self._start + end <= self._stored.size):
            raise CorruptError(f"{where}: expected 1 to {size} stored, got {first} to {end}")
        data = self._stored.read(self._start + first, end - first)
        return data if len(data) == size else self._algorithm.decode(data, size, where)

    def _place(self, number: int) -> int:
        """Where a chunk but the first begins, behind the table."""
        entry = self._stored.read((number - 1) * self._entry_bytes, self._entry_bytes)
        return int.from_bytes(entry, "little")
