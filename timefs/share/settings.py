"""What the share is to be, and the same as Samba's configuration.

Defined here and only here: `Settings` and the texts that Samba reads. Used by the share's service,
by its commands and by its health. Pure functions.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import UsageError
from timefs.share.view import Rights

HISTORY: Final = "history"
"""The share of all machines and times."""

_RESERVED: Final = frozenset({HISTORY, "global", "homes", "printers", "ipc$", "print$"})
_SHARE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,78}[A-Za-z0-9_-]|[A-Za-z0-9]")
_PLAIN_PATH: Final = re.compile(r"/[^%\"\x00-\x1f\x7f]*")
_PLAIN_USER: Final = re.compile(r"[^%,\"\x00-\x1f\x7f]+")
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only if the operator says so

_GLOBAL: Final = """\
# Written by `timefs share` at each start; changes are lost. Settings: /etc/timefs.toml, [share].
[global]
  server role = standalone server
  server string = timefs
  disable netbios = yes
  smb ports = {port}
  bind interfaces only = {bound}
  interfaces = {interfaces}

  server min protocol = SMB3_00
  server signing = mandatory
  server smb encrypt = required
  map to guest = never
  kernel change notify = no
  restrict anonymous = 2

  private dir = {state}/private
  passdb backend = tdbsam:{state}/private/passdb.tdb
  lock directory = {state}/lock
  state directory = {state}/state
  cache directory = {state}/cache
  pid directory = {state}/pid
  ncalrpc dir = {state}/rpc
  log file = {state}/log/smbd.log
  max log size = 10000
  logging = file

  load printers = no
  printing = bsd
  printcap name = /dev/null
  disable spoolss = yes
"""

_SERVED: Final = """\
  read only = yes
  server smb encrypt = required
  csc policy = disable
  follow symlinks = yes
  wide links = no
  case sensitive = yes
  preserve case = yes
  mangled names = no
  store dos attributes = yes
  map archive = no
  map hidden = no
  map system = no
  map readonly = no
  hide dot files = no
  ea support = no
  posix locking = no
  kernel oplocks = no
  kernel share modes = no
"""

_PREVIOUS_VERSIONS: Final = """\
  shadow:mountpoint = {folder}/@live
  shadow:snapdir = {folder}/@snaps
  shadow:sort = desc
  shadow:fixinodes = yes
"""


class Settings(NamedTuple):
    """How the history is shared."""

    addresses: Sequence[str]
    port: int
    rights: Rights
    users: Sequence[str]
    administrators: Sequence[str]
    state: Path
    mountpoint: Path

    @property
    def configuration(self) -> Path:
        """Samba's configuration."""
        return self.state / "smb.conf"

    def check(self) -> None:
        """Refuse what would mean something else in Samba's configuration.

        Raises:
            UsageError: an address, user or path cannot be written there.
        """
        for address in self.addresses:
            try:
                ip_address(address)
            except ValueError as error:
                raise UsageError(
                    f"share: address: expected an IP address, got {address}"
                ) from error
        if not self.addresses:
            raise UsageError("share: address: expected at least one")
        for path in (self.state, self.mountpoint):
            if not _PLAIN_PATH.fullmatch(str(path)):
                raise UsageError(f"{str(path)!a}: share: expected a path without % and quotes")
        for user in (*self.users, *self.administrators):
            if not _PLAIN_USER.fullmatch(user):
                raise UsageError(f"{user!a}: share: expected a user or @group")


def share_name(machine: str) -> str | None:
    """The share of a machine; None if Samba cannot have a share of that name."""
    if machine.lower() in _RESERVED or not _SHARE_NAME.fullmatch(machine):
        return None
    return machine


def sections(settings: Settings, machines: Iterable[str]) -> str:
    """The shares, for Samba's own configuration or for another that includes them."""
    point = settings.mountpoint
    texts = [_section(settings, HISTORY, "all machines and times", point, "")]
    for machine in machines:
        name = share_name(machine)
        if name is not None:
            folder = point / machine
            previous = _PREVIOUS_VERSIONS.format(folder=folder)
            texts.append(_section(settings, name, "newest instant", folder / "@live", previous))
    return "\n".join(texts)


def private_configuration(settings: Settings, machines: Iterable[str]) -> str:
    """The whole configuration of an smbd of our own."""
    everywhere = not _EVERYWHERE.isdisjoint(settings.addresses)
    general = _GLOBAL.format(
        port=settings.port,
        bound="no" if everywhere else "yes",
        interfaces="" if everywhere else " ".join(settings.addresses),
        state=settings.state,
    )
    return f"{general}\n{sections(settings, machines)}"


def _section(settings: Settings, name: str, comment: str, path: Path, more: str) -> str:
    modules = ["shadow_copy2"] if more else []
    if settings.rights is Rights.GUEST:
        modules.append("acl_xattr")
        more += "  acl_xattr:ignore system acls = yes\n"
    modules.append("streams_xattr")
    allowed = [*settings.users, *settings.administrators] if settings.users else []
    lines = [
        f"[{name}]",
        f"  comment = {comment}",
        f"  path = {path}",
        f"  vfs objects = {' '.join(modules)}",
        f"  valid users = {_words(allowed)}" if allowed else "",
        f"  admin users = {_words(settings.administrators)}" if settings.administrators else "",
    ]
    return "\n".join(line for line in lines if line) + "\n" + _SERVED + more


def _words(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
