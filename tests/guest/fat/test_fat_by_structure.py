"""FAT is told by its parameter block; strings and marks beside it inform, and decide nothing."""

from pathlib import Path

import pytest

from store.image import BytesImage
from tests.guest.disks.shown import partitions_of, volume_of
from tests.guest.kernel import need, run

pytestmark = pytest.mark.system

CHANGES: dict[str, dict[int, bytes]] = {
    "untouched": {},
    "blank string": {54: b" " * 8, 82: b" " * 8},
    "other string": {54: b"FAT     ", 82: b"MSWIN4.1"},
    "no end mark": {510: b"\0\0"},
    "no jump": {0: b"\0\0\0"},
    "no string and no end mark": {54: bytes(8), 82: bytes(8), 510: b"\0\0"},
    "nothing but the parameters": {0: bytes(3), 54: bytes(8), 82: bytes(8), 510: b"\0\0"},
}


def volume(folder: Path, width: int) -> bytearray:
    need("mkfs.fat", "mcopy")
    path = folder / "volume"
    size = {12: 2 << 20, 16: 16 << 20, 32: 40 << 20}[width]
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.fat", "-F", str(width), "-s", "1" if width == 32 else "4", "-n", "LABEL", str(path))
    (folder / "hello").write_text("hello\n")
    run("mcopy", "-i", str(path), str(folder / "hello"), "::HELLO.TXT")
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("width", [12, 16, 32])
@pytest.mark.parametrize("change", CHANGES)
def test_a_volume_is_read_whatever_its_boot_sector_calls_itself(
    change: str, width: int, tmp_path: Path
):
    content = volume(tmp_path, width)
    for at, value in CHANGES[change].items():
        if at not in {54, 82} or (at == 82) == (width == 32):
            content[at : at + len(value)] = value
    assert list(volume_of(BytesImage(bytes(content)))) == ["HELLO.TXT"]


@pytest.mark.parametrize("width", [12, 16])
def test_a_boot_sector_from_before_labels_lends_no_label_from_its_code(width: int, tmp_path: Path):
    content = volume(tmp_path, width)
    content[36:62] = b"\x90" * 26
    root = content.index(b"LABEL      \x08")
    content[root] = 0xE5  # no label in the root folder either
    assert list(partitions_of(BytesImage(bytes(content)))) == ["p0"]


@pytest.mark.parametrize(
    ("at", "value"),
    [(11, b"\0\0"), (11, b"\x01\x02"), (13, b"\0"), (13, b"\3"), (14, b"\0\0"), (16, b"\0"),
     (21, b"\x12"), (22, b"\xff\xff")],
)  # fmt: skip
def test_parameters_that_contradict_each_other_are_no_volume(at: int, value: bytes, tmp_path: Path):
    content = volume(tmp_path, 16)
    content[at : at + len(value)] = value
    shown = partitions_of(BytesImage(bytes(content)))
    assert "FAT, its boot sector damaged" in shown["p0.unsupported"]


@pytest.mark.parametrize("name", [b"HPFS    ", b"JFS     "])
def test_a_file_system_that_imitates_the_parameters_is_not_taken_for_fat(
    name: bytes, tmp_path: Path
):
    content = volume(tmp_path, 16)
    content[54:62] = name
    assert list(partitions_of(BytesImage(bytes(content)))) == ["p0.unsupported"]
