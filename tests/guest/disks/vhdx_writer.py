"""Writes VHDX files from the specification alone, for what QEMU cannot write: differencing ones,
sectors of 4096 bytes, absurd sizes.

Source: [MS-VHDX] 2.
"""

import random
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from google_crc32c import value as _crc32c  # pyright: ignore[reportUnknownVariableType]  # untyped

MIB = 1 << 20
LOG_AT, METADATA_AT, BAT_AT = MIB, 2 * MIB, 3 * MIB


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


class Parent(NamedTuple):
    data_guid: uuid.UUID
    paths: dict[str, str]
    linkage2: bool = False


def seal(content: bytearray) -> bytes:
    content[4:8] = bytes(4)
    content[4:8] = int(_crc32c(bytes(content))).to_bytes(4, "little")  # pyright: ignore[reportUnknownArgumentType]
    return bytes(content)


def header(sequence: int, data_guid: uuid.UUID) -> bytes:
    content = bytearray(4096)
    struct.pack_into(
        "<4sIQ16s16s16sHHIQ", content, 0, b"head", 0, sequence, bytes(range(16)),
        data_guid.bytes_le, bytes(16), 0, 1, MIB, LOG_AT,
    )  # fmt: skip
    return seal(content)


def region_table(bat_bytes: int) -> bytes:
    content = bytearray(64 << 10)
    struct.pack_into("<4sIII", content, 0, b"regi", 0, 2, 0)
    bat, metadata = (
        guid("2dc27766-f623-4200-9d64-115e9bfd4a08"),
        guid("8b7ca206-4790-4b9a-b8fe-575f050f886e"),
    )
    struct.pack_into("<16sQII", content, 16, bat, BAT_AT, bat_bytes, 1)
    struct.pack_into("<16sQII", content, 48, metadata, METADATA_AT, MIB, 1)
    return seal(content)


def locator(parent: Parent) -> bytes:
    name = "parent_linkage2" if parent.linkage2 else "parent_linkage"
    linkage = {name: f"{{{parent.data_guid}}}"}
    if parent.linkage2:
        linkage["parent_linkage"] = f"{{{uuid.UUID(int=99)}}}"
    pairs = linkage | parent.paths
    head = bytearray(
        guid("b04aefb7-d19e-4a81-b789-25b8e9445913") + struct.pack("<HH", 0, len(pairs))
    )
    text, at = b"", 20 + 12 * len(pairs)
    for key, value in pairs.items():
        key_text, value_text = key.encode("utf-16-le"), value.encode("utf-16-le")
        head += struct.pack("<IIHH", at, at + len(key_text), len(key_text), len(value_text))
        text += key_text + value_text
        at += len(key_text) + len(value_text)
    return bytes(head) + text


def metadata(size: int, block_bytes: int, sector: int, parent: Parent | None) -> bytes:
    parameters = struct.pack("<II", block_bytes, 2 if parent else 0)
    items = [
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", parameters, 4),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", size), 6),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", sector), 6),
        ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096), 6),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", bytes(range(16)), 6),
    ]  # fmt: skip
    if parent:
        items.append(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", locator(parent), 4))
    table = bytearray(b"metadata" + struct.pack("<HH20x", 0, len(items)))
    values, at = b"", 64 << 10
    for name, value, flags in items:
        table += struct.pack("<16sIIII", guid(name), at, len(value), flags, 0)
        values += value
        at += len(value)
    return bytes(table).ljust(64 << 10, b"\0") + values


class Layout(NamedTuple):
    """How a disk is divided."""

    size: int
    block_bytes: int = MIB
    sector: int = 512

    @property
    def per_block(self) -> int:
        return self.block_bytes // self.sector

    @property
    def ratio(self) -> int:
        """How many blocks one bitmap tells the sectors of; they are a chunk."""
        return (self.sector << 23) // self.block_bytes

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_bytes)

    @property
    def bat_bytes(self) -> int:
        entries = -(-self.blocks // self.ratio) * (self.ratio + 1)
        return -(-entries * 8 // MIB) * MIB

    def block_entry(self, block: int) -> int:
        """Which entry of the block allocation table is a block's."""
        return block + block // self.ratio

    def bitmap_entry(self, chunk: int) -> int:
        return chunk * (self.ratio + 1) + self.ratio


class Places(NamedTuple):
    """Where blocks and bitmaps lie, and where the file ends."""

    blocks: dict[int, int]
    bitmaps: dict[int, int]
    end: int


def placed(
    layout: Layout, sectors: Mapping[int, bytes], chance: random.Random, *, differencing: bool
) -> Places:
    """Blocks that have sectors, and for a differencing disk their bitmaps, in shuffled order."""
    blocks = sorted({sector // layout.per_block for sector in sectors})
    chunks = sorted({block // layout.ratio for block in blocks}) if differencing else []
    found = Places({}, {}, 0)
    at = BAT_AT + layout.bat_bytes
    wanted = [(found.blocks, block, layout.block_bytes) for block in blocks]
    wanted += [(found.bitmaps, chunk, MIB) for chunk in chunks]
    for places, number, length in chance.sample(wanted, len(wanted)):
        places[number] = at
        at += length
    return found._replace(end=at)


def bat_entries(
    layout: Layout, sectors: Mapping[int, bytes], places: Places, states: Mapping[int, int]
) -> dict[int, int]:
    """The block allocation table. Blocks of a differencing disk that lack sectors are partial."""
    entries = {layout.block_entry(block): state for block, state in states.items()}
    for block, at in places.blocks.items():
        first = block * layout.per_block
        full = all(sector in sectors for sector in range(first, first + layout.per_block))
        usual = 6 if full or not places.bitmaps else 7
        entries[layout.block_entry(block)] = at | states.get(block, usual)
    return entries | {layout.bitmap_entry(chunk): at | 6 for chunk, at in places.bitmaps.items()}


def write_sectors(
    file: BinaryIO, layout: Layout, sectors: Mapping[int, bytes], places: Places
) -> None:
    """The sectors, and the bitmaps that tell them."""
    bitmaps = {chunk: bytearray(MIB) for chunk in places.bitmaps}
    for sector, content in sectors.items():
        block, inside = divmod(sector, layout.per_block)
        file.seek(places.blocks[block] + inside * layout.sector)
        file.write(content)
        if bitmaps:
            bit = block % layout.ratio * layout.per_block + inside
            bitmaps[block // layout.ratio][bit // 8] |= 1 << bit % 8
    for chunk, bitmap in bitmaps.items():
        file.seek(places.bitmaps[chunk])
        file.write(bitmap)


def write_vhdx(
    path: Path,
    layout: Layout,
    sectors: Mapping[int, bytes],
    *,
    data_guid: uuid.UUID,
    parent: Parent | None = None,
    states: Mapping[int, int] | None = None,
    chance: random.Random | None = None,
) -> None:
    """A disk of those sectors. `states` gives blocks without bytes a state, others one of 6 or 7;
    blocks lie in shuffled order."""
    places = placed(layout, sectors, chance or random.Random(1), differencing=parent is not None)
    regions = region_table(layout.bat_bytes)
    with path.open("wb") as file:
        file.write(b"vhdxfile")
        for place, content in (
            (64 << 10, header(1, data_guid)), (128 << 10, header(2, data_guid)),
            (192 << 10, regions), (256 << 10, regions),
            (METADATA_AT, metadata(layout.size, layout.block_bytes, layout.sector, parent)),
        ):  # fmt: skip
            file.seek(place)
            file.write(content)
        for index, entry in bat_entries(layout, sectors, places, states or {}).items():
            file.seek(BAT_AT + index * 8)
            file.write(entry.to_bytes(8, "little"))
        write_sectors(file, layout, sectors, places)
        file.truncate(places.end)
