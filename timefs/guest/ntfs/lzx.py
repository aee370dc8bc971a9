"""LZX with a window of 32 KiB: the stronger of the two compressions of system files.

Defined here and only here: `decode_lzx`. Used by `wof`. Pure; work and memory are bounded by what
is asked for.

Source: [MS-PATCH], "LZX DELTA Compression and Decompression", for blocks, trees and matches; the
documentation of wimlib for what WIM files do otherwise: a block's size is one bit where it is
32 KiB, and the targets of x86 calls are always translated, as in a file of 12,000,000 bytes.
"""

import struct
from typing import Final

import numpy as np

from store.errors import CorruptError
from timefs.guest.ntfs.huffman import code_table, copy

CHUNK_BYTES: Final = 32 << 10
CODE_BITS_MAX: Final = 16
SLOTS: Final = 30
"""How many classes of distances a window of 32 KiB has."""

BLOCKS_MAX: Final = 64
"""In one chunk; compressors make a handful, and each costs its tables."""

_MAIN_SYMBOLS: Final = 256 + 8 * SLOTS
_LENGTH_SYMBOLS: Final = 249
_VERBATIM, _ALIGNED, _UNCOMPRESSED = 1, 2, 3
_EXTRA_BITS: Final = [max(0, (slot >> 1) - 1) for slot in range(SLOTS)]
_BASES: Final = [sum(1 << bits for bits in _EXTRA_BITS[:slot]) - 2 for slot in range(SLOTS)]
_CALL: Final = 0xE8
_CALL_FILE_BYTES: Final = 12_000_000
_NUMBER: Final = struct.Struct("<i")
_RECENT: Final = struct.Struct("<III")

Code = tuple[list[int], int]


class _Bits:
    """The stream as 16-bit words, each with its highest bit first. IndexError beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        words = np.frombuffer(data + bytes(6 + len(data) % 2), dtype="<u2").astype(np.int64)
        self.windows: list[int] = (words[:-2] << 32 | words[1:-1] << 16 | words[2:]).tolist()
        """From each word on 48 bits."""
        self.place = 0
        """In bits."""

    def take(self, count: int) -> int:
        place = self.place
        self.place += count
        window = self.windows[place >> 4] >> (48 - count - (place & 15))
        return window & ((1 << count) - 1)

    def symbol(self, code: Code) -> int:
        table, bits = code
        place = self.place
        window = self.windows[place >> 4] >> (48 - bits - (place & 15))
        found = table[window & ((1 << bits) - 1)]
        self.place += found & 31
        return found >> 5


def decode_lzx(data: bytes, size: int, where: str) -> bytes:
    """The `size` bytes that a chunk stands for.

    Raises:
        CorruptError: it does not stand for that many.
    """
    where = f"{where}: LZX chunk"
    try:
        out = _Decoder(data, where).decode(size)
    except (IndexError, struct.error):
        raise CorruptError(f"{where}: it ends early or copies from before") from None
    if len(out) != size:
        raise CorruptError(f"{where}: expected {size} bytes, got {len(out)}")
    return bytes(_translate_calls(out))


class _Decoder:
    def __init__(self, data: bytes, where: str) -> None:
        self._bits = _Bits(data)
        self._where = where
        self._out = bytearray()
        self._recent = [1, 1, 1]
        self._main_lengths = [0] * _MAIN_SYMBOLS
        self._length_lengths = [0] * _LENGTH_SYMBOLS

    def decode(self, size: int) -> bytearray:
        bits, out = self._bits, self._out
        for _ in range(BLOCKS_MAX):
            if len(out) == size:
                break
            kind = bits.take(3)
            length = CHUNK_BYTES if bits.take(1) else bits.take(16)
            end = len(out) + length
            if not length or end > size:
                raise CorruptError(f"{self._where}: a block of {length} bytes at {len(out)}")
            if kind == _UNCOMPRESSED:
                self._store(length)
            elif kind in (_VERBATIM, _ALIGNED):
                self._decompress(end, aligned=kind == _ALIGNED)
            else:
                raise CorruptError(f"{self._where}: a block of kind {kind}")
        return out

    def _store(self, length: int) -> None:
        bits = self._bits
        at = (bits.place // 16 + 1) * 2
        self._recent = list(_RECENT.unpack_from(bits.data, at))
        at += _RECENT.size
        content = bits.data[at : at + length]
        if len(content) < length:
            raise IndexError
        self._out += content
        bits.place = (at + length + length % 2) * 8

    def _decompress(self, end: int, *, aligned: bool) -> None:
        bits, out = self._bits, self._out
        small = code_table([bits.take(3) for _ in range(8)], 7, self._where) if aligned else None
        self._read_lengths(self._main_lengths, 0, 256)
        self._read_lengths(self._main_lengths, 256, _MAIN_SYMBOLS)
        main = code_table(self._main_lengths, CODE_BITS_MAX, self._where)
        self._read_lengths(self._length_lengths, 0, _LENGTH_SYMBOLS)
        lengths = code_table(self._length_lengths, CODE_BITS_MAX, self._where)
        symbol = bits.symbol
        while len(out) < end:
            found = symbol(main)
            if found < 256:
                out.append(found)
                continue
            length = found & 7
            if length == 7:
                length += symbol(lengths)
            copy(out, self._distance((found - 256) >> 3, small), length + 2)
        if len(out) > end:
            raise CorruptError(f"{self._where}: a copy over the end of its block")

    def _distance(self, slot: int, small: Code | None) -> int:
        """How far back a match is: as one of the last three, or given anew."""
        recent = self._recent
        if slot < 3:
            recent[0], recent[slot] = recent[slot], recent[0]
            return recent[0]
        extra = _EXTRA_BITS[slot]
        distance = _BASES[slot]
        if small is not None and extra >= 3:
            distance += self._bits.take(extra - 3) << 3
            distance += self._bits.symbol(small)
        else:
            distance += self._bits.take(extra)
        self._recent = [distance, recent[0], recent[1]]
        return distance

    def _read_lengths(self, lengths: list[int], first: int, end: int) -> None:
        """Code lengths, given as differences from those of the block before."""
        bits = self._bits
        code = code_table([bits.take(4) for _ in range(20)], 15, self._where)
        at = first
        while at < end:
            found = bits.symbol(code)
            count, value = 1, 0
            if found == 17:
                count = 4 + bits.take(4)
            elif found == 18:
                count = 20 + bits.take(5)
            else:
                if found == 19:
                    count = 4 + bits.take(1)
                    found = bits.symbol(code)
                value = (lengths[at] - found) % 17
            if at + count > end or (found > 16 and value):
                raise CorruptError(f"{self._where}: absurd code lengths")
            lengths[at : at + count] = [value] * count
            at += count


def _translate_calls(out: bytearray) -> bytearray:
    """Turn the absolute targets of x86 calls back into relative ones."""
    end = len(out) - 10
    at = out.find(_CALL, 0, max(0, end))
    while at >= 0:
        (target,) = _NUMBER.unpack_from(out, at + 1)
        if 0 <= target < _CALL_FILE_BYTES:
            _NUMBER.pack_into(out, at + 1, target - at)
        elif -at <= target < 0:
            _NUMBER.pack_into(out, at + 1, target + _CALL_FILE_BYTES)
        at = out.find(_CALL, at + 5, end)
    return out
