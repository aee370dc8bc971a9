"""Disks of every kind of entry that a format allows, against a plain model and QEMU.

QEMU's own tools write few of these kinds: entries that say zeros and lie somewhere, parts of
clusters, compressed streams without an end, tables that are missing or in disorder, odd sizes.
"""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.guest.disks.qemu import KIB, MIB, agree, need, opened, truth
from timefs.guest.detect import decode

ROUNDS = 8
SOAK_ROUNDS = 400


class Made(NamedTuple):
    """A file, what the guest reads, and whether QEMU reads such a file at all."""

    content: bytes
    expected: bytes
    by_qemu: bool = True


class Growing:
    """A file to which clusters are added in disorder."""

    def __init__(self, chance: random.Random, start: int, unit: int, most: int) -> None:
        self.content = bytearray(start)
        self.unit = unit
        places = list(range(start // unit, start // unit + most))
        chance.shuffle(places)
        self._places = iter(places)

    def add(self, content: bytes) -> int:
        """Where it was put."""
        at = next(self._places) * self.unit
        self.put(at, content.ljust(self.unit, b"\0"))
        return at

    def put(self, at: int, content: bytes) -> None:
        self.content.extend(bytes(max(0, at + len(content) - len(self.content))))
        self.content[at : at + len(content)] = content


def told_apart(chance: random.Random, length: int) -> bytes:
    """Sectors of which no two are alike, and which can be compressed."""
    return b"".join(chance.randbytes(8) * 64 for _ in range(length // 512))


def raw_deflate(content: bytes, *, ended: bool) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    made = stream.compress(content)
    return made + stream.flush(zlib.Z_FINISH if ended else zlib.Z_FULL_FLUSH)


def qcow2(chance: random.Random, backing: bytes) -> Made:
    extended = chance.random() < 0.5
    bits = chance.randrange(14, 17) if extended else chance.randrange(9, 17)
    version = 3 if extended else chance.choice((2, 3))
    unit, per_table = 1 << bits, (1 << bits) // (16 if extended else 8)
    size = chance.randrange(1, 40 * unit // 512) * 512
    clusters = -(-size // unit)
    tables = -(-clusters // per_table)
    expected = bytearray(backing[:size].ljust(size, b"\0"))
    first = -(-tables * 8 // unit) + 2
    file = Growing(chance, first * unit, unit, 2 * clusters + tables + 2)
    for table in range(tables):
        rows = b"".join(
            qcow2_row(chance, file, expected, number, version if not extended else 0)
            for number in range(table * per_table, min((table + 1) * per_table, clusters))
        )
        if any(rows) or chance.random() < 0.5:
            at = file.add(rows) | 1 << 63
            file.put(2 * unit + table * 8, at.to_bytes(8, "big"))
    features = 16 if extended else 0
    name = b"base.raw" if backing else b""
    file.put(0, struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 120 if name else 0, len(name), bits, size, 0,
        tables, 2 * unit, unit, 1, 0, 0,
    ))  # fmt: skip
    if version == 3:
        file.put(72, struct.pack(">QQQII", features, 0, 0, 4, 104))
    file.put(120, name)
    return Made(bytes(file.content), bytes(expected))


def qcow2_row(
    chance: random.Random, file: Growing, expected: bytearray, number: int, version: int
) -> bytes:
    """An entry of an L2 table, with a bitmap if the version is 0; changes what is expected."""
    unit, start = file.unit, number * file.unit
    kind = chance.choice(
        ("absent", "absent", "data", "data", "zeros", "placed zeros", "compressed")
    )
    data = told_apart(chance, unit)
    inside = min(unit, len(expected) - start)
    if kind == "compressed":
        packed = raw_deflate(data, ended=chance.random() < 0.5)
        before = -len(packed) % 512  # so that nothing follows a stream without an end
        at = file.add(bytes(before) + packed) + before
        sectors = (before + len(packed)) // 512 - 1
        expected[start : start + inside] = data[:inside]
        entry = 1 << 62 | sectors << (62 - (unit.bit_length() - 9)) | at
        return struct.pack(">Q", entry) + (bytes(8) if not version else b"")
    if not version:
        return subclusters(chance, file, expected, number, data)
    if version < 3 and "zeros" in kind:
        kind = "absent"
    entry = file.add(data) if kind in ("data", "placed zeros") else 0
    if "zeros" in kind:
        expected[start : start + inside] = bytes(inside)
        entry |= 1
    elif kind == "data":
        expected[start : start + inside] = data[:inside]
    return struct.pack(">Q", entry | (1 << 63 if entry > 1 else 0))


def subclusters(
    chance: random.Random, file: Growing, expected: bytearray, number: int, data: bytes
) -> bytes:
    step, start = file.unit // 32, number * file.unit
    placed = chance.random() < 0.7
    stored = chance.choice((0, (1 << 32) - 1, chance.getrandbits(32))) if placed else 0
    zeros = chance.choice((0, (1 << 32) - 1, chance.getrandbits(32))) & ~stored
    for part in range(32):
        at = start + part * step
        inside = max(min(step, len(expected) - at), 0)
        if stored >> part & 1:
            expected[at : at + inside] = data[part * step : part * step + inside]
        elif zeros >> part & 1:
            expected[at : at + inside] = bytes(inside)
    place = file.add(data) | 1 << 63 if placed else 0
    return struct.pack(">QQ", place, zeros << 32 | stored)


def vdi(chance: random.Random, backing: bytes) -> Made:
    del backing
    unit = chance.choice((MIB, MIB, 64 * KIB))
    extra = 0 if unit == MIB else chance.choice((0, 512))
    size = chance.randrange(1, 4 * unit)
    shown = -(-size // 512) * 512
    blocks = -(-shown // unit)
    places = chance.sample(range(blocks), blocks)
    data_at = 512 * chance.randrange(2, 9)
    expected, content = bytearray(shown), bytearray(data_at + blocks * (unit + extra))
    table = b""
    for block in range(blocks):
        kind = chance.choice(("data", "data", "absent", "discarded"))
        entry = {"data": places[block], "absent": 0xFFFFFFFF, "discarded": 0xFFFFFFFE}[kind]
        if kind == "data":
            data = told_apart(chance, unit)
            inside = min(unit, shown - block * unit)
            expected[block * unit : block * unit + inside] = data[:inside]
            at = data_at + entry * (unit + extra) + extra
            content[at : at + unit] = data
        table += entry.to_bytes(4, "little")
    head = struct.pack(
        "<IIIII256sIIIIIIIQIIII", 0xBEDA107F, 0x10001, 400, chance.choice((1, 2)), 0, b"", 512,
        data_at, 0, 0, 0, 512, 0, size, unit, extra, blocks, blocks,
    )  # fmt: skip
    content[64 : 64 + len(head)] = head
    content[512 : 512 + len(table)] = table
    return Made(bytes(content), bytes(expected), unit == MIB)


def vmdk(chance: random.Random, backing: bytes) -> Made:
    del backing
    unit = 512 << chance.randrange(8)
    per_table = 512
    size = chance.randrange(1, 700 * unit // 512) * 512
    grains = -(-size // unit)
    tables = -(-grains // per_table)
    zero_grains = chance.random() < 0.5
    expected = bytearray(size)
    directory_at = 21 * 512
    file = Growing(chance, 64 * KIB, max(unit, 4 * per_table), grains + tables)
    for table in range(tables):
        if chance.random() < 0.3:
            continue
        rows = b""
        for grain in range(table * per_table, min((table + 1) * per_table, grains)):
            entry = 0
            kind = chance.choice(("absent", "absent", "absent", "data", "zeros"))
            if kind == "data":
                data = told_apart(chance, unit)
                inside = min(unit, size - grain * unit)
                expected[grain * unit : grain * unit + inside] = data[:inside]
                entry = file.add(data) // 512
            elif kind == "zeros" and zero_grains:
                entry = 1
            rows += entry.to_bytes(4, "little")
        at = file.add(rows) // 512
        file.put(directory_at + table * 4, at.to_bytes(4, "little"))
    file.put(0, struct.pack(
        "<4sIIQQQQIQQQBccccH", b"KDMV", 1, 1 | (4 if zero_grains else 0), size // 512, unit // 512,
        1, 20, per_table, 0, 21, 0, 0, b"\n", b" ", b"\r", b"\n", 0,
    ))  # fmt: skip
    text = f"""# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicSparse"
RW {size // 512} SPARSE "disk.vmdk"
"""
    file.put(512, text.encode())
    return Made(bytes(file.content), bytes(expected))


@pytest.mark.system
@pytest.mark.parametrize("maker", [qcow2, vdi, vmdk], ids=["qcow2", "vdi", "vmdk"])
@pytest.mark.parametrize("based", [False, True])
def test_any_disk_reads_as_the_model_and_qemu_say(
    maker: Callable[[random.Random, bytes], Made], based: bool, tmp_path: Path, soak: bool
):
    need("qemu-img")
    kind = maker.__name__
    if based and maker is not qcow2:
        pytest.skip("its parents are tested elsewhere")
    for seed in range(SOAK_ROUNDS if soak else ROUNDS):
        chance = random.Random(f"{kind} {seed} {based}")
        backing = chance.randbytes(512 * chance.randrange(1, 400)) if based else b""
        (tmp_path / "base.raw").write_bytes(backing)
        made = maker(chance, backing)
        path = tmp_path / f"disk.{kind}"
        path.write_bytes(made.content)
        if made.by_qemu:
            assert truth(path, kind) == made.expected
        with opened(tmp_path) as files:
            agree(decode(files[path.name], files.find), made.expected, chance, 20)
