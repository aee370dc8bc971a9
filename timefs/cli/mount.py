"""`timefs mount`: the history as a drive."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from timefs.cli.session import Session, pass_session
from timefs.mount.background import mount_background
from timefs.mount.mounting import mount_foreground
from timefs.times import Names
from timefs.tree import Folder


@click.command(short_help="show the history as a drive")
@click.argument("folder", metavar="DIR")
@click.option("--foreground", is_flag=True, help="Serve until unmounted or interrupted.")
@click.option(
    "--names",
    type=click.Choice([Names.COLONS.value, Names.WINDOWS.value]),
    help="How instants are listed: 2026-05-01T10:00:37Z, or with no colon for Windows.",
)
@click.option("--allow-other", is_flag=True, help="Let other users in too.")
@click.option("--portable", is_flag=True, help="Through libfuse and mfusepy, in the foreground.")
@pass_session
def mount(
    session: Session,
    folder: str,
    foreground: bool,
    names: str | None,
    allow_other: bool,
    portable: bool,
) -> None:
    """Mount the history at the folder DIR, in the background unless told otherwise.

    New instants appear without mounting again. Nobody can write; `timefs unmount DIR` ends it.

    Example:
      timefs mount /mnt/history
      ls /mnt/history/vm1/2026-05-01T10:00/disk
    """
    mountpoint = Path(folder).absolute()
    session.open().close()  # whatever is wrong with the repository is said here, not in a log
    spelling = Names(names or session.config.names)
    root, cache = session.root, session.cache.absolute() if session.cache else None
    absolute = Session(root, cache, session.json, session.config)

    @contextmanager
    def open_root() -> Generator[Folder]:
        yield absolute.tree(absolute.open(), spelling).root

    if foreground or portable:
        code = mount_foreground(
            open_root, mountpoint, root, allow_other=allow_other, portable=portable
        )
        sys.exit(code)
    log_path = absolute.open().cache / "mount.log"
    mount_background(open_root, mountpoint, root, log_path=log_path, allow_other=allow_other)
    session.show(
        {"mountpoint": str(mountpoint)}, f"{mountpoint}: mounted; `timefs unmount` ends it"
    )
