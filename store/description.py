"""A repository's description: the one object that says what the others are.

Defined here and only here: `repository.json`, making an empty repository and reading what one is.
Used by store.repository and `timefs init`. Thread-safe.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from store.errors import (
    DamagedError,
    ExistsError,
    NoRepositoryError,
    NotFoundError,
    UnsupportedError,
    WrongKeyError,
)
from store.format.digest import block_digest
from store.format.row import BLOCK_BYTES
from store.objects.backend import DirectoryBackend, sync_folder, translate

REPOSITORY_FORMAT: Final = 1
DESCRIPTION: Final = "repository.json"
KEY_BYTES: Final = 32


class Description(NamedTuple):
    """What `repository.json` says."""

    format: int
    id: str
    cipher: int
    key: str
    """Digest key, 32 bytes in hex; in clear while `cipher` is 0."""
    key_check: str
    """Digest of a block of zeros under that key."""


def create_repository(root: Path) -> None:
    """Make an empty repository in a directory that is absent or empty.

    Raises:
        ExistsError: there is something already.
    """
    backend = DirectoryBackend(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in root.glob(f".{DESCRIPTION}.*"):  # an `init` that was killed
            unfinished.unlink(missing_ok=True)
        present = next(root.iterdir(), None)
        with suppress(PermissionError):  # a parent that only lets through
            sync_folder(root.parent)
    except FileExistsError as error:
        raise ExistsError(
            f"{root}: expected an empty or new directory, found a file; name another"
        ) from error
    except OSError as error:
        raise translate(error, str(root)) from error
    if present is not None:
        raise ExistsError(
            f"{root}: expected an empty or new directory, found {present.name}; name another"
        )
    key = os.urandom(KEY_BYTES)
    description = Description(
        REPOSITORY_FORMAT, os.urandom(16).hex(), 0, key.hex(), _key_check(key)
    )
    backend.create(DESCRIPTION, json.dumps(description._asdict(), indent=1).encode() + b"\n")


def _key_check(key: bytes) -> str:
    return block_digest(key, bytes(BLOCK_BYTES)).hex()


def describe(root: Path) -> Description:
    """What the repository in a directory is.

    Raises:
        NoRepositoryError: there is none.
        UnsupportedError: a newer timefs made it.
        WrongKeyError: its key is not the one it was made with.
        DamagedError: the description cannot be read.
    """
    backend = DirectoryBackend(root)
    try:
        content = backend.read(DESCRIPTION, 0, backend.size(DESCRIPTION))
    except NotFoundError as error:
        raise NoRepositoryError(
            f"{root}: no repository here; make one with `timefs -r {root} init`"
        ) from error
    try:
        fields: dict[str, Any] = json.loads(content)
        known = {name: fields[name] for name in Description._fields}
        description = Description(**known)
        key = bytes.fromhex(description.key)
        bytes.fromhex(description.id)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{root / DESCRIPTION}: {error}; put the file back from a copy of the repository"
        ) from error
    if description.format != REPOSITORY_FORMAT or description.cipher != 0:
        raise UnsupportedError(
            f"{root}: expected repository format {REPOSITORY_FORMAT} without encryption, got "
            f"format {description.format} cipher {description.cipher}; use a newer timefs"
        )
    if len(key) != KEY_BYTES or _key_check(key) != description.key_check:
        raise WrongKeyError(
            f"{root / DESCRIPTION}: the key does not match its check; put the file back from a copy"
        )
    return description
