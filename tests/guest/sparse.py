"""A volume of which most was never written, as a history gives it: it knows where its zeros are."""

import os
from bisect import bisect_right, insort
from collections.abc import Iterator
from pathlib import Path

from store.image import Extent, ExtentKind, Image

BLOCK_BYTES = 4096


class SparseImage(Image):
    """Blocks in memory by number; all others are zeros."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._blocks: dict[int, bytes] = {}
        self._order: list[int] = []

    @classmethod
    def of(cls, path: Path) -> "SparseImage":
        image = cls(path.stat().st_size)
        with path.open("rb") as file:
            at = 0
            while at < image.size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:  # nothing but a hole follows
                    break
                file.seek(at)
                image.write(at, file.read(BLOCK_BYTES))
                at += BLOCK_BYTES
        return image

    @property
    def size(self) -> int:
        return self._size

    def write(self, at: int, content: bytes) -> None:
        """Change bytes; for who makes the volume, before anybody reads it."""
        while content:
            number, skipped = divmod(at, BLOCK_BYTES)
            if number not in self._blocks:
                insort(self._order, number)
            block = self._blocks.get(number, bytes(BLOCK_BYTES))
            part = content[: BLOCK_BYTES - skipped]
            self._blocks[number] = block[:skipped] + part + block[skipped + len(part) :]
            at, content = at + len(part), content[len(part) :]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            number, skipped = divmod(offset + done, BLOCK_BYTES)
            count = min(BLOCK_BYTES - skipped, wanted - done)
            block = self._blocks.get(number, bytes(BLOCK_BYTES))
            buffer[done : done + count] = block[skipped : skipped + count]
            done += count
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._size)
        while offset < end:
            number = offset // BLOCK_BYTES
            if number in self._blocks:
                stop = min((number + 1) * BLOCK_BYTES, end)
                yield Extent(offset, stop - offset, ExtentKind.DATA, self, offset)
            else:
                at = bisect_right(self._order, number)
                following = self._order[at] * BLOCK_BYTES if at < len(self._order) else end
                stop = min(following, end)
                yield Extent(offset, stop - offset, ExtentKind.ZERO, None, 0)
            offset = stop
