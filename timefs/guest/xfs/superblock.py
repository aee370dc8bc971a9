"""The superblock: where a volume's geometry is defined, and only here.

Used by `volume` (to open) and, as a value, by every other module of this package. Stateless.
Everything is big-endian but checksums.

Source: "XFS Algorithms & Data Structures", 3rd edition, Superblocks.
"""

from typing import Final, NamedTuple

from google_crc32c import value as _crc32c  # pyright: ignore[reportUnknownVariableType]  # untyped

from store.errors import CorruptError, UnsupportedError
from store.image import Image, read_exactly

MAGIC: Final = b"XFSB"
SUPERBLOCK_BYTES: Final = 512
CHECKSUM_AT: Final = 224
CHECKSUMMED: Final = 5
BLOCK_BYTES_MAX: Final = 64 << 10
INODE_BYTES_MAX: Final = 2048
MORE_FEATURES: Final = 0x8000
FOLDED: Final = 0x4000
FILE_TYPES_4: Final = 0x200
FILE_TYPES_5: Final = 0x1
NEEDS_REPAIR: Final = 0x10
KNOWN: Final = 0xFF


class Superblock(NamedTuple):
    """What the superblock says."""

    version: int
    block_bytes: int
    blocks: int
    root_inode: int
    group_blocks: int
    groups: int
    sector_bytes: int
    inode_bytes: int
    label: str
    block_inodes_shift: int
    group_shift: int
    """Bits of a block's number within its group."""
    folder_block_bytes: int
    file_types: bool
    """Whether folders say what their names lead to."""
    folded: bool
    """Whether folders find names in any case, for which their hashes are others."""
    needs_repair: bool
    log: int
    log_bytes: int

    def place(self, block: int, where: str) -> int:
        """Where a block begins, given its number with the group in its upper bits.

        Raises:
            CorruptError: it lies beyond the volume.
        """
        group, within = block >> self.group_shift, block & ((1 << self.group_shift) - 1)
        number = group * self.group_blocks + within
        if within >= self.group_blocks or number >= self.blocks:
            raise CorruptError(f"{where}: expected a block of the volume, got {block}")
        return number * self.block_bytes


def checksum(content: bytes) -> int:
    """The checksum of a structure whose own place for it is zero."""
    return int(_crc32c(content))  # pyright: ignore[reportUnknownArgumentType]


def checked(content: bytes, at: int) -> bool:
    """Whether the checksum at a place is that of the content without it."""
    cleared = content[:at] + bytes(4) + content[at + 4 :]
    return content[at : at + 4] == checksum(cleared).to_bytes(4, "little")


def read_superblock(volume: Image) -> Superblock:
    """What the superblock of a volume says, checked.

    Raises:
        UnsupportedError: not XFS, or with a feature that is not decoded.
        CorruptError: it contradicts itself, or the volume ends before it says.
    """
    content = read_exactly(volume, 0, SUPERBLOCK_BYTES, "XFS superblock")
    if content[:4] != MAGIC:
        raise UnsupportedError(f"XFS superblock: expected its magic, got {content[:4]!r}")
    found = _parse(content)
    if found.version not in (4, 5):
        raise UnsupportedError(f"XFS superblock: expected version 4 or 5, got {found.version}")
    if found.version == CHECKSUMMED:
        unknown = _number(content, 216, 4) & ~KNOWN
        if unknown:
            raise UnsupportedError(f"XFS superblock: unknown features {unknown:#x}")
        whole = read_exactly(volume, 0, max(found.sector_bytes, 512), "XFS superblock")
        if not checked(whole, CHECKSUM_AT):
            raise CorruptError("XFS superblock: wrong checksum")
    _check(found, volume.size)
    return found


def _number(content: bytes, at: int, width: int) -> int:
    return int.from_bytes(content[at : at + width], "big")


def _parse(content: bytes) -> Superblock:
    version = _number(content, 100, 2)
    incompatible = _number(content, 216, 4)
    if version & 15 == CHECKSUMMED:
        file_types = bool(incompatible & FILE_TYPES_5)
    else:
        file_types = bool(version & MORE_FEATURES and _number(content, 200, 4) & FILE_TYPES_4)
    block_bytes = _number(content, 4, 4)
    return Superblock(
        version=version & 15,
        block_bytes=block_bytes,
        blocks=_number(content, 8, 8),
        root_inode=_number(content, 56, 8),
        group_blocks=_number(content, 84, 4),
        groups=_number(content, 88, 4),
        sector_bytes=min(_number(content, 102, 2), 32 << 10),
        inode_bytes=_number(content, 104, 2),
        label=content[108:120].partition(b"\0")[0].decode(errors="replace"),
        block_inodes_shift=content[123],
        group_shift=content[124],
        folder_block_bytes=block_bytes << min(content[192], 16),
        file_types=file_types,
        folded=bool(version & FOLDED),
        needs_repair=version & 15 == CHECKSUMMED and bool(incompatible & NEEDS_REPAIR),
        log=_number(content, 48, 8),
        log_bytes=_number(content, 96, 4) * block_bytes,
    )


def _check(found: Superblock, volume_bytes: int) -> None:
    for name, value, least, most in (
        ("bytes a block", found.block_bytes, 512, BLOCK_BYTES_MAX),
        ("bytes an inode", found.inode_bytes, 256, min(INODE_BYTES_MAX, found.block_bytes)),
        ("bytes a folder's block", found.folder_block_bytes, 512, BLOCK_BYTES_MAX),
        ("blocks", found.blocks, 1, volume_bytes // max(found.block_bytes, 1)),
        ("blocks a group", found.group_blocks, 1, 1 << found.group_shift),
        ("groups", found.groups, 1, found.blocks),
        ("bits of a block's number", found.group_shift, 1, 31),
    ):
        if not least <= value <= most:
            raise CorruptError(
                f"XFS superblock: {name}: expected {least} to {most}, got {value}"
                + ("; the volume is cut short" if name == "blocks" and value > most else "")
            )
    inodes = 1 << found.block_inodes_shift
    powers = (found.block_bytes, found.inode_bytes)
    if any(value & (value - 1) for value in powers) or inodes * powers[1] != powers[0]:
        raise CorruptError(
            f"XFS superblock: {inodes} inodes of {powers[1]} bytes a block is absurd"
        )
