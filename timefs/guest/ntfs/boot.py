"""The boot sector: where the volume's geometry is defined, and only here.

Used by `volume` (to open) and, as a value, by every other module of this package. Stateless.
"""

import struct
from contextlib import suppress
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image

OEM: Final = b"NTFS    "
BOOT_BYTES: Final = 512
CLUSTER_BYTES_MAX: Final = 2 << 20
RECORD_BYTES_MAX: Final = 64 << 10
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
_FIELDS: Final = struct.Struct("<HB26xQQQb3xb")
"""From byte 11: sector size, sectors a cluster, then from 40: sectors, $MFT, $MFTMirr, sizes."""


class Geometry(NamedTuple):
    """What the boot sector says. Places are bytes from the start of the volume."""

    cluster_bytes: int
    record_bytes: int
    clusters: int
    """How many the volume has, and the image really holds."""
    table_place: int
    mirror_place: int


def read_geometries(image: Image) -> list[Geometry]:
    """What the boot sectors say, best first: the first sector, then the backup in the last.

    The backup counts only if the first sector still says NTFS or agrees with the backup in most
    of its bytes: a volume formatted anew may keep an old backup at its end.

    Raises:
        UnsupportedError: not NTFS.
        CorruptError: NTFS, and no boot sector makes sense.
    """
    first = image.read(0, BOOT_BYTES)
    found: list[Geometry] = []
    refusal: CorruptError | UnsupportedError | None = None
    try:
        found.append(parse_boot(first, image.size))
    except (CorruptError, UnsupportedError) as error:
        refusal = error
    for sector_bytes in (512, 4096):
        backup = image.read(max(0, image.size - sector_bytes), BOOT_BYTES)
        if first.startswith(OEM, 3) or _resembles(first, backup):
            with suppress(CorruptError, UnsupportedError):
                found.append(parse_boot(backup, image.size))
    if refusal is not None and not found:
        raise refusal
    return list(dict.fromkeys(found))


def _resembles(first: bytes, backup: bytes) -> bool:
    """Whether the first sector has most of what the backup has; a blank sector has nothing."""
    pairs = [pair for pair in zip(first, backup, strict=False) if pair[1]]
    same = sum(one == other for one, other in pairs)
    return backup.startswith(OEM, 3) and same * 2 > len(pairs)


def parse_boot(sector: bytes, image_size: int) -> Geometry:
    """The geometry in the first 512 bytes of one boot sector.

    Source: NTFS documentation of the Linux-NTFS project, "$Boot"; cluster sizes above 64 KiB:
    Windows stores 256 minus the exponent.

    Raises:
        UnsupportedError: not NTFS.
        CorruptError: its fields contradict each other.
    """
    if len(sector) < BOOT_BYTES or not sector.startswith(OEM, 3):
        raise UnsupportedError(f"boot sector: expected NTFS, got {sector[3:11]!r}")
    sector_bytes, per_cluster, sectors, table, mirror, record, index = _FIELDS.unpack_from(
        sector, 11
    )
    del index  # every folder's $INDEX_ROOT says its own
    if sector_bytes not in _SECTOR_SIZES:
        raise CorruptError(
            f"NTFS boot sector: expected 512 to 4096 byte sectors, got {sector_bytes}"
        )
    cluster_sectors = per_cluster if per_cluster <= 128 else 1 << min(256 - per_cluster, 31)
    cluster_bytes = sector_bytes * cluster_sectors
    if cluster_bytes == 0 or cluster_bytes & (cluster_bytes - 1):
        raise CorruptError(
            f"NTFS boot sector: expected a power of two of sectors a cluster, got {per_cluster}"
        )
    record_bytes = record * cluster_bytes if record > 0 else 1 << min(-record, 31)
    clusters = min(sectors // cluster_sectors, image_size // cluster_bytes)
    for name, value, most in (
        ("bytes a cluster", cluster_bytes, CLUSTER_BYTES_MAX),
        ("bytes a record", record_bytes, RECORD_BYTES_MAX),
        ("cluster of $MFT", table, clusters - 1),
    ):
        if value > most:
            raise CorruptError(f"NTFS boot sector: {name}: expected at most {most}, got {value}")
    if record_bytes < 512 or record_bytes % 512:
        raise CorruptError(f"NTFS boot sector: expected records of 512 n, got {record_bytes}")
    return Geometry(
        cluster_bytes, record_bytes, clusters, table * cluster_bytes, mirror * cluster_bytes
    )
