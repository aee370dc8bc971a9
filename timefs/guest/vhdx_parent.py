"""The parent locator of a differencing VHDX: which file its parent is, and which state of it.

Defined here and only here: `ParentLocator`. Used by timefs.guest.vhdx. Pure functions.

Source: [MS-VHDX] 2.6.2.6 Parent Locator.
"""

import struct
import uuid
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError

VHDX_LOCATOR: Final = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
HEADER: Final = struct.Struct("<16s2xH")
ENTRY: Final = struct.Struct("<IIHH")
KEY_BYTES_MAX: Final = 64
"""Of the keys that are known; others are passed over."""

PATHS: Final = ("relative_path", "absolute_win32_path", "volume_path")
LINKAGES: Final = ("parent_linkage", "parent_linkage2")


class ParentLocator(NamedTuple):
    """Where a differencing disk says its parent is."""

    paths: list[str]
    linkages: list[bytes]
    """The parent's data write identifiers that the child was made on, as they are stored."""


def parse_locator(content: bytes) -> ParentLocator:
    """The locator in a metadata item.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it is not that of a VHDX parent.
    """
    if len(content) < HEADER.size:
        raise CorruptError("VHDX parent locator: it is cut short")
    kind, count = HEADER.unpack_from(content)
    if kind != VHDX_LOCATOR:
        raise UnsupportedError(f"VHDX parent locator: unknown type {uuid.UUID(bytes_le=kind)}")
    if HEADER.size + count * ENTRY.size > len(content):
        raise CorruptError(f"VHDX parent locator: {count} entries do not fit in it")
    values = _values(content, count)
    try:
        linkages = [uuid.UUID(values[key]).bytes_le for key in LINKAGES if key in values]
    except ValueError as error:
        raise CorruptError(f"VHDX parent locator: linkage: {error}") from error
    if not linkages:
        raise CorruptError("VHDX parent locator: it does not say which state of the parent")
    return ParentLocator([values[key] for key in PATHS if values.get(key)], linkages)


def _values(content: bytes, count: int) -> dict[str, str]:
    """Of the keys that matter here."""
    values: dict[str, str] = {}
    for number in range(count):
        key_at, value_at, key_bytes, value_bytes = ENTRY.unpack_from(
            content, HEADER.size + number * ENTRY.size
        )
        if max(key_at + key_bytes, value_at + value_bytes) > len(content):
            raise CorruptError(f"VHDX parent locator: entry {number} ends beyond it")
        if key_bytes > KEY_BYTES_MAX:
            continue
        key = _text(content[key_at : key_at + key_bytes]).lower()
        if key in values:
            raise CorruptError(f"VHDX parent locator: {key}: expected it once, got it again")
        if key in (*PATHS, *LINKAGES):
            values[key] = _text(content[value_at : value_at + value_bytes])
    return values


def _text(content: bytes) -> str:
    return content.decode("utf-16-le", errors="replace").rstrip("\0")
