"""Tables and groups of volumes made to cost much: they are read, or refused, within the bounds."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.image import BytesImage, Extent, ExtentKind, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from timefs.guest.detect import has_volumes
from timefs.guest.disktree import (
    group_folder,
    has_physical_volumes,
    partitions_folder,
    volume_folder,
)
from timefs.guest.lvm.label import lvm_checksum

MIB = 1 << 20
ENTRY = struct.Struct("<B3sB3sII")
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")


def sector(*entries: tuple[int, int, int]) -> bytes:
    """(type, first, sectors)."""
    content = bytearray(512)
    for number, (kind, first, count) in enumerate(entries):
        ENTRY.pack_into(content, 446 + 16 * number, 0, b"", kind, b"", first, count)
    return bytes(content[:510]) + b"\x55\xaa"


def endless_chain() -> bytes:
    """Each record links to the next, and none holds a partition."""
    sectors = 8 * MIB // 512
    records = [sector((5, number, 1)) for number in range(1, sectors)]
    return sector((5, 1, sectors - 1)) + b"".join(records)


def crowded_chain() -> bytes:
    sectors = 8 * MIB // 512
    records = [
        sector((0x83, 1, 1), (5, number, 1), (0x83, 1, 9), (0x83, 2, 9))
        for number in range(1, sectors)
    ]
    return sector((5, 1, sectors - 1)) + b"".join(records)


def four_chains() -> bytes:
    content = bytearray(endless_chain())
    content[:512] = sector(*((5, first, 9999) for first in (1, 2, 3, 4)))
    return bytes(content)


def tables_all_the_way_down() -> bytes:
    """Wherever a partition begins, there is a table again that leads to the whole rest."""
    sectors = 4 * MIB // 512
    return sector(*((0x83, first, sectors) for first in (1, 2, 3, 4))) * sectors


def gpt(count: int, entry_bytes: int, entries: list[tuple[int, int]], size: int) -> bytes:
    disk = bytearray(size)
    disk[:512] = sector((0xEE, 1, size // 512 - 1))
    table = b"".join(
        struct.pack("<16s16sQQQ72s", b"D" * 16, bytes(16), first, last, 0, b"").ljust(
            entry_bytes, b"\0"
        )
        for first, last in entries
    ).ljust(min(count * entry_bytes, size), b"\0")
    header = bytearray(512)
    HEADER.pack_into(
        header, 0, b"EFI PART", 0x10000, 92, 0, 0, 1, size // 512 - 1, 40, size // 512 - 40,
        bytes(16), 2, count & 0xFFFFFFFF, entry_bytes, zlib.crc32(table),
    )  # fmt: skip
    struct.pack_into("<I", header, 16, zlib.crc32(header[:92]))
    disk[512:1024] = header
    disk[1024 : 1024 + len(table)] = table
    return bytes(disk[:size])


def claimed_entries() -> bytes:
    return gpt(0xFFFFFFFF, 4096, [], MIB)


def many_partitions() -> bytes:
    return gpt(16384, 128, [(4200 + number, 9000) for number in range(16384)], 8 * MIB)


def disks_in_every_partition() -> bytes:
    """256 partitions that all are the same disk, of as many partitions that are again."""
    size = 8 * MIB
    inner = gpt(256, 128, [(100, 8000)] * 256, 4 * MIB)
    disk = bytearray(gpt(256, 128, [(200, 8391)] * 256, size))
    disk[200 * 512 : 200 * 512 + len(inner)] = inner
    return bytes(disk)


def physical_volume(text: str, size: int = 16 * MIB) -> bytes:
    """A disk with a label, one metadata area and that text in it."""
    disk = bytearray(size)
    label = bytearray(512)
    label[:8], label[24:32] = b"LABELONE", b"LVM2 001"
    struct.pack_into("<Q", label, 8, 1)
    struct.pack_into("<I", label, 20, 32)
    label[32:64] = b"p" * 32
    area, area_bytes = 4096, 8 * MIB
    struct.pack_into("<QQQQQQ", label, 64, size, 9 * MIB, 0, 0, 0, 0)
    struct.pack_into("<QQQQ", label, 72, 9 * MIB, 0, 0, 0)
    struct.pack_into("<QQQQ", label, 104, area, area_bytes, 0, 0)
    struct.pack_into("<I", label, 16, lvm_checksum(bytes(label[20:])))
    disk[512:1024] = label
    content = text.encode()
    header = bytearray(512)
    struct.pack_into("<16sIQQ", header, 4, b" LVM2 x[5A%r0N*>", 1, area, area_bytes)
    struct.pack_into("<QQII", header, 40, 512, len(content), lvm_checksum(content), 0)
    struct.pack_into("<I", header, 0, lvm_checksum(bytes(header[4:])))
    disk[area : area + 512] = header
    disk[area + 512 : area + 512 + len(content)] = content
    return bytes(disk)


GROUP = (
    'vg {\nid = "g"\nseqno = 1\nextent_size = 2048\n'
    'physical_volumes {\npv0 {\nid = "' + "p" * 32 + '"\npe_start = 18432\n}\n}\n'
    "logical_volumes {\n"
)


def volume(number: int) -> str:
    return (
        f'lv{number} {{\nid = "{number}"\nstatus = ["READ", "VISIBLE"]\nsegment_count = 1\n'
        "segment1 {\nstart_extent = 0\nextent_count = 1\n"
        'type = "striped"\nstripe_count = 1\nstripes = ["pv0", 0]\n}\n}\n'
    )


def many_volumes_of_disks() -> bytes:
    """Thousands of volumes of the same extent, in which a table leads to tables."""
    disk = bytearray(physical_volume(GROUP + "".join(map(volume, range(5000))) + "}\n}\n"))
    inner = sector((0x83, 1, 2000), (0x83, 2, 2000)) * 2048
    disk[9 * MIB : 9 * MIB + len(inner)] = inner
    return bytes(disk)


def long_list() -> bytes:
    return physical_volume(GROUP + "a = [" + "1," * 1_500_000 + "1]\n}\n}\n")


def deep_sections() -> bytes:
    return physical_volume("a {" * 1_000_000)


def open_strings() -> bytes:
    return physical_volume('a = "' + '\\"' * 1_500_000)


def blanks_without_end() -> bytes:
    return physical_volume(" " * 3_000_000 + "?")


MAKERS: tuple[Callable[[], bytes], ...] = (
    endless_chain,
    crowded_chain,
    four_chains,
    tables_all_the_way_down,
    claimed_entries,
    many_partitions,
    disks_in_every_partition,
    many_volumes_of_disks,
    long_list,
    deep_sections,
    open_strings,
    blanks_without_end,
)


class Huge(Image):
    """A disk of 8 EiB of which only the beginning is there."""

    @property
    def size(self) -> int:
        return 1 << 63

    def __init__(self, content: bytes) -> None:
        self._content = BytesImage(content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        buffer[:] = bytes(len(buffer))
        if offset < self._content.size:
            self._content.read_into(offset, buffer)
        return len(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.OPAQUE, self, offset)


@pytest.mark.timeout(0)  # each case has its own alarm, which uses the same timer
@pytest.mark.parametrize("huge", [False, True], ids=["", "huge"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_each_way_in_is_bounded(make: Callable[[], bytes], huge: bool, tmp_path: Path):
    content = make()
    disk = Huge(content) if huge else BytesImage(content)
    ways: tuple[Callable[[], object], ...] = (
        lambda: has_volumes(disk),
        lambda: has_physical_volumes(disk),
        lambda: list(volume_folder(disk, b"id", 0).entries()),
        lambda: list(partitions_folder(disk, b"id", 0).entries()),
        lambda: list(group_folder([disk], b"id", 0).entries()),
    )
    for number, way in enumerate(ways):
        with bounded_memory(), bounded_case(number, content, tmp_path):
            way()
