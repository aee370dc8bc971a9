"""Any disk presented as a VMDK file, made on read.

Defined here and only here: `made_vmdk`. Used by timefs.guest.detect. Immutable and thread-safe. One
sparse extent with its descriptor inside, all of whose grains are present, so that both levels of
tables follow from the size alone; what is zeros in the disk is a hole in the file. The same disk
under the same identity always gives the same bytes.

Source: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents" and "The Descriptor File".
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import numpy as np

from store.errors import UnsupportedError
from store.image import BytesImage, Extent, ExtentKind, Image
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.vmdk_extent import HAS_LINE_ENDS, HEADER, LINE_ENDS, MAGIC, SECTOR_BYTES

GRAIN_SECTORS: Final = 128
TABLE_ENTRIES: Final = 512
TABLE_SECTORS: Final = TABLE_ENTRIES * 4 // SECTOR_BYTES
DESCRIPTOR_SECTOR: Final = 1
DESCRIPTOR_SECTORS: Final = 20
DIRECTORY_SECTOR: Final = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS
HAS_SECOND_DIRECTORY: Final = 2
HEADS, TRACK_SECTORS, CYLINDERS_MAX = 16, 63, 16383
SECTORS_MAX: Final = 1 << 32
"""Of the file: the tables count in 32 bits."""

DESCRIPTOR: Final = """\
# Disk DescriptorFile
version=1
CID={content_id:08x}
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW {sectors} SPARSE "disk.vmdk"

# The Disk Data Base
ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{track}"
ddb.adapterType = "ide"
"""


class _Numbers(Image):
    """Numbers of sectors in equal steps, as a table of 32 bits each has them; then zeros."""

    def __init__(self, first: int, step: int, count: int, size: int) -> None:
        self._first = first
        self._step = step
        self._count = count
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        begin = offset // 4
        index = np.arange(begin, -(-(offset + wanted) // 4), dtype=np.uint64)
        numbers = np.where(index < self._count, self._first + index * self._step, 0)
        start = offset - begin * 4
        buffer[:wanted] = numbers.astype("<u4").tobytes()[start : start + wanted]
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self._size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.DATA, self, offset)


def _descriptor(sectors: int, identity: bytes) -> bytes:
    content_id = blake2b(identity, digest_size=4, person=b"vmdk").digest()
    return DESCRIPTOR.format(
        content_id=int.from_bytes(content_id, "little") % 0xFFFFFFFE,  # 0xffffffff: no parent
        sectors=sectors,
        cylinders=min(sectors // (HEADS * TRACK_SECTORS), CYLINDERS_MAX),
        heads=HEADS,
        track=TRACK_SECTORS,
    ).encode()


def made_vmdk(disk: Image, identity: bytes) -> Image:
    """The file: our header, descriptor and tables, then the disk's bytes.

    Raises:
        UnsupportedError: a VMDK cannot be so large.
    """
    sectors = max(-(-disk.size // SECTOR_BYTES), 1)
    grains = -(-sectors // GRAIN_SECTORS)
    tables = -(-grains // TABLE_ENTRIES)
    directory_sectors = -(-tables * 4 // SECTOR_BYTES)
    second_directory = DIRECTORY_SECTOR + directory_sectors
    table_sector = second_directory + directory_sectors
    data_sector = -(-(table_sector + tables * TABLE_SECTORS) // GRAIN_SECTORS) * GRAIN_SECTORS
    if data_sector + grains * GRAIN_SECTORS > SECTORS_MAX:
        raise UnsupportedError(
            f"VMDK: expected a disk of less than {SECTORS_MAX * SECTOR_BYTES} bytes, "
            f"got {sectors * SECTOR_BYTES}"
        )
    header = HEADER.pack(
        MAGIC, 1, HAS_LINE_ENDS | HAS_SECOND_DIRECTORY, sectors, GRAIN_SECTORS,
        DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS, TABLE_ENTRIES, DIRECTORY_SECTOR, second_directory,
        data_sector, 0, *LINE_ENDS, 0,
    )  # fmt: skip
    directory = _Numbers(table_sector, TABLE_SECTORS, tables, directory_sectors * SECTOR_BYTES)
    table = _Numbers(data_sector, GRAIN_SECTORS, grains, tables * TABLE_SECTORS * SECTOR_BYTES)
    descriptor = BytesImage(_descriptor(sectors, identity))
    placed: list[tuple[int, Image]] = [
        (0, BytesImage(header)),
        (DESCRIPTOR_SECTOR, descriptor),
        (DIRECTORY_SECTOR, directory),
        (second_directory, directory),
        (table_sector, table),
        (data_sector, disk),
    ]
    return JoinedImage(
        (data_sector + grains * GRAIN_SECTORS) * SECTOR_BYTES,
        [Piece(sector * SECTOR_BYTES, image.size, image, 0) for sector, image in placed],
    )
