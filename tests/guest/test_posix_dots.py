"""What is wrong with a folder's `.` and `..` costs no file; a folder within itself ends walks."""

import os
import re
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage
from tests.guest.ext.volume import make
from tests.guest.kernel import kernel_mount, need, run, tree_walk
from timefs.guest import ext, xfs
from timefs.tree import Folder, Leaf, Link, descend, walk

pytestmark = [pytest.mark.system, pytest.mark.root]

OPTIONS = "-t ext4 -b 1024 -O ^metadata_csum,^dir_index"


def ext_volume(volume: Path, point: Path) -> bytearray:
    """`folder` with a file, `other` with another, without checksums."""
    need("mke2fs", "debugfs", file_system="ext4")
    make(volume, OPTIONS, size=4 << 20)
    with kernel_mount(volume, point):
        for name in ("folder", "other"):
            (point / name).mkdir()
            (point / name / "file").write_bytes(b"content of " + name.encode())
    return bytearray(volume.read_bytes())


def number(volume: Path, path: str) -> int:
    said = run("debugfs", "-R", f"stat {path}", volume).decode()
    found = re.search(r"Inode: (\d+)", said)
    assert found is not None
    return int(found[1])


def block(volume: Path, path: str) -> int:
    return int(run("debugfs", "-R", f"blocks {path}", volume).split()[-1])


def ext_root(content: bytearray) -> Folder:
    return ext.open_volume(BytesImage(bytes(content)), b"id").root


@pytest.mark.parametrize(
    ("at", "damage"),
    [(0, b"\xff\xff\0\0"), (8, b"x"), (12, b"\x0b\0\0\0"), (20, b"xy"), (12, bytes(4))],
    ids=["dot-number", "dot-name", "parent-number", "parent-name", "parent-unused"],
)
def test_damaged_dots_of_ext_cost_no_file(at: int, damage: bytes, tmp_path: Path):
    volume = tmp_path / "volume"
    content = ext_volume(volume, tmp_path / "point")
    place = block(volume, "/folder") * 1024 + at
    content[place : place + len(damage)] = damage
    root = ext_root(content)
    folder = walk(root, [b"folder"])
    assert isinstance(folder, Folder)
    assert b"file" in {name for name, _ in folder.entries()}
    file = folder.lookup(b"file")
    assert isinstance(file, Leaf)
    assert file.open().read(0, 100) == b"content of folder"
    walked = [path for path, _ in descend(root)]
    assert b"folder/file" in walked
    assert b"other/file" in walked


def test_a_wrong_parent_of_xfs_costs_no_file(tmp_path: Path):
    need("mkfs.xfs", "xfs_db", file_system="xfs")
    volume, point = tmp_path / "volume", tmp_path / "point"
    with volume.open("wb") as file:
        file.truncate(320 << 20)
    run("mkfs.xfs", "-q", volume)
    with kernel_mount(volume, point):
        (point / "folder").mkdir()
        (point / "folder" / "file").write_bytes(b"content")
        inode = (point / "folder").stat().st_ino
    change = f"write u3.sfdir3.hdr.parent.i4 {inode + 1}"
    run("xfs_db", "-x", "-c", f"inode {inode}", "-c", change, volume)
    root = xfs.open_volume(BytesImage(volume.read_bytes()), b"id").root
    leaf = walk(root, [b"folder", b"file"])
    assert isinstance(leaf, Leaf)
    assert leaf.open().read(0, 100) == b"content"


def test_a_folder_within_itself_is_refused_where_it_comes_again(tmp_path: Path):
    volume = tmp_path / "volume"
    content = ext_volume(volume, tmp_path / "point")
    inner, outer = number(volume, "/folder/file"), number(volume, "/folder")
    place = content.index(inner.to_bytes(4, "little"), block(volume, "/folder") * 1024)
    content[place : place + 8] = outer.to_bytes(4, "little") + content[place + 4 : place + 8]
    content[place + 7] = 2  # a folder, it says
    root = ext_root(content)
    folder = walk(root, [b"folder"])
    assert isinstance(folder, Folder)
    again = folder.lookup(b"file")
    assert isinstance(again, Folder)
    with pytest.raises(CorruptError, match="within itself"):
        again.lookup(b"file")
    with pytest.raises(CorruptError, match="within itself"):
        list(again.entries())
    assert b"other/file" in dict(tree_walk(root))


def test_a_folder_in_two_places_shows_its_files_in_both_and_is_walked_once(tmp_path: Path):
    volume = tmp_path / "volume"
    content = ext_volume(volume, tmp_path / "point")
    inner, outer = number(volume, "/other/file"), number(volume, "/folder")
    place = content.index(inner.to_bytes(4, "little"), block(volume, "/other") * 1024)
    content[place : place + 4] = outer.to_bytes(4, "little")
    content[place + 7] = 2
    root = ext_root(content)
    for path in ([b"folder"], [b"other", b"file"]):
        file = walk(root, [*path, b"file"])
        assert isinstance(file, Leaf)
        assert file.open().read(0, 100) == b"content of folder"
    walked = [path for path, _ in descend(root)]
    assert walked.count(b"folder/file") + walked.count(b"other/file/file") == 1


def test_links_that_climb_on_their_way_lead_where_the_guest_goes(tmp_path: Path):
    need("mke2fs", file_system="ext4")
    volume, point = tmp_path / "volume", tmp_path / "point"
    make(volume, "-t ext4 -b 4096", size=16 << 20)
    texts = {
        "climbs": "inner/../file",
        "through-a-link": "far/../beside",
        "absolute": "/deep/../top",
        "above-the-root": "/../../../top",
        "absolute-through-a-link": "/to-deep/../in-deep",
        "to-nothing": "/deep/../missing",
        "long": "/" + "x" * 200 + "/" + "y/" * 1800,
    }
    with kernel_mount(volume, point):
        (point / "deep" / "deeper" / "inner").mkdir(parents=True)
        (point / "deep" / "elsewhere").mkdir()
        for path in ("top", "deep/in-deep", "deep/beside", "deep/deeper/file"):
            (point / path).write_bytes(path.encode())
        (point / "to-deep").symlink_to("/deep/deeper")
        (point / "deep" / "deeper" / "far").symlink_to("../elsewhere")
        for name, text in texts.items():
            (point / "deep" / "deeper" / name).symlink_to(text)
        (point / "deep" / "deeper" / "from-nothing").symlink_to("missing/../file")
    root = ext.open_volume(BytesImage(volume.read_bytes()), b"id").root
    shown = {
        "climbs": b"file",
        "through-a-link": b"../beside",
        "absolute": b"../../top",
        "above-the-root": b"../../top",
        "absolute-through-a-link": b"../../deep/in-deep",
        "to-nothing": b"../../missing",
        "long": b"../../" + texts["long"].strip("/").encode(),
    }
    folder = walk(root, [b"deep", b"deeper"])
    assert isinstance(folder, Folder)
    for name, target in shown.items():
        link = folder.lookup(name.encode())
        assert isinstance(link, Link)
        assert os.path.normpath(link.target()) == os.fsencode(target)
        assert link.attributes().size == len(link.target())
    link = folder.lookup(b"from-nothing")
    assert isinstance(link, Link)
    assert link.attributes().size == len("missing/../file")
    with pytest.raises(UnsupportedError, match="climbs from b'missing'"):
        link.target()
