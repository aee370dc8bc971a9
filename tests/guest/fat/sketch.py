"""FAT and exFAT volumes drawn by hand: entries and chains as a test says, honest or not."""

import struct
from collections.abc import Iterable

from store.image import BytesImage
from timefs.guest.fat import FatVolume, open_exfat, open_fat

CLUSTER_BYTES = 512
FOLDER = 0x10
LABEL = 0x08
LAST = 0xFFFFFFFF
NOON_DATE = 44 << 9 | 5 << 5 | 1  # 2024-05-01
NOON_TIME = 12 << 11


class Sketch:
    """A volume of `clusters` clusters of 512 bytes; nothing is in it, not even in its root."""

    def __init__(self, width: int, clusters: int) -> None:
        self.width = width
        self.clusters = clusters
        self.root = 0 if width == 16 else 2
        """The root's first cluster; 0 where it has its own place."""
        reserved, root_entries = (1, 512) if width == 16 else (32, 0)
        table_sectors = -(-(clusters + 2) * width // 8 // 512)
        self._table = reserved * 512
        self._root_place = self._table + table_sectors * 512
        self._heap = self._root_place + root_entries * 32
        self.content = bytearray(self._heap + clusters * CLUSTER_BYTES)
        boot = bytearray(512)
        struct.pack_into("<3s8sHBHBHHBH", boot, 0, b"\xeb\x3c\x90", b"mkfs.fat", 512, 1, reserved,
                         1, root_entries, 0, 0xF8, table_sectors if width == 16 else 0)  # fmt: skip
        struct.pack_into("<I", boot, 32, len(self.content) // 512)
        if width == 32:
            struct.pack_into("<IHHI", boot, 36, table_sectors, 0, 0, self.root)
        type_at = 54 if width == 16 else 82
        boot[type_at : type_at + 8] = b"FAT%d   " % width
        boot[510:] = b"\x55\xaa"
        self.content[:512] = boot
        self.chain(self.root or 2)

    def open(self) -> FatVolume:
        return open_fat(BytesImage(bytes(self.content)), b"sketch")

    def point(self, cluster: int, following: int) -> None:
        """One entry of the table."""
        form, size = ("<H", 2) if self.width == 16 else ("<I", 4)
        value = following & (0xFFFF if size == 2 else 0xFFFFFFFF)
        struct.pack_into(form, self.content, self._table + cluster * size, value)

    def chain(self, *clusters: int) -> None:
        """Each leads to the next, the last to the end."""
        for cluster, following in zip(clusters, (*clusters[1:], LAST), strict=True):
            self.point(cluster, following)

    def place(self, cluster: int) -> int:
        """Where a cluster begins."""
        if cluster == 0:
            return self._root_place
        return self._heap + (cluster - 2) * CLUSTER_BYTES

    def fill(self, cluster: int, *parts: bytes) -> None:
        """What a cluster holds, and those behind it; 0 is the root where it has its own place."""
        content = b"".join(parts)
        place = self.place(cluster)
        self.content[place : place + len(content)] = content


def entry(name: bytes, cluster: int = 0, kind: int = 0, size: int = 0, mtime: int = 0) -> bytes:
    """A short entry; `name` is its eleven bytes, `mtime` its date and time."""
    return struct.pack(
        "<11sBBBHHHHHHHI", name.ljust(11), kind, 0, 0, 0, 0, 0, cluster >> 16,
        mtime & 0xFFFF, mtime >> 16, cluster & 0xFFFF, size,
    )  # fmt: skip


def folder(name: bytes, cluster: int) -> bytes:
    """The entry of a folder."""
    return entry(name, cluster, FOLDER)


def dots(own: int, parent: int) -> bytes:
    """What a folder begins with."""
    return folder(b".", own) + folder(b"..", parent)


class ExfatSketch(Sketch):
    """The same of exFAT."""

    def __init__(self, clusters: int) -> None:
        self.width = 32
        self.clusters = clusters
        self.root = 2
        table_sectors = -(-(clusters + 2) * 4 // 512)
        self._table = 24 * 512
        self._root_place = self._heap = self._table + table_sectors * 512
        self.content = bytearray(self._heap + clusters * CLUSTER_BYTES)
        boot = bytearray(11 * 512)
        boot[:11] = b"\xeb\x76\x90EXFAT   "
        struct.pack_into("<QIIIII", boot, 72, len(self.content) // 512, 24, table_sectors,
                         self._heap // 512, clusters, self.root)  # fmt: skip
        boot[108:112] = bytes([9, 0, 1, 0x80])
        boot[510:512] = b"\x55\xaa"
        total = summed(boot, {106, 107, 112}, 32).to_bytes(4, "little") * 128
        self.content[: 24 * 512] = (boot + total) * 2
        self.chain(self.root)

    def open(self) -> FatVolume:
        return open_exfat(BytesImage(bytes(self.content)), b"sketch")


def summed(content: bytes | bytearray, passed_over: Iterable[int], bits: int) -> int:
    """exFAT's checksum of some bytes."""
    total = 0
    for at, byte in enumerate(content):
        if at not in passed_over:
            total = (total >> 1 | (total & 1) << (bits - 1)) + byte & ((1 << bits) - 1)
    return total


def exfat_set(
    name: str, cluster: int = 0, kind: int = 0, size: int = 0, *, together: bool = False
) -> bytes:
    """The entries of a file or folder of exFAT."""
    units = name.encode("utf-16-le", "surrogatepass")
    pieces = [units[at : at + 30].ljust(30, b"\0") for at in range(0, len(units), 30)]
    times = (NOON_TIME, NOON_DATE) * 3
    content = bytearray(struct.pack("<BBHHHHHHHHH12x", 0x85, 1 + len(pieces), 0, kind, 0, *times))
    flags = 3 if together else 1
    content += struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, len(units) // 2, 0, 0, size, 0, cluster,
                           size)  # fmt: skip
    for piece in pieces:
        content += b"\xc1\0" + piece
    struct.pack_into("<H", content, 2, summed(content, {2, 3}, 16))
    return bytes(content)
