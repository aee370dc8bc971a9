"""What every command needs: options given before it, the repository, and how results are shown.

Defined here and only here: `Session`, the JSON form of results, sizes for people and progress.
Used by every command. Main thread only.
"""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from store.errors import NotFoundError, UsageError
from store.repository import Repository, default_cache
from timefs.config import Config
from timefs.times import Names, spell
from timefs.timetree import TimeTree
from timefs.tree import Node, walk

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Session:
    """The options before the command."""

    repo: Path | None
    cache: Path | None
    json: bool
    config: Config

    @property
    def root(self) -> Path:
        """The repository's directory.

        Raises:
            UsageError: none was named.
        """
        if self.repo is None:
            raise UsageError("no repository named; give -r REPO or set TIMEFS_REPO")
        return self.repo.absolute()

    def open(self) -> Repository:
        """The repository."""
        return Repository(
            self.root,
            (self.cache or default_cache()).absolute(),
            frame_cache_bytes=self.config.frame_cache_mib << 20,
        )

    def show(self, record: dict[str, Any], text: str) -> None:
        """One result: a JSON object a line, or text for a person."""
        click.echo(json.dumps(record) if self.json else text)

    def tree(self, repository: Repository, names: Names = Names.COLONS) -> TimeTree:
        """The repository's history as a tree."""
        return TimeTree(repository, names)

    def node(self, repository: Repository, path: str) -> Node:
        """The node at a path of the mount.

        Raises:
            NotFoundError: there is none; the message names the path.
        """
        names = [name for name in path.encode(errors="surrogateescape").split(b"/") if name]
        try:
            return walk(self.tree(repository).root, names)
        except NotFoundError as error:
            raise NotFoundError(f"{path}: {error}") from error


pass_session = click.make_pass_decorator(Session)


def shown_name(name: bytes) -> str:
    """A name as a terminal can show it: what is no text, or would move the cursor, is escaped."""
    text = name.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def human_bytes(count: int) -> str:
    """A size as people read it."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:  # binary units
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def rfc3339(time_ns: int) -> str:
    """A time as JSON shows it: UTC, to the nanosecond where it matters."""
    return spell(time_ns, Names.COLONS, exact=True)


class ProgressBar:
    """A bar with rate and time to go on standard error; nothing where that is not a terminal."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._task: Any = None

    def start(self, total_bytes: int) -> None:
        """Show the bar."""
        if not sys.stderr.isatty():
            return
        from rich.console import Console  # noqa: PLC0415  # not loaded where no bar is shown
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=total_bytes)
        self._bar.start()

    def advance(self, done_bytes: int) -> None:
        """Some more is done."""
        if self._bar is not None:
            self._bar.advance(self._task, done_bytes)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress_bar(label: str) -> Generator[ProgressBar]:
    """A bar that is taken away whatever happens."""
    bar = ProgressBar(label)
    try:
        yield bar
    finally:
        bar.stop()
