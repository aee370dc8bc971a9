"""NTFS on a partition of a VHDX through a real mount: holes, links, attributes, cost of a read."""

import errno
import os
import random
import struct
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

from store.image import DescriptorImage
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.volume import (
    Recipe,
    compressing,
    descriptor,
    format_volume,
    junction,
    mounted,
    symlink,
    words,
)
from tests.timetree.memory_history import MemoryHistory
from timefs.guest.ntfs.folder import NtfsFolder
from timefs.mount import mounting
from timefs.mount.core import FileSystem
from timefs.mount.fuse.operations import Operations
from timefs.mount.fuse.protocol import ARGUMENTS, READ_IN, Opcode
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree
from timefs.tree import Folder, Leaf, walk

TEN = 1_714_557_600 * SECOND_NS
START = 1 << 20
CALLS_MAX = 7
pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dynamic VHDX with one MBR partition, an NTFS volume."""
    need_ntfs_3g()
    folder = tmp_path_factory.mktemp("disk")
    volume, raw, vhdx = folder / "volume", folder / "raw", folder / "disk.vhdx"
    format_volume(volume, Recipe(size=32 << 20))
    chance = random.Random(1)
    with mounted(volume, "rw,compression") as root:
        with (root / "sparse").open("wb") as file:
            for place in (0, 3 << 20, (3 << 20) + 8192, 9 << 20):
                file.seek(place)
                file.write(chance.randbytes(4096))
            file.truncate(12 << 20)
        compressing(root / "packed")
        text = words(chance, 100_000)
        content = text + bytes(1 << 20) + chance.randbytes(200_000) + text
        (root / "packed" / "file").write_bytes(content)
        os.setxattr(root / "packed" / "file", "system.ntfs_acl", descriptor(9))
        os.setxattr(root / "packed" / "file", "user.stream", b"beside")
        for name, value in {
            "link": symlink("PACKED\\File", relative=True),
            "elsewhere": symlink("D:\\nothing", relative=False),
        }.items():
            (root / name).touch()
            os.setxattr(root / name, "system.ntfs_reparse_data", value)
        (root / "packed" / "loop").mkdir()
        value = junction("C:\\packed")
        os.setxattr(root / "packed" / "loop", "system.ntfs_reparse_data", value)
    boot = bytearray(512)
    struct.pack_into("<BxxxBxxxII", boot, 446, 0, 7, START // 512, volume.stat().st_size // 512)
    boot[510:] = b"\x55\xaa"
    raw.write_bytes(bytes(boot) + bytes(START - 512) + volume.read_bytes())
    subprocess.run(
        ["qemu-img", "convert", "-O", "vhdx", "-o", "subformat=dynamic", raw, vhdx],
        check=True, timeout=60,
    )  # fmt: skip
    return vhdx


@pytest.fixture
def tree(disk: Path) -> Generator[TimeTree]:
    opened = os.open(disk, os.O_RDONLY)
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, {"disk.vhdx": DescriptorImage(opened)})
    yield TimeTree(history)
    os.close(opened)


@pytest.fixture
def guest(tree: TimeTree, tmp_path: Path) -> Generator[Path]:
    with mounting.mounted(tree.root, tmp_path):
        yield tmp_path / "vm1" / "latest" / "disk"


def pieces(path: Path) -> list[tuple[int, int]]:
    """Where SEEK_DATA and SEEK_HOLE say that data is."""
    found: list[tuple[int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, at))
    return found


def test_holes_are_found_through_all_layers(guest: Path):
    data = pieces(guest / "sparse")
    assert data == [(0, 4096), (3 << 20, (3 << 20) + 4096), ((3 << 20) + 8192, (3 << 20) + 12288),
                    (9 << 20, (9 << 20) + 4096)]  # fmt: skip
    assert (guest / "sparse").stat().st_blocks * 512 < 1 << 20
    packed = pieces(guest / "packed" / "file")
    assert len(packed) == 2
    assert packed[0][1] == 2 * 65536
    content = (guest / "packed" / "file").read_bytes()
    assert not any(content[packed[0][1] : packed[1][0]])
    assert packed[1][1] == len(content)
    assert (guest / "packed" / "file").stat().st_blocks * 512 < len(content) // 2


def test_links_attributes_and_streams_through_the_mount(guest: Path):
    file = guest / "packed" / "file"
    assert (guest / "link").readlink() == Path("packed/file")
    assert (guest / "link").read_bytes() == file.read_bytes()
    assert (guest / "packed" / "loop" / "loop" / "file").samefile(file)
    with pytest.raises(OSError, match="Input/output error"):
        (guest / "elsewhere").readlink()
    assert os.getxattr(file, "system.ntfs_acl") == descriptor(9)
    assert os.getxattr(file, "user.stream") == b"beside"
    assert os.listxattr(file) == ["user.stream"]
    assert (guest / "packed" / "file:stream").read_bytes() == b"beside"
    assert os.getxattr(guest, "user.timefs.volume_state") == b"clean"


def test_a_listed_file_is_read_without_looking_its_name_up(
    tree: TimeTree, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("timefs.guest.ntfs.folder.TOGETHER_MIN", 1)
    folder = walk(tree.root, [b"vm1", b"latest", b"disk"])
    assert isinstance(folder, Folder)
    listed = {
        name: (node, attributes)
        for part in folder.entries_with_attributes()
        for name, node, attributes in part
    }
    size = folder.lookup(b"sparse").attributes().size
    monkeypatch.setattr(NtfsFolder, "lookup", None)
    node, attributes = listed[b"sparse"]
    assert isinstance(node, Leaf)
    assert attributes == node.attributes()
    assert node.open().size == size
    assert node.xattrs().get(b"user.none") is None


@pytest.mark.parametrize("name", ["sparse", "packed/file"])
def test_a_warm_read_costs_few_calls(tree: TimeTree, name: str):
    filesystem = FileSystem(tree.root)
    operations = Operations(filesystem)
    number = 1
    for part in ("vm1", "latest", "disk", *name.split("/")):
        number = filesystem.lookup(number, part.encode()).node_id
    handle = filesystem.open(number, os.O_RDONLY).handle
    request = memoryview(bytearray(ARGUMENTS) + READ_IN.pack(handle, 8192, 4096) + bytes(64))
    reply = memoryview(bytearray(4096))
    calls: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    for _ in range(2):
        calls.clear()
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            assert operations.handlers[Opcode.READ](request, number, reply) == 4096
        finally:
            sys.setprofile(before)
    assert calls[0] == "Operations._read"
    assert len(calls) <= CALLS_MAX, calls
