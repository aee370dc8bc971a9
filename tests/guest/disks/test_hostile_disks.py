"""Disks made to cost much: each is shown or refused at once, and in little memory.

All are small, some with large holes. They are asked under a budget, as a mount does.
"""

import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from store.budget import Budget, budgeted
from store.errors import CorruptError, CostError, UnsupportedError
from store.image import BytesImage, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.guest.disks import vhd_writer, vhdx_writer
from tests.guest.disks.qemu import KIB, MIB
from timefs.guest.detect import decode, references
from timefs.guest.joined import JoinedImage, Piece

GIB, TIB = 1 << 30, 1 << 40
BUDGET_SECONDS, BUDGET_BYTES = 1.5, 256 << 20
REFUSALS = (CorruptError, UnsupportedError, CostError)


class Sparse:
    """A file of pieces in a hole."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pieces: dict[int, bytes] = {}

    def put(self, at: int, content: bytes) -> "Sparse":
        self.pieces[at] = content
        return self

    def image(self) -> Image:
        pieces = sorted(self.pieces.items())
        return JoinedImage(
            self.size, [Piece(at, len(part), BytesImage(part), 0) for at, part in pieces]
        )


def qcow2(size: int, bits: int, l1: bytes, entries: int, file_bytes: int) -> Sparse:
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, bits, size, 0, entries, 1 << bits,
        0, 0, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    return Sparse(file_bytes).put(0, head.ljust(112, b"\0")).put(1 << bits, l1)


def qcow2_empty() -> Sparse:
    """An exbibyte whose L1 table is 16 MiB of hole."""
    return qcow2(1 << 60, 21, b"", 1 << 21, GIB)


def qcow2_shared() -> Sparse:
    """A million entries of the L1 table lead to the same L2 table."""
    l1 = (1 << 30).to_bytes(8, "big") * (1 << 20)
    made = qcow2(1 << 49, 16, l1, 1 << 20, 2 * GIB)
    return made.put(1 << 30, (1).to_bytes(8, "big") * (1 << 13))


def qcow2_scattered() -> Sparse:
    """A million L2 tables, each elsewhere in a hole."""
    l1 = b"".join((at << 32).to_bytes(8, "big") for at in range(1 << 20, 0, -1))
    return qcow2(1 << 49, 16, l1, 1 << 20, 1 << 53)


def qcow2_alternating() -> Sparse:
    """Tables whose entries are by turns zeros and nothing."""
    l1 = b"".join(((at + 64) << 21).to_bytes(8, "big") for at in range(16))
    made = qcow2(16 << 39, 21, l1, 16, GIB)
    return made.put(64 << 21, (struct.pack(">QQ", 1, 0) * (1 << 17)) * 16)


def qcow2_reserved() -> Sparse:
    return qcow2(1 << 49, 16, b"\xff" * MIB, 1 << 20, GIB)


def vhd_table(table: bytes, size: int, block_bytes: int, file_bytes: int) -> Sparse:
    count = -(-size // block_bytes)
    head, _, at = vhd_writer.header(count, block_bytes, None)
    foot = vhd_writer.footer(size, 3, b"u" * 16)
    return Sparse(file_bytes).put(0, foot + head).put(at, table)


def vhd_shared() -> Sparse:
    return vhd_table((1 << 20).to_bytes(4, "big") * (1 << 20), 2 * TIB, 2 * MIB, 4 * GIB)


def vhd_hole() -> Sparse:
    return vhd_table(b"", 2 * TIB, 2 * MIB, 4 * GIB)


def vhd_overlapping() -> Sparse:
    """Each block begins a sector after the one before."""
    table = b"".join(at.to_bytes(4, "big") for at in range(1 << 20, 2 << 20))
    return vhd_table(table, 2 * TIB, 2 * MIB, 4 * GIB)


def vhd_tiny_blocks() -> Sparse:
    """A table of eight gibibytes."""
    return vhd_table(b"", 64 * TIB, 32 * KIB, 1 << 50)


def vhd_bitmaps() -> Sparse:
    """Ten thousand blocks in a hole, in disorder; no sector of them was written."""
    places = range(1 << 26, 1 << 16, -5000)
    table = b"".join(at.to_bytes(4, "big") for at in places)
    return vhd_table(table, len(places) * 2 * MIB, 2 * MIB, 1 << 38)


def vhdx(log: bytes) -> Sparse:
    """An empty disk with a log."""
    made = Sparse(128 * MIB).put(0, b"vhdxfile")
    header = bytearray(vhdx_writer.header(1, uuid.UUID(int=1)))
    header[48:64] = b"L" * 16
    struct.pack_into("<IQ", header, 68, 64 * MIB, 32 * MIB)
    regions = vhdx_writer.region_table(MIB)
    made.put(64 * KIB, vhdx_writer.seal(header)).put(192 * KIB, regions)
    made.put(vhdx_writer.METADATA_AT, vhdx_writer.metadata(8 * MIB, MIB, 512, None))
    return made.put(32 * MIB, log)


def log_entry(length: int, tail: int, sequence: int, descriptors: bytes) -> bytes:
    entry = struct.pack(
        "<4sIIIQII16sQQ", b"loge", 0, length, tail, sequence, len(descriptors) // 32, 0, b"L" * 16,
        0, 0,
    )  # fmt: skip
    return (entry + descriptors).ljust(4096, b"\0")


def vhdx_log_claims() -> Sparse:
    """Every sector of the log begins an entry as long as the log."""
    return vhdx(log_entry(64 * MIB, 0, 1, b"") * (16 << 10))


def vhdx_log_tails() -> Sparse:
    """Every sector is a right entry; those of the newer half lead back to the older, which does not
    lead on to them."""
    half = 8 << 10
    older = [log_entry(4096, half * 4096, at + 1, b"") for at in range(half)]
    newer = [log_entry(4096, 0, at + 2 * half, b"") for at in range(half)]
    return vhdx(b"".join(vhdx_writer.seal(bytearray(entry)) for entry in older + newer))


def vhdx_log_zeros() -> Sparse:
    """One entry of two million descriptors, each of zeros."""
    count = (64 * MIB - 4096) // 32
    descriptors = struct.pack("<4s4sQQQ", b"zero", b"", 4096, 8 * MIB, 1) * count
    entry = bytearray(log_entry(64 * MIB, 0, 1, descriptors)[: 64 * MIB].ljust(64 * MIB, b"\0"))
    return vhdx(vhdx_writer.seal(entry))


def vhdx_items() -> Sparse:
    """The same item of a mebibyte, two thousand times."""
    name = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
    table = struct.pack("<8sHH20x", b"metadata", 0, 2047)
    table += struct.pack("<16sIIII", name, 0, MIB, 4, 0) * 2047
    made = vhdx(b"").put(vhdx_writer.METADATA_AT, table)
    return made.put(64 * KIB, vhdx_writer.header(1, uuid.UUID(int=1)))


def vhdx_locator() -> Sparse:
    """A parent locator of 65,535 entries, all of them the same long text."""
    kind = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
    entries = struct.pack("<IIHH", 0, 0, 65534, 65534) * 65535
    locator = kind + struct.pack("<HH", 0, 65535) + entries
    items = bytearray(vhdx_writer.metadata(8 * MIB, MIB, 512, None))
    items[32 + 5 * 32 : 32 + 6 * 32] = struct.pack(
        "<16sIIII", uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le,
        80 * KIB, len(locator), 4, 0,
    )  # fmt: skip
    items[10] = 6
    items[64 * KIB + 4] = 2
    made = vhdx(b"").put(vhdx_writer.METADATA_AT, bytes(items).ljust(80 * KIB, b"\0") + locator)
    return made.put(64 * KIB, vhdx_writer.header(1, uuid.UUID(int=1)))


def vmdk(size: int, grain: int, entries: int, directory: bytes, file_bytes: int) -> Sparse:
    head = struct.pack("<4sIIQQQQIQQQ", b"KDMV", 1, 0, size // 512, grain, 1, 2, entries, 0, 8, 0)
    text = b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
    return Sparse(file_bytes).put(0, head.ljust(512, b"\0") + text).put(4096, directory)


def vmdk_empty() -> Sparse:
    return vmdk(128 * TIB, 128, 512, b"", GIB)


def vmdk_too_large() -> Sparse:
    return vmdk(1 << 60, 1, 512, b"", 1 << 53)


def vmdk_shared() -> Sparse:
    return vmdk(2 * TIB, 128, 512, (1 << 20).to_bytes(4, "little") * (1 << 16), 2 * GIB)


def vmdk_overlapping() -> Sparse:
    directory = b"".join(at.to_bytes(4, "little") for at in range(1 << 20, (1 << 20) + (1 << 16)))
    return vmdk(2 * TIB, 128, 512, directory, 2 * GIB)


def vmdk_itself() -> Sparse:
    """A descriptor whose parent is itself."""
    text = b'# Disk DescriptorFile\nCID=1\nparentCID=1\nparentFileNameHint="disk"\n'
    return Sparse(MIB).put(0, text + b"RW 2048 ZERO\n")


def vmdk_crowd() -> Sparse:
    """A descriptor of thousands of extents, each of which is an empty one of 2 TiB."""
    text = b"# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\n"
    return Sparse(MIB).put(0, text + b'RW 4294967296 SPARSE "empty"\n' * 4096)


def vdi(size: int, table: bytes, file_bytes: int) -> Sparse:
    blocks = size // MIB
    head = struct.pack(
        "<IIIII256sIIIIIIIQIIII", 0xBEDA107F, 0x10001, 400, 1, 0, b"", 512, 64 * MIB, 0, 0, 0,
        512, 0, size, MIB, 0, blocks, blocks,
    )  # fmt: skip
    return Sparse(file_bytes).put(64, head).put(512, table)


def vdi_hole() -> Sparse:
    return vdi(8 * TIB, b"", GIB)


def vdi_shared() -> Sparse:
    return vdi(2 * TIB, (7).to_bytes(4, "little") * (2 << 20), GIB)


def vdi_too_large() -> Sparse:
    return vdi(4000 * TIB, b"", 1 << 45)


SHOWN = ""
CASES: list[tuple[Callable[[], Sparse], str]] = [
    (qcow2_empty, SHOWN),
    (qcow2_shared, "a table of its own"),
    (qcow2_scattered, "given up"),
    (qcow2_alternating, "given up"),
    (qcow2_reserved, "a table of its own"),
    (vhd_shared, "expected it alone"),
    (vhd_hole, "expected it alone"),
    (vhd_overlapping, "expected it alone"),
    (vhd_tiny_blocks, "expected at most"),
    (vhd_bitmaps, SHOWN),
    (vhdx_log_claims, "no whole sequence"),
    (vhdx_log_tails, "no whole sequence"),
    (vhdx_log_zeros, "expected at most 65536 changes"),
    (vhdx_items, "expected it once"),
    (vhdx_locator, "which state of the parent"),
    (vmdk_empty, SHOWN),
    (vmdk_too_large, "expected at most"),
    (vmdk_shared, "a table of its own"),
    (vmdk_overlapping, "a table of its own"),
    (vmdk_itself, "expected a chain with an end"),
    (vmdk_crowd, SHOWN),
    (vdi_hole, "for it alone"),
    (vdi_shared, "for it alone"),
    (vdi_too_large, "expected at most"),
]


def ask(container: Image, find: Callable[[str], Image | None], folder: Path) -> list[str]:
    """All that a mount asks of a disk; what was said against it."""
    said: list[str] = []

    def asked(question: Callable[[], object]) -> None:
        with bounded_case(0, b"", folder), budgeted(Budget(BUDGET_SECONDS, BUDGET_BYTES)):
            try:
                question()
            except REFUSALS as error:
                said.append(str(error))

    asked(lambda: references(container))
    asked(lambda: decode(container, find))
    with suppress(*REFUSALS):
        disk = decode(container, find)
        asked(lambda: disk.read(0, 64 * KIB))
        asked(lambda: disk.read(disk.size - 64 * KIB, 64 * KIB))
        asked(lambda: sum(1 for _ in disk.extents(0, disk.size)))
    return said


@pytest.mark.parametrize(("make", "said"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_a_disk_made_to_cost_much_is_shown_or_refused_at_once(
    make: Callable[[], Sparse], said: str, tmp_path: Path
):
    images = {"disk": make().image(), "empty": vmdk(2 * TIB, 128, 512, b"", GIB).image()}
    with bounded_memory():
        got = ask(images["disk"], images.get, tmp_path)
    assert any(said in line for line in got) if said else not got, got
