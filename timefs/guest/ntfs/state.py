"""The state of a volume: whether Windows had closed it, or what speaks against that.

Defined here and only here: `read_state` and the name `VOLUME_STATE`. Used by `folder`. Stateless.
"""

import struct
from typing import Final

from store.errors import CorruptError, TimefsError
from store.image import Image
from timefs.guest.ntfs.record import DATA, VOLUME_INFORMATION, mend
from timefs.guest.ntfs.table import Table

VOLUME_STATE: Final = b"user.timefs.volume_state"
"""The attribute of a volume's root that holds it: `clean`, or `dirty: ` and the reasons."""

HIBERNATION_FILE: Final = b"hiberfil.sys"

LOG_NUMBER: Final = 2
VOLUME_NUMBER: Final = 3

PAGE_BYTES_MAX: Final = 64 << 10
_FLAG_DIRTY: Final = 1
_FLAG_CHECKED: Final = 0x8000
_VOLUME_FLAGS: Final = struct.Struct("<10xH")
_PAGE: Final = struct.Struct("<16xI4xH")
"""Of a restart page: its size, and where its restart area is."""
_AREA: Final = struct.Struct("<Q4xHH")
"""Of a restart area: its number, the first client in use, flags."""
_NO_CLIENT: Final = 0xFFFF
_CLEAN: Final = 2


def read_state(table: Table, hibernation: Image | None) -> bytes:
    """The state in one line; `hibernation` is the content of hiberfil.sys, if there is one.

    Raises nothing for damage: that is a state as well.
    """
    reasons: list[str] = []
    for what, look in (("$Volume", _volume_reason), ("$LogFile", _log_reason)):
        try:
            reason = look(table)
        except TimefsError as error:
            reason = f"{what} cannot be read ({error})"
        reasons += [reason] if reason else []
    if hibernation is not None and hibernation.read(0, 4).lower() == b"hibr":
        reasons.append("Windows was hibernated, or shut down with fast startup")
    return f"dirty: {'; '.join(reasons)}".encode() if reasons else b"clean"


def _volume_reason(table: Table) -> str:
    found = table.file(VOLUME_NUMBER).first(VOLUME_INFORMATION)
    if found is None or found.value is None or len(found.value) < _VOLUME_FLAGS.size:
        raise CorruptError("expected volume information, found none")
    (flags,) = _VOLUME_FLAGS.unpack_from(found.value)
    if flags & _FLAG_DIRTY:
        return "the volume is marked for a check"
    return "a check of the volume was under way" if flags & _FLAG_CHECKED else ""


def _log_reason(table: Table) -> str:
    """Why the log is not closed; empty if it is.

    Source: NTFS documentation of the Linux-NTFS project, "$LogFile".
    """
    log = table.file(LOG_NUMBER).open(DATA)
    first = log.read(0, 4096)
    if first == b"\xff" * len(first):
        return ""  # as it is made, and as ntfs-3g leaves it
    areas = [area for area in (_read_area(log, 0), _read_area(log, _page_bytes(first))) if area]
    if not areas:
        return "$LogFile has no restart page"
    _, client, flags = max(areas)
    if client == _NO_CLIENT or flags & _CLEAN:
        return ""
    return "$LogFile was not closed"


def _page_bytes(first: bytes) -> int:
    """How far the second restart page is from the first."""
    size, _ = _PAGE.unpack_from(first.ljust(_PAGE.size, b"\0"))
    return size if 512 <= size <= PAGE_BYTES_MAX else 4096


def _read_area(log: Image, place: int) -> tuple[int, int, int] | None:
    """The restart area of the page at a place, None if it is not whole."""
    size, _ = _PAGE.unpack(log.read(place, _PAGE.size).ljust(_PAGE.size, b"\0"))
    if not 512 <= size <= PAGE_BYTES_MAX or size % 512:
        return None
    page = bytearray(log.read(place, size))
    try:
        magic = bytes(page[:4])
        mend(page, magic if magic == b"CHKD" else b"RSTR", "$LogFile")
    except (CorruptError, struct.error):
        return None
    _, at = _PAGE.unpack_from(page)
    if at + _AREA.size > len(page):
        return None
    number, client, flags = _AREA.unpack_from(page, at)
    return number, client, flags
