"""A folder of this host that is restored into, held by its descriptor.

Defined here and only here: `TargetFolder`, and every change that a restore makes to this host. Each
is a single name below an open folder and follows no link, so that whoever renames a folder
meanwhile, or puts a link in its place, has nothing written elsewhere. Used by the restore. One
thread. What the operating system refuses is its OSError; the restore knows whose it is.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from store.errors import ExistsError, NotFoundError, UsageError
from timefs.tree import Attributes, shown_name

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems answer that have none."""

_NOT_KEPT: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What is answered where a file system has no such permissions (FAT), or a folder is another's."""


class TargetFolder:
    """An open folder; its descriptor can be let go and had again from a folder within."""

    def __init__(self, descriptor: int, *, made: bool) -> None:
        self._descriptor: int | None = descriptor
        self.identity: Final = _identity(os.fstat(descriptor))
        """What it is on this host, whatever its name."""
        self._made = made
        self._replaced: dict[str, bytes] = {}
        """Where case does not matter: names given by force, by what such names have in common."""

    @classmethod
    def named(cls, path: Path) -> Self:
        """The folder that somebody named, through links if it is one."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), made=False)

    def folder(self, name: bytes) -> "TargetFolder":
        """The folder `name` in this one; a new one is its owner's alone until it is finished.

        Raises:
            ExistsError: something else has the name, or a folder that somebody put there at once.
        """
        try:
            os.mkdir(name, 0o700, dir_fd=self._open)
            made = True
        except FileExistsError:
            made = False
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=self._open)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise ExistsError(
                    "expected a folder or nothing there; name another target"
                ) from error
            raise
        if made and not self._is_own(descriptor):
            os.close(descriptor)
            raise ExistsError("somebody put another folder in its place meanwhile")
        return TargetFolder(descriptor, made=made)

    def _is_own(self, descriptor: int) -> bool:
        """Whether it has the owner of what is made here: some file systems give their own."""
        owner = os.fstat(descriptor).st_uid
        if owner == os.geteuid():
            return True
        with self.temporary() as name:
            probe = self.create(name)
            try:
                return os.fstat(probe).st_uid == owner
            finally:
                os.close(probe)

    @contextmanager
    def temporary(self) -> Generator[bytes]:
        """A name that nothing has, for what is not whole yet; whatever has it then goes away."""
        name = b".restore-%d-%b.timefs" % (os.getpid(), os.urandom(6).hex().encode())
        try:
            yield name
        finally:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._open)

    def create(self, name: bytes) -> int:
        """A new file of its owner's alone, open for writing and reading."""
        return os.open(name, _NEW_FILE, 0o600, dir_fd=self._open)

    def link(self, target: bytes, name: bytes) -> None:
        """A new symbolic link."""
        os.symlink(target, name, dir_fd=self._open)

    def put(self, temporary: bytes, name: bytes, *, replace: bool) -> None:
        """Give a whole file its name."""
        folder = self._open
        if not replace:
            try:
                os.link(
                    temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False
                )
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
            else:
                return
            self.check_free(name, replace=False)
        elif self._is_caseless(temporary):
            self._replaced[_folded(name)] = name
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _is_caseless(self, temporary: bytes) -> bool:
        """Whether a file that is there goes by other spellings of its name as well."""
        return self._status(temporary.upper()) is not None

    def check_free(self, name: bytes, *, replace: bool) -> None:
        """See that a file may be given the name.

        Raises:
            ExistsError: it is taken, and may not be replaced.
            UsageError: a device or a pipe has it.
        """
        status = self._status(name)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            raise ExistsError("a folder is there; name another target")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise UsageError(
                "expected a file or a folder, found a device or a pipe; `timefs cat` writes to it"
            )
        if not replace:
            raise ExistsError("it is there already; give --force to replace it")
        alike = self._replaced.get(_folded(name))
        if alike is not None:
            raise ExistsError(f"this file system takes it for {shown_name(alike)}, restored before")

    def _status(self, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._open, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def finish(self, attributes: Attributes) -> None:
        """Times and permissions, when all is there; a folder that was there keeps the latter."""
        _finish(self._open, attributes, attributes.mode & 0o777 | 0o700 if self._made else None)

    @property
    def is_open(self) -> bool:
        """Whether its descriptor is held."""
        return self._descriptor is not None

    def reopen(self, within: "TargetFolder") -> None:
        """Have the descriptor again, as the folder above an open one.

        Raises:
            NotFoundError: somebody moved that one elsewhere.
        """
        if self._descriptor is not None:
            return
        descriptor = within.above()
        if _identity(os.fstat(descriptor)) != self.identity:
            os.close(descriptor)
            raise NotFoundError(
                "somebody moved this folder elsewhere meanwhile; nothing more is restored around it"
            )
        self._descriptor = descriptor

    def above(self) -> int:
        """A descriptor of the folder that this one lies in now."""
        return os.open(b"..", _FOLDER, dir_fd=self._open)

    def check_holds(self, folder: "TargetFolder", name: bytes) -> None:
        """See that a folder restored into still has its name here; else it lies under another.

        Raises:
            NotFoundError: it has it no longer.
        """
        status = self._status(name)
        if status is None or _identity(status) != folder.identity:
            raise NotFoundError(
                "somebody renamed this folder meanwhile; what was restored is where it is now"
            )

    def let_go(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    @property
    def _open(self) -> int:
        assert self._descriptor is not None
        return self._descriptor


def finish_file(descriptor: int, attributes: Attributes) -> None:
    """Times and permissions of a whole file; no set-uid bits, and its owner may write it."""
    _finish(descriptor, attributes, attributes.mode & 0o777 | 0o600)


def _finish(descriptor: int, attributes: Attributes, mode: int | None) -> None:
    with _where_kept():
        os.utime(descriptor, ns=(attributes.atime_ns, attributes.mtime_ns))
    if mode is not None:
        with _where_kept():
            os.fchmod(descriptor, mode)


@contextmanager
def _where_kept() -> Generator[None]:
    """What is not kept here stays as it is: never wider than its owner's alone, if that."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise


def _folded(name: bytes) -> str:
    """Equal for names that are the same where case does not matter."""
    return unicodedata.normalize("NFC", os.fsdecode(name)).lower().rstrip(" .")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
