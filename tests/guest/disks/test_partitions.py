"""Partition tables made by sfdisk and sgdisk, damaged ones, and what is only recognised."""

import json
import random
import struct
import uuid
from pathlib import Path

import pytest

from store.image import BytesImage, Image
from tests.guest.disks import vhdx_writer
from tests.guest.disks.qemu import MIB, need, opened, run
from timefs.guest.contents import contents
from timefs.guest.detect import decode, disk_contents, has_volumes, sector_bytes
from timefs.guest.disktree import partitions_folder
from timefs.guest.partitions import Partition, partition_image
from timefs.tree import Leaf

pytestmark = pytest.mark.system
SECTOR = 512
DISK_BYTES = 64 * MIB


def sfdisk(path: Path, script: str, size: int = DISK_BYTES) -> list[tuple[int, int, int]]:
    """A disk with that table, and (number, start, length) as sfdisk reads it back."""
    need("sfdisk")
    with path.open("wb") as file:
        file.truncate(size)
    given = path.with_suffix(".script")
    given.write_text(script)
    run("sh", "-c", f"sfdisk -q {path} < {given}")
    table = json.loads(run("sfdisk", "--json", path))["partitiontable"]["partitions"]
    return [
        (int(row["node"].removeprefix(str(path))), row["start"] * SECTOR, row["size"] * SECTOR)
        for row in table
    ]


def partitions(disk: Image) -> list[Partition]:
    found = contents(disk).partitions
    assert found is not None
    return found


def places(disk: Image) -> list[tuple[int, int, int]]:
    return [(each.number, each.start, each.length) for each in partitions(disk)]


def reasons(disk: Image) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, node in partitions_folder(disk, b"id", 0).entries():
        assert isinstance(node, Leaf)
        found[name.decode()] = node.open().read(0, 1000).decode()
    return found


def test_logical_partitions_are_where_sfdisk_puts_them(tmp_path: Path):
    script = "label: dos\n,5M,7\n,20M,E\n,10M,L\n,4M,L\n,3M,L\n,5M,L\n,2M,L\n"
    expected = sfdisk(tmp_path / "disk", script)
    with opened(tmp_path) as files:
        disk = files["disk"]
        assert places(disk) == [each for each in expected if each[0] != 2]
        for partition in partitions(disk):
            assert partition_image(disk, partition).size == partition.length


@pytest.mark.parametrize("seed", range(5))
def test_random_tables(seed: int, tmp_path: Path):
    chance = random.Random(seed)
    label = chance.choice(("dos", "gpt"))
    lines = [f"label: {label}"]
    lines += [f",{chance.randrange(1, 5)}M" for _ in range(chance.randrange(1, 4))]
    if label == "dos":
        lines.append(",,E")
        lines += [f",{chance.randrange(1, 5)}M" for _ in range(chance.randrange(1, 7))]
    expected = sfdisk(tmp_path / "disk", "\n".join(lines) + "\n")
    with opened(tmp_path) as files:
        got = places(files["disk"])
        assert got == [each for each in expected if each in got]
        assert len(got) == len(expected) - (label == "dos")


def test_a_chain_that_bites_its_tail_keeps_what_was_found(tmp_path: Path):
    expected = sfdisk(tmp_path / "disk", "label: dos\n,5M,7\n,20M,E\n,,\n,4M,L\n,3M,L\n")
    content = bytearray((tmp_path / "disk").read_bytes())
    extended = next(start for number, start, _ in expected if number == 2)
    struct.pack_into("<I", content, extended + 446 + 16 + 8, 0)  # no next: the chain ends
    assert [number for number, *_ in places(BytesImage(bytes(content)))] == [1, 3, 5]
    second = (tmp_path / "disk").read_bytes()
    content = bytearray(second)
    following = struct.unpack_from("<I", content, extended + 446 + 16 + 8)[0]
    at = extended + following * SECTOR
    content[at + 446 + 16 : at + 446 + 32] = content[extended + 446 + 16 : extended + 446 + 32]
    found = partitions(BytesImage(bytes(content)))
    assert [each.number for each in found] == [1, 3, 5, 6, 7]
    assert "no link of its chain" in found[-1].problem
    shown = reasons(BytesImage(bytes(content)))
    assert "others may be lost" in shown["p7.unsupported"]
    assert "blank" in shown["p1.unsupported"]


@pytest.fixture
def gpt(tmp_path: Path) -> bytes:
    need("sgdisk")
    path = tmp_path / "gpt"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    run("sgdisk", "-n", "1:2048:4095", "-c", "1:first", "-n", "2:4096:8191", path)
    return path.read_bytes()


def test_the_backup_serves_when_the_first_header_or_its_table_is_damaged(gpt: bytes):
    whole = partitions(BytesImage(gpt))
    assert [(each.number, each.name) for each in whole] == [(1, "first"), (2, "")]
    for place in (SECTOR + 20, 2 * SECTOR + 40):
        content = bytearray(gpt)
        content[place] ^= 1
        assert partitions(BytesImage(bytes(content))) == whole
        content[len(gpt) - SECTOR + 20] ^= 1
        assert "both headers" in reasons(BytesImage(bytes(content)))["p0-GPT.unsupported"]
        assert has_volumes(BytesImage(bytes(content)))


def test_a_gpt_is_found_when_the_first_sector_was_wiped(gpt: bytes):
    whole = partitions(BytesImage(gpt))
    assert partitions(BytesImage(bytes(SECTOR) + gpt[SECTOR:])) == whole
    assert partitions(BytesImage(bytes(34 * SECTOR) + gpt[34 * SECTOR :])) == whole


def test_a_hybrid_mbr_counts_as_gpt(gpt: bytes):
    content = bytearray(gpt)
    struct.pack_into("<B3sB3sII", content, 446 + 16, 0, b"", 7, b"", 2048, 2048)
    assert partitions(BytesImage(bytes(content))) == partitions(BytesImage(gpt))


def moved_to_4096(gpt: bytes) -> bytes:
    """The same table on a disk eight times as large, whose sectors are eight times as large."""
    content = bytearray(len(gpt) * 8)
    for sector in range(len(gpt) // SECTOR):
        content[sector * 4096 : sector * 4096 + SECTOR] = gpt[
            sector * SECTOR : (sector + 1) * SECTOR
        ]
    entries = gpt[2 * SECTOR : 34 * SECTOR]
    content[2 * 4096 : 2 * 4096 + len(entries)] = entries
    last = len(gpt) // SECTOR - 33
    content[last * 4096 : last * 4096 + len(entries)] = entries
    content[len(content) - 4096 : len(content) - 4096 + SECTOR] = gpt[-SECTOR:]
    return bytes(content)


def test_a_gpt_of_4096_byte_sectors_at_both_ends(gpt: bytes):
    content = moved_to_4096(gpt)
    expected = [(1, 2048 * 4096, 2048 * 4096), (2, 4096 * 4096, 4096 * 4096)]
    assert places(BytesImage(content)) == expected
    assert sector_bytes(BytesImage(content)) == 4096
    assert places(BytesImage(bytes(2 * 4096) + content[2 * 4096 :])) == expected


def test_an_mbr_counts_in_the_sectors_of_its_disk(tmp_path: Path):
    sector = bytearray(4096)
    struct.pack_into("<B3sB3sII", sector, 446, 0, b"", 7, b"", 256, 512)
    sector[510:512] = b"\x55\xaa"
    layout = vhdx_writer.Layout(9 * MIB, MIB, 4096)
    data_guid = uuid.UUID(int=1)
    vhdx_writer.write_vhdx(tmp_path / "d.vhdx", layout, {0: bytes(sector)}, data_guid=data_guid)
    with opened(tmp_path) as files:
        found = disk_contents(decode(files["d.vhdx"])).partitions
        assert found is not None
        (found,) = found
        assert (found.start, found.length) == (MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("af9b60a0-1431-4f62-bc68-3311714a69ad", "dynamic disk"),
        ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "dynamic disk"),
        ("e75caf8f-f680-4cee-afa3-b001e56efc2d", "Storage Spaces"),
    ],
)
def test_windows_own_volume_managers_are_named_whatever_seems_to_be_inside(
    kind: str, expected: str, tmp_path: Path
):
    need("sgdisk")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    run("sgdisk", "-n", "1:2048:4095", "-t", f"1:{kind}", path)
    with path.open("r+b") as file:
        file.seek(MIB + 3)
        file.write(b"NTFS    ")
    with opened(tmp_path) as files:
        assert expected in reasons(files["disk"])["p1.unsupported"]


def test_a_dynamic_disk_with_an_mbr(tmp_path: Path):
    sfdisk(tmp_path / "disk", "label: dos\n,5M,42\n")
    with opened(tmp_path) as files:
        assert "dynamic disk" in reasons(files["disk"])["p1.unsupported"]


@pytest.mark.parametrize(
    ("place", "magic", "expected"),
    [
        (3, b"-FVE-FS-", "BitLocker, locked"),
        (424, uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le, "BitLocker To Go"),
        (0, b"LUKS\xba\xbe\x00\x01", "LUKS, locked"),
        (0, b"LUKS\xba\xbe\x00\x02", "LUKS, locked"),
        (0, b"SPACEDB ", "Storage Spaces"),
        (3, b"ReFS\0\0\0\0", "ReFS"),
        (4096, bytes.fromhex("fc4e2ba9"), "Linux software RAID"),
    ],
)
def test_what_is_locked_or_unknown_to_us_is_named(place: int, magic: bytes, expected: str):
    content = bytearray(MIB)
    content[place : place + len(magic)] = magic
    shown = reasons(BytesImage(bytes(content)))
    assert expected in shown["p0.unsupported"]


def test_a_real_luks_header(tmp_path: Path):
    need("qemu-img")
    # A hash that takes long: qemu-img gives up where it cannot measure how long one takes.
    run(
        *("qemu-img", "create", "-q", "--object", "secret,id=s,data=x", "-f", "luks"),
        *("-o", "key-secret=s,iter-time=10,hash-alg=sha512", tmp_path / "disk", "1M"),
    )
    with opened(tmp_path) as files:
        assert "LUKS, locked" in reasons(files["disk"])["p0.unsupported"]


def test_a_partition_beyond_its_disk_is_an_error_of_its_own(tmp_path: Path):
    sfdisk(tmp_path / "disk", "label: dos\n,5M,7\n,40M,7\n")
    with opened(tmp_path) as files:
        cut = BytesImage(files["disk"].read(0, 20 * MIB))
        shown = reasons(cut)
        assert "blank" in shown["p1.unsupported"]
        assert "bytes beyond its disk" in shown["p2.unsupported"]
        cut = BytesImage(files["disk"].read(0, 6 * MIB))
        assert "expected it within" in reasons(cut)["p2.unsupported"]
