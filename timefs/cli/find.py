"""`timefs find`: guest files by name, at an instant or below any path of it."""

import fnmatch
import re
from collections.abc import Callable

import click

from store.errors import IncompleteError, NotFolderError, TimefsError, UsageError
from timefs.cli.session import Session, kind_of, pass_session
from timefs.tree import Folder, descend, shown_name


def matcher(pattern: str | None, any_case: str | None) -> Callable[[str], bool]:
    """Whether a name matches both patterns, where they are given; `any_case` ignores case.

    Raises:
        UsageError: neither is given.
    """
    if pattern is None and any_case is None:
        raise UsageError("expected what to find: -name PATTERN, or -iname PATTERN to ignore case")
    exact = re.compile(fnmatch.translate(pattern or "*"))
    folded = re.compile(fnmatch.translate((any_case or "*").casefold()))
    return lambda name: bool(exact.match(name) and folded.match(name.casefold()))


@click.command(short_help="find files by name inside an instant")
@click.argument("path")
@click.option("-name", "pattern", metavar="PATTERN", help="Shell pattern that names match.")
@click.option("-iname", "any_case", metavar="PATTERN", help="The same, whatever the case.")
@pass_session
def find(session: Session, path: str, pattern: str | None, any_case: str | None) -> None:
    """Print the path of every file and folder below PATH whose name matches a shell pattern.

    PATH is an instant (every disk is searched) or any folder in it. Quote the pattern, or the shell
    takes it for its own. Exit code 3: a folder could not be listed; it is named, the rest was
    searched.

    Example:
      timefs find vm1/yesterday -iname '*.mdf'
    """
    matches = matcher(pattern, any_case)
    node = session.node(session.open(), path)
    if not isinstance(node, Folder):
        raise NotFolderError(f"{path}: expected an instant or a folder, found a file")
    failed: list[bytes] = []

    def tell(folder: bytes, error: TimefsError) -> None:
        failed.append(folder)
        session.complain(type(error)(f"{shown_name(folder)}: {error}"))

    start = path.rstrip("/").encode(errors="surrogateescape") + b"/"
    for found, below in descend(node, start, tell):
        if matches(found.rpartition(b"/")[2].decode(errors="surrogateescape")):
            session.show(
                {"path": found.decode(errors="surrogateescape"), "kind": kind_of(below)},
                shown_name(found),
            )
    if failed:
        raise IncompleteError(f"{path}: {len(failed)} folders could not be searched whole")
