"""The hashes by which folders find names.

Defined here and only here: `NameHash`. Used by `index`. Immutable.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Hash Tree Directories;
RFC 1320 for the steps of MD4, of which half are taken; D. Wheeler and R. Needham, "TEA, a Tiny
Encryption Algorithm". What the kernel finds is what decides.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

ALL_ONES: Final = 0xFFFFFFFF
DEFAULT_SEED: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)

LEGACY, HALF_MD4, TEA = 0, 1, 2
UNSIGNED: Final = 3
"""What is added where bytes count as numbers without a sign."""

_LAST: Final = 0xFFFFFFFE
"""Kept for the end of a folder."""

_LEGACY_START: Final = (0x12A3FE2D, 0x37ABE8F9)
_LEGACY_FACTOR: Final = 7152373
_DELTA: Final = 0x9E3779B9
_TEA_ROUNDS: Final = 16
_MD4_WORDS: Final = 8
_TEA_WORDS: Final = 4


def _choose(x: int, y: int, z: int) -> int:
    return z ^ (x & (y ^ z))


def _majority(x: int, y: int, z: int) -> int:
    return (x & y) + ((x ^ y) & z)


def _parity(x: int, y: int, z: int) -> int:
    return x ^ y ^ z


class _Round(NamedTuple):
    mix: Callable[[int, int, int], int]
    constant: int
    words: tuple[int, ...]
    turns: tuple[int, int, int, int]


_ROUNDS: Final = (
    _Round(_choose, 0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
    _Round(_majority, 0x5A827999, (1, 3, 5, 7, 0, 2, 4, 6), (3, 5, 9, 13)),
    _Round(_parity, 0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
)


class NameHash(NamedTuple):
    """A volume's way to hash names: its own seed, or four zeros for the usual one."""

    seed: tuple[int, int, int, int]

    def of(self, name: bytes, kind: int) -> int | None:
        """A name's hash, None if that kind is not known."""
        kind, signed = (kind - UNSIGNED, False) if kind >= UNSIGNED else (kind, True)
        values = [byte - 256 if signed and byte >= 128 else byte for byte in name]
        state = self.seed if any(self.seed) else DEFAULT_SEED
        if kind == LEGACY:
            found = _legacy(values)
        elif kind == HALF_MD4:
            for words in _words(values, _MD4_WORDS):
                state = _half_md4(state, words)
            found = state[1]
        elif kind == TEA:
            for words in _words(values, _TEA_WORDS):
                state = _tea(state, words)
            found = state[0]
        else:
            return None
        found &= ~1
        return _LAST - 2 if found == _LAST else found


def _legacy(values: Sequence[int]) -> int:
    newer, older = _LEGACY_START
    for value in values:
        found = older + (newer ^ value * _LEGACY_FACTOR) & ALL_ONES
        if found & 0x80000000:
            found = found - 0x7FFFFFFF & ALL_ONES
        newer, older = found, newer
    return newer << 1 & ALL_ONES


def _words(values: Sequence[int], count: int) -> Iterator[list[int]]:
    """A name as words, `count` at once; its length fills up what it does not."""
    for start in range(0, len(values), 4 * count):
        filler = len(values) - start
        filler |= filler << 8
        filler |= filler << 16
        part = values[start : start + 4 * count]
        words: list[int] = []
        for at in range(0, len(part), 4):
            word = filler
            for value in part[at : at + 4]:
                word = value + (word << 8) & ALL_ONES
            words.append(word)
        if len(part) % 4 == 0 and len(words) < count:
            words.append(filler & ALL_ONES)
        words += [filler & ALL_ONES] * (count - len(words))
        yield words


def _half_md4(state: tuple[int, int, int, int], words: Sequence[int]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for mix, constant, order, turns in _ROUNDS:
        for step, number in enumerate(order):
            turn = turns[step % 4]
            total = a + mix(b, c, d) + words[number] + constant & ALL_ONES
            turned = (total << turn | total >> 32 - turn) & ALL_ONES
            a, b, c, d = d, turned, b, c
    return (
        state[0] + a & ALL_ONES,
        state[1] + b & ALL_ONES,
        state[2] + c & ALL_ONES,
        state[3] + d & ALL_ONES,
    )


def _tea(state: tuple[int, int, int, int], words: Sequence[int]) -> tuple[int, int, int, int]:
    first, second, total = state[0], state[1], 0
    a, b, c, d = words
    for _ in range(_TEA_ROUNDS):
        total = total + _DELTA & ALL_ONES
        first += ((second << 4) + a) ^ (second + total) ^ ((second >> 5) + b)
        first &= ALL_ONES
        second += ((first << 4) + c) ^ (first + total) ^ ((first >> 5) + d)
        second &= ALL_ONES
    return state[0] + first & ALL_ONES, state[1] + second & ALL_ONES, state[2], state[3]
