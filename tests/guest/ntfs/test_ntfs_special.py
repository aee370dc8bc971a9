"""What is not decoded is an error with a reason: never zeros, never raw bytes."""

import os
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.errors import NotFoundError
from store.image import BytesImage, Extent, ExtentKind, Image, MappedImage
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import Recipe, format_volume, make_volume, mounted, opened
from timefs.guest.ntfs import NtfsVolume, open_volume
from timefs.tree import Folder, Leaf, walk

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.usefixtures("ntfs_3g")]


def leaf(volume: NtfsVolume, path: bytes) -> Leaf:
    node = walk(volume.root, path.split(b"/"))
    assert isinstance(node, Leaf)
    return node


def whole(image: Image) -> bytes:
    return image.read(0, image.size)


def test_8_3_aliases_are_neither_shown_nor_counted(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    format_volume(image, Recipe(size=8 << 20))
    with mounted(image, "rw") as root:
        for number in range(60):
            path = root / f"a long name {number}"
            path.write_bytes(b"%d" % number)
            os.setxattr(path, "system.ntfs_dos_name", b"ALONGN%02d" % number)
        (root / "a long folder name").mkdir()
        os.setxattr(root / "a long folder name", "system.ntfs_dos_name", b"ALONGF~1")
        (root / "a long folder name" / "inside").write_bytes(b"here")
        (root / "another name").hardlink_to(root / "a long name 7")
    with opened(image) as volume:
        names = {name for name, _ in volume.root.entries()}
        assert names == {b"a long name %d" % number for number in range(60)} | {
            b"a long folder name", b"another name"}  # fmt: skip
        assert leaf(volume, b"a long name 8").attributes().links == 1
        assert leaf(volume, b"a long name 7").attributes().links == 2
        assert whole(leaf(volume, b"a long folder name/inside").open()) == b"here"
        for alias in (b"ALONGN08", b"ALONGF~1"):
            with pytest.raises(NotFoundError):
                volume.root.lookup(alias)


def test_bytes_beyond_the_initialised_size_are_known_zeros(patient: Patient) -> None:
    number = patient.number("data")
    before = whole(leaf(patient.open(), b"data").open())
    at, attribute = patient.attribute(number, 0x80)
    assert attribute.size == 10_000
    patient.edit_record(number, lambda data: struct.pack_into("<q", data, at + 56, 3001))
    image = leaf(patient.open(), b"data").open()
    assert whole(image) == before[:3001] + bytes(10_000 - 3001)
    last = list(image.extents(0, image.size))[-1]
    assert (last.offset, last.length, last.kind) == (3001, 6999, ExtentKind.ZERO)


def test_clusters_larger_than_index_blocks_lose_no_name(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    format_volume(image, Recipe(65536, size=64 << 20))
    names = [b"file %03d" % number for number in range(500)]
    with mounted(image, "rw") as root:
        (root / "folder").mkdir()
        for name in names:
            (root / "folder" / os.fsdecode(name)).write_bytes(name)
    with opened(image) as volume:
        folder = volume.root.lookup(b"folder")
        assert isinstance(folder, Folder)
        assert sorted(name for name, _ in folder.entries()) == names
        for name in names:
            assert whole(leaf(volume, b"folder/" + name).open()) == name


def test_four_threads_read_the_same_files_at_once(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    make_volume(image, Recipe(4096, 9, 32 << 20, 100, 30, fragments=100))
    with opened(image) as volume:
        files = [leaf(volume, name) for name in (b"fragmented", b"contents/sparse")]
        expected = [whole(file.open()) for file in files]

    def read_at_random(seed: int) -> int:
        chance = random.Random(seed)
        wrong = 0
        for _ in range(1500):
            number = chance.randrange(2)
            offset = chance.randrange(len(expected[number]))
            part = images[number].read(offset, 4096)
            wrong += part != expected[number][offset : offset + 4096]
            name = b"big/" + chance.choice(names)
            wrong += not whole(leaf(shared, name).open()).isdigit()
        return wrong

    with opened(image) as shared, ThreadPoolExecutor(4) as threads:
        big = shared.root.lookup(b"big")
        assert isinstance(big, Folder)
        names = [name for name, _ in big.entries()]
        images = [leaf(shared, name).open() for name in (b"fragmented", b"contents/sparse")]
        assert list(threads.map(read_at_random, range(4))) == [0, 0, 0, 0]


class Partition(MappedImage):
    """The part of a disk that begins at 1 MiB."""

    def __init__(self, disk: Image) -> None:
        super().__init__(disk.size - (1 << 20))
        self.disk = disk

    def map(self, offset: int, length: int) -> list[Extent]:
        return [Extent(offset, length, ExtentKind.DATA, self.disk, offset + (1 << 20))]


def test_a_files_extents_lie_on_the_disk_beneath_its_partition(small: bytes) -> None:
    disk = BytesImage(bytes(1 << 20) + small)
    image = leaf(open_volume(Partition(disk), b""), b"pieces").open()
    bare = leaf(open_volume(BytesImage(small), b""), b"pieces").open()
    runs = list(image.extents(0, image.size))
    assert {run.backing for run in runs if run.kind == ExtentKind.DATA} == {disk}
    places = [run.place + (1 << 20) if run.backing else 0 for run in bare.extents(0, bare.size)]
    assert [run.place for run in runs] == places
    assert whole(image) == whole(bare)


def test_hard_links_are_one_node_and_identities_begin_as_asked(small: bytes) -> None:
    volume = open_volume(BytesImage(small), b"disk 1/")
    first, second = volume.root.lookup(b"data"), volume.root.lookup(b"link")
    assert first.identity == second.identity
    assert first.attributes().links == 2
    assert first.identity.startswith(b"disk 1/")
    identities = {node.identity for _, node in volume.root.entries()}
    assert len(identities) == len(list(volume.root.entries())) - 1


@pytest.mark.parametrize(
    "name", [b"DATA", b"$MFT", b".", b"..", b"", b"data\0", b"da/ta", b"\xff\xfe", b"\xed\xa0\x80"]
)
def test_a_name_that_is_not_there_is_not_found(small: bytes, name: bytes) -> None:
    with pytest.raises(NotFoundError):
        open_volume(BytesImage(small), b"").root.lookup(name)


def test_hostile_names_are_shown_escaped_and_found_so(patient: Patient) -> None:
    number = patient.number("folder/inner")

    def rename(data: bytearray) -> None:
        spot = data.rindex("text".encode("utf-16-le"))
        data[spot : spot + 8] = "a/\0b".encode("utf-16-le")

    patient.edit_record(number, rename)
    folder = patient.node("folder/inner")
    assert isinstance(folder, Folder)
    (entry,) = folder.entries()
    assert entry.name == "a\uf02f\uf000b".encode()
    found = folder.lookup(entry.name)
    assert isinstance(found, Leaf)
    assert whole(found.open()) == b"plain text"


def test_times_are_exact_to_100_ns_before_and_after_1970(small: bytes) -> None:
    volume = open_volume(BytesImage(small), b"")
    attributes = leaf(volume, b"times/before 1970").attributes()
    assert (attributes.created_ns, attributes.mtime_ns, attributes.atime_ns) == (-500, -400, -300)
    attributes = leaf(volume, b"times/100 ns").attributes()
    assert attributes.created_ns == 1_700_000_000_0000001 * 100
    assert leaf(volume, b"times/1601").attributes().created_ns == -116_444_736_000_000_000 * 100
