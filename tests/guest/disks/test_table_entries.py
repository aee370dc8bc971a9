"""Each entry of a table is judged by itself: a wrong one has a line, the others are as before."""

import random
import struct
import uuid
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

from store.image import BytesImage, Image
from tests.guest.disks.qemu import MIB, need, run
from tests.guest.disks.shown import partitions_of
from timefs.guest.contents import contents

pytestmark = pytest.mark.system
SECTORS = 16 * MIB // 512
ENTRY = struct.Struct("<B3sB3sII")
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le


class Place(NamedTuple):
    number: int
    start: int
    length: int


def put(disk: bytearray, sector: int, slot: int, kind: int, first: int, count: int) -> None:
    ENTRY.pack_into(disk, sector * 512 + 446 + 16 * slot, 0, b"", kind, b"", first, count)
    disk[sector * 512 + 510 : sector * 512 + 512] = b"\x55\xaa"


def chain(disk: bytearray, extended: int, chance: random.Random) -> tuple[list[Place], bool]:
    """Records in any order of entries; answers the partitions, and whether the end is torn."""
    places: list[Place] = []
    at = extended
    for left in reversed(range(chance.randrange(1, 5))):
        slots = [0, 1, 2, 3]
        chance.shuffle(slots)
        disk[at * 512 + 446 : at * 512 + 512] = bytes(64) + b"\x55\xaa"
        if chance.random() < 0.9:
            first = chance.choice((1, 8, 63))
            put(disk, at, slots[0], chance.choice((0x83, 7, 0x0B)), first, 100)
            places.append(Place(5 + len(places), (at + first) * 512, 100 * 512))
        if left:
            following = at + 400
            put(disk, at, slots[1], chance.choice((5, 0x0F, 0x85)), following - extended, 300)
            at = following
    torn = chance.random() < 0.3
    if torn:
        disk[at * 512 + 510 : at * 512 + 512] = b"\0\0"
        places = [each for each in places if each.start < at * 512]
    return places, torn


def random_mbr(chance: random.Random) -> tuple[bytes, list[Place], int]:
    """A disk, the partitions of it that lie within it, and how many entries have a problem."""
    disk = bytearray(SECTORS * 512)
    places: list[Place] = []
    logical: list[Place] = []
    wrong = 0
    put(disk, 0, 0, 0x83, 2048, 2048)
    places.append(Place(1, MIB, MIB))
    choices = ["empty", "sound", "beyond", "cut", "no length", "extended"]
    for slot in range(1, 4):
        match chance.choice(choices):
            case "sound":
                put(disk, 0, slot, 7, 4096 + slot * 2048, 2048)
                places.append(Place(slot + 1, (4096 + slot * 2048) * 512, MIB))
            case "beyond":
                put(disk, 0, slot, 7, SECTORS + slot, 2048)
                wrong += 1
            case "cut":
                put(disk, 0, slot, 7, SECTORS - 100, 2048)
                places.append(Place(slot + 1, (SECTORS - 100) * 512, MIB))
            case "no length":
                put(disk, 0, slot, 7, 4096, 0)
            case "extended":
                choices.remove("extended")
                put(disk, 0, slot, chance.choice((5, 0x0F, 0x85)), 20000, 8000)
                logical, torn = chain(disk, 20000, chance)
                wrong += torn
            case _:
                pass
    return bytes(disk), places + logical, wrong


def within(disk: Image) -> list[Place]:
    found = contents(disk).partitions
    assert found is not None
    return [
        Place(each.number, each.start, each.length)
        for each in found
        if not each.problem and each.start < disk.size
    ]


@pytest.mark.parametrize("seed", range(40))
def test_any_mbr(seed: int, tmp_path: Path):
    content, expected, wrong = random_mbr(random.Random(seed))
    disk = BytesImage(content)
    assert within(disk) == expected
    shown = partitions_of(disk)
    assert all(text for text in shown.values())
    assert len(shown) == len(expected) + wrong
    for each in partx(tmp_path / "disk", content):
        assert each in expected


def partx(path: Path, content: bytes) -> list[Place]:
    """What libblkid finds that begins within the disk and is not extended."""
    need("partx")
    path.write_bytes(content)
    found: list[Place] = []
    for row in run("partx", "--show", "-g", "-o", "NR,START,SECTORS,TYPE", path).splitlines():
        number, start, sectors, kind = row.split()
        if int(kind, 16) not in (5, 0x0F, 0x85) and int(start) < SECTORS:
            found.append(Place(int(number), int(start) * 512, int(sectors) * 512))
    return found


def gpt(entries: list[tuple[bytes, int, int]], count: int = 128, entry_bytes: int = 128) -> bytes:
    """A disk with a whole GPT of those (type, first, last) at its start."""
    disk = bytearray(SECTORS * 512)
    put(disk, 0, 0, 0xEE, 1, SECTORS - 1)
    made = [
        struct.pack(
            "<16s16sQQQ72s", kind, number.to_bytes(16, "little"), first, last, 0, b""
        ).ljust(entry_bytes, b"\0")
        for number, (kind, first, last) in enumerate(entries)
    ]
    table = b"".join(made).ljust(count * entry_bytes, b"\0")
    header = bytearray(512)
    HEADER.pack_into(
        header, 0, b"EFI PART", 0x10000, 92, 0, 0, 1, SECTORS - 1, 600, SECTORS - 601,
        bytes(16), 2, count, entry_bytes, zlib.crc32(table),
    )  # fmt: skip
    struct.pack_into("<I", header, 16, zlib.crc32(header[:92]))
    disk[512:1024] = header
    disk[1024 : 1024 + len(table)] = table
    return bytes(disk)


@pytest.mark.parametrize("seed", range(20))
def test_any_gpt(seed: int):
    chance = random.Random(seed)
    entries: list[tuple[bytes, int, int]] = []
    expected: list[Place] = []
    wrong = 0
    for number in range(1, chance.randrange(2, 12)):
        first = 600 + number * 1000
        match chance.choice(("sound", "sound", "empty", "beyond", "backwards", "huge", "cut")):
            case "sound":
                entries.append((DATA, first, first + 499))
                expected.append(Place(number, first * 512, 500 * 512))
            case "beyond":
                entries.append((DATA, SECTORS + 5, SECTORS + 100))
                wrong += 1
            case "backwards":
                entries.append((DATA, first + 99, first))
                wrong += 1
            case "huge":
                entries.append((DATA, (1 << 64) - 10, (1 << 64) - 1))
                wrong += 1
            case "cut":
                entries.append((DATA, first, SECTORS + 100))
                expected.append(Place(number, first * 512, (SECTORS + 101 - first) * 512))
            case _:
                entries.append((bytes(16), 0, 0))
    disk = BytesImage(gpt(entries))
    assert [each for each in within(disk) if each.length > 0] == expected
    shown = partitions_of(disk)
    if not entries or not any(any(kind) for kind, *_ in entries):
        assert "without partitions" in shown["p0.unsupported"]
        return
    assert len(shown) == len(expected) + wrong
    assert sum("expected it within" in text for text in shown.values()) == wrong


def test_a_gpt_of_more_and_larger_entries_than_usual_is_read():
    disk = BytesImage(gpt([(DATA, 3000, 3999)], count=1000, entry_bytes=256))
    assert within(disk) == [Place(1, 3000 * 512, 1000 * 512)]


def test_a_gpt_of_too_many_partitions_says_how_many_are_not_shown():
    disk = BytesImage(gpt([(DATA, 3000, 3000)] * 300, count=300))
    shown = partitions_of(disk)
    assert len(shown) == 129
    assert "172 more partitions" in shown["p129.unsupported"]


def test_a_new_mbr_hides_an_old_gpt_which_is_named():
    content = bytearray(gpt([(DATA, 3000, 3999)]))
    content[446:510] = bytes(64)
    put(content, 0, 0, 0x83, 2048, 2048)
    shown = partitions_of(BytesImage(bytes(content)))
    assert list(shown) == ["p1.unsupported", "p0-GPT of 1 partition.unsupported"]


def test_an_old_gpt_of_other_sectors_does_not_change_how_an_mbr_counts():
    content = bytearray(SECTORS * 512)
    put(content, 0, 0, 0x83, 2048, 2048)
    content[4096 : 4096 + 8] = b"EFI PART"
    assert contents(BytesImage(bytes(content))).sector_bytes == 512
    assert within(BytesImage(bytes(content))) == [Place(1, MIB, MIB)]


def test_a_grown_disk_has_its_backup_where_the_first_header_says(tmp_path: Path):
    need("sgdisk")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    run("sgdisk", "-n", "1:2048:8191", path)
    content = bytearray(path.read_bytes()) + bytes(16 * MIB)
    whole = within(BytesImage(bytes(content)))
    assert whole == [Place(1, MIB, 3 * MIB)]
    content[1024] ^= 1  # the first table no longer has its checksum
    assert within(BytesImage(bytes(content))) == whole


def test_a_protective_mbr_without_a_gpt_says_so_and_a_hybrid_one_keeps_its_partitions():
    content = bytearray(SECTORS * 512)
    put(content, 0, 0, 0xEE, 1, SECTORS - 1)
    shown = partitions_of(BytesImage(bytes(content)))
    assert list(shown) == ["p0-GPT.unsupported"]
    assert "there is none at either end" in shown["p0-GPT.unsupported"]
    put(content, 0, 1, 0x83, 2048, 2048)
    assert list(partitions_of(BytesImage(bytes(content)))) == [
        "p2.unsupported",
        "p0-GPT.unsupported",
    ]


def test_a_table_without_partitions_says_so():
    shown = partitions_of(BytesImage(gpt([])))
    assert "without partitions" in shown["p0.unsupported"]
