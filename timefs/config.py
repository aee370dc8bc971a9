"""The configuration file: one TOML into one frozen value; an unknown key is an error.

Defined here and only here. Used by the command line. Thread-safe.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from store.errors import NotFoundError, UsageError

CONFIG_PATH: Final = Path("/etc/timefs.toml")


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


def read_config(path: Path | None) -> Config:
    """The configuration of a file; of none, if the usual one is not there.

    Raises:
        NotFoundError: the file named is not there.
        UsageError: it is not TOML, or says something that timefs does not know.
    """
    wanted = path or CONFIG_PATH
    try:
        content = tomllib.loads(wanted.read_text())
    except FileNotFoundError as error:
        if path is None:
            return Config()
        raise NotFoundError(f"{wanted}: no such configuration file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{wanted}: {error}") from error
    known = [field.name for field in fields(Config)]
    for key, value in content.items():
        if key not in known:
            raise UsageError(f"{wanted}: unknown key {key}; known are {', '.join(sorted(known))}")
        expected = int if key == "frame_cache_mib" else str
        if type(value) is not expected:
            raise UsageError(f"{wanted}: {key}: expected {expected.__name__}, got {value!r}")
    config = Config(**content)
    if config.names not in ("colons", "windows"):
        raise UsageError(f"{wanted}: names: expected colons or windows, got {config.names!r}")
    if config.frame_cache_mib < 1:
        raise UsageError(f"{wanted}: frame_cache_mib: expected at least 1")
    return config
