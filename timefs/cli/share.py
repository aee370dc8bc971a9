"""`timefs share`: the history as a network drive, served by Samba."""

import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click

from timefs.cli.session import Session, pass_session, shared_options
from timefs.share.samba import configure, make_folder, remove_user, set_user
from timefs.share.service import serve
from timefs.share.settings import Settings, private_configuration, sections
from timefs.share.view import Rights
from timefs.times import Names
from timefs.timetree import TimeTree


class Chosen(NamedTuple):
    """The options of the command, which go before the configuration."""

    addresses: tuple[str, ...] = ()
    port: int | None = None
    acl: str | None = None
    state: str | None = None

    def settings(self, session: Session) -> Settings:
        """How the history is shared."""
        config = session.config.share
        folder = Path(self.state or config.state).absolute()
        return Settings(
            self.addresses or config.address,
            self.port or config.port,
            Rights(self.acl or config.acl),
            config.users,
            config.administrators,
            folder,
            Path(config.mountpoint).absolute() if config.mountpoint else folder / "mount",
        )


@click.group(invoke_without_command=True, short_help="the history as a network drive")
@click.option("--address", multiple=True, metavar="IP", help="Where to answer; 0.0.0.0 is all.")
@click.option("--port", type=click.IntRange(1, 65535), help="445; Windows can use no other.")
@click.option(
    "--acl",
    type=click.Choice([rights.value for rights in Rights]),
    help="guest: as in the guest; share: whoever is let in reads everything.",
)
@click.option("--state", metavar="DIR", help="Samba's private folder: users, locks, logs.")
@click.option("--mount-only", is_flag=True, help="For an smbd of your own; see `include`.")
@pass_session
def share(
    session: Session,
    address: tuple[str, ...],
    port: int | None,
    acl: str | None,
    state: str | None,
    mount_only: bool,
) -> None:
    r"""Share the history: `\\SERVER\history`, and `\\SERVER\MACHINE` with Previous Versions.

    Runs until it is interrupted. It answers on this machine alone unless told an address. Needs
    root and Samba. What is served is read-only, signed and encrypted; nobody gets in without a
    password.

    Example:
      timefs share user anna
      timefs share --address 192.168.1.5
    """
    context = click.get_current_context()
    context.obj = Chosen(address, port, acl, state)
    if context.invoked_subcommand is None:
        settings = context.obj.settings(session)
        sys.exit(_serve(session, settings, with_samba=not mount_only))


def _serve(session: Session, settings: Settings, *, with_samba: bool) -> int:
    @contextmanager
    def open_tree() -> Generator[TimeTree]:
        with closing(session.open()) as repository:
            yield session.tree(repository, Names.WINDOWS)

    def ready() -> None:
        port = settings.port if with_samba else None
        place = f"{settings.addresses[0]}:{port}" if with_samba else "your smbd"
        session.show(
            {"addresses": list(settings.addresses), "port": port},
            f"sharing on {place}; interrupt to stop",
        )
        sys.stdout.flush()

    return serve(settings, open_tree, session.root, with_samba=with_samba, ready=ready)


def _settings(session: Session) -> Settings:
    """As chosen before the subcommand."""
    chosen = click.get_current_context().find_object(Chosen) or Chosen()
    settings = chosen.settings(session)
    settings.check()
    return settings


@share.command(short_help="let a user in, or out")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Let the user in no more.")
@pass_session
def user(session: Session, name: str, remove: bool) -> None:
    """Let a user of this server in, or change the password.

    The password is asked for; where there is no terminal it is the first line of standard input.
    """
    settings = _settings(session)
    if not settings.configuration.exists():
        make_folder(settings)
        configure(settings, private_configuration(settings, []))
    if remove:
        remove_user(settings, name)
        session.show({"user": name, "removed": True}, f"{name}: let in no more")
        return
    if sys.stdin.isatty():
        password = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    set_user(settings, name, password)
    session.show({"user": name, "removed": False}, f"{name}: let in with that password")


@share.command(short_help="print the shares for an smbd of your own")
@pass_session
def include(session: Session) -> None:
    """Print the shares for the smb.conf of an smbd of your own, a domain's member for example.

    Run `timefs share --mount-only` for it, and print again when there is a new machine.
    """
    settings = _settings(session)
    with closing(session.open()) as repository:
        click.echo(sections(settings, repository.history.machines()), nl=False)


for command in (user, include):
    command.params += shared_options()
