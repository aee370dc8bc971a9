"""`timefs log`: instants with their sizes, asked of the catalog."""

import click

from store.catalog.catalog import Catalog
from store.errors import ForkedError, IncompleteError, NotFoundError, TimefsError, UnsupportedError
from timefs.cli.session import Session, human_bytes, pass_session, rfc3339


@click.command(short_help="list machines and instants, with sizes")
@click.argument("machine", required=False)
@pass_session
def log(session: Session, machine: str | None) -> None:
    """List the instants of MACHINE, or of all machines, oldest first.

    changed: bytes that differ from the instant before. new: those the repository did not have.
    stored: what the repository grew by.

    Example:
      timefs log vm1
    """
    repository = session.open()
    machines = repository.history.machines() if machine is None else [machine]
    failed: dict[str, TimefsError] = {}
    for each in machines:
        try:
            repository.history.watermark_ns(each)
        except (ForkedError, UnsupportedError) as error:
            failed[each] = error
            session.complain(type(error)(f"{each}: {error}"))
    entries = Catalog.of(repository).log(machine)
    if machine is not None and not entries:
        raise NotFoundError(f"{machine}: no such machine; `timefs log` lists them")
    for entry in entries:
        if entry.machine in failed:
            continue
        fuzzy = "  fuzzy" if entry.fuzzy else ""
        session.show(
            {
                "machine": entry.machine,
                "time": rfc3339(entry.time_ns),
                "fuzzy": entry.fuzzy,
                "files": entry.files,
                "changed_bytes": entry.changed_bytes,
                "new_bytes": entry.new_bytes,
                "stored_bytes": entry.stored_bytes,
            },
            f"{entry.machine}  {rfc3339(entry.time_ns):31} "
            f"changed {human_bytes(entry.changed_bytes):>10}  "
            f"new {human_bytes(entry.new_bytes):>10}  "
            f"stored {human_bytes(entry.stored_bytes):>10}{fuzzy}",
        )
    if failed:
        raise IncompleteError(f"not shown: {', '.join(failed)}")
