"""The byte tables in docs/format say what the code does.

A page names the code above each table with a line `Code: module.NAME`, and the NamedTuple that
holds the fields with `Fields: module.Name` where the code is a struct.Struct; a numpy dtype names
its own fields.
"""

import importlib
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FORMATS = Path(__file__).parents[2] / "docs" / "format"
TABLE = re.compile(r"^Code: `([\w.]+)`(?:, fields: `([\w.]+)`)?\n\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\w+) \| `(\w+)` \|", re.MULTILINE)


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def tables() -> list[Any]:
    return [
        pytest.param(code, fields, table, id=code)
        for page in sorted(FORMATS.glob("*.md"))
        for code, fields, table in TABLE.findall(page.read_text())
    ]


def test_there_are_tables():
    assert {"store.format.pack.ENVELOPE", "store.format.row.ROW", "store.format.frame.FRAME"} <= {
        table.id for table in tables()
    }


@pytest.mark.parametrize(("code", "fields", "table"), tables())
def test_table_equals_the_code(code: str, fields: str, table: str):
    layout = named(code)
    rows = ROW.findall(table)
    if isinstance(layout, struct.Struct):
        assert "<" + "".join(letter for _, _, letter, _ in rows) == layout.format
        assert tuple(name for *_, name in rows) == named(fields)._fields
        sizes = [struct.calcsize("<" + letter) for _, _, letter, _ in rows]
    else:
        assert isinstance(layout, np.dtype)
        assert tuple(name for *_, name in rows) == layout.names
        assert [letter for _, _, letter, _ in rows] == [
            layout[name].str.removeprefix("<").removeprefix("|") for *_, name in rows
        ]
        sizes = [layout[name].itemsize for *_, name in rows]
    offset = 0
    for (at, size, *_), expected in zip(rows, sizes, strict=True):
        assert (int(at), int(size)) == (offset, expected)
        offset += expected
