"""Backends: where a repository's objects are kept.

Defined here and only here: the `Backend` contract and the directory backend. Used by the repository
and the pack reader. Objects are immutable, created whole or not at all, and durable once `create`
returns. Thread-safe and process-safe.
"""

import errno
import os
import re
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from stat import S_ISREG
from typing import Final

from store.errors import (
    DamagedError,
    DeniedError,
    ExistsError,
    FullError,
    NotFoundError,
    ReadOnlyError,
    TimefsError,
)
from store.format.limits import NUMBER_MAX
from store.format.pack import pack_name

_WRITER: Final = re.compile("[0-9a-f]{8}")
_NUMBER: Final = re.compile("[0-9]{10}", re.ASCII)

OPEN_MAX: Final = 128
"""Objects that a directory backend keeps open for reading."""


Stamp = tuple[int, ...]
"""Compared with others of the same name and nothing else."""


class Backend(ABC):
    """Named immutable objects."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> None:
        """Make an object durable under a name that nothing has yet.

        Raises:
            ExistsError: the name is taken; nothing was changed.
            FullError: no room; nothing was changed.
            ReadOnlyError, DeniedError: the place cannot be written.
        """

    @abstractmethod
    def sweep(self, writer: int) -> None:
        """Remove what creations of the writer's packs left that did not come to their end.

        One that still runs somewhere ends with ExistsError: whoever sweeps has fenced it.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such an object."""

    @abstractmethod
    def stamp(self, name: str) -> Stamp | None:
        """What changes when another object takes a name; nothing if there is none."""

    @abstractmethod
    def writers(self) -> list[int]:
        """Numbers of the writers that have a place for packs, sorted."""

    @abstractmethod
    def strays(self) -> "list[str]":
        """Names among the packs that are none of ours, sorted; they are passed over."""

    @abstractmethod
    def list(self, writer: int) -> list[int]:
        """Numbers of the packs that a writer has, sorted."""

    @abstractmethod
    def sizes(self, writer: int) -> dict[int, int]:
        """Bytes of each pack that a writer has, by its number."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of an object.

        Raises:
            NotFoundError: there is none.
        """

    @abstractmethod
    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly that range of an object.

        Raises:
            NotFoundError: there is no such object.
            DamagedError: it is shorter than that.
        """

    @abstractmethod
    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with that range of an object; raises as `read` does."""

    @abstractmethod
    def forget(self, name: str) -> None:
        """Look for an object anew at its next read: it was damaged and may be put back."""


def translate(error: OSError, where: str) -> TimefsError:
    """An operating-system error as one of ours."""
    reason = error.strerror or str(error)
    text = f"{where}: {reason[:1].lower()}{reason[1:]}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(f"{text}; free space there, then run the command again")
    if error.errno == errno.EROFS:
        return ReadOnlyError(text)
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeniedError(text)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(text)
    return TimefsError(text)


class DirectoryBackend(Backend):
    """Objects as files below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[str, _OpenFile] = {}
        self._lock = threading.Lock()
        self._durable: set[Path] = set()
        """Folders whose names this process knows to be durable."""

    def create(self, name: str, content: bytes) -> None:
        target = self.root / name
        try:
            self._create(target, content)
        except FileExistsError as error:
            raise ExistsError(f"{target}: the name is taken already") from error
        except FileNotFoundError as error:
            if not target.parent.is_dir():
                raise translate(error, str(target)) from error
            raise ExistsError(f"{target}: another writer took over and swept this one") from error
        except OSError as error:
            raise translate(error, str(target)) from error

    def _create(self, target: Path, content: bytes) -> None:
        """Temporary file, fdatasync, link, fsync of the directory: whole and durable, or absent."""
        folder = target.parent
        if folder not in self._durable:
            self._make_durable(folder)
        temporary = folder / f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
            os.link(temporary, target)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
        sync_folder(folder)

    def _make_durable(self, folder: Path) -> None:
        """Make a folder; whoever made it earlier may have died before its name was durable."""
        folder.mkdir(parents=True, exist_ok=True)
        for parent in folder.parents:
            if not parent.is_relative_to(self.root):
                break
            sync_folder(parent)
        self._durable.add(folder)

    def sweep(self, writer: int) -> None:
        folder = (self.root / pack_name(writer, 0)).parent
        try:
            with os.scandir(folder) as entries:
                unfinished = [each.name for each in entries if _is_unfinished(each)]
            for name in unfinished:
                (folder / name).unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate(error, str(folder)) from error

    def exists(self, name: str) -> bool:
        try:
            return S_ISREG(os.lstat(self.root / name).st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translate(error, str(self.root / name)) from error

    def stamp(self, name: str) -> Stamp | None:
        try:
            status = os.lstat(self.root / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise translate(error, str(self.root / name)) from error
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def writers(self) -> list[int]:
        folder = (self.root / pack_name(0, 0)).parent.parent
        try:
            return sorted(int(path.name, 16) for path in folder.iterdir() if _is_writer(path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise translate(error, str(folder)) from error

    def strays(self) -> "list[str]":
        folder = (self.root / pack_name(0, 0)).parent.parent
        found: list[Path] = []
        try:
            for path in folder.iterdir():
                if not _is_writer(path):
                    found.append(path)
                else:
                    with os.scandir(path) as entries:
                        found += (Path(each.path) for each in entries if not _is_ours(each))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise translate(error, str(folder)) from error
        return sorted(str(path.relative_to(self.root)) for path in found)

    def list(self, writer: int) -> "list[int]":
        folder = (self.root / pack_name(writer, 0)).parent
        try:
            with os.scandir(folder) as entries:
                return sorted(int(each.name) for each in entries if _is_pack(each))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise translate(error, str(folder)) from error

    def sizes(self, writer: int) -> dict[int, int]:
        folder = (self.root / pack_name(writer, 0)).parent
        try:
            with os.scandir(folder) as entries:
                return {int(e.name): e.stat().st_size for e in entries if _is_pack(e)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise translate(error, str(folder)) from error

    def size(self, name: str) -> int:
        try:
            return (self.root / name).stat().st_size
        except OSError as error:
            raise translate(error, str(self.root / name)) from error

    def read(self, name: str, offset: int, length: int) -> bytes:
        try:
            opened = self._opened(name)  # held until done: another may close it else
            content = os.pread(opened.descriptor, length, offset)
            while 0 < len(content) < length:
                more = os.pread(opened.descriptor, length - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            self.forget(name)
            raise translate(error, f"{self.root}/{name}") from error
        if len(content) != length:
            raise self._short(name, offset, length, len(content))
        return content

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        done = 0
        try:
            opened = self._opened(name)
            while done < len(buffer):
                count = os.preadv(opened.descriptor, [buffer[done:]], offset + done)
                if not count:
                    break
                done += count
        except OSError as error:
            self.forget(name)
            raise translate(error, f"{self.root}/{name}") from error
        if done < len(buffer):
            raise self._short(name, offset, len(buffer), done)

    def _short(self, name: str, offset: int, expected: int, got: int) -> DamagedError:
        self.forget(name)
        return DamagedError(
            f"{self.root}/{name}: expected {expected} bytes at {offset}, got {got}; "
            f"run `timefs check`"
        )

    def _opened(self, name: str) -> "_OpenFile":
        """An open object; it stays open while few others were opened since."""
        opened = self._open.get(name)
        if opened is not None:
            return opened
        opened = _OpenFile(os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        with self._lock:
            self._open[name] = opened
            if len(self._open) > OPEN_MAX:
                del self._open[next(iter(self._open))]
        return opened

    def forget(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)

    def close(self) -> None:
        """Let go of every open object; the next read opens it again."""
        with self._lock:
            self._open.clear()


def _is_writer(path: Path) -> bool:
    """Whether a folder among the packs is a writer's: other systems leave folders everywhere."""
    return _WRITER.fullmatch(path.name) is not None and path.is_dir()


def _is_number(name: str) -> bool:
    return _NUMBER.fullmatch(name) is not None and int(name) <= NUMBER_MAX


def _is_pack(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a writer's folder is a pack: a file itself, no folder and no link."""
    return _is_number(entry.name) and entry.is_file(follow_symlinks=False)


def _is_unfinished(entry: "os.DirEntry[str]") -> bool:
    """Whether it is what a creation left that did not come to its end."""
    hidden, _, rest = entry.name.partition(".")
    return (
        not hidden and _is_number(rest.partition(".")[0]) and entry.is_file(follow_symlinks=False)
    )


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    return _is_pack(entry) or _is_unfinished(entry)


class _OpenFile:
    """A descriptor that is closed when the last who reads from it lets go."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
