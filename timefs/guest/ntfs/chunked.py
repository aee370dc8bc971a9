"""Images whose bytes come a chunk at a time out of compressed ones.

Defined here and only here: `ChunkedImage`. Used by `compressed` and `wof`. Thread-safe: what is
held is a bounded cache of decoded chunks, which ends with its image.
"""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from store.image import Extent, ExtentKind, Image

CHUNKS_MAX: Final = 32
"""Decoded chunks that one image keeps; each has at most 32 KiB."""


class ChunkedImage(Image):
    """Content that only decoding gives: one opaque extent."""

    def __init__(self, size: int, chunk_bytes: int) -> None:
        """`chunk_bytes` is what every chunk but the last decodes to."""
        self._size = size
        self._chunk_bytes = chunk_bytes
        self._decoded: OrderedDict[int, bytes] = OrderedDict()

    @property
    def size(self) -> int:
        return self._size

    @abstractmethod
    def decode(self, number: int) -> bytes:
        """The whole content of one chunk.

        Raises:
            CorruptError: it is damaged.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            number, skipped = divmod(offset + done, self._chunk_bytes)
            part = self._chunk(number)[skipped : skipped + wanted - done]
            buffer[done : done + len(part)] = part
            done += len(part)
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self._size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.OPAQUE, self, offset)

    def _chunk(self, number: int) -> bytes:
        content = self._decoded.get(number)
        if content is None:
            content = self._decoded[number] = self.decode(number)
            if len(self._decoded) > CHUNKS_MAX:
                self._decoded.popitem(last=False)
        return content
