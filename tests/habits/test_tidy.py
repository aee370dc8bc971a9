"""House rules that no linter knows."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("timefs", "capture", "store", "demo", "benchmarks")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_a_file_fits_a_sitting_and_a_function_a_screen():
    long: list[str] = []
    for path in sources():
        text = path.read_text()
        if text.count("\n") > FILE_LINES_MAX:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    assert not long


def test_every_module_says_what_it_is():
    silent = [str(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_no_module_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert not [path for path in sources() if path.stem in drawers]


@pytest.mark.parametrize(
    "pattern",
    [
        "TO" + "DO|FIX" + "ME|\\bXX" + "X\\b",
        "https?://[^ ]*(simple|registry|mirror|proxy)",
        "/wo" + "rk/",
    ],
)
def test_no_committed_text_holds(pattern: str):
    found: list[str] = []
    for path in tracked():
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".yaml", ".sh"}:
            text = path.read_text(errors="replace")
            found += [f"{path}: {line}" for line in text.splitlines() if re.search(pattern, line)]
    assert not found
