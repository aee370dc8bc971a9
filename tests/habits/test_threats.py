"""Every line of docs/threats.md that names a test names one that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tests_that_the_page_names_exist():
    page = (ROOT / "docs/threats.md").read_text()
    named = [phrase.replace(" ", "_") for phrase in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page)]
    defined = "\n".join(
        line
        for path in (ROOT / "tests").rglob("test_*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith("def test_")
    )
    assert len(named) > 10
    assert [name for name in named if f"test_{name}" not in defined] == []
    files = set(re.findall(r"\btest_\w+(?=[:,| ])", page))
    assert {path.stem for path in (ROOT / "tests").rglob("test_*.py")} >= files
