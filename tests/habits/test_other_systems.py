"""All of it imports where the modules that only POSIX systems have are missing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MISSING = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog")
ROOM = "store/posix/"

SCRIPT = f"""
import importlib, sys
for name in {MISSING!r}:
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def sources() -> list[Path]:
    return [path for room in ("store", "capture", "timefs") for path in (ROOT / room).rglob("*.py")]


def modules() -> list[str]:
    paths = [
        path for room in ("store", "capture", "timefs") for path in (ROOT / room).rglob("*.py")
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return sorted(name.removesuffix(".__init__") for name in names)


def test_every_module_imports_without_them():
    listed = modules()
    assert len(listed) > 200
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *listed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_they_are_imported_in_one_room_only():
    lines = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sources()
        for line in path.read_text().splitlines()
        if line.split()[:2] in [["import", name] for name in MISSING]
    ]
    assert [line for line in lines if not line.startswith(ROOM)] == []
