"""Any disk presented as a fixed VHD file, made on read.

Defined here and only here: `made_vhd`. Used by timefs.guest.detect. Immutable and thread-safe. The
same disk under the same identity always gives the same bytes.

Source: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006), "Hard Disk Footer
Format" and the appendix on the calculation of geometry.
"""

from hashlib import blake2b
from typing import Final

from store.errors import UnsupportedError
from store.image import BytesImage, Image
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.vhd import COOKIE, FIXED, FOOTER, FOOTER_BYTES, SECTOR_BYTES

SIZE_MAX: Final = 2040 << 30
SECTORS_IN_GEOMETRY_MAX: Final = 65535 * 16 * 255
CREATOR: Final = b"win "
"""Readers take the size from the footer's geometry, which rounds, unless a known program wrote."""


def geometry(sectors: int) -> int:
    """Cylinders, heads and sectors a track, as a footer packs them."""
    sectors = min(sectors, SECTORS_IN_GEOMETRY_MAX)
    if sectors >= 65535 * 16 * 63:
        heads, track = 16, 255
    else:
        track = 17
        heads = max((sectors // track + 1023) // 1024, 4)
        if sectors // track >= heads * 1024 or heads > 16:
            track, heads = 31, 16
        if sectors // track >= heads * 1024:
            track, heads = 63, 16
    return sectors // track // heads << 16 | heads << 8 | track


def _footer(size: int, identity: bytes) -> bytes:
    unique_id = blake2b(identity, digest_size=16, person=b"vhd").digest()
    fields = (COOKIE, 2, 0x10000, (1 << 64) - 1, 0, CREATOR, 0x000A0000, b"Wi2k", size, size)
    shape = geometry(size // SECTOR_BYTES)
    checksum = ~sum(FOOTER.pack(*fields, shape, FIXED, 0, unique_id, 0)) & 0xFFFFFFFF
    content = FOOTER.pack(*fields, shape, FIXED, checksum, unique_id, 0)
    return content.ljust(FOOTER_BYTES, b"\0")


def made_vhd(disk: Image, identity: bytes) -> Image:
    """The file: the disk's bytes, then our footer.

    Raises:
        UnsupportedError: a VHD cannot be so large.
    """
    shown = max(-(-disk.size // SECTOR_BYTES), 1) * SECTOR_BYTES
    if shown > SIZE_MAX:
        raise UnsupportedError(f"VHD: expected at most {SIZE_MAX} bytes, got {shown}")
    footer = BytesImage(_footer(shown, identity))
    pieces = [Piece(0, disk.size, disk, 0), Piece(shown, FOOTER_BYTES, footer, 0)]
    return JoinedImage(shown + FOOTER_BYTES, pieces)
