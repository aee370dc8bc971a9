"""An image written into an open file, and proved by reading it back.

Defined here and only here: `write_verified`. Used by the restore. One thread.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from blake3 import blake3

from store.errors import DamagedError
from store.image import Extent, ExtentKind, Image

STEP_BYTES: Final = 4 << 20
"""Read and written at once."""


def write_verified(image: Image, descriptor: int, advance: Callable[[int], None]) -> int:
    """Write an image into an empty file, holes as holes, and prove that it reads back.

    Args:
        image: What is written.
        descriptor: Open for writing and reading.
        advance: Told bytes of the image as they are done.

    Returns:
        Bytes written, without the holes.

    Raises:
        DamagedError: what was written does not read back.
        OSError: the file cannot take it.
    """
    hasher = blake3()
    written_bytes = 0
    for start, end, zero in _steps(image):
        if not zero:
            content = image.read(start, end - start)
            hasher.update(content)
            _write(descriptor, content, start)
            written_bytes += len(content)
        advance(end - start)
    os.ftruncate(descriptor, image.size)
    os.fdatasync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    again = blake3()
    for start, end, zero in _steps(image):
        if not zero:
            again.update(os.pread(descriptor, end - start, start))
    if again.digest() != hasher.digest():
        raise DamagedError(
            "what was written does not read back; nothing was put in place; check that disk"
        )
    return written_bytes


def _write(descriptor: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest = rest[count:]
        offset += count


def _steps(image: Image) -> Iterator[tuple[int, int, bool]]:
    """The image in pieces: (start, end, whether zeros); at most 4 MiB of what is to be read."""
    start = end = 0
    zero = True
    for extent in _extents(image):
        if (extent.kind is ExtentKind.ZERO) is not zero:
            if end > start:
                yield start, end, zero
            start, zero = extent.offset, not zero
        end = extent.offset + extent.length
        while not zero and end - start > STEP_BYTES:
            yield start, start + STEP_BYTES, zero
            start += STEP_BYTES
    if end > start:
        yield start, end, zero


def _extents(image: Image) -> Iterator[Extent]:
    """All runs of an image, asked for as they are then read; by leaps where there are but zeros."""
    offset, length = 0, STEP_BYTES
    while offset < image.size:
        zeros = True
        for extent in image.extents(offset, length):
            zeros = zeros and extent.kind is ExtentKind.ZERO
            yield extent
        offset += length
        length = 2 * length if zeros else STEP_BYTES
