"""`timefs ls`: list a path of the history without mounting."""

import stat

import click

from store.errors import TimefsError
from timefs.cli.session import Session, human_bytes, pass_session, rfc3339, shown_name
from timefs.tree import Entry, Folder, Node, descend


def _kind(node: Node) -> str:
    return "folder" if isinstance(node, Folder) else "file"


@click.command(short_help="list a path of the history")
@click.argument("path", default="")
@click.option("-R", "--recursive", is_flag=True, help="Show everything below PATH as well.")
@click.option("-l", "long", is_flag=True, help="Show mode, size and time.")
@pass_session
def ls(session: Session, path: str, recursive: bool, long: bool) -> None:
    """List PATH: machines, instants, files, or what is inside a disk."""
    node = session.node(session.open(), path)
    failed: TimefsError | None = None

    def tell(folder: bytes, error: TimefsError) -> None:
        nonlocal failed
        failed = error
        click.echo(f"timefs: {shown_name(folder)}: {error}", err=True)

    entries = [Entry(path.encode(errors="surrogateescape"), node)]
    if isinstance(node, Folder):
        below = descend(node, failed=tell) if recursive else node.entries()
        entries = (Entry(*each) for each in below)
    for entry in entries:
        try:
            _show(session, entry, long=long)
        except TimefsError as error:
            tell(entry.name, error)
    if failed is not None:
        raise failed


def _show(session: Session, entry: Entry, *, long: bool) -> None:
    shown = shown_name(entry.name)
    if not long and not session.json:
        click.echo(shown)
        return
    attributes = entry.node.attributes()
    session.show(
        {
            "name": entry.name.decode(errors="surrogateescape"),
            "kind": _kind(entry.node),
            "size_bytes": attributes.size,
            "modified": rfc3339(attributes.mtime_ns),
        },
        f"{stat.filemode(attributes.mode)} {human_bytes(attributes.size):>10} "
        f"{rfc3339(attributes.mtime_ns):31} {shown}",
    )
