"""The configuration file: one TOML into one frozen value; an unknown key is an error.

Defined here and only here. Used by the command line. Thread-safe.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args

from store.errors import NotFoundError, UsageError

CONFIG_PATH: Final = Path("/etc/timefs.toml")


T = TypeVar("T")

_WORDS: Final[dict[Any, str]] = {int: "int", tuple[str, ...]: "a list of strings"}


@dataclass(frozen=True, slots=True)
class ShareConfig:
    """What the table `[share]` may say."""

    address: tuple[str, ...] = ("127.0.0.1",)
    """Addresses of this server on which the share answers; `0.0.0.0` and `::` are all."""
    port: int = 445
    """Windows can use no other."""
    acl: str = "guest"
    """Whose rights decide: the `guest`'s own, or everybody's who may use the `share`."""
    users: tuple[str, ...] = ()
    """Who may use the share, `@` before a group; nobody named: all that have a password."""
    administrators: tuple[str, ...] = ()
    """Who reads everything, whole disks too, whatever the guest's rights say."""
    state: str = "/var/lib/timefs/share"
    """Samba's private folder: users, locks, logs."""
    mountpoint: str | None = None
    """Where the history is mounted for Samba; the folder `mount` within `state` by default."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the file may say; command-line options go before it."""

    repo: str | None = None
    """The repository's directory."""
    cache: str | None = None
    """Where derived indexes live."""
    names: str = "colons"
    """How instants are spelt in listings: `colons` or `windows`."""
    frame_cache_mib: int = 64
    """Decoded frames that a mount keeps, MiB."""
    share: ShareConfig = ShareConfig()


def read_config(path: Path | None) -> Config:
    """The configuration of a file; of none, if the usual one is not there.

    Raises:
        NotFoundError: the file named is not there.
        UsageError: it is not TOML, or says something that timefs does not know.
    """
    wanted = path or CONFIG_PATH
    if path is None and not wanted.exists():
        return Config()
    content = _content(wanted)
    table: Any = content.pop("share", {})
    if type(table) is not dict:
        raise UsageError(f"{wanted}: share: expected a table, got {table!r}")
    shared = _checked(ShareConfig, cast("dict[str, Any]", table), f"{wanted}: share")
    config = _checked(Config, {**content, "share": shared}, str(wanted))
    for key, value in (("repo", config.repo), ("cache", config.cache)):
        if value is not None and not Path(value).is_absolute():
            raise UsageError(f"{wanted}: {key}: expected an absolute path, got {value!r}")
    _one_of(config.names, ("colons", "windows"), f"{wanted}: names")
    _one_of(shared.acl, ("guest", "share"), f"{wanted}: share: acl")
    if config.frame_cache_mib < 1:
        raise UsageError(f"{wanted}: frame_cache_mib: expected at least 1")
    if shared.port not in range(1, 1 << 16):
        raise UsageError(f"{wanted}: share: port: expected 1 to 65535, got {shared.port}")
    return config


def _content(path: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        NotFoundError: it is not there.
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such configuration file") from error
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected text, this is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error


def _one_of(value: str, known: tuple[str, ...], where: str) -> None:
    if value not in known:
        raise UsageError(f"{where}: expected {' or '.join(known)}, got {value!r}")


def _checked(kind: type[T], content: dict[str, Any], where: str) -> T:
    """A value of a dataclass, its keys and types checked.

    Raises:
        UsageError: a key is unknown, or a value of another type.
    """
    wanted: dict[str, Any] = {field.name: field.type for field in fields(cast("Any", kind))}
    for key, value in content.items():
        if key not in wanted:
            raise UsageError(f"{where}: unknown key {key}; known are {', '.join(sorted(wanted))}")
        if not _fits(value, wanted[key]):
            expected = _WORDS.get(wanted[key], "str")
            raise UsageError(f"{where}: {key}: expected {expected}, got {value!r}")
    return kind(**{key: _frozen(value) for key, value in content.items()})


def _fits(value: object, wanted: Any) -> bool:
    if wanted == tuple[str, ...]:
        return isinstance(value, list) and all(
            isinstance(each, str) for each in cast("list[object]", value)
        )
    return type(value) in (get_args(wanted) or (wanted,))


def _frozen(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
