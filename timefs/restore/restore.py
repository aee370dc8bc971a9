"""One restore: the walk through what is restored, and what becomes of each entry's errors.

Defined here and only here: `Restore`, `Restored`, `content_bytes`. Used by `timefs restore`. A file
appears under its name only when it is whole: temporary name, fdatasync, read back, link or rename.
No link is made that leads out of what is restored. An entry's error costs that entry, and a
folder's what is below it; a full disk alone ends the restore. One thread.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import (
    CorruptError,
    DeniedError,
    FullError,
    InterruptError,
    NotFoundError,
    TimefsError,
    UnsupportedError,
)
from store.objects.backend import translate
from timefs.restore.content import write_verified
from timefs.restore.target import TargetFolder, finish_file
from timefs.tree import Entry, Folder, Leaf, Link, Node, shown_name

OPEN_MAX: Final = 32
"""Folders held open above the one that is restored into, besides the topmost."""


class Restored(NamedTuple):
    """What a restore came to."""

    target: Path
    """What PATH is now called."""
    files: int
    folders: int
    written_bytes: int
    """Holes are not written."""
    failed: int
    """Entries that could not be restored; whoever asked was told why."""
    unreached: int
    """What lies below folders that could not be restored, as far as it can be listed."""


class _Level(NamedTuple):
    """A folder that is being restored."""

    folder: Folder
    name: bytes
    target: TargetFolder
    above: TargetFolder
    entries: Iterator[Entry]


def content_bytes(node: Node) -> int:
    """Bytes of all files below a node, for whoever shows progress; what is damaged counts as 0."""
    if isinstance(node, Leaf):
        return node.attributes().size
    total = 0
    if isinstance(node, Folder):
        for below in _below(_entries(node), {node.identity}):
            try:
                total += below.attributes().size if isinstance(below, Leaf) else 0
            except InterruptError:
                raise
            except TimefsError:
                continue
    return total


class Restore:
    """One restore; `advance` is told bytes of content as they are done, `failed` each error."""

    def __init__(
        self,
        advance: Callable[[int], None],
        failed: Callable[[TimefsError], None],
        *,
        force: bool,
    ) -> None:
        self._advance = advance
        self._tell = failed
        self._force = force
        self._into = Path()
        self._levels: list[_Level] = []
        self._entered: set[bytes] = set()
        self._files = 0
        self._folders = 0
        self._written_bytes = 0
        self._failed = 0
        self._unreached = 0

    def run(self, node: Node, name: bytes, target: Path) -> Restored:
        """Restore `node` into `target` if that is a folder, else as `target`.

        Raises:
            ExistsError: the target is there and may not be replaced.
            FullError: the target's disk is full; what has its name by then is whole.
            TimefsError: the one file or the topmost folder cannot be restored.
        """
        into, name = self._open(target, name)
        with into:
            self._walk(node, name, into)
        return Restored(
            self._into / os.fsdecode(name),
            self._files,
            self._folders,
            self._written_bytes,
            self._failed,
            self._unreached,
        )

    def _open(self, target: Path, name: bytes) -> tuple[TargetFolder, bytes]:
        """The folder to restore into, the target or the one above it, and the name to be made."""
        try:
            self._into = target
            return TargetFolder.named(target), name
        except (FileNotFoundError, NotADirectoryError):
            self._into = target.parent
        except OSError as error:
            raise translate(error, str(target)) from error
        try:
            return TargetFolder.named(target.parent), os.fsencode(target.name)
        except OSError as error:
            raise NotFoundError(
                f"{target.parent}: expected a folder to restore into, found none"
            ) from error

    def _walk(self, node: Node, name: bytes, into: TargetFolder) -> None:
        """Restore `node` as `name`, and all below it."""
        try:
            with self._plain(name):
                if isinstance(node, Folder):
                    self._enter(node, name, into)
                else:
                    self._file(node, name, into)
            while self._levels:
                self._step()
        except FullError as error:
            raise FullError(f"{error}; restored until then: {self._files} files") from error
        finally:
            for level in self._levels:
                level.target.let_go()

    def _step(self) -> None:
        """The next entry of the folder at hand, or its end."""
        level = self._levels[-1]
        entry: Entry | None = None
        with self._own_error():
            entry = next(level.entries, None)
        if entry is None:
            self._leave()
        elif not isinstance(entry.node, Folder):
            with self._own_error(entry.name):
                self._file(entry.node, entry.name, level.target)
        elif entry.node.identity in self._entered:
            with self._own_error(entry.name):
                raise CorruptError("a folder that is in two places; it was met at the first")
        else:
            with self._own_error(entry.name, entry.node):
                self._enter(entry.node, entry.name, level.target)

    @contextmanager
    def _own_error(self, name: bytes | None = None, below: Folder | None = None) -> Generator[None]:
        """An error in here is told and costs one entry, and all `below` it if it is a folder."""
        try:
            with self._plain(name):
                yield
        except (FullError, InterruptError):
            raise
        except TimefsError as error:
            self._failed += 1
            self._tell(error)
            if below is not None:
                self._entered.add(below.identity)
                self._unreached += sum(1 for _ in _below(_entries(below), self._entered))

    @contextmanager
    def _plain(self, name: bytes | None = None) -> Generator[None]:
        """An error in here is one of ours, and begins with where it came up."""
        try:
            yield
        except OSError as error:
            raise translate(error, self._path(name)) from error
        except TimefsError as error:
            raise type(error)(f"{self._path(name)}: {error}") from error

    def _path(self, name: bytes | None) -> str:
        names = [level.name for level in self._levels]
        if name is not None:
            names.append(name)
        return shown_name(os.fsencode(self._into / os.fsdecode(b"/".join(names))))

    def _enter(self, folder: Folder, name: bytes, into: TargetFolder) -> None:
        """Go on in a folder; those far above it are closed until they are come back to."""
        _check_name(name)
        target = into.folder(name)
        self._entered.add(folder.identity)
        self._levels.append(_Level(folder, name, target, into, _entries(folder)))
        self._folders += 1
        if len(self._levels) > OPEN_MAX + 1:
            self._levels[-OPEN_MAX - 1].target.let_go()

    def _leave(self) -> None:
        """A folder's end: the one above is had again, then it gets its times and permissions."""
        folder, name, target, above, _ = self._levels.pop()
        with target, self._own_error(name):
            above.reopen(within=target)
            target.finish(folder.attributes())
            above.check_holds(target, name)
        while self._levels and not self._levels[-1].target.is_open:
            left = self._levels.pop().entries
            self._unreached += sum(1 for _ in _below(left, self._entered))

    def _file(self, node: Node, name: bytes, into: TargetFolder) -> None:
        """One file or link."""
        _check_name(name)
        into.check_free(name, replace=self._force)
        with into.temporary() as temporary:
            if isinstance(node, Link):
                depth = max(0, len(self._levels) - 1)
                into.link(_inward(node.target(), depth), temporary)
            elif isinstance(node, Leaf):
                self._content(node, into.create(temporary))
            else:
                raise UnsupportedError("a device, pipe or socket is not restored")
            into.put(temporary, name, replace=self._force)
        self._files += 1

    def _content(self, leaf: Leaf, descriptor: int) -> None:
        """Content, times and permissions of a file that is still its owner's alone."""
        try:
            attributes = leaf.attributes()
            self._written_bytes += write_verified(leaf.open(), descriptor, self._advance)
            finish_file(descriptor, attributes)
        finally:
            os.close(descriptor)


def _entries(folder: Folder) -> Iterator[Entry]:
    """A folder's entries, listed when the first is wanted."""
    yield from folder.entries()


def _below(entries: Iterator[Entry], entered: set[bytes]) -> Iterator[Node]:
    """The nodes of entries and all below them, as far as they can be listed; no folder twice."""
    waiting = [entries]
    while waiting:
        try:
            entry = next(waiting[-1], None)
        except InterruptError:
            raise
        except TimefsError:
            entry = None
        if entry is None:
            waiting.pop()
            continue
        yield entry.node
        if isinstance(entry.node, Folder) and entry.node.identity not in entered:
            entered.add(entry.node.identity)
            waiting.append(_entries(entry.node))


def _check_name(name: bytes) -> None:
    """Let no guest's name lead elsewhere.

    Raises:
        CorruptError: no file can have it.
    """
    if name in (b".", b"..", b"") or b"/" in name or b"\0" in name:
        raise CorruptError(f"a name that no file can have: {name!a}")


def _inward(target: bytes, depth: int) -> bytes:
    """A link's target, if it stays below what is restored whatever other links there are.

    That holds for at most `depth` steps up, all of them first, and then down: the folders above the
    link are folders and no links, and what lies further down is held to the same rule.

    Raises:
        CorruptError: no link can have it.
        DeniedError: it does not.
    """
    if b"\0" in target:
        raise CorruptError(f"a link to where no name leads: {target!a}")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = parts.count(b"..")
    if target.startswith(b"/") or up > depth or b".." in parts[up:]:
        raise DeniedError(f"a link that leads out of what is restored, to {target!a}; not made")
    return target
