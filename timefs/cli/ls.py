"""`timefs ls`: list a path of the history without mounting."""

import stat
from collections.abc import Iterator

import click

from store.errors import TimefsError
from timefs.cli.session import (
    Session,
    about,
    human_bytes,
    kind_of,
    pass_session,
    rfc3339,
)
from timefs.tree import Entry, Folder, descend, shown_name


@click.command(short_help="list a path of the history")
@click.argument("path", default="")
@click.option("-R", "--recursive", is_flag=True, help="Show everything below PATH as well.")
@click.option("-l", "long", is_flag=True, help="Show mode, size and time.")
@pass_session
def ls(session: Session, path: str, recursive: bool, long: bool) -> None:
    """List PATH: machines, instants, files, or what is inside a disk.

    What is damaged is said, and the rest is listed.

    Examples:
      timefs ls                                      the machines
      timefs ls vm1                                  the instants of one
      timefs ls -l vm1/2026-05-01T10:00/disk/Users   a folder inside its disk
    """
    node = session.node(session.open(), path)
    failed: list[TimefsError] = []

    def tell(name: bytes, error: TimefsError) -> None:
        where = "/".join(part for part in (path.strip("/"), shown_name(name).strip("/")) if part)
        failed.append(type(error)(f"{where}: {error}"))
        session.complain(failed[-1])

    def entries() -> Iterator[Entry]:
        if not isinstance(node, Folder):
            yield Entry(path.strip("/").encode(errors="surrogateescape"), node)
            return
        with about(path or "/"):
            for each in descend(node, failed=tell) if recursive else node.entries():
                yield Entry(*each)

    for entry in entries():
        try:
            _show(session, entry, long=long)
        except TimefsError as error:
            if not session.json:
                click.echo(f"{'?':10} {'?':>10} {'?':31} {shown_name(entry.name)}")
            tell(entry.name, error)
    if failed:
        raise type(failed[0])(f"{path or '/'}: not all of it can be shown")


def _show(session: Session, entry: Entry, *, long: bool) -> None:
    shown = shown_name(entry.name)
    if not long and not session.json:
        click.echo(shown)
        return
    attributes = entry.node.attributes()
    session.show(
        {
            "name": entry.name.decode(errors="surrogateescape"),
            "kind": kind_of(entry.node),
            "size_bytes": attributes.size,
            "modified": rfc3339(attributes.mtime_ns),
        },
        f"{stat.filemode(attributes.mode)} {human_bytes(attributes.size):>10} "
        f"{rfc3339(attributes.mtime_ns):31} {shown}",
    )
