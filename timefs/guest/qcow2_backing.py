"""How a QCOW2 names the file it stands on: a path, or options of QEMU's as JSON.

Defined here and only here: `Backing`. Used by timefs.guest.qcow2. Pure functions. Only files of the
machine are looked for; what is behind a protocol is named and refused, as is an option that would
change what is read.

Source: QEMU, docs/interop/qcow2.txt and the manual's "json:" and "file:" names; qemu-img as oracle.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from store.errors import CorruptError, UnsupportedError

JSON: Final = "json:"
FILE: Final = "file:"
RAW_FORMATS: Final = ("raw", "file")
LEVELS_MAX: Final = 16
"""Of brackets, of which parsing would use the stack."""

HARMLESS: Final = frozenset({
    "read-only", "auto-read-only", "force-share", "discard", "detect-zeroes", "locking", "aio",
    "node-name", "cache", "cache-size", "l2-cache-size", "l2-cache-entry-size", "lazy-refcounts",
    "refcount-cache-size", "cache-clean-interval", "overlap-check", "drop-cache",
})  # fmt: skip
"""Options that change how something is read, and not what."""


class Backing(NamedTuple):
    """The file beneath."""

    path: str
    format: str
    """As QEMU calls it; empty if it does not say."""

    @property
    def raw(self) -> bool:
        """Whether the file is the disk, whatever it looks like."""
        return self.format in RAW_FORMATS


def parse_backing(name: str, named_format: str, what: str) -> Backing:
    """What a name means, in a header that names a format, or none, beside it.

    Raises:
        CorruptError: it is not even well formed.
        UnsupportedError: it is not a file's path, or it is more than that.
    """
    if name.startswith(JSON):
        path, own_format = _of_options(_options(name.removeprefix(JSON), what), what)
        return Backing(path, named_format or own_format)
    return Backing(_path(name, what), named_format)


def _path(name: str, what: str) -> str:
    protocol, colon, path = name.partition(":")
    if not colon or "/" in protocol or len(protocol) == 1:  # no more than a drive's letter
        return name
    if protocol + colon == FILE:
        return path
    raise UnsupportedError(f"{what}: expected a path, got {name!a}; {protocol!a} is not followed")


def _options(text: str, what: str) -> dict[str, Any]:
    """The options, those within others by names with dots."""
    if text.count("{") + text.count("[") > LEVELS_MAX:
        raise CorruptError(f"{what}: expected a few options, got {text[:80]!a}")
    if '"' not in text:
        text = text.replace("'", '"')  # QEMU takes both
    try:
        found: object = json.loads(text)
    except ValueError as error:
        raise CorruptError(f"{what}: expected JSON, got {text[:80]!a}: {error}") from error
    if not isinstance(found, dict):
        raise CorruptError(f"{what}: expected options, got {text[:80]!a}")
    return dict(_flat("", cast("dict[str, Any]", found)))


def _flat(before: str, options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _flat(f"{before}{key}.", cast("dict[str, Any]", value))
        else:
            yield before + key, value


def _of_options(options: dict[str, Any], what: str) -> tuple[str, str]:
    """(path, format): drivers on one another, the lowest of which opens a file."""
    level, formats = "", list[str]()
    while f"{level}filename" not in options and any(
        key.startswith(f"{level}file.") for key in options
    ):
        formats.append(_text(options.pop(f"{level}driver", ""), what))
        level += "file."
    driver = _text(options.pop(f"{level}driver", "file"), what)
    path = _text(options.pop(f"{level}filename", ""), what)
    beyond = [key for key in options if not HARMLESS & set(key.split("."))]
    if driver != "file" or beyond or not path:
        raise UnsupportedError(
            f"{what}: expected a file's name and its format, got driver {driver!a}"
            + "".join(f", option {key!a}" for key in beyond[:4])
        )
    above_raw = [name for name in formats if name not in RAW_FORMATS]
    if len(above_raw) > 1:
        raise UnsupportedError(f"{what}: {' in '.join(above_raw)} is not decoded")
    if not formats:
        return path, "file"
    return path, above_raw[0] if above_raw else "raw"


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise CorruptError(f"{what}: expected a text in its options, got {value!a}")
    return value
