"""Which files a machine has: asked of the index, as values.

Defined here and only here: `KnownFile`, `known_files` (as they stand now) and `files_at` (as they
were at an instant). Used by the history and by whoever continues a machine's log. No state.
"""

from typing import Any, NamedTuple

from store.format.row import FILE_KINDS, epoch_of, position, sequence_of
from store.history import FileKind, FileState, Instant
from store.index.index import Index
from store.index.schema import EventKind, decode_name


class KnownFile(NamedTuple):
    """A file that a machine has or had, as the newest state knows it."""

    name: str
    number: int
    kind: FileKind
    size: int
    """Bytes; 0 when dropped or when a lost pack took the knowledge."""
    position: int
    """Of its newest change."""
    dropped: bool


def known_files(index: Index, writer: int) -> list[KnownFile]:
    """Every file the machine ever had, as it stands now."""
    rows = index.ask(
        "SELECT file, kind, value, name, position FROM events WHERE writer = ? ORDER BY position",
        writer,
    )
    known: dict[int, KnownFile] = {}
    for file, kind, value, name, at in rows:
        old = known.get(file) or KnownFile("", file, FileKind.CONTAINER, 0, 0, dropped=True)
        if kind == EventKind.FILE:
            old = old._replace(name=decode_name(name), kind=FILE_KINDS[value], dropped=False)
        elif kind == EventKind.RESIZE:
            old = old._replace(size=value)
        elif kind == EventKind.LOST:
            old = old._replace(size=0)
        else:
            old = old._replace(size=0, dropped=True)
        known[file] = old._replace(position=at)
    newest = index.ask(
        "SELECT file, max(last_position) FROM changes WHERE writer = ? GROUP BY file", writer
    )
    for file, at in newest:
        if file not in known:
            continue  # a row of a file that was never declared
        known[file] = known[file]._replace(position=max(at, known[file].position))
    return list(known.values())


def files_at(index: Index, instant: Instant) -> list[FileState]:
    """A machine's files at an instant that the index knows, by name."""
    at = position(instant.epoch, instant.sequence)
    rows = index.ask(
        "SELECT file, kind, value, name FROM events WHERE writer = ? AND position <= ?"
        " ORDER BY position",
        instant.writer,
        at,
    )
    sizes: dict[int, int] = {}
    names: dict[int, tuple[str, int]] = {}
    for file, kind, value, name in rows:
        if kind == EventKind.FILE:
            names[file] = (decode_name(name), value)
        elif kind == EventKind.RESIZE:
            sizes[file] = value
        elif kind == EventKind.LOST:
            sizes[file] = -1
        else:
            names.pop(file, None)
    names = _perhaps_lost(index, instant.writer, at, {row[0] for row in rows}) | names
    states = [
        _file_state(index, instant, file, name, FILE_KINDS[kind], sizes.get(file, -1))
        for file, (name, kind) in names.items()
    ]
    return sorted(states)


def _perhaps_lost(
    index: Index, writer: int, at: int, known: set[int]
) -> dict[int, tuple[str, int]]:
    """Files that a lost pack may have begun by a position: shown, though nothing is known."""
    question = "SELECT 1 FROM lost WHERE writer = ? AND position <= ? LIMIT 1"
    if not index.ask(question, writer, at):
        return {}
    rows: list[Any] = index.ask(
        "SELECT file, name, value, min(position) FROM events WHERE writer = ? AND kind = ?"
        " GROUP BY file",
        writer,
        EventKind.FILE,
    )
    return {file: (decode_name(name), value) for file, name, value, _ in rows if file not in known}


def _file_state(
    index: Index, instant: Instant, file: int, name: str, kind: FileKind, size: int
) -> FileState:
    at = position(instant.epoch, instant.sequence)
    rows = index.ask(
        "SELECT last_position, first_position, time_ns FROM changes WHERE writer = ?"
        " AND file = ? AND first_position <= ? ORDER BY first_position DESC LIMIT 1",
        instant.writer,
        file,
        at,
    )
    last, _, time_ns = rows[0] if rows else (at, at, instant.time_ns)  # all is lost
    changed = min(last, at)
    return FileState(
        name,
        file,
        kind,
        size,
        min(time_ns, instant.time_ns),
        epoch_of(changed),
        sequence_of(changed),
    )
