"""`timefs du`: what the folders inside an instant take."""

from dataclasses import dataclass, field

import click

from store.errors import IncompleteError, NotFolderError, TimefsError
from timefs.cli.session import Session, human_bytes, pass_session
from timefs.tree import Folder, Leaf, Node, descend, shown_name


@dataclass(slots=True)
class Usage:
    """What was counted below one name."""

    files: int = 0
    folders: int = 0
    size_bytes: int = 0
    allocated_bytes: int = 0
    failed: list[TimefsError] = field(default_factory=list[TimefsError])

    def add(self, other: "Usage") -> None:
        """Take in what was counted elsewhere."""
        self.files += other.files
        self.folders += other.folders
        self.size_bytes += other.size_bytes
        self.allocated_bytes += other.allocated_bytes
        self.failed += other.failed


class Counter:
    """Counts what is below nodes; what has several names counts once, where it is met first."""

    def __init__(self) -> None:
        self._counted: set[bytes] = set()

    def below(self, path: bytes, node: Node) -> Usage:
        """What a node and all below it take."""
        usage = Usage()

        def tell(folder: bytes, error: TimefsError) -> None:
            usage.failed.append(type(error)(f"{shown_name(folder)}: {error}"))

        self._count(path, node, usage)
        if isinstance(node, Folder):
            for found, below in descend(node, path + b"/", tell):
                self._count(found, below, usage)
        return usage

    def _count(self, path: bytes, node: Node, usage: Usage) -> None:
        if node.identity in self._counted:
            return
        self._counted.add(node.identity)
        if not isinstance(node, Leaf):
            usage.folders += isinstance(node, Folder)
            return
        try:
            attributes = node.attributes()
        except TimefsError as error:
            usage.failed.append(type(error)(f"{shown_name(path)}: {error}"))
            return
        usage.files += 1
        usage.size_bytes += attributes.size
        usage.allocated_bytes += attributes.allocated_bytes


@click.command(short_help="what the folders inside an instant take")
@click.argument("path")
@pass_session
def du(session: Session, path: str) -> None:
    """Show what each folder and file in PATH takes on the guest's disk, and all of them together.

    A file with several names counts once. Exit code 3: something could not be counted; it is named.

    Example:
      timefs du vm1/latest/disk
    """
    node = session.node(session.open(), path)
    if not isinstance(node, Folder):
        raise NotFolderError(f"{path}: expected a folder, found a file; `timefs ls -l` shows it")
    counter, total = Counter(), Usage()
    start = path.rstrip("/").encode(errors="surrogateescape")
    for name, below in node.entries():
        found = start + b"/" + name
        usage = counter.below(found, below)
        _show(session, found, usage)
        total.add(usage)
    _show(session, start, total)
    for error in total.failed:
        session.complain(error)
    if total.failed:
        raise IncompleteError(f"{path}: {len(total.failed)} could not be counted")


def _show(session: Session, path: bytes, usage: Usage) -> None:
    session.show(
        {
            "path": path.decode(errors="surrogateescape"),
            "files": usage.files,
            "folders": usage.folders,
            "size_bytes": usage.size_bytes,
            "allocated_bytes": usage.allocated_bytes,
        },
        f"{human_bytes(usage.allocated_bytes):>10} {usage.files:>8} files  {shown_name(path)}",
    )
