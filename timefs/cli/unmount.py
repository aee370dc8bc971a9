"""`timefs unmount`: take the drive away."""

from pathlib import Path

import click

from timefs.cli.session import Session, pass_session
from timefs.mount.mounting import unmount as unmount_at


@click.command(short_help="take the drive away")
@click.argument("folder", metavar="DIR")
@pass_session
def unmount(session: Session, folder: str) -> None:
    """Unmount the history from DIR, also when its server has died.

    Example:
      timefs unmount /mnt/history
    """
    unmount_at(Path(folder))
    session.show({"mountpoint": folder}, f"{folder}: unmounted")
