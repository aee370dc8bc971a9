"""Recording: one capture of a machine, from the claim to its new instant.

Defined here and only here: how sources, digest maps and a store transaction come together. Used by
`timefs capture`. Runs on the calling thread; killed at any moment, it leaves every earlier instant
untouched, and what was sealed serves the next run as duplicates.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from capture.rescan import Scan, Source
from store.errors import TimefsError, UsageError
from store.history import FileKind
from store.index.files import KnownFile
from store.log.digestmap import DigestMap
from store.log.machine_logs import MachineState
from store.repository import Repository
from timefs.times import spell

NAME_BYTES_MAX: Final = 255
"""Of a machine or a file, in UTF-8: what Linux allows."""

log = logging.getLogger(__name__)


class NamedSource(NamedTuple):
    """A path and the name it is captured under."""

    name: str
    path: Path


class Order(NamedTuple):
    """What is to be captured."""

    machine: str
    sources: Sequence[NamedSource]
    drop: Sequence[str] = ()
    """Names of files that end now."""
    at_ns: int | None = None
    """Time of the instant when older copies are imported; the clock's otherwise."""
    wait: bool = False
    """Whether to wait while another process captures the machine."""


class Recorded(NamedTuple):
    """What a capture came to."""

    machine: str
    time_ns: int
    fuzzy: list[str]
    """Names of files that changed while they were read."""
    read_bytes: int
    new_bytes: int
    """Bytes of blocks that the repository did not have."""
    duplicate_bytes: int
    stored_bytes: int
    """What the repository grew by."""


class Progress(NamedTuple):
    """Whom to tell how far it is; both are called with bytes."""

    start: Callable[[int], None]
    advance: Callable[[int], None]


def silent() -> Progress:
    """Nobody to tell."""

    def ignore(_bytes: int) -> None:
        pass

    return Progress(ignore, ignore)


def record(repository: Repository, order: Order, progress: Progress) -> Recorded:
    """Capture the order's files and commit one instant for all of them.

    Raises:
        UsageError: the order contradicts itself or the machine's history; nothing was stored.
        BusyError: another process captures the machine.
        TimefsError: a source cannot be read or the repository not be written; nothing of it counts.
    """
    _check_names(order)
    sources: list[Source] = []
    try:
        for name, path in order.sources:
            sources.append(Source(name, path))
        with repository.logs.claim(order.machine, wait=order.wait):
            repository.logs.notice_losses()
            return _record(repository, order, sources, progress)
    finally:
        for source in sources:
            source.close()


def _usable(name: str) -> bool:
    """Whether a name can be shown, typed and looked up everywhere; what is no text cannot."""
    printable = name.isprintable() and "/" not in name
    return printable and 0 < len(name.encode(errors="surrogateescape")) <= NAME_BYTES_MAX


def _check_names(order: Order) -> None:
    if not _usable(order.machine) or order.machine.startswith(("@", ".")):
        raise UsageError(
            f"{order.machine!a}: not usable as a machine's name: expected up to {NAME_BYTES_MAX} "
            f"bytes of printable text without /, that starts with neither @ nor a dot"
        )
    if not order.sources and not order.drop:
        raise UsageError(f"{order.machine}: expected at least one file to capture or to drop")
    seen: dict[str, Path] = {}
    for name, path in order.sources:
        if not _usable(name) or name in (".", ".."):
            raise UsageError(
                f"{name!a}: not usable as a file's name: expected up to {NAME_BYTES_MAX} bytes of "
                f"printable text without /; give another as NAME=PATH"
            )
        if name in seen:
            raise UsageError(
                f"{seen[name]} and {path} would both be {name}; give one of them as NAME=PATH"
            )
        seen[name] = path
    for name in order.drop:
        if name in seen:
            raise UsageError(f"{name}: expected to be captured or dropped, not both")


def _record(
    repository: Repository, order: Order, sources: Sequence[Source], progress: Progress
) -> Recorded:
    state = repository.logs.state(order.machine)
    known = {file.name: file for file in repository.logs.known_files(state)}
    time_ns = _time(repository, order, state)
    for name in order.drop:
        if name not in known or known[name].dropped:
            raise UsageError(f"{order.machine}: no file {name} to drop")
    for source in sources:
        _check_kind(order.machine, known.get(source.name))
    transaction = repository.logs.begin(state, time_ns, each_byte_once=True)
    maps: list[tuple[int, DigestMap]] = []
    try:
        for name in order.drop:
            transaction.drop(known[name].number)
        progress.start(sum(source.state.size for source in sources))
        fuzzy: list[str] = []
        read_bytes = 0
        next_number = max((file.number for file in known.values()), default=0) + 1
        for source in sources:
            file = known.get(source.name)
            if file is None:
                file = KnownFile(source.name, next_number, FileKind.CONTAINER, 0, 0, dropped=True)
                next_number += 1
            digest_map = repository.logs.digest_map(state, file)
            maps.append((file.number, digest_map))
            transaction.declare(file.number, source.name, file.kind)
            scan = Scan(source, digest_map, repository.keys, progress.advance)
            if not scan.run(transaction, file.number):
                fuzzy.append(source.name)
            read_bytes += scan.read_bytes
        transaction.instant(time_ns, fuzzy=bool(fuzzy))
        committed = transaction.commit()
        _keep(repository, state, maps)
    except BaseException:
        transaction.abandon()
        raise
    finally:
        for _, digest_map in maps:
            digest_map.discard()
    return Recorded(
        order.machine,
        time_ns,
        fuzzy,
        read_bytes,
        committed.new_bytes,
        committed.duplicate_bytes,
        committed.stored_bytes,
    )


def _check_kind(machine: str, file: KnownFile | None) -> None:
    if file is not None and file.kind != FileKind.CONTAINER:
        raise UsageError(
            f"{machine} {file.name}: its history is that of a {file.kind}, not of a file; "
            f"capture the file under another name with NAME=PATH"
        )


def _time(repository: Repository, order: Order, state: MachineState) -> int:
    now_ns = repository.clock.now_ns()
    time_ns = now_ns if order.at_ns is None else order.at_ns
    if time_ns > now_ns:
        raise UsageError(f"{order.machine}: expected a time not after now, got {spell(time_ns)}")
    if state.newest_ns is not None and time_ns <= state.newest_ns:
        way_on = "" if state.newest_ns <= now_ns else _way_on(order.machine, now_ns)
        raise UsageError(
            f"{order.machine}: expected a time after its newest instant, "
            f"{spell(state.newest_ns, exact=True)}, got {spell(time_ns, exact=True)}{way_on}"
        )
    return time_ns


def _way_on(machine: str, now_ns: int) -> str:
    """What to do about an instant from the future: no history takes back a time."""
    return (
        f"; this host's clock shows {spell(now_ns)}: if it is wrong now, set it right; if it was "
        f"ahead then, go on under another machine's name, which stores little again, while "
        f"{machine} can be read as before"
    )


def _keep(
    repository: Repository, state: MachineState, maps: Sequence[tuple[int, DigestMap]]
) -> None:
    """The maps now describe the new newest state, unless another capture went on from it."""
    after = repository.logs.state(state.machine)
    if after.epoch != state.epoch + 1:
        return
    positions = {file.number: file.position for file in repository.logs.known_files(after)}
    for number, digest_map in maps:
        try:
            digest_map.keep(positions.get(number, 0))
        except TimefsError as error:  # the instant is durable; the next run makes the map again
            log.warning("%s", error)
