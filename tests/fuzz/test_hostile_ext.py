"""Volumes of ext made to be expensive cost no more than what is there, and say what is wrong."""

import re
import struct
from pathlib import Path

import pytest

from store.image import Image
from tests.fuzz.trial import Trial
from tests.guest.kernel import need, run
from tests.guest.sparse import SparseImage
from timefs.guest.ext import open_volume
from timefs.tree import Folder

pytestmark = pytest.mark.system

BLOCK_BYTES = 4096
FREE = 200_000
"""Blocks from here on belong to nobody."""
VOLUME_BYTES = 1 << 30
FOLDER_BYTES_MAX = (1 << 32) - BLOCK_BYTES
AREA_AT = 40
PER_NODE = 340
OPTIONS = ("-b", "4096", "-O", "^metadata_csum,^64bit,^dir_index,^resize_inode", "-N", "256")


def opener(image: Image) -> Folder:
    return open_volume(image, b"hostile").root


class Victim:
    """A volume with a folder, a file and a journal, of which inodes are rewritten."""

    def __init__(self, folder: Path, journal: str = "^has_journal") -> None:
        need("mke2fs", "debugfs")
        self._path = folder / "volume"
        with self._path.open("wb") as file:
            file.truncate(VOLUME_BYTES)
        source = folder / "source"
        (source / "folder").mkdir(parents=True)
        for number in range(150):
            (source / "folder" / f"{number:03}").touch()
        (source / "file").write_bytes(b"content" * 1000)
        command = ("mke2fs", "-q", "-F", "-t", "ext4", *OPTIONS, "-O", journal, "-d", source)
        run(*command, self._path)
        self.image = SparseImage.of(self._path)

    def place(self, path: str) -> int:
        """Where an inode lies."""
        said = run("debugfs", "-R", f"imap {path}", self._path).decode()
        found = re.search(r"located at block (\d+), offset 0x([0-9a-f]+)", said)
        assert found is not None, said
        return int(found[1]) * BLOCK_BYTES + int(found[2], 16)

    def blocks(self, path: str) -> list[int]:
        return [int(each) for each in run("debugfs", "-R", f"blocks {path}", self._path).split()]

    def put(self, block: int, content: bytes) -> None:
        self.image.write(block * BLOCK_BYTES, content.ljust(BLOCK_BYTES, b"\0"))

    def set(self, path: str, at: int, form: str, *values: int) -> None:
        """Change fields of an inode."""
        self.image.write(self.place(path) + at, struct.pack(f"<{form}", *values))

    def claim(self, path: str, size: int) -> None:
        """Say that an inode has that many bytes; a folder has less than 4 GiB."""
        size = min(size, FOLDER_BYTES_MAX) if path == "/folder" else size
        self.set(path, 4, "I", size & 0xFFFFFFFF)
        self.set(path, 108, "I", size >> 32)

    def extents(self, path: str, runs: list[tuple[int, int, int]]) -> None:
        """Map an inode by (first, blocks, place), in a tree of two levels below its root."""
        leaves: list[tuple[int, int]] = []
        for number, at in enumerate(range(0, len(runs), PER_NODE)):
            part = runs[at : at + PER_NODE]
            entries = b"".join(struct.pack("<IHHI", first, n, 0, place) for first, n, place in part)
            self.put(FREE + 1000 + number, node(len(part), 0) + entries)
            leaves.append((part[0][0], FREE + 1000 + number))
        tops: list[tuple[int, int]] = []
        for number, at in enumerate(range(0, len(leaves), PER_NODE)):
            part = leaves[at : at + PER_NODE]
            self.put(FREE + number, node(len(part), 1) + index(part))
            tops.append((part[0][0], FREE + number))
        area = node(len(tops), 2, most=4) + index(tops)
        self.image.write(self.place(path) + AREA_AT, area.ljust(60, b"\0"))

    def pointers(self, path: str, area: list[int]) -> None:
        """Map an inode by the old pointers."""
        self.set(path, 32, "I", 0)
        self.image.write(self.place(path) + AREA_AT, struct.pack("<15I", *area))


def node(count: int, depth: int, most: int = PER_NODE) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, count, most, depth, 0)


def index(children: list[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("<IIHH", first, place, 0, 0) for first, place in children)


def test_a_folder_of_one_block_again_and_again(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    (block,) = victim.blocks("/folder")
    victim.extents("/folder", [(number, 1, block) for number in range(100_000)])
    victim.claim("/folder", 100_000 * BLOCK_BYTES)
    trial.everything(opener, victim.image)
    assert trial.said("holds already")
    assert {b"000", b"149"} <= trial.names


def test_a_folder_of_overlapping_stretches_of_nothing(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    (block,) = victim.blocks("/folder")
    runs = [(0, 1, block)]
    runs += [(1 + 32768 * number, 32768, 100_000 + number) for number in range(3000)]
    victim.extents("/folder", runs)
    victim.claim("/folder", 100 << 30)
    trial.everything(opener, victim.image)
    assert trial.said("nothing but zeros")
    assert {b"000", b"149"} <= trial.names


def test_blocks_of_pointers_that_lead_to_themselves(tmp_path: Path):
    for path in ("/folder", "/file"):
        folder = tmp_path / path[1:]
        folder.mkdir()
        victim, trial = Victim(folder), Trial(folder)
        victim.put(FREE, struct.pack("<1024I", *[FREE] * 1024))
        (first, *_) = victim.blocks(path)
        victim.pointers(path, [first, *[0] * 11, FREE, FREE, FREE])
        victim.claim(path, 1 << 42)
        trial.everything(opener, victim.image)
        assert trial.said("leads twice to") if path == "/file" else trial.said("list: ")
        assert b"folder" in trial.names


def test_blocks_of_pointers_that_share_what_is_below(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    (block,) = victim.blocks("/folder")
    below = list(range(FREE + 1000, FREE + 1000 + 1024))
    for number in below:
        victim.put(number, struct.pack("<1024I", *[block] * 1024))
    victim.put(FREE, struct.pack("<1024I", *below))
    victim.pointers("/folder", [block, *[0] * 12, FREE, 0])
    victim.claim("/folder", FOLDER_BYTES_MAX)
    trial.everything(opener, victim.image)
    assert trial.said("holds already")
    assert b"000" in trial.names


def test_a_folder_and_a_file_that_claim_much_and_hold_nothing(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    for path in ("/folder", "/file"):
        victim.image.write(victim.place(path) + AREA_AT, node(0, 0, most=4).ljust(60, b"\0"))
        victim.claim(path, (1 << 44) - 4096)
    trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}


def test_extents_whose_nodes_share_one_below(tmp_path: Path):
    for path in ("/folder", "/file"):
        folder = tmp_path / path[1:]
        folder.mkdir()
        victim, trial = Victim(folder), Trial(folder)
        for depth in range(5):
            below = [(number, FREE + depth - 1) for number in range(PER_NODE)]
            content = node(0, 0) if depth == 0 else node(PER_NODE, depth) + index(below)
            victim.put(FREE + depth, content)
        area = node(1, 5, most=4) + index([(0, FREE + 4)])
        victim.image.write(victim.place(path) + AREA_AT, area.ljust(60, b"\0"))
        victim.claim(path, (1 << 44) - 4096)
        trial.everything(opener, victim.image)
        assert trial.said("extents in order")


def test_a_journal_of_one_block_again_and_again(tmp_path: Path):
    victim, trial = Victim(tmp_path, "has_journal"), Trial(tmp_path)
    first, *_ = victim.blocks("<8>")
    count = 200_000
    header = bytearray(victim.image.read(first * BLOCK_BYTES, 1024))
    struct.pack_into(">I", header, 0x10, count)
    struct.pack_into(">III", header, 0x14, 1, 7, 1)
    struct.pack_into(">I", header, 0x28, 0)
    victim.put(first, bytes(header))
    tags = struct.pack(">IHH", 5, 0, 0) + bytes(16)
    tags += struct.pack(">IHH", 6, 0, 2) * 300 + struct.pack(">IHH", 6, 0, 10)
    victim.put(FREE + 900, struct.pack(">III", 0xC03B3998, 1, 7) + tags)
    victim.extents("<8>", [(0, 1, first), *((at, 1, FREE + 900) for at in range(1, count))])
    victim.claim("<8>", count * BLOCK_BYTES)
    recovers = struct.unpack("<I", victim.image.read(1024 + 0x60, 4))[0] | 4
    victim.image.write(1024 + 0x60, struct.pack("<I", recovers))
    trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}
    root = opener(victim.image)
    assert b"holds already" in root.xattrs()[b"user.timefs.volume_state"]


def test_attributes_that_claim_much_each(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    features = struct.unpack("<I", victim.image.read(1024 + 0x60, 4))[0] | 0x400
    victim.image.write(1024 + 0x60, struct.pack("<I", features))
    value = victim.place("/folder/000")
    victim.image.write(value + 4, struct.pack("<I", 65536))
    victim.image.write(value + 32, struct.pack("<I", 0x200000 | 0x80000))
    said = run("debugfs", "-R", "stat /folder/000", tmp_path / "volume").decode()
    number = int(said.split("Inode:")[1].split()[0])
    entries = b"".join(
        struct.pack("<BBHIII", 2, 1, 0, number, 65536, 0)
        + b"%c%c" % divmod(at + 300, 256)
        + b"\0\0"
        for at in range(160)
    )
    victim.put(FREE, struct.pack("<IIII16x", 0xEA020000, 1, 1, 0) + entries)
    victim.set("/file", 104, "I", FREE)
    trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}


def test_inode_tables_beyond_the_volume(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    victim.image.write(1024, struct.pack("<I", 0xFFFFFFF0))
    victim.image.write(1024 + 40, struct.pack("<I", 32768))
    for group in range(1, 8):
        victim.image.write(BLOCK_BYTES + 32 * group + 8, struct.pack("<I", 0xFFFFFF00))
    (block,) = victim.blocks("/folder")
    content = bytearray(victim.image.read(block * BLOCK_BYTES, BLOCK_BYTES))
    for number in range(100):  # in groups of which each is elsewhere
        struct.pack_into("<I", content, 24 + 12 * number, 32769 + 2000 * number)
    victim.put(block, bytes(content))
    trial.everything(opener, victim.image)
    assert trial.said("leaves the volume")
    assert {b"000", b"149"} <= trial.names
