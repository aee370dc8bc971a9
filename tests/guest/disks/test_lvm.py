"""LVM2 groups made by LVM2's own tools, read as those say and as libvslvm reads them."""

import gzip
import random
import re
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import pytest

from store.errors import CorruptError
from store.image import BytesImage, Image
from tests.guest.disks.lvm_tools import Tools, loop_devices, physical, scatter
from tests.guest.disks.qemu import MIB, agree, need, opened, run
from tests.timetree.memory_history import MemoryHistory
from timefs.guest.detect import decode
from timefs.guest.disktree import group_folder, has_physical_volumes, partitions_folder
from timefs.guest.lvm import LogicalVolume, logical_volumes, read_physical_volume
from timefs.guest.lvm.label import lvm_checksum
from timefs.guest.lvm.text import parse
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree
from timefs.tree import Leaf

TEN = 1_714_557_600 * SECOND_NS


class Group(NamedTuple):
    folder: Path
    names: list[str]
    contents: dict[str, bytes]
    """Of each logical volume."""


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """my-vg on two disks: a linear volume across both, one of two stripes, one with ext4."""
    need("losetup", "vgcreate", "mkfs.ext4")
    folder = tmp_path_factory.mktemp("lvm")
    paths = physical(folder, "one", "two")
    contents: dict[str, bytes] = {}
    with loop_devices(*paths) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "my-vg", *devices)
        tools.volume("my-vg", "striped", "-L", "10M", "-i", "2", "-I", "64k")
        tools.volume("my-vg", "root-fs", "-L", "8M")
        tools("lvextend", "-L", "12M", "my-vg/striped")
        tools.volume("my-vg", "linear", "-L", "30M")
        for name in ("striped", "linear", "root-fs"):
            runs = tools.runs(name)
            size = sum(each.length for each in runs)
            contents[name] = random.Random(name).randbytes(size)
            if name == "root-fs":
                contents[name] = ext4(folder, size)
            scatter(runs, contents[name], dict(zip(devices, paths, strict=True)))
    return Group(folder, ["one", "two"], contents)


def ext4(folder: Path, size: int) -> bytes:
    source, image = folder / "source", folder / "ext4"
    source.mkdir()
    (source / "hello.txt").write_text("hello from a volume")
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-L", "root", "-d", source, image)
    content = image.read_bytes()
    image.unlink()
    return content


pytestmark = [pytest.mark.system, pytest.mark.root]


def volumes(*images: Image) -> dict[str, LogicalVolume]:
    return {
        volume.name: volume
        for volume in logical_volumes([read_physical_volume(image) for image in images])
    }


def test_volumes_are_where_the_tools_put_them(group: Group):
    with opened(group.folder) as files:
        found = volumes(*(files[name] for name in group.names))
        assert set(found) == set(group.contents)
        for name, content in group.contents.items():
            image = found[name].image
            assert image is not None, found[name].problem
            agree(image, content, random.Random(name))


def test_linear_volumes_read_as_libvslvm_reads_them(tmp_path: Path):
    """It reads no stripes, no groups of two disks and no volumes of two segments."""
    pyvslvm = pytest.importorskip("pyvslvm")
    need("losetup", "vgcreate")
    paths = physical(tmp_path, "one")
    with loop_devices(*paths) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "vg0", *devices)
        tools.volume("vg0", "first", "-L", "10M")
        tools.volume("vg0", "second", "-L", "12M")
    for path in paths:
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(random.Random(path.name).randbytes(31 * MIB))
    handle = pyvslvm.handle()
    handle.open(str(paths[0]))
    handle.open_physical_volume_files([str(path) for path in paths])
    with opened(tmp_path) as files:
        found = volumes(files["one"])
        assert set(found) == {"first", "second"}
        for theirs in handle.get_volume_group().logical_volumes:
            image = found[theirs.name].image
            assert image is not None
            assert image.size == theirs.size
            for at in range(0, theirs.size, MIB):
                assert image.read(at, MIB) == theirs.read_buffer_at_offset(MIB, at)


def test_the_volumes_are_folders_of_the_instant(group: Group, tmp_path: Path):
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")
    with opened(group.folder) as files:
        history = MemoryHistory(TEN + SECOND_NS)
        history.seal("vm1", TEN, {name: files[name] for name in group.names})
        with mounted(TimeTree(history).root, tmp_path):
            shown = tmp_path / "vm1" / "latest" / "@volumes"
            assert sorted(path.name for path in shown.iterdir()) == [
                "my--vg-linear.unsupported", "my--vg-root--fs", "my--vg-striped.unsupported"
            ]  # fmt: skip
            assert (shown / "my--vg-root--fs" / "hello.txt").read_text() == "hello from a volume"
            part = tmp_path / "vm1" / "latest" / "one.d" / "p0.unsupported"
            assert "a part of group my-vg, whose volumes are in @volumes" in part.read_text()


def test_a_missing_disk_is_named_and_what_lies_elsewhere_is_read(group: Group):
    with opened(group.folder) as files:
        found = volumes(files["one"])
        assert found["striped"].image is None
        assert "expected the disk of pv1" in found["striped"].problem
        tree = group_folder([files["one"]], b"id", 0)
        leaf = tree.lookup(b"my--vg-striped.unsupported")
        assert isinstance(leaf, Leaf)
        assert b"capture it too" in leaf.open().read(0, 1000)


def test_the_same_disk_twice_is_not_chosen_from(group: Group):
    with opened(group.folder) as files:
        found = volumes(files["one"], files["two"], files["two"])
        assert "on 2 disks at once" in found["striped"].problem


def test_groups_of_one_name_stand_side_by_side(tmp_path: Path):
    need("losetup", "vgcreate")
    paths = physical(tmp_path, "a", "b")
    for path in paths:
        with loop_devices(path) as devices:
            tools = Tools(devices)
            tools("vgcreate", "-s", "1M", "vg0", *devices)
            tools.volume("vg0", "data", "-L", "2M")
    with opened(tmp_path) as files:
        images = [files["a"], files["b"]]
        assert all(has_physical_volumes(image) for image in images)
        names = [entry.name.decode() for entry in group_folder(images, b"id", 0).entries()]
        assert len(set(names)) == 2
        for name in names:
            assert name.startswith("vg0~")
            assert name.endswith("-data.unsupported")


def test_a_physical_volume_in_a_partition(tmp_path: Path):
    need("losetup", "vgcreate", "sgdisk")
    (path,) = physical(tmp_path, "inner", size=16 * MIB)
    with loop_devices(path) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "vg0", *devices)
        tools.volume("vg0", "data", "-L", "2M")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(20 * MIB)
    run("sgdisk", "-n", "1:2048:34815", "-t", "1:8e00", disk)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(path.read_bytes())
    with opened(tmp_path) as files:
        assert has_physical_volumes(files["disk"])
        names = [entry.name for entry in group_folder([files["disk"]], b"id", 0).entries()]
        assert names == [b"vg0-data.unsupported"]
        (entry,) = partitions_folder(files["disk"], b"id", 0).entries()
        assert entry.name == b"p1.unsupported"


class Editor:
    """Rewrites the metadata text of a physical volume, with its checksums."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    def edit(self, old: str, new: str) -> "Editor":
        """Replace what a pattern finds."""
        area = 4096
        at, length = struct.unpack_from("<QQ", self.content, area + 40)
        text = bytes(self.content[area + at : area + at + length]).decode()
        text, count = re.subn(old, new, text)
        assert count
        made = text.encode()
        self.content[area + at : area + at + len(made)] = made
        struct.pack_into("<QQI", self.content, area + 40, at, len(made), lvm_checksum(made))
        header = bytes(self.content[area + 4 : area + 512])
        struct.pack_into("<I", self.content, area, lvm_checksum(header))
        return self


@pytest.fixture
def one(tmp_path: Path) -> bytes:
    """A group of one disk with the volumes a and b, extents full of their own numbers."""
    need("losetup", "vgcreate")
    (path,) = physical(tmp_path, "one", size=8 * MIB)
    with loop_devices(path) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "1M", "vg0", *devices)
        tools.volume("vg0", "a", "-L", "2M")
        tools.volume("vg0", "b", "-L", "1M")
    content = bytearray(path.read_bytes())
    for extent in range(6):
        content[(1 + extent) * MIB : (2 + extent) * MIB] = bytes([extent + 1]) * MIB
    return bytes(content)


SEGMENT = r'type = "striped"\s+stripe_count = 1[^\n]*\s+stripes = \[\s+"pv0", 2\s+\]'


def test_a_mirror_is_read_by_its_first_leg(one: bytes):
    edited = Editor(one).edit(
        SEGMENT,
        'type = "mirror"\nmirror_count = 2\nregion_size = 1024\nmirrors = [\n"a", 1,\n"pv0", 2\n]',
    )
    found = volumes(BytesImage(bytes(edited.content)))
    assert found["b"].image is not None, found["b"].problem
    assert found["b"].image.read(0, MIB) == bytes([2]) * MIB


@pytest.mark.parametrize("kind", ["thin", "thin-pool", "raid1", "cache", "raid5_ls", "snapshot"])
def test_kinds_that_are_not_read_are_named(one: bytes, kind: str):
    edited = Editor(one).edit(SEGMENT, f'type = "{kind}"\ncow_store = "a"\n')
    found = volumes(BytesImage(bytes(edited.content)))
    assert kind in found["b"].problem
    assert (found["a"].image is None) == (kind == "snapshot")


def test_a_volume_within_itself_is_an_error(one: bytes):
    edited = Editor(one).edit('"pv0", 2', '"b", 0')
    assert "more parts" in volumes(BytesImage(bytes(edited.content)))["b"].problem


def test_a_volume_beyond_its_disk_is_an_error(one: bytes):
    edited = Editor(one).edit('"pv0", 2', '"pv0", 7')
    assert "expected" in volumes(BytesImage(bytes(edited.content)))["b"].problem


def test_damage_to_label_header_or_text_is_found(one: bytes):
    for place in (512 + 40, 4096 + 30, 4096 + 512 + 600):
        content = bytearray(one)
        content[place] ^= 1
        text_at = struct.unpack_from("<Q", one, 4096 + 40)[0]
        if place > 4096 + 512:
            content[place] ^= 1
            content[4096 + text_at + 50] ^= 1
        with pytest.raises(CorruptError, match=r"checksum differs|damaged"):
            read_physical_volume(BytesImage(bytes(content)))


def test_metadata_that_runs_round_the_end_of_its_area(one: bytes):
    """The area is a ring: move the text so that it begins near the end."""
    content = bytearray(one)
    at, length = struct.unpack_from("<QQ", content, 4096 + 40)
    area_bytes = struct.unpack_from("<Q", content, 4096 + 32)[0]
    text = content[4096 + at : 4096 + at + length]
    start = area_bytes - 700
    content[4096 + start : 4096 + area_bytes] = text[:700]
    content[4096 + 512 : 4096 + 512 + length - 700] = text[700:]
    struct.pack_into("<Q", content, 4096 + 40, start)
    struct.pack_into("<I", content, 4096, lvm_checksum(bytes(content[4100:4608])))
    assert set(volumes(BytesImage(bytes(content)))) == {"a", "b"}


def test_the_newest_metadata_counts(one: bytes):
    newer = Editor(one).edit("seqno = 3", "seqno = 4").edit(r"\ba {", "c {")
    image = BytesImage(bytes(newer.content))
    assert set(volumes(BytesImage(one), image)) == {"b", "c"}
    assert set(volumes(image, BytesImage(one))) == {"b", "c"}


def test_metadata_text():
    text = r"""# a comment { "
    vg { a = 1 b = "x \" # y" c = [ "p", 2, ] d { e = -5 } f = 0x }
    """
    assert parse(text) == {"vg": {"a": 1, "b": 'x " # y', "c": ["p", 2], "d": {"e": -5}, "f": "0x"}}
    for wrong in ("vg {", "vg }", "= 1", "vg { a 1 }", "vg { a = }", 'a = "x', "a = [1", "{" * 99):
        with pytest.raises(CorruptError):
            parse(wrong)


def test_a_real_group(images_dir: Path, tmp_path: Path):
    with gzip.open(images_dir / "lvm2.vhdx.gz") as packed, (tmp_path / "d.vhdx").open("wb") as file:
        shutil.copyfileobj(packed, file, 4 * MIB)
    with opened(tmp_path) as files:
        disk = decode(files["d.vhdx"])
        assert has_physical_volumes(disk)
        shown = {
            entry.name.partition(b".")[0] for entry in group_folder([disk], b"id", 0).entries()
        }
        assert shown == {b"test-fat", b"test-ntfs", b"test-vol01"}
