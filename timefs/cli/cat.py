"""`timefs cat`: a file of the history on standard output."""

import sys
from typing import Final

import click

from store.errors import IsFolderError
from timefs.cli.session import Session, about, pass_session
from timefs.tree import Leaf

STEP_BYTES: Final = 4 << 20


@click.command(short_help="write a file to standard output")
@click.argument("path")
@pass_session
def cat(session: Session, path: str) -> None:
    """Write the file at PATH to standard output.

    Example:
      timefs cat vm1/2026-05-01T10:00/disk/app/settings.ini | diff - settings.ini
    """
    node = session.node(session.open(), path)
    if not isinstance(node, Leaf):
        raise IsFolderError(f"{path}: expected a file; `timefs ls` lists a folder")
    with about(path):
        image = node.open()
        buffer = memoryview(bytearray(min(STEP_BYTES, image.size)))
        for offset in range(0, image.size, STEP_BYTES):
            piece = buffer[: image.size - offset]
            image.read_into(offset, piece)
            sys.stdout.buffer.write(piece)
