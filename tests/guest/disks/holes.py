"""Files whose holes are known to be zeros, as those of a captured file are."""

import os
from collections.abc import Iterator

from store.image import DescriptorImage, Extent, ExtentKind


class HoleyImage(DescriptorImage):
    """An open file; says where it has holes, and counts what is read."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.file = descriptor
        self.bytes_read = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.bytes_read += len(buffer)
        return super().read_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self.size)
        while offset < end:
            try:
                data = min(os.lseek(self.file, offset, os.SEEK_DATA), end)
            except OSError:  # ENXIO: no more of it
                data = end
            if data > offset:
                yield Extent(offset, data - offset, ExtentKind.ZERO, None, 0)
            if data < end:
                offset = min(os.lseek(self.file, data, os.SEEK_HOLE), end)
                yield Extent(data, offset - data, ExtentKind.DATA, self, data)
            else:
                offset = end
