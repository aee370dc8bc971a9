"""What a volume's root says of the volume, its system files, and descriptors out of damage."""

import os
import struct
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import Recipe, descriptor, format_volume, mounted
from timefs.guest.ntfs import open_volume
from timefs.guest.ntfs.record import STANDARD_INFORMATION, VOLUME_INFORMATION
from timefs.tree import Leaf

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.usefixtures("ntfs_3g")]

STATE = b"user.timefs.volume_state"
ACL = b"system.ntfs_acl"


def state(patient: Patient) -> str:
    return patient.open().root.xattrs()[STATE].decode()


def restart_page(number: int, client: int, flags: int) -> bytes:
    """One page of $LogFile, protected by its fix-up."""
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 48, 1, 1)
    struct.pack_into("<QHHHH", page, 48, number, 1, 0xFFFF, client, flags)
    struct.pack_into("<H", page, 30, 7)
    for end in range(512, 4097, 512):
        page[end - 2 : end] = struct.pack("<H", 7)
    return bytes(page)


def set_log(patient: Patient, *pages: bytes) -> None:
    place, _ = patient.extents_of(2)[0]
    for position, page in enumerate(pages):
        patient.content[place + 4096 * position : place + 4096 * position + 4096] = page


def test_a_volume_that_was_closed_is_clean(patient: Patient):
    assert state(patient) == "clean"
    assert list(patient.open().root.xattrs()) == [STATE]
    assert STATE not in patient.node("folder").xattrs()


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([restart_page(1, 0xFFFF, 0), restart_page(2, 0xFFFF, 0)], "clean"),
        ([restart_page(1, 0, 0), restart_page(2, 0, 2)], "clean"),
        ([restart_page(1, 0xFFFF, 0), restart_page(2, 0, 0)], "dirty: $LogFile was not closed"),
        ([restart_page(2, 0, 0), restart_page(1, 0xFFFF, 0)], "dirty: $LogFile was not closed"),
        ([restart_page(2, 0xFFFF, 0), bytes(4096)], "clean"),
        ([bytes(4096), bytes(4096)], "dirty: $LogFile has no restart page"),
    ],
)
def test_the_newest_restart_page_of_the_log_decides(
    patient: Patient, pages: list[bytes], expected: str
):
    set_log(patient, *pages)
    assert state(patient) == expected


def test_every_reason_is_named(patient: Patient):
    patient.edit_value(3, VOLUME_INFORMATION, lambda value: struct.pack_into("<H", value, 10, 1))
    set_log(patient, restart_page(1, 0, 0), restart_page(2, 0, 0))
    assert state(patient) == ("dirty: the volume is marked for a check; $LogFile was not closed")
    geometry = patient.geometry
    patient.content[patient.place(2) + 511] ^= 1
    patient.content[geometry.mirror_place + 2 * geometry.record_bytes + 511] ^= 1
    assert state(patient).startswith(
        "dirty: the volume is marked for a check; $LogFile cannot be read (NTFS record 2: torn"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"HIBR" + bytes(5000), "dirty: Windows was hibernated, or shut down with fast startup"),
        (b"hibr" + bytes(5000), "dirty: Windows was hibernated, or shut down with fast startup"),
        (bytes(5000), "clean"),
        (b"wake" + bytes(5000), "clean"),
    ],
)
def test_a_hibernated_system_is_known_by_its_file(tmp_path: Path, content: bytes, expected: str):
    image = tmp_path / "volume"
    format_volume(image, Recipe(size=8 << 20))
    with mounted(image, "rw") as root:
        (root / "HiberFil.sys").write_bytes(content)
    volume = open_volume(BytesImage(image.read_bytes()), b"")
    assert volume.root.xattrs()[STATE].decode() == expected


def test_system_files_are_shown_when_asked_for(small: bytes):
    hidden = {name for name, _ in open_volume(BytesImage(small), b"").root.entries()}
    volume = open_volume(BytesImage(small), b"", show_system=True)
    shown = dict(volume.root.entries())
    assert shown.keys() - hidden == {
        b"$MFT", b"$MFTMirr", b"$LogFile", b"$Volume", b"$AttrDef", b"$Bitmap", b"$Boot",
        b"$BadClus", b"$Secure", b"$UpCase", b"$Extend",
    }  # fmt: skip
    for name in shown.keys() - hidden:
        node = shown[name]
        attributes = node.attributes()
        assert node.identity == volume.root.lookup(name).identity
        if isinstance(node, Leaf) and name not in (b"$Secure", b"$BadClus"):
            image = node.open()
            assert image.size == attributes.size
            assert len(image.read(0, 4096)) == min(4096, image.size)
    assert volume.root.lookup(b"$MFT").attributes().size > 0


def secured(tmp_path: Path) -> Patient:
    image = tmp_path / "volume"
    format_volume(image, Recipe(cluster_bytes=1024, size=8 << 20))
    with mounted(image, "rw") as root:
        for number in range(200):
            (root / f"{number}").touch()
            os.setxattr(root / f"{number}", "system.ntfs_acl", descriptor(number))
    return Patient(image.read_bytes())


def test_a_descriptor_is_proven_and_had_from_its_copy(tmp_path: Path):
    patient = secured(tmp_path)
    wanted = descriptor(77)
    assert patient.node("77").xattrs()[ACL] == wanted
    first = patient.content.find(wanted)
    second = patient.content.find(wanted, first + 1)
    assert first > 0
    assert second > first
    patient.content[first + 60] ^= 1
    assert patient.node("77").xattrs()[ACL] == wanted
    patient.content[second + 60] ^= 1
    with pytest.raises(CorruptError, match=r"\$Secure: descriptor \d+"):
        patient.node("77").xattrs().get(ACL)
    assert patient.node("78").xattrs()[ACL] == descriptor(78)


def test_a_descriptor_that_the_index_lacks_is_an_error_and_not_absent(tmp_path: Path):
    patient = secured(tmp_path)
    number = patient.number("7")
    for identifier, expected in ((99_999, CorruptError), (0, None)):
        patient.edit_value(
            number,
            STANDARD_INFORMATION,
            lambda value, one=identifier: struct.pack_into("<I", value, 52, one),
        )
        if expected is None:
            assert patient.node("7").xattrs().get(ACL) is None
        else:
            with pytest.raises(expected, match="descriptor 99999"):
                patient.node("7").xattrs().get(ACL)


def test_a_stream_too_large_for_an_attribute_is_read_as_a_file(tmp_path: Path):
    image = tmp_path / "volume"
    format_volume(image, Recipe(size=16 << 20))
    content = os.urandom(3 << 20)
    with mounted(image, "rw", streams="windows") as root:
        (root / "file").write_bytes(b"main")
        (root / "file:large").write_bytes(content)
        (root / "file:fits").write_bytes(content[: 64 << 10])
    root = open_volume(BytesImage(image.read_bytes()), b"").root
    xattrs = root.lookup(b"file").xattrs()
    assert set(xattrs) == {b"user.large", b"user.fits"}
    assert xattrs[b"user.fits"] == content[: 64 << 10]
    with pytest.raises(UnsupportedError, match="open it as NAME:STREAM"):
        xattrs.get(b"user.large")
    stream = root.lookup(b"file:large")
    assert isinstance(stream, Leaf)
    assert stream.open().read(0, 4 << 20) == content
