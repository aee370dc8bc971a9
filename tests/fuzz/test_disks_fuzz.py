"""Whatever is damaged in a disk or its tables, reading ends in time, with declared errors only."""

import random
import struct
import uuid
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, ExtentKind, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.guest.disks import vhd_writer, vhdx_writer
from tests.guest.disks.lvm_tools import Tools, loop_devices, physical
from tests.guest.disks.qemu import KIB, MIB, create, need, run, scribble
from timefs.guest.detect import decode, disk_contents, references
from timefs.guest.lvm import group_name, logical_volumes, read_physical_volume
from timefs.guest.lvm.label import lvm_checksum
from timefs.guest.partitions import partition_image

pytestmark = [pytest.mark.system, pytest.mark.root]

BATCH_CASES = 1000
READ_BYTES = 64 << 10
VALUES = (
    *(0, 1, 2, 3, 6, 7, 8, 9, 16, 31, 63, 64, 0x7F, 0xFF, 0x200, 0x1000, 0x7FFF, 0xFFFF),
    *(0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, (1 << 40) - 1, (1 << 62) | 5, (1 << 63) - 1),
    *(1 << 63, (1 << 64) - 1),
)


class Patient(NamedTuple):
    """A file to damage, and where its structures are."""

    content: bytes
    ranges: list[tuple[int, int]]
    """(offset, length) of headers and tables."""
    repair: Callable[[bytearray], None]
    """Makes checksums right again, so that the damage behind them is reached."""
    others: dict[str, bytes]
    """The files it stands on."""


def no_repair(content: bytearray) -> None:
    del content


def repair_vhd(content: bytearray) -> None:
    header = content[512:1536]
    vhd_writer.checksum(header, 36)
    content[512:1536] = header
    for at in (0, len(content) - 512):
        footer = content[at : at + 512]
        vhd_writer.checksum(footer, 64)
        content[at : at + 512] = footer


def repair_vhdx(content: bytearray) -> None:
    for at, length in ((64, 4), (128, 4), (192, 64), (256, 64)):
        part = bytearray(content[at * KIB : (at + length) * KIB])
        content[at * KIB : (at + length) * KIB] = vhdx_writer.seal(part)


def repair_lvm(content: bytearray) -> None:
    struct.pack_into("<I", content, 512 + 16, lvm_checksum(bytes(content[532:1024])))
    at, length = struct.unpack_from("<QQ", content, 4096 + 40)
    if at + length < MIB:
        text = bytes(content[4096 + at : 4096 + at + length])
        struct.pack_into("<I", content, 4096 + 56, lvm_checksum(text))
    struct.pack_into("<I", content, 4096, lvm_checksum(bytes(content[4100:4608])))


def repair_gpt(content: bytearray) -> None:
    for at in (512, len(content) - 512):
        length, table_at = (
            struct.unpack_from("<I", content, at + 12)[0],
            struct.unpack_from("<Q", content, at + 72)[0],
        )
        count, entry = struct.unpack_from("<II", content, at + 80)
        if count * entry <= 1 << 20 and table_at < 1 << 40:
            table = bytes(content[table_at * 512 : table_at * 512 + count * entry])
            struct.pack_into("<I", content, at + 88, zlib.crc32(table))
        if length <= 512:
            head = bytes(content[at : at + 16]) + bytes(4) + bytes(content[at + 20 : at + length])
            struct.pack_into("<I", content, at + 16, zlib.crc32(head))


def by_qemu(
    kind: str,
    folder: Path,
    options: list[str],
    ranges: list[tuple[int, int]],
    size: int = 3 * MIB,
) -> Patient:
    path = folder / "disk"
    create(path, kind, size, options)
    scribble(path, kind, size, random.Random(kind), 12)
    return Patient(path.read_bytes(), ranges, no_repair, {})


def compressed(kind: str, folder: Path, options: str, ranges: list[tuple[int, int]]) -> Patient:
    raw, path = folder / "raw", folder / "disk"
    create(raw, "raw", MIB)
    scribble(raw, "raw", MIB, random.Random(kind), 12)
    compress = ("-c",) if kind == "qcow2" else ()
    run("qemu-img", "convert", *compress, "-f", "raw", "-O", kind, "-o", options, raw, path)
    content = path.read_bytes()
    return Patient(content, [*ranges, (len(content) - 2 * KIB, 2 * KIB)], no_repair, {})


def qcow2(folder: Path) -> Patient:
    tables = [(0, 112), (0, 200), (3 * 64 * KIB, 64), (4 * 64 * KIB, 512)]
    return by_qemu("qcow2", folder, ["compression_type=zstd"], tables)


def qcow2_small(folder: Path) -> Patient:
    ranges = [(0, 112), (0, 20 * KIB), (0, 20 * KIB)]
    options = ["cluster_size=512", "compat=0.10"]
    return by_qemu("qcow2", folder, options, ranges, 256 * KIB)


def qcow2_extended(folder: Path) -> Patient:
    size = 16 * KIB
    return by_qemu("qcow2", folder, ["extended_l2=on", "cluster_size=16k"],
                   [(0, 112), (3 * size, 64), (4 * size, 4 * KIB)])  # fmt: skip


def qcow2_compressed(folder: Path) -> Patient:
    return compressed("qcow2", folder, "compression_type=zlib", [(0, 112), (0, 6 * 64 * KIB)])


def qcow2_zstd(folder: Path) -> Patient:
    return compressed("qcow2", folder, "compression_type=zstd", [(0, 112), (0, 6 * 64 * KIB)])


def qcow2_chain(folder: Path) -> Patient:
    create(folder / "base", "raw", 2 * MIB)
    path = folder / "top"
    create(path, "qcow2", 3 * MIB, (), "-b", "base", "-F", "raw")
    scribble(path, "qcow2", 3 * MIB, random.Random(1), 8)
    tables = [(0, 400), (3 * 64 * KIB, 64), (4 * 64 * KIB, 512)]
    content = path.read_bytes()
    others = {"base": (folder / "base").read_bytes(), "top": content}
    return Patient(content, tables, no_repair, others)


def vdi(folder: Path) -> Patient:
    return by_qemu("vdi", folder, [], [(64, 400), (512, 64)])


def vmdk(folder: Path) -> Patient:
    return by_qemu("vmdk", folder, [], [(0, 90), (512, 600), (21 * 512, 4 * KIB), (0, 64 * KIB)])


def vmdk_stream(folder: Path) -> Patient:
    return compressed("vmdk", folder, "subformat=streamOptimized", [(0, 90), (512, 600)])


def vmdk_descriptor(folder: Path) -> Patient:
    create(folder / "disk.vmdk", "vmdk", MIB, ["subformat=twoGbMaxExtentSparse"])
    others = {path.name: path.read_bytes() for path in folder.glob("*.vmdk")}
    content = others["disk.vmdk"]
    return Patient(content, [(0, len(content))], no_repair, others)


def sesparse(folder: Path) -> Patient:
    """Written by hand: a directory, one table, two grains."""
    del folder
    head = struct.pack("<6Q32x16Q", 0xCAFEBABE, 0x0000000200000001, 2048, 8, 64, 0,
                       1, 1, 2, 1, 3, 1, 4, 1, 5, 64, 70, 1, 71, 1, 72, 64)  # fmt: skip
    content = bytearray(72 * 512 + 2 * 4096)
    content[: len(head)] = head
    content[512 : 512 + 25] = struct.pack("<QQQB", 0xCAFECAFE, 0, 0, 0)
    struct.pack_into("<Q", content, 4 * 512, 0x1000000000000000)
    entries = (3 << 60, 3 << 60 | 1 << 48, 2 << 60, 1 << 60, 0)
    struct.pack_into("<5Q", content, 5 * 512, *entries)
    text = b'# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 2048 SESPARSE "disk"\n'
    ranges = [(0, 210), (512, 25), (4 * 512, 16), (5 * 512, 64)]
    return Patient(bytes(content), ranges, no_repair, {"descriptor": text})


def vhd(folder: Path) -> Patient:
    path = folder / "disk.vhd"
    sectors = {at: bytes([at % 256]) * 512 for at in (0, 1, 77, 4000)}
    vhd_writer.write_vhd(path, 3 * MIB, sectors, unique_id=b"b" * 16, block_bytes=MIB)
    base = path.read_bytes()
    parent = vhd_writer.Parent(b"b" * 16, "base", ".\\base")
    vhd_writer.write_vhd(path, 3 * MIB, {5: b"x" * 512}, unique_id=b"c" * 16, parent=parent)
    content = path.read_bytes()
    tables = [
        (0, 90),
        (512, 70),
        (512 + 576, 200),
        (1536, 20),
        (2560, 32),
        (len(content) - 512, 90),
    ]
    return Patient(content, [*tables, (4096, 520)], repair_vhd, {"base": base, "top": content})


def vhdx(folder: Path) -> Patient:
    path, guid = folder / "disk.vhdx", uuid.UUID(int=1)
    layout = vhdx_writer.Layout(3 * MIB, MIB)
    sectors = {at: bytes([at % 256]) * 512 for at in (0, 1, 77, 4000)}
    vhdx_writer.write_vhdx(path, layout, sectors, data_guid=guid)
    base = path.read_bytes()
    parent = vhdx_writer.Parent(guid, {"relative_path": ".\\base"})
    vhdx_writer.write_vhdx(path, layout, {5: b"x" * 512}, data_guid=guid, parent=parent)
    tables = [(64 * KIB, 80), (128 * KIB, 80), (192 * KIB, 90), (256 * KIB, 90), (2 * MIB, 240),
              (2 * MIB + 64 * KIB, 300), (3 * MIB, 64), (3 * MIB + 4096 * 8, 8)]  # fmt: skip
    return Patient(path.read_bytes(), tables, repair_vhdx, {"base": base})


def vhdx_log(folder: Path) -> Patient:
    """The same with a log of one entry, made by hand."""
    path = folder / "disk.vhdx"
    layout = vhdx_writer.Layout(3 * MIB, MIB)
    vhdx_writer.write_vhdx(path, layout, {5: b"x" * 512}, data_guid=uuid.UUID(int=1))
    content = bytearray(path.read_bytes())
    guid = b"L" * 16
    entry = bytearray(8192)
    struct.pack_into(
        "<4sIIIQII16sQQ", entry, 0, b"loge", 0, 8192, 0, 7, 2, 0, guid, len(content), len(content)
    )
    struct.pack_into("<4s4sQQQ", entry, 64, b"desc", b"tail", 0, 4 * MIB + 8192, 7)
    struct.pack_into("<4s4sQQQ", entry, 96, b"zero", b"", 4096, 4 * MIB + 4096, 7)
    struct.pack_into("<4sI", entry, 4096, b"data", 0)
    struct.pack_into("<I", entry, 8188, 7)
    content[MIB : MIB + 8192] = vhdx_writer.seal(entry)
    for copy in (64, 128):
        content[copy * KIB + 48 : copy * KIB + 64] = guid
    repair_vhdx(content)

    def repair(damaged: bytearray) -> None:
        repair_vhdx(damaged)
        damaged[MIB : MIB + 8192] = vhdx_writer.seal(bytearray(damaged[MIB : MIB + 8192]))

    ranges = [(MIB, 128), (MIB, 128), (MIB + 4096, 16), (64 * KIB, 80), (128 * KIB, 80)]
    return Patient(bytes(content), ranges, repair, {})


def mbr(folder: Path) -> Patient:
    need("sfdisk")
    path = folder / "disk"
    path.write_bytes(bytes(8 * MIB))
    (folder / "script").write_text("label: dos\n,1M,7\n,,E\n,1M,L\n,1M,L\n")
    run("sh", "-c", f"sfdisk -q {path} < {folder / 'script'}")
    content = path.read_bytes()
    chain = [
        at for at in range(0, len(content), 512) if content[at + 510 : at + 512] == b"\x55\xaa"
    ]
    assert len(chain) == 3
    return Patient(content, [(at + 446, 66) for at in chain], no_repair, {})


def gpt(folder: Path) -> Patient:
    need("sgdisk")
    path = folder / "disk"
    path.write_bytes(bytes(2 * MIB))
    run("sgdisk", "-a", "1", "-n", "1:100:200", "-n", "2:300:400", path)
    size = 2 * MIB
    ranges = [(446, 66), (512, 92), (1024, 256), (size - 512, 92), (size - 33 * 512, 256)]
    return Patient(path.read_bytes(), ranges, repair_gpt, {})


def lvm(folder: Path) -> Patient:
    need("losetup", "vgcreate")
    (path,) = physical(folder, "disk", size=4 * MIB)
    with loop_devices(path) as devices:
        tools = Tools(devices)
        tools("vgcreate", "-s", "512k", "vg0", *devices)
        tools.volume("vg0", "a", "-L", "1M")
        tools.volume("vg0", "b", "-L", "512k")
    content = path.read_bytes()
    at, length = struct.unpack_from("<QQ", content, 4096 + 40)
    ranges = [(512, 200), (4096, 72), (4096 + at, length), (4096 + at, length), (4096 + at, length)]
    return Patient(content, ranges, repair_lvm, {})


MAKERS = (qcow2, qcow2_small, qcow2_extended, qcow2_compressed, qcow2_zstd, qcow2_chain, vdi, vmdk,
          vmdk_stream, vmdk_descriptor, sesparse, vhd, vhdx, vhdx_log, mbr, gpt, lvm)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cases of each format, a batch a test."""
    if "batch" in metafunc.fixturenames:
        cases = metafunc.config.getoption("--cases")
        assert isinstance(cases, int)
        starts = range(0, cases, BATCH_CASES)
        batches = [range(at, min(at + BATCH_CASES, cases)) for at in starts]
        pairs = [(maker, batch) for maker in MAKERS for batch in batches]
        metafunc.parametrize(
            ("maker", "batch"),
            pairs,
            ids=[f"{maker.__name__}-{batch[0]}" for maker, batch in pairs],
        )


_made: dict[str, Patient] = {}


@pytest.fixture
def patient(maker: Callable[[Path], Patient], tmp_path: Path) -> Patient:
    need("qemu-img", "qemu-io")
    if maker.__name__ not in _made:
        _made[maker.__name__] = maker(tmp_path)
    return _made[maker.__name__]


def damaged(patient: Patient, seed: int) -> bytes:
    chance = random.Random(seed)
    content = bytearray(patient.content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, length = chance.choice(patient.ranges)
        mutate(content, at, min(length, len(content) - at), chance)
    if chance.random() < 0.6:
        with suppress(struct.error):
            patient.repair(content)
    if chance.random() < 0.05:
        del content[chance.randrange(len(content)) :]
    return bytes(content)


def mutate(content: bytearray, start: int, length: int, chance: random.Random) -> None:
    """One change within a structure, most of them to a whole field."""
    at = start + chance.randrange(max(length, 1))
    order = chance.choice(("little", "big"))
    match chance.randrange(6):
        case 0:
            content[at] ^= 1 << chance.randrange(8)
        case 1:
            content[at] = chance.randrange(256)
        case 2 | 3:
            width = chance.choice((2, 4, 8))
            at = start + (at - start) // width * width
            value = chance.choice(VALUES) & ((1 << 8 * width) - 1)
            content[at : at + width] = value.to_bytes(width, order)
        case 4:
            count = min(chance.randrange(1, 32), start + length - at)
            content[at : at + count] = chance.choice((bytes(count), chance.randbytes(count)))
        case _:
            count = min(8 * chance.randrange(1, 5), length)
            source = start + chance.randrange(length - count + 1)
            target = start + chance.randrange(length - count + 1)
            content[target : target + count] = content[source : source + count]


DECLARED = (CorruptError, UnsupportedError)


def read_everything(patient: Patient, content: bytes) -> bool:
    """Decode and read; answers whether anything could be read."""
    others = {name: BytesImage(other) for name, other in patient.others.items()}
    container = BytesImage(content)
    if "disk" not in others:
        others["disk"] = container
    if "descriptor" in others:
        container = others["descriptor"]
    with suppress(*DECLARED):
        references(container)
    try:
        disk = decode(container, others.get)
    except DECLARED:
        return False
    done = read_image(disk)
    with suppress(*DECLARED):
        for partition in disk_contents(disk).partitions or []:
            with suppress(*DECLARED):
                done |= read_image(partition_image(disk, partition))
    with suppress(*DECLARED):
        physical_volume = read_physical_volume(disk)
        with suppress(*DECLARED):
            group_name(physical_volume)
        for volume in logical_volumes([physical_volume]):
            assert volume.image is not None or volume.problem
            if volume.image is not None:
                done |= read_image(volume.image)
    return done


def read_image(image: Image) -> bool:
    done = False
    for offset in (0, image.size // 2, max(0, image.size - READ_BYTES)):
        with suppress(*DECLARED):
            part = image.read(offset, READ_BYTES)
            assert len(part) == min(READ_BYTES, image.size - offset)
            at = offset
            for extent in image.extents(offset, READ_BYTES):
                assert extent.offset == at
                assert extent.length > 0
                assert (extent.backing is None) == (extent.kind == ExtentKind.ZERO)
                at += extent.length
            assert at == offset + len(part)
            done = True
    return done


@pytest.mark.timeout(0)  # each case has its own alarm, which uses the same timer
def test_a_damaged_disk_gives_declared_errors_only(
    patient: Patient, batch: range, tmp_path: Path
) -> None:
    assert read_everything(patient, patient.content)
    read = 0
    with bounded_memory():
        for case in batch:
            content = damaged(patient, case)
            with bounded_case(case, content, tmp_path):
                read += read_everything(patient, content)
    assert read > len(batch) // 20  # the damage is not so coarse that nothing opens
