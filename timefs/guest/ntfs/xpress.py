"""XPRESS with Huffman codes: one of the two compressions of system files.

Defined here and only here: `decode_xpress`. Used by `wof`. Pure; work and memory are bounded by
what is asked for.

Source: [MS-XCA] 2.1 and 2.2, "LZ77+Huffman".
"""

from typing import Final

from store.errors import CorruptError
from timefs.guest.ntfs.huffman import code_table, copy

TABLE_BYTES: Final = 256
SYMBOLS: Final = 512
CODE_BITS_MAX: Final = 15
_LONG: Final = 15
_LONGER: Final = 255
_LENGTH_MIN: Final = 3


def decode_xpress(data: bytes, size: int, where: str) -> bytes:
    """The `size` bytes that a chunk stands for.

    Raises:
        CorruptError: it does not stand for that many.
    """
    lengths = [nibble for byte in data[:TABLE_BYTES] for nibble in (byte & 15, byte >> 4)]
    if len(lengths) < SYMBOLS:
        raise CorruptError(f"{where}: XPRESS chunk: expected code lengths, got {len(data)} bytes")
    table, bits = code_table(lengths, CODE_BITS_MAX, where)
    try:
        out = _decode(data + bytes(4), size, table, bits)
    except IndexError:
        raise CorruptError(f"{where}: XPRESS chunk: it ends early or copies from before") from None
    if len(out) != size:
        raise CorruptError(f"{where}: XPRESS chunk: expected {size} bytes, got {len(out)}")
    return bytes(out)


def _decode(data: bytes, size: int, table: list[int], bits: int) -> bytearray:
    """`held` bits of the stream are in `window`; IndexError where the data makes no sense."""
    out = bytearray()
    at = TABLE_BYTES
    window = held = 0
    mask = (1 << bits) - 1
    while len(out) < size:
        if held < 16:
            window = (window & 0xFFFF) << 16 | data[at] | data[at + 1] << 8
            at += 2
            held += 16
        code = table[(window >> (held - bits)) & mask]
        held -= code & 31
        symbol = code >> 5
        if symbol < 256:
            out.append(symbol)
            continue
        if held < 16:
            window = (window & 0xFFFF) << 16 | data[at] | data[at + 1] << 8
            at += 2
            held += 16
        length = symbol & 15
        power = (symbol >> 4) & 15
        if length == _LONG:
            length += data[at]
            at += 1
            if length == _LONG + _LONGER:
                length = data[at] | data[at + 1] << 8
                at += 2
        held -= power
        distance = 1 << power | ((window >> held) & ((1 << power) - 1))
        copy(out, distance, length + _LENGTH_MIN)
    return out
