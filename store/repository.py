"""The repository: one place where what reads and writes history is put together.

Defined here and only here: opening a repository. Used by the commands. Thread-safe; several
processes may use one repository at once, and none of them ever locks it.
"""

import os
from pathlib import Path
from typing import Final

from blake3 import blake3

from store.clock import Clock, SystemClock
from store.description import describe
from store.format.keys import Keys
from store.index.index import Index
from store.index.indexed_history import IndexedHistory
from store.log.machine_logs import MachineLogs
from store.log.transaction import SealPolicy
from store.objects.backend import DirectoryBackend
from store.packs.reader import CACHE_BYTES, PackReader


def default_cache() -> Path:
    """Where derived indexes live unless told otherwise."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "timefs"
    if os.geteuid() == 0:
        return Path("/var/cache/timefs")
    return Path.home() / ".cache" / "timefs"


def cache_name(root: Path, identity: str) -> str:
    """The folder of a repository within a cache.

    A copy of a repository has its id, and goes on another way: its place tells it apart.
    """
    place = blake3(os.fsencode(root.resolve())).hexdigest(length=4)
    return f"{identity}-{place}"


class Repository:
    """An open repository: its parts, wired."""

    def __init__(
        self,
        root: Path,
        cache: Path | None = None,
        clock: Clock | None = None,
        frame_cache_bytes: int = CACHE_BYTES,
        seal: SealPolicy = SealPolicy(),  # noqa: B008  # a value
    ) -> None:
        description = describe(root)
        identity = bytes.fromhex(description.id)
        self.root: Final = root
        self.id: Final = description.id
        self.keys: Final = Keys(bytes.fromhex(description.key))
        self.clock: Final = clock or SystemClock()
        self.cache: Final = (cache or default_cache()) / cache_name(root, self.id)
        self.backend: Final = DirectoryBackend(root)
        self.reader: Final = PackReader(self.backend, identity, self.keys, frame_cache_bytes)
        self.index: Final = Index(self.cache, identity)
        self.history: Final = IndexedHistory(self.index, self.reader, self.clock)
        self.logs: Final = MachineLogs(
            identity, self.keys, self.reader, self.index, self.history, root, self.cache, seal
        )

    def close(self) -> None:
        """Let go of open packs and of this thread's connection to the index."""
        self.backend.close()
        self.index.close()
