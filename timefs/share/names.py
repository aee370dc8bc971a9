r"""Names as Windows can take them, and back.

Defined here and only here: `to_windows`, `from_windows` and `distinct_names`. Used by the view of
the share. Pure functions.

What Windows forbids in a name becomes a character of Unicode's private area, as macOS and Linux map
it for SMB; their clients show such a name as it was. Bytes that are no UTF-8 and device names
(`CON`, `nul.txt`) have no place in that table and get characters of their own behind it:

    0x01-0x1F      U+F001-U+F01F          trailing space   U+F028
    " * : <        U+F020-U+F023          trailing dot     U+F029
    > ? \ |         U+F024-U+F027          device name      U+F02A after its stem
    byte 0x80-0xFF that is not UTF-8      U+F780-U+F7FF

Names of one folder that differ in case alone are told apart by a number, as in `makefile (2)`.

Source: linux/fs/smb/client/cifs_unicode.h, SFM_…; Microsoft, Naming Files, Paths, and Namespaces.
"""

import re
from collections.abc import Container, Iterable, Mapping
from itertools import count
from typing import Final

_SHOWN: Final = {
    **{code: 0xF000 + code for code in range(1, 0x20)},
    **{ord(character): 0xF020 + number for number, character in enumerate('"*:<>?\\|')},
    **{0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)},
}
_LAST: Final = {" ": "\uf028", ".": "\uf029"}
_DEVICE_MARK: Final = "\uf02a"
_TRUE: Final = {
    **{mapped: code for code, mapped in _SHOWN.items()},
    **{ord(mapped): ord(character) for character, mapped in _LAST.items()},
    ord(_DEVICE_MARK): None,
}
_DEVICE: Final = re.compile(
    r"^(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?= *(?:\.|$))",
    re.IGNORECASE,
)
_PLAIN: Final = re.compile(rb"(?:(?![\"*:<>?\\|])[ -~])*(?<![ .])")


def to_windows(name: bytes) -> bytes:
    """The name under which a file is shown."""
    if _PLAIN.fullmatch(name) and not _DEVICE.match(name.decode()):
        return name
    text = name.decode(errors="surrogateescape").translate(_SHOWN)
    if text[-1:] in _LAST:
        text = text[:-1] + _LAST[text[-1]]
    return _DEVICE.sub(rf"\1{_DEVICE_MARK}", text, count=1).encode()


def from_windows(name: bytes) -> bytes:
    """The name that is shown as `name`; `name` itself where nothing was mapped."""
    if name.isascii():
        return name
    text = name.decode(errors="surrogateescape").translate(_TRUE)
    return text.encode(errors="surrogateescape")


def folded(shown: bytes) -> bytes:
    """Equal for names that Windows takes for the same one."""
    if shown.isascii():
        return shown.upper()
    upper = ((character, character.upper()) for character in shown.decode(errors="replace"))
    return "".join(large if len(large) == 1 else small for small, large in upper).encode()


def distinct_names(names: Iterable[bytes]) -> dict[bytes, bytes]:
    """The shown name of each name of a folder, in the same order, no two of them alike.

    What is shown leads back by `from_windows`, or where that names nothing, without case.
    """
    shown = {name: to_windows(name) for name in names}
    taken: set[bytes] = set()
    alike: list[bytes] = []
    for name, mapped in shown.items():
        place = folded(mapped)
        if place in taken or _means_another(mapped, name, shown):
            alike.append(name)
        else:
            taken.add(place)
    for name in alike:
        shown[name] = _numbered(name, shown, taken)
        taken.add(folded(shown[name]))
    return shown


def _means_another(mapped: bytes, name: bytes, names: Container[bytes]) -> bool:
    """Whether a name shown so would be taken for another one of the folder."""
    meant = from_windows(mapped)
    return meant != name and meant in names


def _numbered(name: bytes, shown: Mapping[bytes, bytes], taken: Container[bytes]) -> bytes:
    stem, dot, suffix = shown[name].rpartition(b".")
    stem, ending = (stem, dot + suffix) if stem else (shown[name], b"")
    for number in count(2):
        numbered = b"%b (%d)%b" % (stem, number, ending)
        if folded(numbered) not in taken and not _means_another(numbered, name, shown):
            return numbered
    raise AssertionError
