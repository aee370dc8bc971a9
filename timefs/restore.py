"""Restoring: a guest file, a folder or a whole disk out of the tree, verified, onto this host.

Defined here and only here. Used by `timefs restore`. A file appears under its name only when it is
whole: temporary name, fdatasync, read back, rename. Nothing is written through a link, and no link
is made that leads out of what is restored. One thread.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from store.backend import translate
from store.errors import (
    CorruptError,
    DamagedError,
    DeniedError,
    ExistsError,
    FullError,
    NotFoundError,
    TimefsError,
    UnsupportedError,
    UsageError,
)
from store.image import ExtentKind, Image
from timefs.tree import Entry, Folder, Leaf, Link, Node, descend

STEP_BYTES: Final = 4 << 20


class Restored(NamedTuple):
    """What a restore came to."""

    target: Path
    """What PATH is now called."""
    files: int
    folders: int
    written_bytes: int
    """Holes are not written."""
    failed: list[TimefsError]
    """What could not be restored, and why."""


class _Level(NamedTuple):
    """A folder that is being restored."""

    folder: Folder
    target: Path
    entries: Iterator[Entry]


def content_bytes(node: Node) -> int:
    """Bytes of all files below a node, for whoever shows progress; what is damaged counts as 0."""
    if isinstance(node, Leaf):
        return node.attributes().size
    total = 0
    if isinstance(node, Folder):
        for _, below in descend(node, failed=lambda _path, _error: None):
            try:
                total += below.attributes().size if isinstance(below, Leaf) else 0
            except TimefsError:
                continue
    return total


class Restore:
    """One restore; `advance` is told bytes of content as they are done."""

    def __init__(self, advance: Callable[[int], None], *, force: bool) -> None:
        self._advance = advance
        self._force = force
        self._files = 0
        self._folders = 0
        self._written_bytes = 0
        self._failed: list[TimefsError] = []

    def run(self, node: Node, name: bytes, target: Path) -> Restored:
        """Restore `node` into `target` if that is a folder, else as `target`.

        Raises:
            ExistsError: the target is there and may not be replaced.
            FullError: the target's disk is full; what has its name by then is whole.
            TimefsError: the one file asked for cannot be restored.
        """
        if target.is_dir():
            target /= os.fsdecode(name)
        elif not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: expected a folder to restore into, found none")
        if isinstance(node, Folder):
            self._tree(node, target)
        else:
            try:
                self._file(node, target, 0)
            except TimefsError as error:
                raise _at(target, error) from error
        return Restored(target, self._files, self._folders, self._written_bytes, self._failed)

    def _tree(self, folder: Folder, target: Path) -> None:
        """A folder and all below it; a folder gets its times when its content is there."""
        levels = [self._entered(folder, target)]
        entered = {folder.identity}
        while levels:
            level = levels[-1]
            try:
                entry = next(level.entries, None)
                if entry is None:
                    _set_times(level.target, level.folder)
            except TimefsError as error:  # its listing broke off
                self._failed.append(_at(level.target, error))
                entry = None
            if entry is None:
                levels.pop()
                continue
            path = level.target / os.fsdecode(entry.name)
            try:
                below = self._entry(entry, path, len(levels) - 1, entered)
            except FullError:
                raise
            except TimefsError as error:
                self._failed.append(_at(path, error))
            else:
                levels += below

    def _entry(self, entry: Entry, path: Path, depth: int, entered: set[bytes]) -> list[_Level]:
        """One entry, `depth` folders below what is restored; answers the folder to go into."""
        _check_name(entry.name)
        if not isinstance(entry.node, Folder):
            self._file(entry.node, path, depth)
            return []
        if entry.node.identity in entered:
            raise CorruptError("a folder that is in two places; restored at the first")
        entered.add(entry.node.identity)
        return [self._entered(entry.node, path)]

    def _entered(self, folder: Folder, target: Path) -> _Level:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise ExistsError(f"{target}: expected a folder or nothing there; name another target")
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            raise translate(error, str(target)) from error
        self._folders += 1
        return _Level(folder, target, iter(folder.entries()))

    def _file(self, node: Node, target: Path, depth: int) -> None:
        """One file or link, `depth` folders below what is restored."""
        self._check_free(target)
        temporary = target.with_name(f".{os.urandom(6).hex()}.timefs")
        try:
            if isinstance(node, Link):
                temporary.symlink_to(os.fsdecode(_inward(node.target(), depth)))
            elif isinstance(node, Leaf):
                self._copy(node.open(), temporary)
                _set_times(temporary, node)
            else:
                raise UnsupportedError(f"{target}: a device, pipe or socket is not restored")
            temporary.rename(target)
        except OSError as error:
            raise translate(error, str(target)) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        self._files += 1

    def _check_free(self, target: Path) -> None:
        try:
            mode = target.lstat().st_mode
        except OSError:
            return
        if stat.S_ISDIR(mode):
            raise ExistsError(f"{target}: a folder is there; name another target")
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise UsageError(
                f"{target}: expected a file or a folder, found a device or a pipe; "
                f"`timefs cat PATH > {target}` writes to it"
            )
        if not self._force:
            raise ExistsError(f"{target}: it is there already; give --force to replace it")

    def _copy(self, image: Image, target: Path) -> None:
        """Write the image, holes as holes, and prove by reading back what was written."""
        hasher = blake3()
        with target.open("xb") as file:
            for start, end, zero in _steps(image):
                if not zero:
                    content = image.read(start, end - start)
                    hasher.update(content)
                    file.seek(start)
                    file.write(content)
                    self._written_bytes += len(content)
                self._advance(end - start)
            file.truncate(image.size)
            file.flush()
            os.fdatasync(file.fileno())
        again = blake3()
        with target.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for start, end, zero in _steps(image):
                if not zero:
                    file.seek(start)
                    again.update(file.read(end - start))
        if again.digest() != hasher.digest():
            raise DamagedError(
                f"{target.parent}: what was written does not read back; nothing was put in place; "
                f"check that disk"
            )


def _at(path: Path, error: TimefsError) -> TimefsError:
    """The error with the path in front, unless it is there."""
    text = str(error)
    return error if text.startswith(str(path)) else type(error)(f"{path}: {text}")


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
        DeniedError: it does not.
    """
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = parts.count(b"..")
    if target.startswith(b"/") or up > depth or b".." in parts[up:]:
        raise DeniedError(f"a link that leads out of what is restored, to {target!a}; not made")
    return target


def _steps(image: Image) -> Iterator[tuple[int, int, bool]]:
    """The image in pieces of at most 4 MiB: (start, end, whether zeros)."""
    for offset in range(0, image.size, STEP_BYTES):
        held: tuple[int, int, bool] | None = None
        for extent in image.extents(offset, STEP_BYTES):
            zero = extent.kind is ExtentKind.ZERO
            end = extent.offset + extent.length
            if held is not None and held[2] == zero:
                held = (held[0], end, zero)
                continue
            if held is not None:
                yield held
            held = (extent.offset, end, zero)
        if held is not None:
            yield held


def _set_times(path: Path, node: Node) -> None:
    """Times and permissions of the node; never set-uid bits, always writable by its owner here."""
    attributes = node.attributes()
    try:
        path.chmod(attributes.mode & 0o777 | stat.S_IWUSR | stat.S_IRUSR)
        os.utime(path, ns=(attributes.atime_ns, attributes.mtime_ns), follow_symlinks=False)
    except OSError as error:
        raise translate(error, str(path)) from error
