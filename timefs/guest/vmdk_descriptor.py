"""VMDK descriptors: the text that says what a disk is made of.

Defined here and only here: `Descriptor`. Used by timefs.guest.vmdk. Pure functions, which look at
each byte a fixed number of times. A descriptor is known by what it says, not by how it begins:
comments, blank lines, a byte order mark, the order and the case of keys do not matter. Names of
files come in the encoding that the descriptor names, which VMware on Windows takes from the system.

Source: VMware, Virtual Disk Format 5.0, "The Descriptor File"; QEMU's block/vmdk.c for what is met.
"""

import codecs
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from store.errors import CorruptError

TITLE: Final = b"disk descriptorfile"
DESCRIPTOR_BYTES_MAX: Final = 1 << 20
HEAD_BYTES: Final = 16 << 10
"""Within these a text shows whether it is a descriptor."""

KEYS: Final = (b"version", b"encoding", b"cid", b"parentcid", b"createtype", b"parentfilenamehint")
ACCESSES: Final = (b"RW", b"RDONLY", b"NOACCESS")
EXTENTS_MAX: Final = 4096
DISK_BYTES_MAX: Final = 1 << 60
SECTOR_BYTES: Final = 512
DIGITS_MAX: Final = 18
NO_PARENT: Final = "ffffffff"

ENCODINGS: Final = frozenset({
    "utf-8", "ascii", "gbk", "gb2312", "gb18030", "big5", "big5hkscs", "shift_jis", "euc_jp",
    "euc_kr", "johab", "koi8-r", "koi8-u", "tis-620", "cp437", "cp720", "cp737", "cp775", "cp850",
    "cp852", "cp855", "cp857", "cp858", "cp862", "cp866", "cp874", "cp932", "cp949", "cp950",
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    *(f"iso8859-{part}" for part in range(1, 17)),
})  # fmt: skip
"""By Python's names. Systems name files in them; others of its codecs are no encodings of names."""

AS_WINDOWS_HAS_THEM: Final = {
    "shift_jis": "cp932",
    "gb2312": "gbk",
    "euc_kr": "cp949",
    "big5": "cp950",
    "iso8859-1": "cp1252",
}
OTHER_NAMES: Final = {
    "cp936": "gbk",
    "cp54936": "gb18030",
    "cp65001": "utf-8",
    "windows-31j": "cp932",
}


class ListedExtent(NamedTuple):
    """A line of a descriptor's list of extents."""

    access: str
    size: int
    """Bytes."""
    kind: str
    names: list[str]
    """What the name of its file may be, the likeliest first; empty if it needs none."""
    offset: int
    """Bytes, into the file of a flat extent."""


class Descriptor(NamedTuple):
    """What a descriptor says."""

    cid: str
    parent_cid: str
    parent_names: list[str]
    """What its parent's name may be; empty if it has no parent."""
    extents: list[ListedExtent]
    note: str
    """What is odd about its names, for errors about them."""


def is_descriptor(content: bytes) -> bool:
    """Whether a file that begins so is a descriptor.

    It has two of the keys, or one and an extent; or a comment says so before all else.
    """
    known: set[bytes] = set()
    for line in _lines(_in_ascii(content[:HEAD_BYTES])):
        if line.startswith(b"#"):
            if not known and line[1:].strip().lower() == TITLE:
                return True
            continue
        key, equals, _ = line.partition(b"=")
        if _extent_words(line):
            known.add(b"extent")
        elif not equals:
            return False
        elif key.strip().lower() in KEYS:
            known.add(key.strip().lower())
        if len(known) > 1:
            return True
    return False


def parse_descriptor(content: bytes) -> Descriptor:
    """The descriptor in a text.

    Raises:
        CorruptError: it contradicts the format.
    """
    values: dict[bytes, bytes] = {}
    listed: list[bytes] = []
    for line in _lines(_in_ascii(content)):
        if line.startswith(b"#"):
            continue
        if _extent_words(line):
            listed.append(line)
            if len(listed) > EXTENTS_MAX:
                raise CorruptError(f"VMDK descriptor: expected at most {EXTENTS_MAX} extents")
            continue
        key, equals, value = line.partition(b"=")
        if equals:
            values.setdefault(key.strip().lower(), _unquoted(value))
    encodings, note = _encodings(values.get(b"encoding", b""))
    extents = [_extent(line, encodings) for line in listed]
    if sum(extent.size for extent in extents) > DISK_BYTES_MAX:
        raise CorruptError("VMDK descriptor: its extents are absurdly large")
    parent_cid = _content_id(values.get(b"parentcid", NO_PARENT.encode()))
    parent = values.get(b"parentfilenamehint", b"") if parent_cid != NO_PARENT else b""
    if parent_cid != NO_PARENT and not parent:
        raise CorruptError("VMDK descriptor: it has a parent and does not name it")
    cid = _content_id(values.get(b"cid", b""))
    return Descriptor(cid, parent_cid, _readings(parent, encodings), extents, note)


def _in_ascii(content: bytes) -> bytes:
    """The text up to its end, in an encoding of which ASCII is a part."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", errors="replace").encode(errors="replace")
    return content.removeprefix(codecs.BOM_UTF8).partition(b"\0")[0]


def _lines(text: bytes) -> Iterator[bytes]:
    """Those that are not blank."""
    for line in text.replace(b"\r", b"\n").split(b"\n"):
        stripped = line.strip()
        if stripped:
            yield stripped


def _unquoted(value: bytes) -> bytes:
    value = value.strip()
    return value[1:].partition(b'"')[0] if value.startswith(b'"') else value


def _extent_words(line: bytes) -> list[bytes]:
    """Access, size and kind if the line is of an extent."""
    words = line.partition(b'"')[0].split(maxsplit=3)
    is_extent = len(words) > 2 and words[0].upper() in ACCESSES and words[1].isdigit()
    return words[:3] if is_extent else []


def _extent(line: bytes, encodings: list[str]) -> ListedExtent:
    access, sectors, kind = _extent_words(line)
    _, _, rest = line.partition(b'"')
    name, _, rest = rest.partition(b'"')
    offset = next(iter(rest.split(maxsplit=1)), b"")
    return ListedExtent(
        access.decode().upper(),
        _sectors(sectors) * SECTOR_BYTES,
        kind.decode(errors="replace").upper(),
        _readings(name, encodings),
        _sectors(offset) * SECTOR_BYTES if offset.isdigit() else 0,
    )


def _sectors(digits: bytes) -> int:
    if len(digits) > DIGITS_MAX:
        raise CorruptError(f"VMDK descriptor: expected sectors, got {digits[:40]!r}")
    return int(digits)


def _content_id(text: bytes) -> str:
    return text.decode(errors="replace").lower().removeprefix("0x").rjust(8, "0")


def _encodings(named: bytes) -> tuple[list[str], str]:
    """(names, note) of what an encoding that a descriptor names may be, the likeliest first."""
    if not named:
        return [], ""
    name = named.decode("ascii", errors="replace").lower()
    for prefix in ("x-", "windows-", "ms", "ibm-", "ibm"):  # numbers of code pages
        number = name.removeprefix(prefix)
        name = f"cp{number}" if number != name and number.isdigit() else name
    try:
        found = codecs.lookup(OTHER_NAMES.get(name, name)).name
    except (LookupError, ValueError):  # ValueError: a NUL, which names no module
        found = ""
    if found not in ENCODINGS:
        return [], f" (its descriptor names an encoding that is not known, {named[:40]!r})"
    return [AS_WINDOWS_HAS_THEM.get(found, found), found], ""


def _readings(name: bytes, encodings: list[str]) -> list[str]:
    """What the bytes of a name may mean: in one of the encodings, or as they are on this system."""
    readings: list[str] = []
    for encoding in encodings if name else ():
        with suppress(UnicodeDecodeError):
            readings.append(name.decode(encoding))
    readings += [name.decode(errors="surrogateescape")] if name else []
    return list(dict.fromkeys(readings))
