"""LZNT1: the compression of NTFS streams, one chunk of 4 KiB at a time.

Defined here and only here: `find_chunks`, `Chunk` and `decode_chunk`. Used by `compressed`. Pure
functions; work and memory are bounded by the input, whatever it says.

Source: [MS-XCA] 2.5, "LZNT1 Algorithm Details".
"""

from typing import Final, NamedTuple

from store.errors import CorruptError

CHUNK_BYTES: Final = 4096

_COMPRESSED: Final = 0x8000
_SIGNATURE: Final = 0x3000
_SIGNATURE_MASK: Final = 0x7000
_GROUP_BYTES_MAX: Final = 17
"""A flag byte and eight pairs."""

_SHIFTS: Final = [12 - max(0, (place - 1).bit_length() - 4) for place in range(CHUNK_BYTES)]
"""By how many bytes are decoded: the bits of a pair that are its length."""


def _literals(flags: int) -> tuple[tuple[int, ...], int]:
    """How many literals come before each pair of a group, and how many after the last pair."""
    runs: list[int] = []
    count = 0
    for bit in range(8):
        if flags >> bit & 1:
            runs.append(count)
            count = 0
        else:
            count += 1
    return tuple(runs), count


_GROUPS: Final = [_literals(flags) for flags in range(256)]


class Chunk(NamedTuple):
    """Where in a unit's stored bytes the content of one chunk lies."""

    place: int
    length: int
    compressed: bool


def find_chunks(data: bytes, count: int) -> list[Chunk]:
    """The first `count` chunks of a unit; fewer if a header is damaged or the data ends."""
    chunks: list[Chunk] = []
    at = 0
    while len(chunks) < count and at + 2 < len(data):
        header = data[at] | data[at + 1] << 8
        length = (header & 0xFFF) + 1
        if header & _SIGNATURE_MASK != _SIGNATURE or at + 2 + length > len(data):
            break
        chunks.append(Chunk(at + 2, length, bool(header & _COMPRESSED)))
        at += 2 + length
    return chunks


def decode_chunk(data: bytes, where: str) -> bytes:
    """What a compressed chunk's content stands for: at most 4 KiB.

    Raises:
        CorruptError: it copies from before its start, overflows or ends within a pair.
    """
    out = bytearray()
    at = 0
    fast_end = len(data) - _GROUP_BYTES_MAX
    try:
        while at <= fast_end:
            runs, last = _GROUPS[data[at]]
            at += 1
            for count in runs:
                if count:
                    out += data[at : at + count]
                    at += count
                _copy(out, data[at] | data[at + 1] << 8)
                at += 2
            out += data[at : at + last]
            at += last
        _finish(out, data[at:])
    except IndexError:
        raise CorruptError(f"{where}: LZNT1 chunk: a copy from before its start or a cut") from None
    if len(out) > CHUNK_BYTES:
        raise CorruptError(f"{where}: LZNT1 chunk: expected at most 4096 bytes, got {len(out)}")
    return bytes(out)


def _finish(out: bytearray, data: bytes) -> None:
    """The groups at the end of a chunk, where one may be cut short between its parts."""
    at = 0
    while at < len(data):
        flags = data[at]
        at += 1
        for bit in range(8):
            if at == len(data):
                return
            if flags >> bit & 1:
                _copy(out, data[at] | data[at + 1] << 8)
                at += 2
            else:
                out.append(data[at])
                at += 1


def _copy(out: bytearray, pair: int) -> None:
    """Append what a pair (distance and length) repeats; IndexError if that is not there."""
    place = len(out)
    shift = _SHIFTS[place]
    start = place - (pair >> shift) - 1
    if start < 0:
        raise IndexError
    length = (pair & ((1 << shift) - 1)) + 3
    if start + length <= place:
        out += out[start : start + length]
    else:
        piece = out[start:]
        out += (piece * (length // len(piece) + 1))[:length]
