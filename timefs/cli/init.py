"""`timefs init`: make an empty repository."""

import click

from store.description import create_repository
from timefs.cli.session import Session, pass_session


@click.command(short_help="make a repository")
@pass_session
def init(session: Session) -> None:
    """Make an empty repository in a directory that is new or empty.

    Example:
      timefs init -r /backup/repo
      export TIMEFS_REPO=/backup/repo     so that no command needs -r
    """
    create_repository(session.root)
    with_id = session.open().id
    session.show(
        {"repository": str(session.root), "id": with_id}, f"{session.root}: repository made"
    )
