"""What every command needs: the shared options, the repository, and how results are shown.

Defined here and only here: `Session`, the options that every command takes, the JSON form of
results and errors, sizes for people. Used by every command. Main thread only.
"""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

import click

from store.errors import NotFolderError, NotFoundError, TimefsError, UsageError
from store.repository import Repository, default_cache
from timefs.config import Config, read_config
from timefs.times import Names, spell
from timefs.timetree import TimeTree
from timefs.tree import Folder, Link, Node, shown_name

P = ParamSpec("P")

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_META: Final = "timefs."


@dataclass(frozen=True, slots=True)
class Session:
    """What the shared options and the configuration say."""

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
            raise UsageError("no repository named; give -r REPO, or set TIMEFS_REPO")
        return self.repo.resolve()

    def open(self) -> Repository:
        """The repository."""
        return Repository(
            self.root,
            (self.cache or default_cache()).absolute(),
            frame_cache_bytes=self.config.frame_cache_mib << 20,
        )

    def show(self, record: dict[str, Any], text: str) -> None:
        """One result: a JSON object a line, or text for a person."""
        click.echo(json.dumps(record) if self.json else shown_text(text))

    def complain(self, error: TimefsError) -> None:
        """One error on standard error, as JSON or for a person."""
        click.echo(error_line(error, as_json=self.json), err=True)

    def tree(self, repository: Repository, names: Names | None = None) -> TimeTree:
        """The repository's history as a tree, its instants spelt as configured unless told."""
        return TimeTree(repository.history, names or Names(self.config.names))

    def node(self, repository: Repository, path: str) -> Node:
        """The node at a path of the mount.

        Raises:
            NotFoundError, NotFolderError: there is none; the message names how far the path leads.
        """
        node: Node = self.tree(repository).root
        reached: list[str] = []
        for name in path_names(path):
            if not isinstance(node, Folder):
                raise NotFolderError(f"{'/'.join(reached)}: expected a folder, found a file")
            reached.append(name)
            try:
                node = node.lookup(name.encode(errors="surrogateescape"))
            except NotFoundError as error:
                raise NotFoundError(f"{'/'.join(reached)}: {error}") from error
        return node


@contextmanager
def about(path: str) -> Generator[None]:
    """Errors that come up in here are about a path, and begin with it."""
    try:
        yield
    except TimefsError as error:
        raise type(error)(f"{path}: {error}") from error


def path_names(path: str) -> list[str]:
    """The names that a path in the mount leads through."""
    return [name for name in path.split("/") if name not in ("", ".")]


def kind_of(node: Node) -> str:
    """What a node is, in a word."""
    if isinstance(node, Folder):
        return "folder"
    return "link" if isinstance(node, Link) else "file"


def shared_options() -> list[click.Option]:
    """The options that every command takes, before its name or after it."""

    def keep(context: click.Context, option: click.Parameter, value: object) -> None:
        if value:
            context.meta[f"{_META}{option.name}"] = value

    return [
        click.Option(
            list(names),
            metavar=metavar,
            help=text,
            is_flag=not metavar,
            expose_value=False,
            callback=keep,
        )
        for names, metavar, text in (
            (("-r", "--repo"), "REPO", "The repository; else TIMEFS_REPO, else the configuration."),
            (("--cache",), "DIR", "Where derived indexes live."),
            (("--config",), "FILE", "Configuration; /etc/timefs.toml by default."),
            (("--json",), None, "One JSON object a line."),
        )
    ]


def _session(context: click.Context) -> Session:
    said: dict[str, Any] = {
        name.removeprefix(_META): value
        for name, value in context.meta.items()
        if name.startswith(_META)
    }
    config = read_config(Path(said["config"]) if "config" in said else None)
    repo = said.get("repo") or os.environ.get("TIMEFS_REPO") or config.repo
    cache = said.get("cache") or config.cache
    return Session(
        Path(repo) if repo else None, Path(cache) if cache else None, "json" in said, config
    )


def pass_session(command: Callable[Concatenate[Session, P], None]) -> Callable[P, None]:
    """Give a command the session of its context as its first argument."""

    @wraps(command)
    def with_session(*args: P.args, **kwargs: P.kwargs) -> None:
        command(_session(click.get_current_context()), *args, **kwargs)

    return with_session


def error_line(error: TimefsError, *, as_json: bool) -> str:
    """An error as standard error shows it."""
    if not as_json:
        return shown_text(f"timefs: {error}")
    said = {"code": error.exit_code, "kind": error.kind, "message": str(error)}
    return json.dumps({"error": said})


def shown_text(text: str) -> str:
    """Text as a terminal can show it, whatever names are in it; its own line ends stay."""
    lines = text.split("\n")
    return "\n".join(shown_name(line.encode(errors="surrogateescape")) for line in lines)


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
