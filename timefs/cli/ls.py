"""`timefs ls`: list a path of the history without mounting."""

import stat

import click

from store.errors import TimefsError
from timefs.cli.session import Session, human_bytes, pass_session, rfc3339
from timefs.tree import Entry, Folder, Node


def _kind(node: Node) -> str:
    return "folder" if isinstance(node, Folder) else "file"


@click.command(short_help="list a path of the history")
@click.argument("path", default="")
@click.option("-l", "long", is_flag=True, help="Show mode, size and time.")
@pass_session
def ls(session: Session, path: str, long: bool) -> None:
    """List PATH: machines, instants, files, or what is inside a disk."""
    repository = session.open()
    node = session.node(repository, path)
    entries = node.entries() if isinstance(node, Folder) else [Entry(path.encode(), node)]
    failed: TimefsError | None = None
    for entry in entries:
        try:
            _show(session, entry, long=long)
        except TimefsError as error:
            failed = error
            name = entry.name.decode(errors="replace")
            click.echo(f"timefs: {name}: {error}", err=True)
    if failed is not None:
        raise failed


def _show(session: Session, entry: Entry, *, long: bool) -> None:
    name = entry.name.decode(errors="surrogateescape")
    shown = name.encode(errors="replace").decode()
    if not long and not session.json:
        click.echo(shown)
        return
    attributes = entry.node.attributes()
    session.show(
        {
            "name": name,
            "kind": _kind(entry.node),
            "size_bytes": attributes.size,
            "modified": rfc3339(attributes.mtime_ns),
        },
        f"{stat.filemode(attributes.mode)} {human_bytes(attributes.size):>10} "
        f"{rfc3339(attributes.mtime_ns):31} {shown}",
    )
