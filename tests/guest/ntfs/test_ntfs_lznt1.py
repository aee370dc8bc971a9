"""LZNT1: equal to two other readers; damage is an error and never other bytes than theirs."""

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CorruptError
from store.image import ExtentKind, Image
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.second_opinion import second_opinion
from tests.guest.ntfs.volume import (
    Recipe,
    compressing,
    digest_of,
    format_volume,
    make_volume,
    mounted,
    opened,
    words,
)
from timefs.guest.ntfs.lznt1 import CHUNK_BYTES, decode_chunk, find_chunks
from timefs.tree import Folder, Leaf, descend, walk

DATA = 0x80


def content(node: object) -> Image:
    assert isinstance(node, Leaf)
    return node.open()


def encode(steps: list[tuple[bytes, int, int]]) -> tuple[bytes, bytes]:
    """A chunk of literals and copies, and what it stands for."""
    plain = bytearray()
    parts: list[bytes] = []
    for literals, back, length in steps:
        for value in literals[: CHUNK_BYTES - len(plain)]:
            parts.append(bytes([value]))
            plain.append(value)
        room = CHUNK_BYTES - len(plain)
        if not plain or room < 3:
            continue
        length_bits = 12
        while len(plain) > 1 << (16 - length_bits):
            length_bits -= 1
        distance = 1 + back % len(plain)
        copied = 3 + length % min(1 << length_bits, room - 2)
        parts.append(struct.pack("<H", (distance - 1) << length_bits | (copied - 3)))
        for _ in range(copied):
            plain.append(plain[-distance])
    packed = bytearray()
    for at in range(0, len(parts), 8):
        group = parts[at : at + 8]
        packed.append(sum((len(part) - 1) << bit for bit, part in enumerate(group)))
        packed += b"".join(group)
    return bytes(packed), bytes(plain)


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0), st.integers(0)), max_size=120))
def test_literals_and_copies_decode_to_what_they_stand_for(steps: list[tuple[bytes, int, int]]):
    packed, plain = encode(steps)
    assert decode_chunk(packed, "test") == plain


@given(st.binary(max_size=4200))
def test_any_bytes_decode_to_at_most_a_chunk_or_are_corrupt(data: bytes):
    with suppress(CorruptError):
        assert len(decode_chunk(data, "test")) <= CHUNK_BYTES
    for place, length, _ in find_chunks(data, 16):
        assert place + length <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00\x00",  # a copy before anything
        b"\x02a\x00\x10",  # a copy from two bytes back, where there is one
        b"\x02a\x00",  # half a pair
        b"\x02a\xff\x0f" + b"\x01\x05\x00",  # 4099 bytes, and then more
        b"\x00" + b"abcdefgh" * 1 + b"\x01\x00\xf0" + bytes(9),
    ],
)
def test_a_chunk_that_makes_no_sense_is_corrupt(data: bytes):
    with pytest.raises(CorruptError, match="LZNT1"):
        decode_chunk(data, "test")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("lznt1") / "volume"
    make_volume(image, Recipe(4096, 6, 16 << 20, 30, 30, fragments=0))
    return image


@pytest.mark.system
@pytest.mark.root
@pytest.mark.usefixtures("ntfs_3g")
def test_a_second_reader_agrees(compressed: Path):
    expected = second_opinion(compressed)
    with opened(compressed) as volume:
        folder = volume.root.lookup(b"compressed")
        kinds: set[ExtentKind] = set()
        assert isinstance(folder, Folder)
        for path, node in descend(folder):
            image = content(node)
            name = f"compressed/{path.decode()}"
            assert digest_of(image.read, image.size) == expected[name][0], name
            kinds |= {extent.kind for extent in image.extents(0, image.size)}
        assert kinds == set(ExtentKind)
        whole = content(folder.lookup(b"mixed"))
        for offset in range(0, whole.size, 4099):
            part = whole.read(offset, 5000)
            assert part == whole.read(0, whole.size)[offset : offset + 5000]


@pytest.mark.system
@pytest.mark.root
@pytest.mark.usefixtures("ntfs_3g")
def test_damaged_units_are_errors_or_what_ntfs_3g_reads(tmp_path: Path):
    image = tmp_path / "volume"
    format_volume(image, Recipe(size=16 << 20))
    chance = random.Random(11)
    plain = words(chance, 64 * 65536)
    with mounted(image, "rw,compression") as root:
        compressing(root / "folder")
        (root / "folder" / "file").write_bytes(plain)
    patient = Patient(image.read_bytes())
    for place, length in patient.extents("folder/file"):
        for _ in range(length // 16384):
            at = place + chance.randrange(length)
            patient.content[at] ^= 1 << chance.randrange(8)
    image.write_bytes(patient.content)
    errors = same = 0
    with mounted(image, "ro") as root, opened(image) as volume:
        ours = content(walk(volume.root, [b"folder", b"file"]))
        with (root / "folder" / "file").open("rb", buffering=0) as theirs:
            for offset in range(0, len(plain), CHUNK_BYTES):
                try:
                    got = ours.read(offset, CHUNK_BYTES)
                except CorruptError:
                    errors += 1
                    continue
                theirs.seek(offset)
                try:
                    expected = theirs.read(CHUNK_BYTES)
                except OSError:  # it gives up the whole unit
                    same += got == plain[offset : offset + CHUNK_BYTES]
                    continue
                assert got == expected
                same += got == plain[offset : offset + CHUNK_BYTES]
    assert errors > 30
    assert same > 500


@pytest.mark.system
@pytest.mark.root
def test_a_damaged_chunk_hurts_no_other(patient: Patient):
    plain = content(patient.node("packed/text")).read(0, 60_000)
    place, _ = patient.extents("packed/text")[0]
    unit = bytes(patient.content[place : place + 16384])
    second = find_chunks(unit, 4)[1].place + place
    patient.content[second : second + 3] = b"\xff\xff\xff"  # copies from before its start
    image = content(patient.node("packed/text"))
    assert image.read(0, CHUNK_BYTES) == plain[:CHUNK_BYTES]
    with pytest.raises(CorruptError, match="compressed bytes at 4096"):
        image.read(CHUNK_BYTES, 1)
    assert image.read(2 * CHUNK_BYTES, 40_000) == plain[2 * CHUNK_BYTES :][:40_000]


@pytest.mark.system
@pytest.mark.root
def test_a_missing_chunk_is_an_error_and_never_zeros(patient: Patient):
    place, _ = patient.extents("packed/text")[0]
    patient.content[place : place + 2] = b"\0\0"  # an end where a chunk was
    with pytest.raises(CorruptError, match="expected an LZNT1 chunk"):
        content(patient.node("packed/text")).read(0, 1)


@pytest.mark.system
@pytest.mark.root
@pytest.mark.parametrize("unit", [0, 3, 5, 255])
def test_units_of_another_size_are_corrupt(patient: Patient, unit: int):
    number = patient.number("packed/text")
    at, _ = patient.attribute(number, DATA)
    patient.edit_record(number, lambda data: struct.pack_into("<H", data, at + 34, unit))
    with pytest.raises(CorruptError, match="units of 16 clusters"):
        content(patient.node("packed/text"))
