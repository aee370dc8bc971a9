"""Disks of a guest's guests: partition tables in logical volumes and in partitions."""

import struct
from pathlib import Path

import pytest

from store.image import BytesImage, Image
from tests.guest.disks.lvm_tools import Tools, loop_devices, physical, scatter
from tests.guest.disks.qemu import MIB, need, opened, run
from tests.guest.disks.shown import listed, partitions_of, volume_of
from timefs.guest.detect import decode
from timefs.guest.disktree import group_folder, partitions_folder
from timefs.tree import Folder, Leaf, walk

pytestmark = pytest.mark.system
ENTRY = struct.Struct("<B3sB3sII")


def fat(folder: Path, label: str, size: int = 4 * MIB) -> bytes:
    need("mkfs.fat", "mcopy")
    path = folder / label
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.fat", "-n", label, path)
    (folder / "file").write_text(label)
    run("mcopy", "-i", path, folder / "file", f"::{label}.TXT")
    return path.read_bytes()


def table(*volumes: bytes, kind: int = 0x83) -> bytes:
    """A disk with an MBR and those volumes, one after another from 1 MiB on."""
    disk = bytearray(MIB)
    for number, volume in enumerate(volumes):
        first, count = len(disk) // 512, len(volume) // 512
        ENTRY.pack_into(disk, 446 + 16 * number, 0, b"", kind, b"", first, count)
        disk += volume
    disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def text(folder: Folder, path: str) -> str:
    leaf = walk(folder, path.encode().split(b"/"))
    assert isinstance(leaf, Leaf)
    return leaf.open().read(0, 1000).decode()


def test_a_disk_in_a_partition_is_shown_as_disks_are(tmp_path: Path):
    one, two = fat(tmp_path, "ONE"), fat(tmp_path, "TWO")
    disk = BytesImage(table(table(one), table(one, two), two))
    folder = partitions_folder(disk, b"id", 0)
    assert list(listed(folder)) == ["p1", "p1.d", "p2", "p2.d", "p3-TWO"]
    assert text(folder, "p1/ONE.TXT") == text(folder, "p1.d/p1-ONE/ONE.TXT") == "ONE"
    assert text(folder, "p2/p2-TWO/TWO.TXT") == text(folder, "p2.d/p2/TWO.TXT") == "TWO"
    one_way, other = (walk(folder, path.split(b"/")) for path in (b"p1", b"p1.d/p1-ONE"))
    assert one_way.identity == other.identity


def test_the_only_volume_of_the_only_disk_in_a_disk_is_the_disks(tmp_path: Path):
    assert list(volume_of(BytesImage(table(table(fat(tmp_path, "ONE")))))) == ["ONE.TXT"]


def test_a_third_table_within_two_others_is_named(tmp_path: Path):
    disk = BytesImage(table(table(table(fat(tmp_path, "ONE")))))
    folder = partitions_folder(disk, b"id", 0)
    assert "a partition table within another's partition" in text(folder, "p1.d/p1.unsupported")


def test_a_boot_sector_with_a_copied_table_in_a_partition_hides_no_file_system(tmp_path: Path):
    need("mkfs.ext4")
    path = tmp_path / "ext"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    run("mkfs.ext4", "-q", "-F", "-L", "DATA", path)
    volume = bytearray(path.read_bytes())
    volume[:512] = table(bytes(4 * MIB))[:512]
    assert list(partitions_of(BytesImage(table(bytes(volume))))) == ["p1-DATA"]


def test_a_partition_that_begins_with_its_disk_does_not_lead_into_itself():
    disk = bytearray(table(bytes(MIB)) + bytes(MIB))
    ENTRY.pack_into(disk, 446 + 16, 0, b"", 0x17, b"", 0, len(disk) // 512)
    shown = partitions_of(BytesImage(bytes(disk)))
    assert list(shown) == ["p1.unsupported", "p2.unsupported"]
    assert "nothing known" in shown["p2.unsupported"]


def groups(files: list[Image]) -> Folder:
    return group_folder([decode(file) for file in files], b"id", 0)


def test_logical_volumes_that_are_disks_show_their_partitions(tmp_path: Path):
    need("vgcreate", "losetup")
    (path,) = physical(tmp_path, "host")
    one, two = fat(tmp_path, "ONE"), fat(tmp_path, "TWO")
    with loop_devices(path) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "host", *devices)
        for name, content in (("vm-1", table(one)), ("vm-2", table(one, two))):
            tools.volume("host", name, "-L", f"{len(content)}b")
            scatter(tools.runs(name), content, {devices[0]: path})
    with opened(tmp_path) as files:
        folder = groups([files["host"]])
        names = ["host-vm--1", "host-vm--1.d", "host-vm--2", "host-vm--2.d"]
        assert list(listed(folder)) == names
        assert text(folder, "host-vm--1/ONE.TXT") == "ONE"
        assert text(folder, "host-vm--1.d/p1/ONE.TXT") == "ONE"
        assert text(folder, "host-vm--2/p2/TWO.TXT") == "TWO"
        for name, node in folder.entries():
            assert folder.lookup(name).identity == node.identity


def test_a_group_of_a_guest_on_a_logical_volume_of_its_host_is_shown_too(tmp_path: Path):
    need("vgcreate", "losetup")
    inner, outer = physical(tmp_path, "inner", size=12 * MIB), physical(tmp_path, "outer")
    with loop_devices(*inner) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "guest", *devices)
        tools.volume("guest", "root", "-L", "4M")
        scatter(tools.runs("root"), fat(tmp_path, "ROOT"), {devices[0]: inner[0]})
    content = table(inner[0].read_bytes(), kind=0x8E)
    with loop_devices(*outer) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "host", *devices)
        tools.volume("host", "vm", "-L", f"{len(content)}b")
        scatter(tools.runs("vm"), content, {devices[0]: outer[0]})
    with opened(tmp_path) as files:
        folder = groups([files["outer"]])
        assert list(listed(folder)) == ["host-vm", "host-vm.d", "guest-root"]
        assert text(folder, "guest-root/ROOT.TXT") == "ROOT"
        assert "group guest, whose volumes are in @volumes" in text(
            folder, "host-vm.d/p1.unsupported"
        )
