"""Reparse points: what a file or folder stands for instead of its own content.

Defined here and only here: `Reparse`, `read_reparse`, `LINK_TAGS`, `refuse` and `parse_target`.
Used by `file`, `folder` and `xattrs`. Stateless.
"""

import re
import struct
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from timefs.guest.ntfs.name import show_name
from timefs.guest.ntfs.record import REPARSE_POINT
from timefs.guest.ntfs.table import FileRecord

JUNCTION: Final = 0xA0000003
SYMLINK: Final = 0xA000000C
LX_SYMLINK: Final = 0xA000001D
WOF: Final = 0x80000017
LINK_TAGS: Final = frozenset({JUNCTION, SYMLINK, LX_SYMLINK})

REPARSE_BYTES_MAX: Final = 16 << 10
"""Windows stores no more."""

_DEDUPLICATED: Final = 0x80000013
_CLOUD: Final = 0x9000001A
_CLOUD_MASK: Final = 0xFFFF0FFF

_HEADER: Final = struct.Struct("<IH2x")
_NAMES: Final = struct.Struct("<HHHH")
_FLAGS: Final = struct.Struct("<I")
_RELATIVE: Final = 1
_LX_VERSION: Final = 2
_UP: Final = b".."
_UP_UNITS: Final = "..".encode("utf-16-le")
_BACKSLASH: Final = "\\".encode("utf-16-le")
_DRIVE: Final = re.compile(rb"\\\0[\\?]\0\?\0\\\0([A-Za-z]\0:\0)(?=\\\0|\Z)")
"""`\\??\\C:` or `\\\\?\\C:`, in UTF-16LE."""

SHOWN_CHARACTERS_MAX: Final = 200


class Reparse(NamedTuple):
    """A reparse point: its kind, what follows its header, and all of it."""

    tag: int
    data: bytes
    value: bytes


class Target(NamedTuple):
    """Where a link points."""

    drive: str
    """Of an absolute target, e.g. `C:`."""
    rooted: bool
    """Whether it starts at the root of its volume, not at the link's folder."""
    names: list[bytes]
    """As shown; `..` goes up."""


def read_reparse(file: FileRecord) -> Reparse | None:
    """A file's reparse point, None if it has none.

    Source: [MS-FSCC] 2.1.2, "Reparse Point Data Structures".

    Raises:
        CorruptError: it is damaged.
    """
    if file.first(REPARSE_POINT) is None:
        return None
    image = file.open(REPARSE_POINT)
    value = image.read(0, REPARSE_BYTES_MAX + 1)
    if not _HEADER.size <= len(value) <= REPARSE_BYTES_MAX:
        raise CorruptError(f"{file.record.where}: a reparse point of {image.size} bytes")
    tag, length = _HEADER.unpack_from(value)
    data = value[_HEADER.size : _HEADER.size + length]
    if len(data) < length:
        raise CorruptError(
            f"{file.record.where}: reparse point: expected {length} bytes, got {len(data)}"
        )
    return Reparse(tag, data, value)


def refuse(file: FileRecord, tag: int) -> UnsupportedError:
    """Why the content of a file with a reparse point is not had."""
    if tag == _DEDUPLICATED:
        reason = "deduplicated by Windows Server: its content is in the volume's chunk store"
    elif tag & _CLOUD_MASK == _CLOUD:
        reason = "a cloud file: its content may be with its provider, not on this volume"
    elif tag in LINK_TAGS:
        reason = "a link that its folder does not list as one"
    else:
        reason = "a reparse point of a kind that is not known"
    return UnsupportedError(f"{file.record.where}: {reason} (tag {tag:#x})")


def parse_target(reparse: Reparse, where: str) -> Target:
    """Where the link points that a reparse point is.

    Source: [MS-FSCC] 2.1.2.4, "Symbolic Link", 2.1.2.5, "Mount Point"; for WSL's links the
    documentation of the Windows Subsystem for Linux.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it points to another volume or computer.
    """
    if reparse.tag == LX_SYMLINK:
        return _parse_lx(reparse.data, where)
    fixed = _NAMES.size + (_FLAGS.size if reparse.tag == SYMLINK else 0)
    if len(reparse.data) < fixed:
        raise CorruptError(f"{where}: expected a link, got {len(reparse.data)} bytes")
    at, length, _, _ = _NAMES.unpack_from(reparse.data)
    text = reparse.data[fixed + at : fixed + at + length]
    if len(text) < length or length % 2:
        raise CorruptError(f"{where}: expected a target of {length} bytes, got {len(text)}")
    relative = reparse.tag == SYMLINK and _FLAGS.unpack_from(reparse.data, 8)[0] & _RELATIVE
    return _parse_relative(text) if relative else _parse_absolute(text, where)


def _names(text: bytes) -> list[bytes]:
    """The names between backslashes of a text in UTF-16LE."""
    parts = text.decode("utf-16-le", "surrogatepass").split("\\")
    names = [part.encode("utf-16-le", "surrogatepass") for part in parts if part not in ("", ".")]
    return [_UP if name == _UP_UNITS else show_name(name) for name in names]


def _parse_relative(text: bytes) -> Target:
    return Target("", text.startswith(_BACKSLASH), _names(text))


def _parse_absolute(text: bytes, where: str) -> Target:
    found = _DRIVE.match(text)
    names = _names(text[found.end() :]) if found else []
    if found is None or not names:
        shown = text.decode("utf-16-le", "replace")[:SHOWN_CHARACTERS_MAX]
        raise UnsupportedError(f"{where}: a link to a whole volume or to elsewhere: {shown!r}")
    return Target(found[1].decode("utf-16-le").upper(), True, names)


def _parse_lx(data: bytes, where: str) -> Target:
    version, text = data[:4], data[4:]
    if int.from_bytes(version, "little") != _LX_VERSION or b"\0" in text:
        raise CorruptError(f"{where}: expected a link of WSL, got {data[:SHOWN_CHARACTERS_MAX]!r}")
    names = [name for name in text.split(b"/") if name not in (b"", b".")]
    climbs = [name == _UP for name in names]
    if text.startswith(b"/") or climbs != sorted(climbs, reverse=True):
        shown = text[:SHOWN_CHARACTERS_MAX].decode("utf-8", "replace")
        raise UnsupportedError(f"{where}: a link that only the Linux system resolves: {shown!r}")
    return Target("", False, names)
