"""`timefs cat`: a file of the history on standard output."""

import sys

import click

from store.errors import IsFolderError
from timefs.cli.session import Session, pass_session
from timefs.tree import Leaf

STEP_BYTES = 4 << 20


@click.command(short_help="write a file to standard output")
@click.argument("path")
@pass_session
def cat(session: Session, path: str) -> None:
    """Write the file at PATH to standard output."""
    node = session.node(session.open(), path)
    if not isinstance(node, Leaf):
        raise IsFolderError(f"{path}: expected a file, found a folder")
    image = node.open()
    for offset in range(0, image.size, STEP_BYTES):
        sys.stdout.buffer.write(image.read(offset, STEP_BYTES))
    sys.stdout.buffer.flush()
