"""Writes VHD files from the specification alone, for what QEMU cannot write: differencing ones.

Source: Virtual Hard Disk Image Format Specification 1.0.
"""

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Parent(NamedTuple):
    unique_id: bytes
    name: str
    relative: str = ""


def checksum(content: bytearray, at: int) -> None:
    content[at : at + 4] = bytes(4)
    content[at : at + 4] = (~sum(content) & 0xFFFFFFFF).to_bytes(4, "big")


def footer(size: int, kind: int, unique_id: bytes) -> bytes:
    content = bytearray(512)
    data_offset = 512 if kind != 2 else (1 << 64) - 1
    struct.pack_into(
        ">8sIIQI4sI4sQQIII16s", content, 0, b"conectix", 2, 0x10000, data_offset, 0, b"test",
        0x10000, b"Wi2k", size, size, 0, kind, 0, unique_id,
    )  # fmt: skip
    checksum(content, 64)
    return bytes(content)


def write_vhd(
    path: Path,
    size: int,
    sectors: Mapping[int, bytes],
    *,
    unique_id: bytes,
    parent: Parent | None = None,
    block_bytes: int = 1 << 21,
    chance: random.Random | None = None,
) -> None:
    """A dynamic disk of those sectors, differencing with a parent; blocks in shuffled order."""
    tail = footer(size, 3 if parent is None else 4, unique_id)
    count = -(-size // block_bytes)
    table_at = 1536 + (1024 if parent is not None else 0)
    header = bytearray(1024)
    struct.pack_into(
        ">8sQQIIII", header, 0, b"cxsparse", (1 << 64) - 1, table_at, 0x10000, count, block_bytes, 0
    )
    locator = b""
    if parent is not None:
        header[40:56] = parent.unique_id
        name = parent.name.encode("utf-16-be")
        header[64 : 64 + len(name)] = name
        locator = parent.relative.encode("utf-16-le")
        if locator:
            struct.pack_into(">4sIIIQ", header, 576, b"W2ru", 1, len(locator), 0, 1536)
    checksum(header, 36)
    blocks = sorted({sector * SECTOR // block_bytes for sector in sectors})
    (chance or random.Random(1)).shuffle(blocks)
    bitmap_bytes = -(-(block_bytes // SECTOR) // 8 // 512) * 512
    bitmap_bytes = max(bitmap_bytes, 512)
    at = -(-(table_at + count * 4) // 512) * 512
    places: dict[int, int] = {}
    for block in blocks:
        places[block] = at
        at += bitmap_bytes + block_bytes
    with path.open("wb") as file:
        file.write(tail + bytes(header) + locator)
        file.seek(table_at)
        if count <= 1 << 20:
            file.write(b"\xff" * (count * 4))
        for block, place in places.items():
            file.seek(table_at + block * 4)
            file.write((place // 512).to_bytes(4, "big"))
            bitmap = bytearray(bitmap_bytes)
            first = block * block_bytes // SECTOR
            for sector in range(first, first + block_bytes // SECTOR):
                if sector in sectors:
                    inside = sector - first
                    bitmap[inside // 8] |= 0x80 >> inside % 8
                    file.seek(place + bitmap_bytes + inside * SECTOR)
                    file.write(sectors[sector])
            file.seek(place)
            file.write(bitmap)
        file.seek(at)
        file.write(tail)
