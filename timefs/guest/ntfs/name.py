"""Names: UTF-16 as stored, WTF-8 as shown, and the volume's own order of them.

Defined here and only here: `show_name`, `show_names`, `find_name`, `escaped` and `Collation`. Used
by `index`, `folder` and `volume`. Stateless and immutable.

A lone surrogate is shown as its three bytes (WTF-8). What no file system may show, `/` and NUL
anywhere and `.` and `..` as whole names, appears as U+F02F, U+F000 and U+F02E; such names exist
only on damaged or hostile volumes, and the shown name finds them again.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

_ESCAPES: Final = {ord("/"): 0xF02F, 0: 0xF000}
_SLASH: Final = "/".encode("utf-16-le")
_DOT: Final = "\uf02e"
_ESCAPED: Final = frozenset("\uf02f\uf000\uf02e")


def show_name(units: bytes) -> bytes:
    """The name as shown, WTF-8, of one stored as UTF-16LE."""
    name = units.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        text = name.decode("utf-8", "surrogatepass").translate(_ESCAPES)
        if text in (".", ".."):
            text = _DOT * len(text)
        return text.encode("utf-8", "surrogatepass")
    return name


def show_names(stored: Sequence[bytes]) -> list[bytes]:
    """The same of many names at once."""
    text = _SLASH.join(stored).decode("utf-16-le", "surrogatepass")
    names = text.encode("utf-8", "surrogatepass").split(b"/")
    if len(names) != len(stored) or "\0" in text or b"." in names or b".." in names:
        return [show_name(units) for units in stored]
    return names


def find_name(name: bytes) -> bytes | None:
    """The UTF-16LE of a shown name; None if no stored name is shown so."""
    try:
        return name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError:
        return None


def escaped(name: bytes) -> bool:
    """Whether a shown name may stand for another stored one."""
    return not _ESCAPED.isdisjoint(name.decode("utf-8", "replace"))


class Collation:
    """The order of names in a folder: by units, each raised to upper case by the volume's table.

    Source: NTFS documentation of the Linux-NTFS project, "$UpCase" and "Collation".
    """

    def __init__(self, table: bytes) -> None:
        """`table` is the content of $UpCase; what it lacks stays as it is."""
        upper = np.arange(0x10000, dtype=np.uint16)
        known = np.frombuffer(table[: len(table) & ~1][:0x20000], dtype="<u2")
        upper[: len(known)] = known
        self._upper = upper.astype(">u2")

    def keys(self, names: list[bytes]) -> list[bytes]:
        """For each name (UTF-16LE) what orders it among the others."""
        raised = self._upper[np.frombuffer(b"".join(names), dtype="<u2")].tobytes()
        keys: list[bytes] = []
        at = 0
        for name in names:
            keys.append(raised[at : at + len(name)])
            at += len(name)
        return keys

    def upper(self, name: bytes) -> bytes:
        """A name (UTF-16LE) in upper case."""
        return self._upper[np.frombuffer(name, dtype="<u2")].astype("<u2").tobytes()
