"""`timefs capture`: store what changed, as one instant."""

import logging
from pathlib import Path

import click

from store.catalog.catalog import Catalog
from store.errors import IncompleteError, NotFoundError, TimefsError, UsageError
from timefs.cli.progress import progress_bar
from timefs.cli.session import Session, human_bytes, pass_session, rfc3339
from timefs.recorder import NamedSource, Order, Progress, record
from timefs.times import Meaning, parse

log = logging.getLogger(__name__)


def named_source(argument: str) -> NamedSource:
    """`PATH`, or `NAME=PATH`; a path that exists as it is written is a path."""
    name, equals, path = argument.partition("=")
    if equals and "/" not in name and not Path(argument).exists():
        return NamedSource(name, Path(path))
    return NamedSource(Path(argument).absolute().name, Path(argument))


def imported_ns(spelling: str, now_ns: int) -> int:
    """The time of an imported instant: the start of a second, or exactly a fraction.

    Raises:
        UsageError: it is not an absolute time.
    """
    try:
        asked = parse(spelling, now_ns)
    except NotFoundError as error:
        raise UsageError(f"--at {spelling}: {error}") from error
    if asked.meaning is not Meaning.ABSOLUTE:
        raise UsageError(f"--at {spelling}: expected a time like 2026-05-01T10:00:37Z")
    return asked.start_ns


@click.command(short_help="store what changed as one instant")
@click.argument("machine")
@click.argument("file", nargs=-1)
@click.option("--drop", multiple=True, metavar="NAME", help="The machine's file NAME ends now.")
@click.option("--at", metavar="TIME", help="The FILEs are copies from this time (UTC).")
@click.option("--wait", is_flag=True, help="Wait while another process captures the machine.")
@pass_session
def capture(  # one parameter an option
    session: Session,
    machine: str,
    file: tuple[str, ...],
    drop: tuple[str, ...],
    at: str | None,
    wait: bool,
) -> None:
    """Store what changed in each FILE since last time and commit one instant for all of them.

    FILE is a file or block device, known by its base name, or NAME=PATH. A file that is not named
    keeps its last bytes; --drop NAME ends it. Exit code 3: something changed while it was read, so
    the instant is fuzzy.

    Examples:
      timefs capture vm1 /vms/disk.vhdx /vms/data.vhdx
      timefs capture vm1 system=/dev/vg0/vm1
      timefs capture vm1 --at 2026-05-01T10:00:00Z /old/disk.vhdx
    """
    repository = session.open()
    at_ns = imported_ns(at, repository.clock.now_ns()) if at is not None else None
    order = Order(machine, [named_source(argument) for argument in file], drop, at_ns, wait)
    with progress_bar(machine) as bar:
        done = record(repository, order, Progress(bar.start, bar.advance))
    try:
        Catalog.of(repository).follow()
    except TimefsError as error:  # derived; the instant is durable
        log.warning("catalog: %s", error)
    session.show(
        {
            "machine": machine,
            "time": rfc3339(done.time_ns),
            "fuzzy": bool(done.fuzzy),
            "read_bytes": done.read_bytes,
            "new_bytes": done.new_bytes,
            "duplicate_bytes": done.duplicate_bytes,
            "stored_bytes": done.stored_bytes,
        },
        f"{machine} {rfc3339(done.time_ns)}: read {human_bytes(done.read_bytes)}, "
        f"new {human_bytes(done.new_bytes)}, stored {human_bytes(done.stored_bytes)}",
    )
    if done.fuzzy:
        raise IncompleteError(
            f"{machine}: {', '.join(done.fuzzy)} changed while it was read; the instant is kept "
            f"and marked fuzzy; capture again when the disk is quiet"
        )
