"""Compressed pieces of a disk or a guest file: decoded on demand, a bounded number kept.

Defined here and only here: `CompressedImage`, `inflate` and `unzstd`. Used by the disk formats and
file systems that compress. Thread-safe: the lock is held for looking up and keeping only, so two
threads may decode one piece at once.
"""

import zlib
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from threading import Lock
from typing import Final

import zstandard

from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image

KEPT_BYTES_MAX: Final = 2 << 20
"""Decoded pieces that one image keeps; two at least."""

ZSTD_WINDOW_BYTES_MAX: Final = 8 << 20


class CompressedImage(Image):
    """All addresses of a disk or file, of which only the compressed pieces can be read.

    A subclass gives `piece`: the decoded bytes of a piece by its number.
    """

    def __init__(self, size: int, piece_bytes: int) -> None:
        self._size = size
        self._piece_bytes = piece_bytes
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_max = max(2, KEPT_BYTES_MAX // piece_bytes)
        self._lock = Lock()

    @property
    def size(self) -> int:
        return self._size

    @abstractmethod
    def piece(self, number: int) -> bytes:
        """The decoded piece, `piece_bytes` long or, the last one, at least up to the end.

        Raises:
            CorruptError: it is damaged.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            number, start = divmod(offset + done, self._piece_bytes)
            part = self._decoded(number)[start : start + wanted - done]
            if not part:
                raise CorruptError(f"compressed piece {number}: it is shorter than expected")
            buffer[done : done + len(part)] = part
            done += len(part)
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self._size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.OPAQUE, self, offset)

    def _decoded(self, number: int) -> bytes:
        with self._lock:
            kept = self._kept.get(number)
            if kept is not None:
                self._kept.move_to_end(number)
                return kept
        made = self.piece(number)
        with self._lock:
            self._kept[number] = made
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
        return made


def inflate(content: bytes, length_max: int, what: str, *, raw: bool) -> bytes:
    """The bytes in a deflate stream, `raw` or within zlib's frame, whose checksum is then verified.

    A raw stream may be without its end if it gives `length_max` bytes before, as QEMU has it.

    Raises:
        CorruptError: it is damaged, cut short or gives more than `length_max` bytes.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
    try:
        made = stream.decompress(content, length_max)
        beyond = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise CorruptError(f"{what}: compressed bytes are damaged: {error}") from error
    ended = stream.eof or (raw and len(made) == length_max)
    if beyond or not ended:
        raise CorruptError(f"{what}: expected at most {length_max} bytes and an end, got neither")
    return made


def unzstd(content: bytes, length: int, what: str) -> bytes:
    """`length` bytes out of a zstd frame.

    Raises:
        CorruptError: it is damaged or gives another length.
    """
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    try:
        with decoder.stream_reader(BytesIO(content)) as reader:
            made = reader.read(length)
            while len(made) < length and (more := reader.read(length - len(made))):
                made += more
    except zstandard.ZstdError as error:
        raise CorruptError(f"{what}: compressed bytes are damaged: {error}") from error
    if len(made) != length:
        raise CorruptError(f"{what}: expected {length} decoded bytes, got {len(made)}")
    return made
