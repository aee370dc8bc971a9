"""Restoring: a guest file, a folder or a whole disk out of the tree, verified, onto this host.

Defined here and only here. Used by `timefs restore`. A file appears under its name only when it is
whole: temporary name, fdatasync, read back, rename. Nothing is ever written through a guest's link.
One thread.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from store.backend import translate
from store.errors import CorruptError, DamagedError, ExistsError, TimefsError
from store.image import ExtentKind, Image
from timefs.tree import Folder, Leaf, Link, Node

STEP_BYTES: Final = 4 << 20


class Restored(NamedTuple):
    """What a restore came to."""

    files: int
    folders: int
    written_bytes: int
    failed: list[str]
    """What could not be restored and why, a line each."""


class Restore:
    """One restore; `advance` is told bytes of content as they are done."""

    def __init__(self, advance: Callable[[int], None], *, force: bool) -> None:
        self._advance = advance
        self._force = force
        self._files = 0
        self._folders = 0
        self._written_bytes = 0
        self._failed: list[str] = []

    def run(self, node: Node, name: bytes, target: Path) -> Restored:
        """Restore `node` into `target` if that is a folder, else as `target`.

        Raises:
            ExistsError: the target is there and may not be replaced.
            TimefsError: the one file asked for cannot be restored.
        """
        if target.is_dir():
            target /= os.fsdecode(name)
        if isinstance(node, Folder):
            self._folder(node, target)
        else:
            self._file(node, target)
        return Restored(self._files, self._folders, self._written_bytes, self._failed)

    def _folder(self, folder: Folder, target: Path) -> None:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise ExistsError(f"{target}: expected a folder or nothing; name another target")
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            raise translate(error, str(target)) from error
        self._folders += 1
        for name, node in folder.entries():
            path = target / os.fsdecode(name)
            try:
                if name in (b".", b"..", b"") or b"/" in name or b"\0" in name:
                    raise CorruptError(f"{path}: a name that no file can have")
                if isinstance(node, Folder):
                    self._folder(node, path)
                else:
                    self._file(node, path)
            except TimefsError as error:
                self._failed.append(f"{path}: {error}")
        _set_times(target, folder)

    def _file(self, node: Node, target: Path) -> None:
        if (target.exists() or target.is_symlink()) and not self._force:
            raise ExistsError(f"{target}: it is there already; give --force to replace it")
        temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.timefs")
        try:
            if isinstance(node, Link):
                temporary.symlink_to(os.fsdecode(node.target()))
            elif isinstance(node, Leaf):
                self._copy(node.open(), temporary, target)
                _set_times(temporary, node)
            temporary.rename(target)
        except OSError as error:
            raise translate(error, str(target)) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._files += 1

    def _copy(self, image: Image, temporary: Path, target: Path) -> None:
        """Write the image, holes as holes, and prove by reading back what was written."""
        hasher = blake3()
        with temporary.open("xb") as file:
            for start, end, zero in _steps(image):
                if zero:
                    hasher.update(bytes(end - start))
                else:
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
        with temporary.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while content := file.read(STEP_BYTES):
                again.update(content)
        if again.digest() != hasher.digest():
            raise DamagedError(
                f"{target}: what was written does not read back; nothing was put in place; "
                f"check that disk"
            )


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
    attributes = node.attributes()
    os.utime(path, ns=(attributes.atime_ns, attributes.mtime_ns), follow_symlinks=False)
    path.chmod(stat.S_IMODE(attributes.mode) | stat.S_IWUSR)
