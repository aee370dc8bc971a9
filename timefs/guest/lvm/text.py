"""The text in which LVM2 keeps its metadata: sections, and keys with numbers, strings and lists.

Defined here and only here: `parse`. Used by timefs.guest.lvm. Pure functions.

Source: lvm2, the grammar that libdm/libdm-config.c documents.
"""

import re
from collections.abc import Iterator
from itertools import repeat
from typing import Final, TypeAlias

from store.budget import spend
from store.errors import CorruptError, UnsupportedError

Value: TypeAlias = "int | str | list[int | str]"
Section: TypeAlias = "dict[str, Value | Section]"

DEPTH_MAX: Final = 8
TOKEN_COST_BYTES: Final = 64
TOKENS_MAX: Final = 400_000
"""Of some eight thousand volumes."""

_TOKEN = re.compile(
    r"(?:\s++|#[^\n]*+)*+"  # possessive: nothing here is ever tried in a second way
    r'(?:"(?P<text>(?:[^"\\]++|\\.)*+)"'
    r"|(?P<word>[A-Za-z0-9_.+/@%-]++)"
    r"|(?P<mark>[{}\[\]=,])"
    r"|(?P<end>\Z))",
    re.DOTALL,
)
_INTEGER = re.compile(r"-?[0-9]{1,20}\Z")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kinds and values; the last is the end, again and again."""
    at = count = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise CorruptError(f"LVM2 metadata at character {at}: not of its grammar")
        spend(TOKEN_COST_BYTES)
        count += 1
        if count > TOKENS_MAX:
            raise UnsupportedError(f"LVM2 metadata: more than {TOKENS_MAX} words and marks")
        kind, at = match.lastgroup or "end", match.end()
        if kind != "end":
            yield kind, match[kind]
    yield from repeat(("end", ""))


def parse(text: str) -> Section:
    """The sections and values of a text.

    Raises:
        CorruptError: it is not of the grammar.
        UnsupportedError: it is longer than what is read.
    """
    return _section(_tokens(text), 0)


def _section(tokens: Iterator[tuple[str, str]], depth: int) -> Section:
    """All up to the closing brace, or to the end at the outermost level."""
    if depth > DEPTH_MAX:
        raise CorruptError(f"LVM2 metadata: expected at most {DEPTH_MAX} levels, got more")
    found: Section = {}
    while True:
        kind, name = next(tokens)
        if (kind, name) == ("mark", "}") and depth:
            return found
        if kind == "end" and not depth:
            return found
        if kind not in ("word", "text"):
            raise CorruptError(f"LVM2 metadata: expected a name, got {name!a}")
        kind, mark = next(tokens)
        if kind == "mark" and mark == "{":
            found[name] = _section(tokens, depth + 1)
        elif kind == "mark" and mark == "=":
            found[name] = _value(tokens)
        else:
            raise CorruptError(f"LVM2 metadata: {name!a}: expected a value, got {mark!a}")


def _value(tokens: Iterator[tuple[str, str]]) -> Value:
    kind, text = next(tokens)
    if (kind, text) != ("mark", "["):
        return _scalar(kind, text)
    values: list[int | str] = []
    kind, text = next(tokens)
    while (kind, text) != ("mark", "]"):
        values.append(_scalar(kind, text))
        kind, text = next(tokens)
        if (kind, text) == ("mark", ","):
            kind, text = next(tokens)
    return values


def _scalar(kind: str, text: str) -> int | str:
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    if kind != "word":
        raise CorruptError(f"LVM2 metadata: expected a value, got {text!a}")
    return int(text) if _INTEGER.match(text) else text


def section_of(section: Section, name: str) -> Section:
    """A section within another; an empty one if it is not there.

    Raises:
        CorruptError: there is a value of that name.
    """
    found = section.get(name, {})
    if not isinstance(found, dict):
        raise CorruptError(f"LVM2 metadata: {name}: expected a section, got {found!a}")
    return found


def number_of(section: Section, name: str) -> int:
    """A number that must be there.

    Raises:
        CorruptError: there is none, or it is negative.
    """
    found = section.get(name)
    if not isinstance(found, int) or found < 0:
        raise CorruptError(f"LVM2 metadata: {name}: expected a number, got {found!a}")
    return found


def text_of(section: Section, name: str) -> str:
    """A string that must be there.

    Raises:
        CorruptError: there is none.
    """
    found = section.get(name)
    if not isinstance(found, str):
        raise CorruptError(f"LVM2 metadata: {name}: expected a string, got {found!a}")
    return found


def list_of(section: Section, name: str) -> list[int | str]:
    """A list, or a single value as one; empty if it is not there.

    Raises:
        CorruptError: there is a section of that name.
    """
    found = section.get(name, [])
    if isinstance(found, dict):
        raise CorruptError(f"LVM2 metadata: {name}: expected a list, got a section")
    return found if isinstance(found, list) else [found]
