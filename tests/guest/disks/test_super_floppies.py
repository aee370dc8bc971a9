"""Boot sectors that end like an MBR, and MBRs with the rest of a boot sector before them."""

import struct
from pathlib import Path

import pytest

from store.image import BytesImage
from tests.guest.disks.qemu import MIB, need, run
from tests.guest.disks.shown import partitions_of, volume_of

pytestmark = pytest.mark.system
DISK_BYTES = 48 * MIB
ENTRY = struct.Struct("<B3sB3sII")


def formatted(folder: Path, size: int, *command: str) -> bytearray:
    need(command[0])
    path = folder / command[0]
    with path.open("wb") as file:
        file.truncate(size)
    run(*command, path)
    return bytearray(path.read_bytes())


MKFS = {
    "FAT16": ("mkfs.fat", "-F", "16", "-s", "4", "-n", "OLD"),
    "FAT32": ("mkfs.fat", "-F", "32", "-s", "1", "-n", "OLD"),
    "NTFS": ("mkntfs", "-q", "-F", "-Q", "-p", "0", "-L", "OLD"),
    "exFAT": ("mkfs.exfat", "-L", "OLD"),
}


def put_table(disk: bytearray, *entries: tuple[int, int, int, int]) -> None:
    """(flags, type, first sector, sectors)."""
    for number, (flags, kind, first, count) in enumerate(entries):
        ENTRY.pack_into(disk, 446 + 16 * number, flags, b"", kind, b"", first, count)
    disk[510:512] = b"\x55\xaa"


@pytest.mark.parametrize("kind", MKFS)
def test_a_volume_without_a_table_is_shown_though_its_boot_sector_ends_like_one(
    kind: str, tmp_path: Path
):
    disk = formatted(tmp_path, DISK_BYTES, *MKFS[kind])
    put_table(disk, (0x80, 0x0C, 2048, 40000), (0, 0x83, 50000, 20000))
    shown = partitions_of(BytesImage(bytes(disk)))
    assert list(shown) == ["p0-OLD", "p0-MBR of 2 partitions.unsupported"]


@pytest.mark.parametrize("kind", MKFS)
def test_a_table_that_leads_to_a_volume_is_shown_though_an_old_boot_sector_precedes_it(
    kind: str, tmp_path: Path
):
    disk = formatted(tmp_path, DISK_BYTES, *MKFS[kind])
    need("mkfs.ext4")
    volume = formatted(tmp_path, 8 * MIB, "mkfs.ext4", "-q", "-F", "-L", "NEW")
    put_table(disk, (0, 0x83, 40960, 16384))
    disk[40960 * 512 : 40960 * 512 + len(volume)] = volume
    shown = partitions_of(BytesImage(bytes(disk)))
    assert list(shown) == ["p1-NEW", f"p0-{kind.rstrip('0123456789')}.unsupported"]
    assert list(volume_of(BytesImage(bytes(disk)))) == ["lost+found"]


@pytest.mark.parametrize("kind", ["FAT16", "NTFS"])
def test_an_old_boot_sector_whose_volume_does_not_open_gives_way_to_a_table(
    kind: str, tmp_path: Path
):
    disk = formatted(tmp_path, DISK_BYTES, *MKFS[kind])
    disk[512:] = bytes(len(disk) - 512)
    disk[13] = 3  # sectors a cluster
    put_table(disk, (0, 0x83, 2048, 16384))
    shown = partitions_of(BytesImage(bytes(disk)))
    assert "p1.unsupported" in shown
    assert not any(key.startswith("p0-OLD") for key in shown)


@pytest.mark.parametrize("magic", [b"NTFS    ", b"EXFAT   "])
def test_a_magic_alone_in_the_first_sector_hides_no_file_system(magic: bytes, tmp_path: Path):
    disk = formatted(tmp_path, DISK_BYTES, "mkfs.ext4", "-q", "-F", "-L", "NEW")
    disk[3:11], disk[510:512] = magic, b"\x55\xaa"
    assert list(partitions_of(BytesImage(bytes(disk)))) == ["p0-NEW"]


def test_the_table_that_mkfs_fakes_over_the_whole_disk_is_none(tmp_path: Path):
    disk = formatted(tmp_path, DISK_BYTES, "mkfs.fat", "-F", "32", "--mbr=y", "-n", "OLD")
    assert disk[446 + 4]
    assert list(partitions_of(BytesImage(bytes(disk)))) == ["p0-OLD"]


@pytest.mark.parametrize("flag", [0x01, 0x7F, 0xAA])
def test_flags_that_no_table_has_are_code_unless_an_entry_leads_to_a_volume(
    flag: int, tmp_path: Path
):
    disk = bytearray(DISK_BYTES)
    put_table(disk, (0, 0x83, 2048, 16384), (flag, 0x83, 20480, 16384))
    assert list(partitions_of(BytesImage(bytes(disk)))) == ["p0.unsupported"]
    volume = formatted(tmp_path, 8 * MIB, "mkfs.ext4", "-q", "-F", "-L", "NEW")
    disk[MIB : MIB + len(volume)] = volume
    assert list(partitions_of(BytesImage(bytes(disk)))) == ["p1-NEW", "p2.unsupported"]


def test_a_copy_of_a_disk_with_larger_sectors_counts_in_those_if_they_lead_to_a_volume(
    tmp_path: Path,
):
    disk = bytearray(DISK_BYTES)
    put_table(disk, (0, 0x83, 256, 2048))
    volume = formatted(tmp_path, 8 * MIB, "mkfs.ext4", "-q", "-F", "-L", "NEW")
    disk[MIB : MIB + len(volume)] = volume
    assert list(partitions_of(BytesImage(bytes(disk)))) == ["p1-NEW"]
