"""Descriptors as many programs, systems and editors write them."""

import codecs
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Image
from tests.fuzz.bounds import bounded_case
from tests.guest.disks.qemu import KIB, need, opened, truth
from timefs.guest.detect import decode, references
from timefs.guest.vmdk import is_vmdk

DATA = bytes(range(256)) * 256
SECTORS = len(DATA) // 512
KEYS = ("version=1", "CID=fffffffe", "parentCID=ffffffff", 'createType="monolithicFlat"')


def text(
    name: str, keys: Sequence[str] = KEYS, title: str = "# Disk DescriptorFile", ends: str = "\n"
) -> str:
    lines = (*([title] if title else []), *keys, f'RW {SECTORS} FLAT "{name}" 0')
    return ends.join(lines) + ends


def shown(content: bytes, **files: bytes) -> bytes:
    """What a descriptor gives beside a file of DATA under its usual name."""
    held: dict[str, Image] = {"flat.vmdk": BytesImage(DATA)}
    held |= {name: BytesImage(found) for name, found in files.items()}
    disk = decode(BytesImage(content), held.get)
    return disk.read(0, disk.size)


@pytest.mark.parametrize(
    ("named", "codec", "name"),
    [
        ("GBK", "gbk", "虚拟机"),
        ("gb2312", "gbk", "虛擬機"),  # which GB2312 itself has not
        ("windows-936", "gbk", "磁盘"),
        ("GB18030", "gb18030", "磁盘"),
        ("Big5", "cp950", "磁碟"),
        ("Shift_JIS", "cp932", "ディスク①"),  # nor Shift_JIS the last
        ("windows-31j", "cp932", "仮想"),
        ("EUC-KR", "cp949", "디스크"),
        ("windows-949", "cp949", "디스크"),
        ("windows-1252", "cp1252", "Büro €"),
        ("WINDOWS-1251", "cp1251", "диск"),
        ("ISO-8859-2", "iso8859-2", "łąka"),
        ("koi8-r", "koi8-r", "диск"),
        ("IBM850", "cp850", "Büro"),
        ("US-ASCII", "ascii", "disk"),
        ("UTF-8", "utf-8", "虚拟机"),
    ],
)
def test_names_are_read_in_the_encoding_that_the_descriptor_names(
    named: str, codec: str, name: str
):
    content = text(f"{name}-flat.vmdk", (*KEYS, f'encoding="{named}"')).encode(codec)
    assert shown(content, **{f"{name}-flat.vmdk": DATA[::-1]}) == DATA[::-1]


@pytest.mark.parametrize(
    "named", ["windows-1252", "klingon", "zlib", "punycode", "", "a\0b", "x" * 99]
)
def test_names_that_are_in_utf_8_whatever_is_said_are_found(named: str):
    content = text("虚拟机.vmdk", (*KEYS, f'encoding="{named}"')).replace("\0", "%").encode()
    assert shown(content, **{"虚拟机.vmdk": DATA[::-1]}) == DATA[::-1]


def test_names_that_are_bytes_of_no_encoding_are_found_as_they_are():
    content = text("b\xfcro.vmdk").encode("latin-1")
    assert shown(content, **{"b\udcfcro.vmdk": DATA[::-1]}) == DATA[::-1]


def test_an_encoding_that_is_not_known_is_told_where_a_file_is_missing():
    content = text("büro.vmdk", (*KEYS, 'encoding="klingon"')).encode("latin-1")
    with pytest.raises(CorruptError, match="an encoding that is not known, b'klingon'"):
        shown(content)


def test_what_a_name_may_mean_is_a_reference():
    content = BytesImage(text("Büro.vmdk", (*KEYS, "encoding=windows-1252")).encode("cp1252"))
    assert references(content) == ["Büro.vmdk", "B\udcfcro.vmdk"]


@pytest.mark.parametrize(
    "content",
    [
        text("flat.vmdk").encode(),
        text("flat.vmdk", title="").encode(),
        text("flat.vmdk", title="# made by hand").encode(),
        ("\n\r\n  \n" + text("flat.vmdk")).encode(),
        codecs.BOM_UTF8 + text("flat.vmdk").encode(),
        codecs.BOM_UTF16_LE + text("flat.vmdk").encode("utf-16-le"),
        codecs.BOM_UTF16_BE + text("flat.vmdk").encode("utf-16-be"),
        text("flat.vmdk", ends="\r\n").encode(),
        text("flat.vmdk", ends="\r").encode(),
        text("flat.vmdk", KEYS[::-1], title="").encode(),
        text("flat.vmdk").upper().replace("FLAT.VMDK", "flat.vmdk").encode(),
        text("flat.vmdk", title="").lower().encode(),
        text("flat.vmdk").replace("=", "  =\t").encode(),
        text("flat.vmdk", title="").replace("\n", "\n\t ").encode(),
        text("flat.vmdk", ["CID=1"], title="").encode(),
        text("flat.vmdk", ["version=4", "future.key = yes"], title="").encode(),
        (text("flat.vmdk") + "\0" * 500).encode(),
        b"#" * 9000 + b"\n" + text("flat.vmdk", title="").encode(),
        text("flat.vmdk").replace(f"RW {SECTORS}", f"RDONLY   {SECTORS}").encode(),
    ],
)
def test_a_descriptor_is_known_by_its_keys_however_it_is_written(content: bytes):
    assert shown(content) == DATA


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xeb\x3c\x90MSDOS5.0",
        b"some notes\nversion=1\nCID=2\n",
        b"version=1\n",
        b".encoding = x\nconfig.version = 8\nvirtualHW.version = 14\n",
        b"# a script\nexit 1\n",
        bytes(16 * KIB) + text("flat.vmdk").encode(),
    ],
)
def test_other_files_are_no_descriptors(content: bytes):
    assert not is_vmdk(BytesImage(content))


@pytest.mark.system
@pytest.mark.parametrize("title", ["# Disk DescriptorFile\n", "# by hand\n", "", "\n\n# x\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_qemu_takes_for_a_descriptor_is_one(title: str, ends: str, tmp_path: Path):
    need("qemu-img")
    (tmp_path / "flat.vmdk").write_bytes(DATA)
    content = (title + text("flat.vmdk", title="")).replace("\n", ends)
    (tmp_path / "disk.vmdk").write_text(content, newline="")
    expected = truth(tmp_path / "disk.vmdk", "vmdk")
    with opened(tmp_path) as files:
        disk = decode(files["disk.vmdk"], files.find)
        assert disk.read(0, disk.size) == expected == DATA


@pytest.mark.parametrize(
    "line",
    [
        b"k=" + b"b " * 400_000 + b'""x',
        b" " * 900_000 + b"=",
        b"RW " + b" " * 900_000 + b'1 FLAT "flat.vmdk" 0',
        b"RW 1 ZERO\n" * 90_000,
        b"RW " + b"9" * 900_000 + b" ZERO",
        b'"=' * 450_000,
        b"\n" * 900_000 + b"CID",
        b"#\n" * 450_000,
    ],
)
def test_a_text_meant_to_be_slow_to_read_is_read_at_once(line: bytes, tmp_path: Path):
    content = b"# Disk DescriptorFile\nCID=1\nversion=1\n" + line
    with bounded_case(0, content, tmp_path):
        for _ in range(4):
            with pytest.raises((CorruptError, UnsupportedError)):
                decode(BytesImage(content))


def embedded(sectors: int, lines: bytes, *, markers: bool) -> bytes:
    """A compressed extent of one grain with a descriptor inside."""
    grain = zlib.compress(DATA)
    marker = (0).to_bytes(8, "little") + len(grain).to_bytes(4, "little") if markers else b""
    numbers = [b"KDMV", 3, 1 << 16 | (1 << 17 if markers else 0), sectors, 128, 1, 2, 512, 0, 3]
    head = b"".join(
        part if isinstance(part, bytes) else part.to_bytes(width, "little")
        for part, width in zip(numbers, (4, 4, 4, 8, 8, 8, 8, 4, 8, 8), strict=True)
    )
    content = bytearray(64 * KIB)
    content[: len(head)] = head
    content[77:79] = b"\1\0"  # deflate
    content[512 : 512 + len(lines)] = lines
    content[3 * 512 : 3 * 512 + 4] = (4).to_bytes(4, "little")
    content[4 * 512 : 4 * 512 + 4] = (8).to_bytes(4, "little")
    content[8 * 512 : 8 * 512 + len(marker) + len(grain)] = marker + grain
    return bytes(content)


@pytest.mark.system
@pytest.mark.parametrize("markers", [True, False])
@pytest.mark.parametrize("listed", [b'RW 7 SPARSE "x"\n', b'RW 1 FLAT "a"\nRW 2 FLAT "b"\n', b""])
def test_an_extent_with_its_descriptor_inside_is_as_large_as_its_header_says(
    markers: bool, listed: bytes, tmp_path: Path
):
    need("qemu-img")
    lines = b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
    lines += b'createType="streamOptimized"\n'
    path = tmp_path / "disk.vmdk"
    path.write_bytes(embedded(SECTORS, lines + listed, markers=markers))
    expected = truth(path, "vmdk")
    with opened(tmp_path) as files:
        disk = decode(files["disk.vmdk"], files.find)
        assert disk.read(0, disk.size) == expected == DATA


def test_a_descriptor_in_an_empty_extent_describes_other_files():
    content = embedded(0, text("flat.vmdk").encode(), markers=True)
    assert references(BytesImage(content)) == ["flat.vmdk"]
    assert shown(content) == DATA


def test_an_extent_that_says_it_has_a_descriptor_and_has_none_is_refused(tmp_path: Path):
    content = embedded(SECTORS, b"\xff" * 40, markers=True)
    with pytest.raises(CorruptError, match="VMDK descriptor: expected its keys"):
        shown(content)
