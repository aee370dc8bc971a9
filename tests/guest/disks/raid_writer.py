"""Superblocks of Linux software RAID, written where mdadm puts each version."""

import struct
from pathlib import Path

MAGIC = 0xA92B4EFC
VERSIONS = ("0.90", "1.0", "1.1", "1.2")


def place_of(version: str, size: int) -> int:
    return {
        "0.90": size // 65536 * 65536 - 65536,
        "1.0": size // 4096 * 4096 - 8192,
        "1.1": 0,
        "1.2": 4096,
    }[version]


def superblock(version: str, size: int) -> bytes:
    if version == "0.90":
        words = [
            MAGIC,
            0,
            90,
            0,
            0,
            1,
            1_700_000_000,
            1,
            place_of(version, size) >> 10,
            2,
            2,
            0,
            0,
            2,
            3,
            4,
        ]
        return struct.pack("<16I", *words).ljust(4096, b"\0")
    made = bytearray(260)
    name = b"host:0".ljust(32, b"\0")
    struct.pack_into("<IIII16s32s", made, 0, MAGIC, 1, 0, 0, bytes(range(16)), name)
    struct.pack_into("<QiIQII", made, 64, 1_700_000_000, 1, 0, size >> 9, 0, 2)
    struct.pack_into("<QQQ", made, 128, 2048, (size >> 9) - 2048, place_of(version, size) >> 9)
    struct.pack_into("<QQQII", made, 192, 1_700_000_001, 5, 0, 0, 2)
    struct.pack_into("<2H", made, 256, 0, 1)
    total = sum(struct.unpack("<65I", made))
    struct.pack_into("<I", made, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(made)


def write(version: str, path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(place_of(version, size))
        file.write(superblock(version, size))
