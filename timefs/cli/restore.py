"""`timefs restore`: copy a file, a folder or a whole disk out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from store.errors import IncompleteError, NotFoundError, UsageError
from timefs.cli.progress import progress_bar
from timefs.cli.session import Session, human_bytes, pass_session, path_names
from timefs.restore import Restore, content_bytes
from timefs.tree import Attributes, Entry, Folder, Leaf, Listed, Node


class CapturedFiles(Folder):
    """An instant's captured files, without the folders that show what is inside them."""

    def __init__(self, instant: Folder) -> None:
        self._instant = instant

    @property
    def identity(self) -> bytes:
        return self._instant.identity

    @property
    def frozen(self) -> bool:
        return self._instant.frozen

    def attributes(self) -> Attributes:
        return self._instant.attributes()

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._instant.xattrs()

    def lookup(self, name: bytes) -> Node:
        return self._instant.lookup(name)

    def answer_frozen(self, name: bytes) -> bool:
        return self._instant.answer_frozen(name)

    def entries(self) -> Iterator[Entry]:
        return (entry for entry in self._instant.entries() if isinstance(entry.node, Leaf))

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        for part in self._instant.entries_with_attributes():
            yield [listed for listed in part if isinstance(listed[1], Leaf)]

    def leaf_again(self, identity: bytes) -> Node | None:
        return self._instant.leaf_again(identity)

    def shown_identity(self) -> bytes:
        return self._instant.shown_identity()


def wanted(node: Node, names: list[str], path: str) -> Node:
    """What a path asks for: of an instant its captured files, each once.

    Raises:
        UsageError: the path names no instant.
    """
    above = 3 if names[1:2] == ["@snaps"] else 2
    if len(names) < above:
        raise UsageError(f"{path or '/'}: expected MACHINE/TIME/…; `timefs ls` shows what there is")
    return CapturedFiles(node) if len(names) == above and isinstance(node, Folder) else node


@click.command(short_help="copy a file, a folder or a whole disk out")
@click.argument("path")
@click.argument("dest")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@pass_session
def restore(session: Session, path: str, dest: str, force: bool) -> None:
    """Copy PATH into DEST if that is a folder, else as DEST.

    A file gets its name only when it is whole and has been read back; what a killed restore leaves
    is called .restore-….timefs and may be deleted. A folder that is there already keeps its
    permissions. An instant stands for its captured files. Exit code 3: some files or folders could
    not be restored; they are named, the rest is there.

    Examples:
      timefs restore vm1/2026-05-01T10:00/disk.vhdx /vms/back.vhdx   a whole disk
      timefs restore vm1/latest/disk/Users/bob /tmp                  /tmp/bob, a folder of a guest
      timefs restore vm1/latest/disk.raw disk.raw                    the disk inside the VHDX
    """
    names = path_names(path)
    target = Path(dest)
    if target.resolve().is_relative_to(session.root.resolve()):
        raise UsageError(f"{dest}: expected a place outside the repository {session.root}")
    if dest.endswith("/") and not target.is_dir():
        raise NotFoundError(f"{dest}: expected a folder to restore into, found none")
    node = wanted(session.node(session.open(), path), names, path)
    name = names[-1].encode(errors="surrogateescape")
    with progress_bar(names[-1]) as bar:
        bar.start(content_bytes(node) if bar.shown else 0)
        done = Restore(bar.advance, session.complain, force=force).run(node, name, target)
    files = "1 file" if done.files == 1 else f"{done.files} files"
    session.show(
        {
            "path": path,
            "target": str(done.target),
            "files": done.files,
            "folders": done.folders,
            "written_bytes": done.written_bytes,
            "failed": done.failed,
            "unreached": done.unreached,
        },
        f"{done.target}: {files}, {human_bytes(done.written_bytes)}; restored and verified",
    )
    if done.failed:
        below = f", nor the {done.unreached} below them" if done.unreached else ""
        raise IncompleteError(f"{path}: {done.failed} not restored{below}; the rest is there")
