"""Restoring trees that are in memory, for the tests of restore."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from store.errors import TimefsError
from store.image import Image
from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.restore import Restore, Restored, content_bytes
from timefs.tree import Node


class Outcome(NamedTuple):
    """What a restore came to, and the errors that it told."""

    done: Restored
    errors: list[TimefsError]


def restored(node: Node, target: Path, *, force: bool = False) -> Outcome:
    """Restore a node that is called `name`."""
    advanced: list[int] = []
    errors: list[TimefsError] = []
    done = Restore(advanced.append, errors.append, force=force).run(node, b"name", target)
    assert sum(advanced) <= content_bytes(node)
    assert len(errors) == done.failed
    return Outcome(done, errors)


def folder(name: bytes, nodes: Mapping[bytes, Node]) -> MemoryFolder:
    return MemoryFolder(name, nodes)


def file(content: bytes | Image, name: bytes = b"file") -> MemoryFile:
    return MemoryFile(name, content)


def everything(folder: Path) -> set[str]:
    """Paths of all that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
