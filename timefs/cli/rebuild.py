"""`timefs rebuild`: make index and catalog again from the packs."""

import click

from store.catalog.catalog import Catalog
from timefs.cli.session import Session, pass_session


@click.command(short_help="make index and catalog again from the packs")
@pass_session
def rebuild(session: Session) -> None:
    """Throw index and catalog away and make them again from the packs.

    Nothing is lost by it; no other command has to wait.

    Example:
      timefs rebuild
    """
    repository = session.open()
    repository.index.rebuild(repository.reader)
    Catalog.of(repository).rebuild()
    machines = repository.history.machines()
    session.show({"machines": len(machines)}, f"rebuilt: {len(machines)} machines")
