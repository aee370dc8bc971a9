"""Nothing is shown without a reason: whatever is known by its marks is named, the rest is said."""

from pathlib import Path

import pytest

from store.errors import UnsupportedError
from store.image import BytesImage, DescriptorImage
from tests.guest.disks import raid_writer
from tests.guest.disks.qemu import MIB, need, opened, run
from tests.guest.disks.shown import partitions_of
from timefs.guest import signatures
from timefs.guest.detect import decode, has_volumes

pytestmark = pytest.mark.system
SIZE = 6 * MIB
VOLUMES = (
    *signatures.BOOTING,
    *signatures.LOCKED,
    *signatures.POOLED,
    *signatures.SWAP,
    *signatures.NAMED,
    *signatures.TABLES,
    *signatures.REMNANTS,
)


def marked(row: signatures.Row, size: int = SIZE) -> bytes:
    content = bytearray(size)
    for at, magic in row[1:]:
        start = at if at >= 0 else size + at
        content[start : start + len(magic)] = magic
    return bytes(content)


@pytest.mark.parametrize("row", VOLUMES, ids=lambda row: f"{row[0]}@{row[1][0]}")
def test_what_has_marks_is_named(row: signatures.Row):
    disk = BytesImage(marked(row))
    assert has_volumes(disk)
    assert row[0] in partitions_of(disk)["p0.unsupported"]


@pytest.mark.parametrize("row", signatures.CONTAINERS, ids=lambda row: row[0])
def test_a_container_that_is_not_decoded_is_no_disk_and_is_named(row: signatures.Row):
    file = BytesImage(marked(row, 3 * 512))
    assert has_volumes(file)
    with pytest.raises(UnsupportedError, match="this version does not decode it") as caught:
        decode(file)
    assert row[0] in str(caught.value)


MADE = {
    "swap": ("swap", ["mkswap", "-q", "-f"]),
    "swap of 64 KiB pages": ("swap", ["mkswap", "-q", "-f", "-p", "65536"]),
    "minix 1": ("MINIX", ["mkfs.minix", "-1"]),
    "minix 2": ("MINIX", ["mkfs.minix", "-2"]),
    "minix 3": ("MINIX", ["mkfs.minix", "-3"]),
    "bfs": ("BFS (UnixWare)", ["mkfs.bfs"]),
}


@pytest.mark.parametrize("made", MADE)
def test_what_a_tool_made_is_named(made: str, tmp_path: Path):
    name, command = MADE[made]
    need(command[0])
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    run(*command, path)
    with opened(tmp_path) as files:
        assert name in partitions_of(files["disk"])["p0.unsupported"]


def test_a_cramfs_is_named(tmp_path: Path):
    need("mkfs.cramfs")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content")
    run("mkfs.cramfs", tmp_path / "in", tmp_path / "disk")
    with opened(tmp_path) as files:
        assert "cramfs" in partitions_of(files["disk"])["p0.unsupported"]


@pytest.mark.parametrize("version", raid_writer.VERSIONS)
@pytest.mark.parametrize("size", [SIZE, SIZE + 512, SIZE + 66 * 1024])
def test_a_member_of_an_array_is_named_as_blkid_names_it(version: str, size: int, tmp_path: Path):
    need("blkid")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size)
    raid_writer.write(version, path)
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", path).strip() == "linux_raid_member"
    with opened(tmp_path) as files:
        assert f"md {version}" in partitions_of(files["disk"])["p0.unsupported"]


@pytest.mark.parametrize("version", raid_writer.VERSIONS)
def test_a_superblock_of_an_array_that_is_not_whole_is_named_too(version: str, tmp_path: Path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    raid_writer.write(version, path)
    with path.open("r+b") as file:
        file.seek(raid_writer.place_of(version, SIZE) + 4)
        file.write(b"\xff")
    with opened(tmp_path) as files:
        assert "its superblock damaged" in partitions_of(files["disk"])["p0.unsupported"]


def test_a_blank_disk_says_that_it_is_blank():
    disk = BytesImage(bytes(SIZE))
    assert has_volumes(disk)
    assert "blank" in partitions_of(disk)["p0.unsupported"]


def test_a_disk_of_which_nothing_is_known_says_so():
    disk = BytesImage(bytes(range(1, 256)) * 8 * 2056 + bytes(SIZE - 255 * 8 * 2056))
    assert has_volumes(disk)
    assert "nothing known is in it" in partitions_of(disk)["p0.unsupported"]


VMX = b'.encoding = "UTF-8"\nconfig.version = "8"\nscsi0:0.fileName = "disk.vmdk"\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"notes\n",
        VMX,
        VMX.ljust(2 * MIB),
        ("Größe " * 200_000).encode()[: MIB + 512],
        b"\xff\xfe" + "log\r\n".encode("utf-16-le") * 131072 + bytes(510),
        bytes(MIB + 1),
        bytes(8192),
        bytes(range(256)) * 32,
        *(marked(row) for row in signatures.NO_DISKS),
    ],
    ids=range(9 + len(signatures.NO_DISKS)),
)
def test_a_file_that_need_not_be_a_disk_has_nothing_inside(content: bytes):
    assert not has_volumes(BytesImage(content))


def test_what_lies_between_the_ends_of_a_large_disk_is_not_read(tmp_path: Path):
    class Counted(DescriptorImage):
        read_bytes = 0

        def read_into(self, offset: int, buffer: memoryview) -> int:
            self.read_bytes += len(buffer)
            return super().read_into(offset, buffer)

    path = tmp_path / "disk"
    with path.open("w+b") as file:
        file.truncate(1 << 40)
        disk = Counted(file.fileno())
        assert has_volumes(disk)
        assert "blank" in partitions_of(disk)["p0.unsupported"]
        assert disk.read_bytes < MIB
