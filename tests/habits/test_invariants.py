"""Every invariant of docs/architecture.md is guarded by tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[tuple[str, str]]:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text[text.index("| invariant |") :].split("\n\n")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [(cell[0], cell[1]) for cell in cells]


def test_every_invariant_names_its_tests():
    found = rows()
    assert len(found) >= 9
    for invariant, guards in found:
        assert re.search(r"tests/\S+\.py::test_", guards), invariant


def test_every_test_named_exists():
    for invariant, guards in rows():
        for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", guards):
            assert f"def {name}(" in (ROOT / path).read_text(), (invariant, path, name)
