"""Neighbouring frames: few reads of the pack, what is kept of them, and what damage says."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from store.errors import DamagedError
from store.format.frame import encode_frame
from store.format.keys import Keys
from store.format.pack import NO_HEAD, PackIdentity, build_pack, pack_name
from store.format.row import BLOCK_BYTES, ROW
from store.format.statement import encode_statement
from store.objects.backend import DirectoryBackend
from store.packs.reader import PackReader

BLOCKS = 8
FRAMES = 100
FRAME_BYTES = BLOCKS * BLOCK_BYTES
REPOSITORY, KEY = bytes(16), bytes(32)
NAME = pack_name(1, 0)


class CountingBackend(DirectoryBackend):
    """Notes the ranges that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ranges: list[tuple[int, int]] = []

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return super().read(name, offset, length)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        self.ranges.append((offset, len(buffer)))
        super().read_into(name, offset, buffer)


class Packed:
    """A pack of frames, every other one raw, and its reader with nothing read but the table."""

    def __init__(self, root: Path) -> None:
        chance = Random(1)
        frames = [
            chance.randbytes(FRAME_BYTES >> number % 2).ljust(FRAME_BYTES, b"\0")
            for number in range(FRAMES)
        ]
        self.plain = b"".join(frames)
        identity = PackIdentity(REPOSITORY, 1, 0, 1, bytes(16), 1, last=True, previous=NO_HEAD)
        statement = encode_statement(np.array([], ROW), [], ["vm1"])
        digests = bytes(16 * BLOCKS * FRAMES)
        encoded = [encode_frame(frame) for frame in frames]
        self.backend = CountingBackend(root)
        self.backend.create(NAME, build_pack(identity, encoded, digests, statement))
        self.reader = PackReader(self.backend, REPOSITORY, Keys(KEY))
        self.reader.table(1, 0)
        self.backend.ranges.clear()

    def read(self, address: int, length: int) -> bytes:
        buffer = memoryview(bytearray(length))
        self.reader.read_into(1, 0, address, buffer)
        return bytes(buffer)


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return Packed(tmp_path)


def test_neighbouring_frames_take_one_read_a_mebibyte(packed: Packed):
    assert packed.read(0, len(packed.plain)) == packed.plain
    assert len(packed.backend.ranges) == 3
    assert packed.reader.statistics.frames == FRAMES


def test_only_the_frame_that_a_long_read_ends_in_is_kept(packed: Packed):
    half = FRAME_BYTES // 2
    packed.read(half, 5 * FRAME_BYTES)
    packed.backend.ranges.clear()
    assert (
        packed.read(5 * FRAME_BYTES + half, half) == packed.plain[5 * FRAME_BYTES + half :][:half]
    )
    assert packed.backend.ranges == []
    packed.read(4 * FRAME_BYTES, half)
    assert len(packed.backend.ranges) == 1


def test_a_raw_frame_that_is_kept_outlives_the_next_long_read(packed: Packed):
    packed.read(0, 2 * FRAME_BYTES + 10)
    packed.read(20 * FRAME_BYTES, 10 * FRAME_BYTES)
    packed.backend.ranges.clear()
    assert (
        packed.read(2 * FRAME_BYTES, FRAME_BYTES) == packed.plain[2 * FRAME_BYTES :][:FRAME_BYTES]
    )
    assert packed.backend.ranges == []


def test_damage_among_neighbours_is_named_and_those_before_and_behind_are_read(packed: Packed):
    table = packed.reader.table(1, 0)
    place = table.offsets[7] + table.stored_bytes[7] // 2
    pack = packed.backend.root / NAME
    content = bytearray(pack.read_bytes())
    content[place] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    with pytest.raises(DamagedError, match=f"frame 7 at {table.offsets[7]}: checksum"):
        packed.read(0, len(packed.plain))
    assert packed.read(0, 7 * FRAME_BYTES) == packed.plain[: 7 * FRAME_BYTES]
    assert (
        packed.read(8 * FRAME_BYTES, 9 * FRAME_BYTES)
        == packed.plain[8 * FRAME_BYTES :][: 9 * FRAME_BYTES]
    )
