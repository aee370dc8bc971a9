"""Writes VHDX files from the specification alone, for what QEMU cannot write: differencing ones,
sectors of 4096 bytes, absurd sizes.

Source: [MS-VHDX] 2.
"""

import random
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

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
    def ratio(self) -> int:
        return (self.sector << 23) // self.block_bytes

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_bytes)


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
    chance = chance or random.Random(1)
    size, block_bytes, sector_bytes = layout
    per_block = block_bytes // sector_bytes
    states = dict(states or {})
    wanted = sorted({sector // per_block for sector in sectors})
    bat: dict[int, int] = {}
    chunks = sorted({block // layout.ratio for block in wanted})
    entries = -(-layout.blocks // layout.ratio) * (layout.ratio + 1)
    at = BAT_AT + -(-entries * 8 // MIB) * MIB
    bat_bytes = at - BAT_AT
    places: dict[int, int] = {}
    for kind, number in chance.sample(
        [("b", n) for n in wanted] + [("m", n) for n in chunks if parent],
        len(wanted) + (len(chunks) if parent else 0),
    ):
        if kind == "b":
            places[number] = at
            full = all(number * per_block + n in sectors for n in range(per_block))
            state = states.pop(number, 6 if full or not parent else 7)
            bat[number + number // layout.ratio] = at | state
            at += block_bytes
        else:
            bat[number * (layout.ratio + 1) + layout.ratio] = at | 6
            places[-1 - number] = at
            at += MIB
    bat |= {number + number // layout.ratio: state for number, state in states.items()}
    with path.open("wb") as file:
        file.write(b"vhdxfile")
        for place, content in (
            (64 << 10, header(1, data_guid)), (128 << 10, header(2, data_guid)),
            (192 << 10, region_table(bat_bytes)), (256 << 10, region_table(bat_bytes)),
            (METADATA_AT, metadata(size, block_bytes, sector_bytes, parent)),
        ):  # fmt: skip
            file.seek(place)
            file.write(content)
        for index, entry in bat.items():
            file.seek(BAT_AT + index * 8)
            file.write(entry.to_bytes(8, "little"))
        bitmaps = {chunk: bytearray(MIB) for chunk in chunks}
        for sector, content in sectors.items():
            block, inside = divmod(sector, per_block)
            file.seek(places[block] + inside * sector_bytes)
            file.write(content)
            bit = block % layout.ratio * per_block + inside
            bitmaps[block // layout.ratio][bit // 8] |= 1 << bit % 8
        for chunk, bitmap in bitmaps.items():
            if parent:
                file.seek(places[-1 - chunk])
                file.write(bitmap)
        file.truncate(at)
