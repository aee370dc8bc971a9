"""Lines of packs: does what is there continue what the index knows?

Defined here and only here: `known_writers`, `head` and `expect_head`. Used by the index when it
follows. Each pack names the fingerprint of the one before it, so packs make a line; an older copy
of a repository that was put back and gone on with is another line under the same numbers. No state.
"""

from store.errors import DamagedError, ForkedError, NotFoundError, UnsupportedError
from store.format.limits import WRITER_MAX, WRITER_MIN
from store.format.pack import NO_HEAD, Head, pack_name
from store.index.database import Connection
from store.objects.backend import Backend
from store.packs.reader import PackReader


def known_writers(backend: Backend) -> list[int]:
    """Writers whose packs count, by their numbers."""
    return [writer for writer in backend.writers() if WRITER_MIN <= writer <= WRITER_MAX]


def head(connection: Connection, writer: int) -> Head:
    """The newest pack of a writer that the index knows."""
    row = connection.row(
        "SELECT number, fingerprint FROM packs WHERE writer = ? ORDER BY number DESC LIMIT 1",
        writer,
    )
    return Head(*row) if row else NO_HEAD


def expect_head(connection: Connection, reader: PackReader, writer: int) -> None:
    """See that the newest pack known of a writer is there, and is that one.

    Raises:
        ForkedError: it is not; the message says where the two lines part.
    """
    known = head(connection, writer)
    if known == NO_HEAD or _is_there(reader, writer, known):
        return
    name = pack_name(writer, known.number)
    there = reader.backend.exists(name)
    what = "not the one that this host knew" if there else "gone, which this host knew"
    raise ForkedError(
        f"pack {name}: {what}, as when a repository is put back from an older copy: "
        f"{_parting(connection, reader, writer)}; nothing of this machine is read or continued "
        f"until `timefs rebuild` takes what is there for its history"
    )


def _is_there(reader: PackReader, writer: int, pack: Head) -> bool:
    try:
        return reader.envelope(writer, pack.number).fingerprint == pack.fingerprint
    except NotFoundError:
        return False
    except (DamagedError, UnsupportedError):
        return True  # how bad it is is for a check to say


def _parting(connection: Connection, reader: PackReader, writer: int) -> str:
    """Up to which pack two lines are one, in words: what is equal at one is so before."""
    rows = connection.rows(
        "SELECT number, fingerprint FROM packs WHERE writer = ? ORDER BY number", writer
    )
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        if _is_there(reader, writer, Head(*rows[middle])):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return "no pack is the same"
    return f"the same up to pack {rows[low - 1][0]}, another from there on"
