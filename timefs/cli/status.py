"""`timefs status`: whether the share works, and how old the newest instants are."""

from contextlib import closing

import click

from store.errors import ForkedError, IncompleteError, UnsupportedError
from timefs.cli.session import Session, pass_session, rfc3339
from timefs.cli.share import Chosen
from timefs.share.health import health


@click.command(short_help="whether the share works, and how old the newest instants are")
@click.option("--state", metavar="DIR", help="The private folder of the share, if it is another.")
@pass_session
def status(session: Session, state: str | None) -> None:
    """Say what is well and what is not; exit code 3 if the share runs but cannot be used.

    Example:
      timefs status
    """
    failed: list[str] = []
    with closing(session.open()) as repository:
        for machine in repository.history.machines():
            try:
                newest = rfc3339(repository.history.latest(machine).time_ns)
            except (ForkedError, UnsupportedError) as error:
                failed.append(machine)
                session.complain(type(error)(f"{machine}: {error}"))
                continue
            session.show({"machine": machine, "latest": newest}, f"{machine}: latest {newest}")
    settings = Chosen(state=state).settings(session)
    found = health(settings)
    if found is None:
        session.show({"share": None}, "share: not running")
        if failed:
            raise IncompleteError(f"not shown: {', '.join(failed)}")
        return
    faults = {
        "its process is gone": not found.running,
        "its mount does not answer": not found.mounted,
        "samba does not answer": not found.answering,
    }
    said = ", ".join(fault for fault, here in faults.items() if here) or "well"
    where = f"{found.address}:{found.port}, {found.clients} clients"
    session.show(
        {"share": {**found._asdict(), "well": found.well}},
        f"share: {said}; {where if found.port is not None else 'served by your smbd'}",
    )
    if not found.well:
        raise IncompleteError(
            f"share: {said}; start it again with timefs share; logs are in {settings.state}/log"
        )
