"""System-compressed files: decoded to what wimlib made them of; damage is an error."""

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, DescriptorImage, ExtentKind
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.second_opinion import UNREAD, second_opinion
from tests.guest.ntfs.volume import Recipe, format_volume, mounted
from tests.guest.ntfs.wim import compressed_chunks, samples
from timefs.guest.ntfs import NtfsVolume, open_volume
from timefs.guest.ntfs.lzx import decode_lzx
from timefs.guest.ntfs.wof import ALGORITHMS, WofImage
from timefs.guest.ntfs.xpress import decode_xpress
from timefs.tree import Folder, Leaf

KINDS = {0: ("XPRESS", 4096), 1: ("LZX", 32768), 2: ("XPRESS", 8192), 3: ("XPRESS", 16384)}


def reparse_of(algorithm: int, provider: int = 2) -> bytes:
    return struct.pack("<IHHIIII", 0x80000017, 16, 0, 1, provider, 1, algorithm)


class Made:
    """Samples, and what wimlib made of them in each way."""

    def __init__(self, folder: Path) -> None:
        self.plain = samples(folder / "samples")
        self.chunks = {
            number: compressed_chunks(folder / "samples", kind, chunk_bytes)
            for number, (kind, chunk_bytes) in KINDS.items()
        }

    def image(self, algorithm: int, name: str, stored: bytes | None = None) -> WofImage:
        stored = self.chunks[algorithm][name] if stored is None else stored
        size = len(self.plain[name])
        return WofImage(size, BytesImage(stored), ALGORITHMS[algorithm], "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    if shutil.which("wimlib-imagex") is None:
        pytest.skip("not installed: wimlib-imagex")
    return Made(tmp_path_factory.mktemp("wim"))


@pytest.mark.parametrize("algorithm", KINDS)
def test_what_wimlib_compressed_is_decoded(made: Made, algorithm: int):
    assert len(made.chunks[algorithm]) >= 10
    chance = random.Random(algorithm)
    for name in made.chunks[algorithm]:
        plain, image = made.plain[name], made.image(algorithm, name)
        assert image.read(0, image.size + 1) == plain, name
        for _ in range(20):
            offset = chance.randrange(len(plain))
            assert image.read(offset, 5000) == plain[offset : offset + 5000]
        (extent,) = image.extents(0, image.size)
        assert (extent.kind, extent.length) == (ExtentKind.OPAQUE, len(plain))


@pytest.mark.parametrize("algorithm", KINDS)
def test_damaged_chunks_are_corrupt_or_of_their_length(made: Made, algorithm: int):
    chance = random.Random(algorithm)
    corrupt = 0
    for case in range(120):
        name = ("text", "calls", "few bytes")[case % 3]
        stored = bytearray(made.chunks[algorithm][name][:9000])
        for _ in range(chance.choice((1, 3, 40))):
            stored[chance.randrange(len(stored))] = chance.randrange(256)
        with suppress(CorruptError):
            assert len(made.image(algorithm, name, bytes(stored)).read(0, 4000)) == 4000
            continue
        corrupt += 1
    assert corrupt > 20


def test_any_bytes_are_corrupt_or_of_the_length_asked_for(cases: int):
    chance = random.Random(3)
    for _ in range(cases):
        data = chance.randbytes(chance.choice((0, 1, 20, 255, 256, 300, 3000)))
        for decode in (decode_xpress, decode_lzx):
            with suppress(CorruptError):
                assert len(decode(data, 4096, "test")) == 4096


def test_a_cut_or_missing_stream_is_corrupt_and_never_zeros(made: Made):
    stored = made.chunks[0]["text"]
    for cut in (0, 3, 100, len(stored) // 2, len(stored) - 100):
        image = made.image(0, "text", stored[:cut])
        with pytest.raises(CorruptError):
            image.read(image.size - 1, 1)
    for cut in range(1, 9):  # what pads a chunk may be missing
        image = made.image(0, "text", stored[:-cut])
        with suppress(CorruptError):
            assert image.read(image.size - 99, 99) == made.plain["text"][-99:]


@pytest.fixture(scope="module")
def volume(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_ntfs_3g()
    image = tmp_path_factory.mktemp("wof") / "volume"
    format_volume(image, Recipe(size=64 << 20))
    with mounted(image, "rw", streams="windows") as root:
        for number, chunks in made.chunks.items():
            folder = root / f"algorithm {number}"
            folder.mkdir()
            for name, stored in chunks.items():
                with (folder / name).open("wb") as file:
                    file.truncate(len(made.plain[name]))
                (folder / f"{name}:WofCompressedData").write_bytes(stored)
                (folder / f"{name}:other").write_bytes(b"beside it")
        (root / "in a wim").write_bytes(bytes(5000))
        (root / "unknown").write_bytes(bytes(5000))
    with mounted(image, "rw") as root:
        for number, chunks in made.chunks.items():
            for name in chunks:
                path = root / f"algorithm {number}" / name
                os.setxattr(path, "system.ntfs_reparse_data", reparse_of(number))
        os.setxattr(root / "in a wim", "system.ntfs_reparse_data", reparse_of(0, provider=1))
        os.setxattr(root / "unknown", "system.ntfs_reparse_data", reparse_of(7))
    return image


@pytest.fixture
def opened(volume: Path) -> Generator[NtfsVolume]:
    descriptor = os.open(volume, os.O_RDONLY)
    yield open_volume(DescriptorImage(descriptor), b"wof")
    os.close(descriptor)


@pytest.mark.system
@pytest.mark.root
def test_system_compressed_files_of_a_volume(made: Made, volume: Path, opened: NtfsVolume):
    others = second_opinion(volume)
    agreed = 0
    for number in KINDS:
        folder = opened.root.lookup(b"algorithm %d" % number)
        assert isinstance(folder, Folder)
        names = [name.decode() for name, _ in folder.entries()]
        assert sorted(names) == sorted(made.chunks[number])
        for name, node in folder.entries():
            assert isinstance(node, Leaf)
            plain = made.plain[name.decode()]
            image = node.open()
            assert image.read(0, image.size) == plain
            other = others[f"algorithm {number}/{name.decode()}"][0]
            assert other in (UNREAD, hashlib.sha256(plain).hexdigest())
            agreed += other != UNREAD
            attributes = node.attributes()
            stored = len(made.chunks[number][name.decode()])
            assert attributes.size == len(plain)
            assert stored <= attributes.allocated_bytes + 1024
            assert attributes.allocated_bytes < stored + 4096 + 8
            assert list(node.xattrs()) == [b"user.other"]
    assert agreed > 35


@pytest.mark.system
@pytest.mark.root
@pytest.mark.parametrize("name", [b"in a wim", b"unknown"])
def test_what_is_compressed_otherwise_is_an_error_with_its_reason(opened: NtfsVolume, name: bytes):
    node = opened.root.lookup(name)
    assert isinstance(node, Leaf)
    with pytest.raises(UnsupportedError, match="WOF"):
        node.open()
