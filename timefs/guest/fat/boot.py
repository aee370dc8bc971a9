"""The boot sector: where a volume's geometry is defined, and only here.

Used by `volume` (to open) and, as a value, by every other module of this package. Stateless.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03; "exFAT file system
specification", 3.
"""

from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image, read_exactly

BOOT_BYTES: Final = 512
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
CLUSTER_BYTES_MAX: Final = 32 << 20
ENTRY_BYTES: Final = 32
FIRST_CLUSTER: Final = 2
FAT12_CLUSTERS_MAX: Final = 4084
CLUSTERS_MAX: Final = 0x0FFFFFF5
EXFAT_NAME: Final = b"EXFAT   "
EXFAT_SECTORS: Final = 12
"""Of a boot region: eleven, and one of checksums; a second region follows."""

TABLES_MAX: Final = 16

_IMITATIONS: Final = {b"HPFS    ", b"JFS     "}
_MEDIA: Final = {0xF0, *range(0xF8, 0x100)}
_JUMPS: Final = {0xEB, 0xE9}

_UNCOUNTED: Final = {106, 107, 112}
"""Bytes of the boot sector that change without a new checksum."""


class Geometry(NamedTuple):
    """What the boot sector says. Places are bytes from the start of the volume."""

    width: int
    """Bits of an entry of the allocation table."""
    cluster_bytes: int
    clusters: int
    """How many the volume has; they are numbered from 2."""
    table: int
    table_bytes: int
    heap: int
    """Where cluster 2 begins."""
    root_cluster: int
    """0 if the root has a place of its own."""
    root: int
    root_bytes: int
    label: str
    in_use: bool
    """Whether the boot sector says that the volume was not put away cleanly."""

    def place(self, cluster: int) -> int:
        """Where a cluster begins."""
        return self.heap + (cluster - FIRST_CLUSTER) * self.cluster_bytes

    def cluster(self, place: int) -> int:
        """Which cluster a place lies in."""
        return (place - self.heap) // self.cluster_bytes + FIRST_CLUSTER

    @property
    def content_bytes(self) -> int:
        """What all clusters together hold."""
        return self.clusters * self.cluster_bytes

    def room(self, place: int) -> int:
        """Bytes from a place to the end of its cluster, or of the root that has its own place."""
        if place < self.heap:
            return self.heap - place
        return self.cluster_bytes - (place - self.heap) % self.cluster_bytes


def _number(sector: bytes, at: int, width: int) -> int:
    return int.from_bytes(sector[at : at + width], "little")


def looks_like_fat(volume: Image, sector: bytes) -> bool:
    """Whether a first sector is a FAT volume's.

    Its fields must make sense together, and something else must speak for it: the end mark, a
    jump, or the first entry of the table, which repeats the kind of medium. The string that names
    the file system only tells that the sector is not that of HPFS or JFS, which imitate it.
    """
    if len(sector) < BOOT_BYTES or sector[54:62] in _IMITATIONS:
        return False
    sector_bytes, per_cluster, medium = _number(sector, 11, 2), sector[13], sector[21]
    reserved, tables = _number(sector, 14, 2), sector[16]
    table_sectors = _number(sector, 22, 2) or _number(sector, 36, 4)
    sectors = _number(sector, 19, 2) or _number(sector, 32, 4)
    sane = (
        sector_bytes in SECTOR_SIZES
        and per_cluster > 0
        and not per_cluster & (per_cluster - 1)
        and reserved > 0
        and 0 < tables <= TABLES_MAX
        and medium in _MEDIA
        and reserved + tables * table_sectors < sectors
    )
    if not sane or not table_sectors:
        return False
    first = volume.read(reserved * sector_bytes, 3)
    repeated = first[:1] == bytes([medium]) and first[1:2] == b"\xff"
    return repeated or sector[510:512] == b"\x55\xaa" or sector[0] in _JUMPS


def read_fat(volume: Image) -> Geometry:
    """The geometry of a FAT volume.

    Raises:
        CorruptError: its fields contradict each other, or the volume ends before they say.
    """
    sector = read_exactly(volume, 0, BOOT_BYTES, "FAT boot sector")
    sector_bytes, per_cluster = _number(sector, 11, 2), sector[13]
    if sector_bytes not in SECTOR_SIZES or per_cluster == 0 or per_cluster & (per_cluster - 1):
        raise CorruptError(
            f"FAT boot sector: {per_cluster} sectors of {sector_bytes} bytes a cluster is absurd"
        )
    reserved, tables, root_entries = _number(sector, 14, 2), sector[16], _number(sector, 17, 2)
    sectors = _number(sector, 19, 2) or _number(sector, 32, 4)
    old_table_sectors = _number(sector, 22, 2)
    large = old_table_sectors == 0
    table_sectors = old_table_sectors or _number(sector, 36, 4)
    root_sectors = -(-root_entries * ENTRY_BYTES // sector_bytes)
    root = reserved + tables * table_sectors
    clusters = (sectors - root - root_sectors) // per_cluster
    active = _number(sector, 40, 2) if large else 0
    used = active & 15 if active & 0x80 else 0
    named = 64 if large else 36  # from here on, what only newer boot sectors have
    has_state, has_label = sector[named + 2] in (0x28, 0x29), sector[named + 2] == 0x29
    small_width = 12 if clusters <= FAT12_CLUSTERS_MAX else 16
    found = Geometry(
        width=32 if large else small_width,
        cluster_bytes=per_cluster * sector_bytes,
        clusters=clusters,
        table=(reserved + used * table_sectors) * sector_bytes,
        table_bytes=table_sectors * sector_bytes,
        heap=(root + root_sectors) * sector_bytes,
        root_cluster=_number(sector, 44, 4) if large else 0,
        root=root * sector_bytes,
        root_bytes=root_entries * ENTRY_BYTES,
        label=_label(sector[named + 7 : named + 18]) if has_label else "",
        in_use=has_state and bool(sector[named + 1] & 1),
    )
    _check(found, volume, tables, used)
    return found


def _label(stored: bytes) -> str:
    label = stored.decode("cp437").rstrip(" \0")
    return "" if label == "NO NAME" else label


def _check(found: Geometry, volume: Image, tables: int, used: int) -> None:
    entries = found.table_bytes * 8 // found.width
    for name, value, least, most in (
        ("tables", tables, 1, TABLES_MAX),
        ("number of the table in use", used, 0, tables - 1),
        ("bytes a cluster", found.cluster_bytes, 512, CLUSTER_BYTES_MAX),
        ("clusters", found.clusters, 1, min(entries - FIRST_CLUSTER, CLUSTERS_MAX)),
        ("end", found.place(found.clusters + FIRST_CLUSTER), found.heap, volume.size),
    ):
        if not least <= value <= most:
            raise CorruptError(f"FAT boot sector: {name}: expected {least} to {most}, got {value}")


def read_exfat(volume: Image) -> Geometry:
    """The geometry of an exFAT volume, from its first boot region or else from its second.

    Raises:
        UnsupportedError: not exFAT.
        CorruptError: both are damaged, or the volume ends before they say.
    """
    refusal: CorruptError | None = None
    sector_bytes = 1 << min(read_exactly(volume, 0, BOOT_BYTES, "exFAT boot sector")[108], 12)
    for region in (0, EXFAT_SECTORS * sector_bytes):
        try:
            return _exfat_region(volume, region)
        except CorruptError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _exfat_region(volume: Image, region: int) -> Geometry:
    sector = read_exactly(volume, region, BOOT_BYTES, "exFAT boot sector")
    if sector[3:11] != EXFAT_NAME:
        if region == 0:
            raise UnsupportedError(f"exFAT boot sector: expected its name, got {sector[3:11]!r}")
        raise CorruptError("exFAT boot sector: both copies are damaged")
    shift, cluster_shift = sector[108], sector[109]
    if not 9 <= shift <= 12 or shift + cluster_shift > 25:
        raise CorruptError(f"exFAT boot sector: sectors of 2^{shift} bytes is absurd")
    sector_bytes = 1 << shift
    _verify(volume, region, sector_bytes)
    tables, flags = sector[110], _number(sector, 106, 2)
    used = flags & 1
    table_sectors = _number(sector, 84, 4)
    found = Geometry(
        width=32,
        cluster_bytes=1 << (shift + cluster_shift),
        clusters=_number(sector, 92, 4),
        table=(_number(sector, 80, 4) + used * table_sectors) * sector_bytes,
        table_bytes=table_sectors * sector_bytes,
        heap=_number(sector, 88, 4) * sector_bytes,
        root_cluster=_number(sector, 96, 4),
        root=0,
        root_bytes=0,
        label="",
        in_use=bool(flags & 2),
    )
    _check(found, volume, tables, used)
    return found


def _verify(volume: Image, region: int, sector_bytes: int) -> None:
    content = read_exactly(volume, region, EXFAT_SECTORS * sector_bytes, "exFAT boot region")
    counted = (EXFAT_SECTORS - 1) * sector_bytes
    checksum = 0
    for at, byte in enumerate(content[:counted]):
        if at not in _UNCOUNTED:
            checksum = (checksum >> 1 | (checksum & 1) << 31) + byte & 0xFFFFFFFF
    expected = _number(content, counted, 4)
    if checksum != expected:
        raise CorruptError(f"exFAT boot region: expected checksum {expected:#x}, got {checksum:#x}")
