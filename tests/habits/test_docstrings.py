"""What a module's docstring names is there: modules by their paths, and what it says it defines."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("store", "capture", "timefs")
MODULE = re.compile(r"(?<![\w/.])((?:store|capture|timefs)(?:\.[a-z_]\w*)+)")
DEFINED = re.compile(r"Defined here and only here: ([^.]*)\.")
NAME = re.compile(r"`([A-Za-z_]\w*)`")


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or something of one."""
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    parent, _, name = dotted.rpartition(".")
    source = ROOT.joinpath(*parent.split(".")).with_suffix(".py")
    return source.is_file() and re.search(rf"\b{name}\b", source.read_text()) is not None


def defined(tree: ast.Module) -> set[str]:
    """Names at a module's top, and those of its classes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_modules_that_docstrings_name_are_there():
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for name in MODULE.findall(ast.get_docstring(node) or "")
        if not is_there(name)
    ]
    assert gone == []


def test_what_a_module_says_it_defines_is_defined_there():
    gone: list[str] = []
    for path in sources():
        tree = ast.parse(path.read_text())
        said = DEFINED.search(ast.get_docstring(tree) or "")
        named = NAME.findall(said[1]) if said else []
        gone += [f"{path.relative_to(ROOT)}: {name}" for name in named if name not in defined(tree)]
    assert gone == []
