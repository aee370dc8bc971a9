"""Writes VHD files from the specification alone, for what QEMU cannot write: differencing ones.

Source: Virtual Hard Disk Image Format Specification 1.0.
"""

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

SECTOR = 512


class Parent(NamedTuple):
    unique_id: bytes
    name: str
    relative: str = ""


def checksum(content: bytearray, at: int) -> None:
    content[at : at + 4] = bytes(4)
    content[at : at + 4] = (~sum(content) & 0xFFFFFFFF).to_bytes(4, "big")


def footer(
    size: int, kind: int, unique_id: bytes, creator: bytes = b"test", shape: int = 0
) -> bytes:
    content = bytearray(512)
    data_offset = 512 if kind != 2 else (1 << 64) - 1
    struct.pack_into(
        ">8sIIQI4sI4sQQIII16s", content, 0, b"conectix", 2, 0x10000, data_offset, 0, creator,
        0x10000, b"Wi2k", size, size, shape, kind, 0, unique_id,
    )  # fmt: skip
    checksum(content, 64)
    return bytes(content)


def header(blocks: int, block_bytes: int, parent: Parent | None) -> tuple[bytes, bytes, int]:
    """The dynamic disk's header, what follows it (where the parent is), and where the table is."""
    table_at = 1536 + (1024 if parent is not None else 0)
    content = bytearray(1024)
    struct.pack_into(
        ">8sQQIIII", content, 0,
        b"cxsparse", (1 << 64) - 1, table_at, 0x10000, blocks, block_bytes, 0,
    )  # fmt: skip
    locator = b""
    if parent is not None:
        content[40:56] = parent.unique_id
        name = parent.name.encode("utf-16-be")
        content[64 : 64 + len(name)] = name
        locator = parent.relative.encode("utf-16-le")
        if locator:
            struct.pack_into(">4sIIIQ", content, 576, b"W2ru", 1, len(locator), 0, 1536)
    checksum(content, 36)
    return bytes(content), locator, table_at


def write_block(
    file: BinaryIO,
    place: int,
    sectors: Mapping[int, bytes],
    held: range,
    bitmap_bytes: int,
    before: bytes,
) -> None:
    """A block that holds a range of sectors: the bitmap of those that it has, then these.

    What was there before lies where it has none.
    """
    file.seek(place + bitmap_bytes)
    file.write(before * len(held))
    bitmap = bytearray(bitmap_bytes)
    for inside, sector in enumerate(held):
        if sector in sectors:
            bitmap[inside // 8] |= 0x80 >> inside % 8
            file.seek(place + bitmap_bytes + inside * SECTOR)
            file.write(sectors[sector])
    file.seek(place)
    file.write(bitmap)


def write_vhd(
    path: Path,
    size: int,
    sectors: Mapping[int, bytes],
    *,
    unique_id: bytes,
    parent: Parent | None = None,
    block_bytes: int = 1 << 21,
    chance: random.Random | None = None,
    before: bytes = b"",
) -> None:
    """A dynamic disk of those sectors, differencing with a parent; blocks in shuffled order.

    `before` is a sector of what lies in blocks that were never cleared.
    """
    tail = footer(size, 3 if parent is None else 4, unique_id)
    count, per_block = -(-size // block_bytes), block_bytes // SECTOR
    head, locator, table_at = header(count, block_bytes, parent)
    bitmap_bytes = -(-per_block // (8 * SECTOR)) * SECTOR
    blocks = sorted({sector // per_block for sector in sectors})
    (chance or random.Random(1)).shuffle(blocks)
    first_at = -(-(table_at + count * 4) // SECTOR) * SECTOR
    step = bitmap_bytes + block_bytes
    places = range(first_at, first_at + len(blocks) * step, step)
    with path.open("wb") as file:
        file.write(tail + head + locator)
        file.seek(table_at)
        if count <= 1 << 20:
            file.write(b"\xff" * (count * 4))
        for place, block in zip(places, blocks, strict=True):
            file.seek(table_at + block * 4)
            file.write((place // SECTOR).to_bytes(4, "big"))
            held = range(block * per_block, (block + 1) * per_block)
            write_block(file, place, sectors, held, bitmap_bytes, before)
        file.seek(places.stop)
        file.write(tail)
