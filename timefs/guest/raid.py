"""RAID: what marks a disk or partition as a member of an array, in software or firmware.

Defined here and only here: `raid_member` and `raid_remnant`. Used by timefs.guest.filesystems. Pure
functions.

Source: Linux, include/uapi/linux/raid/md_p.h (md superblocks); SNIA, "Common RAID Disk Data Format"
2.0; dmraid's and libblkid's descriptions of what firmware writes.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from timefs.guest.ends import Ends

SECTOR_BYTES: Final = 512

MD_MAGIC: Final = bytes.fromhex("fc4e2ba9")
MD_RESERVED_BYTES: Final = 64 << 10
MD_SUPERBLOCK_BYTES: Final = 256
MD_DEVICES_MAX: Final = 1920
"""As many as fit into the superblock's page."""

SMALLEST_BYTES: Final = 64 << 10
"""No firmware makes an array of anything smaller."""

_PROMISE_SECTORS: Final = (63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087)
"""From the end."""

_MARKS: Final = (
    ("DDF RAID", -512, bytes.fromhex("de11de11")),
    ("DDF RAID", -257 * 512, bytes.fromhex("de11de11")),
    ("Intel RAID (IMSM)", -1024, b"Intel Raid ISM Cfg Sig. "),
    ("Intel RAID (IMSM)", -8192, b"Intel Raid ISM Cfg Sig. "),
    ("LSI MegaRAID", -512, b"$XIDE$"),
    ("NVIDIA RAID", -1024, b"NVIDIA  \x1e\0\0\0"),
    *(("Promise FastTrak RAID", -512 * at, b"Promise Technology, Inc.") for at in _PROMISE_SECTORS),
    ("HighPoint 45x RAID", -11 * 512, bytes.fromhex("f316785a")),
    ("HighPoint 45x RAID", -11 * 512, bytes.fromhex("fd16785a")),
    ("HighPoint 37x RAID", 4640, bytes.fromhex("f016785a")),
    ("HighPoint 37x RAID", 4640, bytes.fromhex("fd16785a")),
    ("Adaptec RAID", -512, bytes.fromhex("37fc4d1e")),
)


class Member(NamedTuple):
    """What a member belongs to, and where that is said."""

    name: str
    place: int
    """The superblock's first byte."""


def raid_member(ends: Ends) -> Member | None:
    """What array a volume says it is a member of."""
    return _md(ends) or _firmware(ends)


def raid_remnant(ends: Ends) -> Member | None:
    """The place of a superblock of software RAID that is not whole."""
    for _, place in _md_places(ends):
        if ends.at(place, len(MD_MAGIC)) in (MD_MAGIC, MD_MAGIC[::-1]):
            return Member("Linux software RAID, its superblock damaged", place)
    return None


def _md_places(ends: Ends) -> Iterator[tuple[str, int]]:
    """Version 0.90 and 1.0 are at the end, aligned; 1.1 is at the start, 1.2 4 KiB behind it."""
    reserved_bytes = MD_RESERVED_BYTES
    if ends.size > reserved_bytes:
        yield "0.90", ends.size // reserved_bytes * reserved_bytes - reserved_bytes
    if ends.size > 8192:
        yield "1.0", ends.size // 4096 * 4096 - 8192
    yield from (("1.1", 0), ("1.2", 4096))


def _md(ends: Ends) -> Member | None:
    for version, place in _md_places(ends):
        holds = _is_md_0 if version == "0.90" else _is_md_1
        if holds(ends, place):
            return Member(f"Linux software RAID (md {version})", place)
    return None


def _is_md_0(ends: Ends, place: int) -> bool:
    content = ends.at(place, 64)
    for order in "<>":
        if len(content) == 64 and content[:4] == struct.pack(f"{order}I", 0xA92B4EFC):
            major, size_kib = (struct.unpack_from(f"{order}I", content, at)[0] for at in (4, 32))
            return major == 0 and size_kib << 10 <= place
    return False


def _is_md_1(ends: Ends, place: int) -> bool:
    """The superblock says its own place, and has a checksum: a sum with the carry added."""
    content = ends.at(place, MD_SUPERBLOCK_BYTES)
    if len(content) < MD_SUPERBLOCK_BYTES or content[:8] != MD_MAGIC + b"\1\0\0\0":
        return False
    own, expected, devices = (
        int.from_bytes(content[at : at + width], "little")
        for at, width in ((144, 8), (216, 4), (220, 4))
    )
    if own * SECTOR_BYTES != place or devices > MD_DEVICES_MAX:
        return False
    whole = ends.at(place, MD_SUPERBLOCK_BYTES + 2 * devices)
    if len(whole) < MD_SUPERBLOCK_BYTES + 2 * devices:
        return False
    words = whole[:216] + bytes(4) + whole[220:] + bytes(-len(whole) % 4)
    total = sum(struct.unpack(f"<{len(words) // 4}I", words))
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF == expected


def _firmware(ends: Ends) -> Member | None:
    """Firmware knows disks alone."""
    if not ends.whole or ends.size < SMALLEST_BYTES:
        return None
    for name, offset, magic in _MARKS:
        if ends.at(offset, len(magic)) == magic:
            return Member(name, ends.place(offset))
    last = ends.at(-SECTOR_BYTES, SECTOR_BYTES)
    for name, holds in (("VIA RAID", _is_via), ("Silicon Image RAID", _is_silicon),
                        ("JMicron RAID", _is_jmicron)):  # fmt: skip
        if holds(last):
            return Member(name, ends.place(-SECTOR_BYTES))
    return None


def _sum_16(content: bytes) -> int:
    return sum(struct.unpack(f"<{len(content) // 2}H", content)) & 0xFFFF


def _is_via(last: bytes) -> bool:
    checked = sum(last[:50]) & 0xFF == last[50]
    return last[:2] == b"\x55\xaa" and last[2] <= 2 and checked


def _is_silicon(last: bytes) -> bool:
    summed = -_sum_16(last[:0x13E]) & 0xFFFF
    checked = summed == int.from_bytes(last[0x13E:0x140], "little")
    return last[0x60:0x64] == b"\0\0\0\x2f" and last[0x116] < 8 and checked


def _is_jmicron(last: bytes) -> bool:
    return last[:2] == b"JM" and _sum_16(last[:0x80]) in (0, 1) and last[0x30] <= 5
