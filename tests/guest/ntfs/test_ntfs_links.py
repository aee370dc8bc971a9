"""Links lead to where Windows means, and never out of their volume; what they cannot say is EIO."""

import os
import posixpath
import struct
from collections.abc import Generator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import DescriptorImage
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.volume import Recipe, format_volume, junction, mounted, symlink
from timefs.guest.ntfs import NtfsVolume, open_volume
from timefs.guest.ntfs.folder import NtfsLink
from timefs.guest.ntfs.reparse import LINK_TAGS, Reparse, parse_target
from timefs.tree import Folder, Leaf, Link, Node, walk

pytestmark = [pytest.mark.system, pytest.mark.root]


def lx(target: bytes) -> bytes:
    data = (2).to_bytes(4, "little") + target
    return struct.pack("<IHH", 0xA000001D, len(data), 0) + data


def names_at(place: int, length: int) -> bytes:
    """A symbolic link whose name is said to be elsewhere."""
    return struct.pack("<IHHHHHHI", 0xA000000C, 12, 0, place, length, 0, 0, 1)


GOOD = {
    "relative": (symlink("deep\\er\\file", relative=True), b"deep/er/file"),
    "dots": (symlink(".\\deep\\.\\er\\..\\er\\\\file", relative=True), b"deep/er/file"),
    "rooted": (symlink("\\Deep\\ER\\File", relative=True), b"deep/er/file"),
    "absolute": (symlink("C:\\DEEP\\er", relative=False), b"deep/er"),
    "by alias": (symlink("C:\\LONGN~1\\x", relative=False), b"long name of a folder/x"),
    "dangling": (symlink("nothing\\there", relative=True), b"nothing/there"),
    "slash": (symlink("a/../../../etc/shadow", relative=True),
              "a\uf02f..\uf02f..\uf02f..\uf02fetc\uf02fshadow".encode()),
    "deep/in": (symlink("..\\outer", relative=True), b"../outer"),
    "deep/er/in": (symlink("\\deep\\er\\file", relative=True), b"file"),
    "deep/er/up": (symlink("\\outer", relative=True), b"../../outer"),
    "self": (symlink(".", relative=True), b"."),
    "wsl": (lx(b"deep/er/file"), b"deep/er/file"),
    "deep/wsl": (lx(b"../outer"), b"../outer"),
}  # fmt: skip
BAD = {
    "other drive": symlink("D:\\not here\\file", relative=False),
    "whole drive": symlink("C:\\", relative=False),
    "share": symlink("UNC\\server\\share\\x", relative=False),
    "volume": symlink("Volume{01234567-89ab-cdef-0123-456789abcdef}\\deep", relative=False),
    "above": symlink("..\\..\\..\\..\\etc\\shadow", relative=True),
    "deep/above": symlink("..\\..\\etc\\shadow", relative=True),
    "rooted above": symlink("\\..\\etc\\shadow", relative=True),
    "wsl absolute": lx(b"/etc/shadow"),
    "wsl winding": lx(b"deep/../../etc/shadow"),
    "wsl above": lx(b"../etc/shadow"),
}
FOLDERS = {
    "junction": (junction("C:\\deep\\er"), b"deep/er"),
    "deep/loop": (junction("C:\\deep"), b"."),
    "deep/er/root loop": (junction("C:\\DEEP\\loop"), b"../loop"),
    "mount point": (junction("Volume{01234567-89ab-cdef-0123-456789abcdef}\\"), None),
}
PLAIN = {
    "dedup": (0x80000013, "deduplicated"),
    "cloud": (0x9000601A, "cloud"),
    "cloud too": (0x9000F01A, "cloud"),
    "unknown": (0x8000ABCD, "not known"),
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Generator[NtfsVolume]:
    need_ntfs_3g()
    image = tmp_path_factory.mktemp("links") / "volume"
    format_volume(image, Recipe(size=16 << 20))
    with mounted(image, "rw") as root:
        (root / "deep" / "er").mkdir(parents=True)
        (root / "deep" / "er" / "file").write_bytes(b"reached")
        (root / "outer").write_bytes(b"outer")
        (root / "long name of a folder").mkdir()
        (root / "long name of a folder" / "x").write_bytes(b"x")
        os.setxattr(root / "long name of a folder", "system.ntfs_dos_name", b"LONGN~1")
        for name, value in {**{k: v for k, (v, _) in GOOD.items()}, **BAD}.items():
            (root / name).touch()
            os.setxattr(root / name, "system.ntfs_reparse_data", value)
        for name, (value, _) in FOLDERS.items():
            (root / name).mkdir()
            os.setxattr(root / name, "system.ntfs_reparse_data", value)
        for name, (tag, _) in PLAIN.items():
            (root / name).write_bytes(bytes(5000))
            os.setxattr(root / name, "system.ntfs_reparse_data", struct.pack("<IHH", tag, 0, 0))
        (root / "long").touch()
        value = symlink("\\".join(["\u65e5" * 100] * 14), relative=True)
        os.setxattr(root / "long", "system.ntfs_reparse_data", value)
        (root / "full of files").mkdir()
        (root / "full of files" / "one").write_bytes(b"1")
        value = struct.pack("<IHH", 0x9000601A, 0, 0)
        os.setxattr(root / "full of files", "system.ntfs_reparse_data", value)
        os.setxattr(root / "outer", "user.stream", b"in a stream")
        os.setxattr(root / "deep", "user.of a folder", b"folders too")
        (root / "a:b").write_bytes(b"a file")
    descriptor = os.open(image, os.O_RDONLY)
    try:
        yield open_volume(DescriptorImage(descriptor), b"volume")
    finally:
        os.close(descriptor)


def at(volume: NtfsVolume, path: str) -> Node:
    return walk(volume.root, path.encode().split(b"/"))


@pytest.mark.parametrize("name", [*GOOD, *FOLDERS])
def test_a_link_says_where_it_leads(volume: NtfsVolume, name: str):
    link = at(volume, name)
    assert isinstance(link, Link)
    expected = (GOOD | FOLDERS)[name][1]
    if expected is None:
        with pytest.raises(UnsupportedError, match="whole volume or to elsewhere"):
            link.target()
        return
    assert link.target() == expected
    attributes = link.attributes()
    assert (attributes.mode, attributes.size) == (0o120777, len(expected))


@pytest.mark.parametrize("name", BAD)
def test_a_link_that_leads_elsewhere_is_an_error_with_its_reason(volume: NtfsVolume, name: str):
    link = at(volume, name)
    assert isinstance(link, Link)
    with pytest.raises(UnsupportedError, match=r"NTFS record \d+: a link"):
        link.target()
    assert link.attributes().size == 0


def test_a_link_longer_than_a_path_may_be_is_an_error(volume: NtfsVolume):
    reference = int.from_bytes(volume.root.lookup(b"long").identity[-8:], "big")
    link = NtfsLink(volume.root.parts, reference, volume.root, of_folder=False)
    with pytest.raises(UnsupportedError, match="a path of 4213 bytes"):
        link.target()


@pytest.mark.parametrize("name", PLAIN)
def test_other_reparse_points_are_plain_files_that_cannot_be_read(volume: NtfsVolume, name: str):
    node = at(volume, name)
    tag, reason = PLAIN[name]
    assert isinstance(node, Leaf)
    assert node.attributes().size == 5000
    assert node.xattrs()[b"system.ntfs_reparse_data"] == struct.pack("<IHH", tag, 0, 0)
    with pytest.raises(UnsupportedError, match=f"{reason}.*{tag:#x}"):
        node.open()


def test_the_files_in_a_cloud_folder_are_served(volume: NtfsVolume):
    node = at(volume, "full of files/one")
    assert isinstance(node, Leaf)
    assert node.open().read(0, 9) == b"1"


def test_streams_are_files_beside_their_own(volume: NtfsVolume):
    for path, expected in {
        "outer:stream": b"in a stream",
        "deep:of a folder": b"folders too",
        "a:b": b"a file",
    }.items():
        node = at(volume, path)
        assert isinstance(node, Leaf)
        assert node.open().read(0, 100) == expected
        assert (node.attributes().size, node.attributes().links) == (len(expected), 1)
    for name in (b"outer:", b"outer:none", b"none:stream", b":stream", b"a:c", b"$MFT:x"):
        with pytest.raises(NotFoundError):
            volume.root.lookup(name)
    names = [name for name, _ in volume.root.entries()]
    assert [name for name in names if b":" in name] == [b"a:b"]
    assert volume.root.lookup(b"outer:stream").identity != volume.root.lookup(b"outer").identity


def test_names_are_found_in_any_case_by_the_volumes_own_table(volume: NtfsVolume):
    for path in ("DEEP/Er/FILE", "deep/er/file", "Long NAME of a folder/X", "longn~1/x"):
        found = volume.find(path.encode().split(b"/"))
        assert isinstance(found, Leaf), path
        assert found.open().size > 0
    assert volume.find([b"deep", b"none"]) is None
    assert volume.find([b"outer", b"none"]) is None


text = st.text(st.sampled_from("ab.\\/\0:?C\ud800"), max_size=24)


@given(st.sampled_from(sorted(LINK_TAGS)), text, st.booleans(), st.binary(max_size=12))
def test_whatever_a_link_holds_its_names_are_names(
    tag: int, target: str, relative: bool, noise: bytes
):
    units = target.encode("utf-16-le", "surrogatepass")
    names = struct.pack("<HHHH", 0, len(units), 0, 0) + struct.pack("<I", relative)
    for data in (
        names + units,
        names[:8] + units,
        lx(target.encode("utf-8", "replace"))[8:],
        noise,
    ):
        with suppress(CorruptError, UnsupportedError):
            parsed = parse_target(Reparse(tag, data, data), "test")
            for name in parsed.names:
                assert name not in (b"", b".")
                assert not {0, 47} & {*name}


@pytest.mark.parametrize("value", [names_at(0, 500), names_at(60_000, 4), names_at(1, 3)])
def test_a_link_with_its_name_out_of_bounds_is_corrupt(value: bytes):
    with pytest.raises(CorruptError, match="expected a target"):
        parse_target(Reparse(0xA000000C, value[8:], value), "test")


def test_no_link_of_the_volume_climbs_out_of_it(volume: NtfsVolume):
    seen = 0
    folders: list[tuple[str, Folder]] = [("", volume.root)]
    while folders:
        path, folder = folders.pop()
        for name, node in folder.entries():
            if isinstance(node, Folder):
                folders.append((posixpath.join(path, os.fsdecode(name)), node))
            if isinstance(node, Link):
                with suppress(UnsupportedError):
                    target = posixpath.join(path, os.fsdecode(node.target()))
                    assert not posixpath.normpath(target).startswith(("..", "/"))
                    seen += 1
    assert seen == len(GOOD) + len(FOLDERS) - 1
