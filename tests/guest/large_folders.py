"""What tests of large folders share: names of every kind, an image that counts what is read."""

import random
from pathlib import Path

from store.image import BytesImage

ALPHABET = b"abcXYZ 0123456789._-\xc3\xa4\xff\x80"


class CountedImage(BytesImage):
    """An image that counts the bytes read of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.read_bytes = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.read_bytes += len(buffer)
        return super().read_into(offset, buffer)


def names(count: int, seed: int = 1) -> list[bytes]:
    """Names of many lengths, with bytes that no encoding has."""
    chance = random.Random(seed)
    found: set[bytes] = set()
    while len(found) < count:
        length = chance.choice((1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 60, 100, 255))
        name = bytes(chance.choice(ALPHABET) for _ in range(length))
        if name.strip(b"."):
            found.add(name)
    return sorted(found)


def fill(folder: Path, count: int, kept: int = 1) -> list[bytes]:
    """Make files of those names, and remove all but every `kept`th; answers the names left."""
    made = names(count)
    folder.mkdir()
    for name in made:
        (folder / name.decode(errors="surrogateescape")).touch()
    left = made[::kept]
    for name in set(made) - set(left):
        (folder / name.decode(errors="surrogateescape")).unlink()
    return left
