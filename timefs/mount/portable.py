"""The portable adapter: paths in, attributes and error numbers out, through libfuse or its like.

Defined here and only here: `mounted_portably`. Used by timefs.mount.mounting. For systems whose
kernel does not speak FUSE to us directly: macFUSE, and WinFsp's FUSE layer; it works on Linux too,
where the conformance suite runs on it. The binding is mfusepy, or fusepy or refuse where one of
those is installed.

What a path-based binding cannot do: tell holes, list attributes together with names, keep answers
by the node, and know an open file whose name has gone.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from store.budget import bounded
from store.errors import BusyError, DeniedError, TimefsError, UnsupportedError
from timefs.mount.core import BLOCK_BYTES, FileSystem, Found, Opened
from timefs.mount.fuse.mounting import detach
from timefs.mount.handles import ROOT_ID
from timefs.mount.listing import NAME_BYTES_MAX
from timefs.tree import Folder

BINDINGS: Final = ("mfusepy", "fuse", "refuse.high")
"""Modules that have the same `FUSE` and `Operations`, best first; `fuse` is fusepy's."""

ENCODING: Final = "latin-1"
"""How a binding passes names: as text with a character for each byte. Not every name is UTF-8."""

_LEAVE_SECONDS: Final = 10
_READY_SECONDS: Final = 30
_SECTOR_BYTES: Final = 512
_PAGE_ENTRIES: Final = 256

T = TypeVar("T")


class PathOperations:
    """The file-system core by paths; mixed into the binding's own class of operations."""

    use_ns = True

    def __init__(self, core: FileSystem, ready: Callable[[], None]) -> None:
        self._core = core
        self._ready = ready
        self._held: dict[int, list[int]] = {}
        self._owner = (os.getuid(), os.getgid()) if hasattr(os, "getuid") else (0, 0)

    def init(self, path: str) -> None:
        """The binding serves from now on."""
        del path
        self._ready()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """As stat(2) names them; times are nanoseconds. An open file's path may lead elsewhere."""
        held = self._held.get(fh) if fh is not None else None
        if held:
            return self._stat(self._core.attributes(held[-1]))
        return self._stat(self._at(path, self._core.attributes))

    def _stat(self, found: Found) -> dict[str, int]:
        shown = found.attributes
        return {
            "st_ino": found.inode,
            "st_mode": shown.mode,
            "st_nlink": shown.links,
            "st_uid": self._owner[0] if shown.owner is None else shown.owner,
            "st_gid": self._owner[1] if shown.group is None else shown.group,
            "st_rdev": shown.device,
            "st_size": shown.size,
            "st_blksize": BLOCK_BYTES,
            "st_blocks": (shown.allocated_bytes + _SECTOR_BYTES - 1) // _SECTOR_BYTES,
            "st_mtime": shown.mtime_ns,
            "st_atime": shown.atime_ns,
            "st_ctime": shown.ctime_ns,
            "st_birthtime": shown.created_ns,
        }

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        return self._at(path, self._core.readlink).decode(ENCODING)

    def open(self, path: str, flags: int) -> int:
        """Open a file; what it resolved to stays open."""
        return self._hold(path, lambda node_id: self._core.open(node_id, flags))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Bytes of an open file, fewer only at its end."""
        del path
        buffer = bytearray(size)
        try:
            filled = bounded(lambda: self._core.read_into(fh, offset, memoryview(buffer)))
        except Exception as error:  # noqa: BLE001 - the binding would answer EINVAL
            self._fail(error, ROOT_ID)
        return bytes(memoryview(buffer)[:filled])

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        del path
        self._core.release(fh)
        self._forget(self._held.pop(fh, []))
        return 0

    def opendir(self, path: str) -> int:
        """Open a folder."""
        return self._hold(path, self._core.opendir)

    def _hold(self, path: str, operate: Callable[[int], Opened]) -> int:
        """Open the node of a path; the core knows it until it is closed."""
        granted: list[int] = []
        try:
            handle = bounded(lambda: operate(self._reach(path, granted)).handle)
        except Exception as error:  # noqa: BLE001 - the binding would answer EINVAL
            self._forget(granted)
            self._fail(error, ROOT_ID)
        self._held[handle] = granted
        return handle

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """Every name with its kind; a listing that breaks is an error, never shorter."""
        del path
        yield (".", {}, 0)
        yield ("..", {}, 0)
        try:
            listing = bounded(lambda: self._core.listing(fh, 0))
            for position in count(0, _PAGE_ENTRIES):
                page = bounded(partial(listing.page, position, _PAGE_ENTRIES))
                for record in page:
                    about = {"st_mode": record.type_bits, "st_ino": record.inode}
                    yield (record.name.decode(ENCODING), about, 0)
                if not page:
                    return
        except Exception as error:  # noqa: BLE001 - the binding would answer EINVAL
            self._fail(error, ROOT_ID)

    def releasedir(self, path: str, fh: int) -> int:
        """Close a folder."""
        del path
        self._core.releasedir(fh)
        self._forget(self._held.pop(fh, []))
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """The value of an extended attribute."""
        del position  # macOS's resource forks, which we have not
        return self._at(path, lambda node_id: self._core.xattr(node_id, name.encode(ENCODING)))

    def listxattr(self, path: str) -> list[str]:
        """The names of a node's extended attributes."""
        return [name.decode(ENCODING) for name in self._at(path, self._core.xattr_names)]

    def statfs(self, path: str) -> dict[str, int]:
        """The disk that holds the repository."""
        del path
        space = self._core.space()
        return {
            "f_bsize": BLOCK_BYTES,
            "f_frsize": BLOCK_BYTES,
            "f_blocks": space.blocks,
            "f_bfree": space.free,
            "f_bavail": space.available,
            "f_namemax": NAME_BYTES_MAX,
        }

    def _at(self, path: str, operate: Callable[[int], T]) -> T:
        """An operation on the node of a path, which the core knows as long as it takes."""
        granted: list[int] = []
        node_id = ROOT_ID
        try:
            node_id = bounded(lambda: self._reach(path, granted))
            return bounded(lambda: operate(node_id))
        except Exception as error:  # noqa: BLE001 - the binding would answer EINVAL
            self._fail(error, node_id)
        finally:
            self._forget(granted)

    def _reach(self, path: str, granted: list[int]) -> int:
        """The node of a path; what the core gave on the way is added to `granted`."""
        node_id = ROOT_ID
        for name in filter(None, path.encode(ENCODING).split(b"/")):
            node_id = self._core.lookup(node_id, name).node_id
            granted.append(node_id)
        return node_id

    def _forget(self, granted: list[int]) -> None:
        for node_id in granted:
            self._core.forget(node_id, 1)

    def _fail(self, error: Exception, node_id: int) -> NoReturn:
        """The core's number for an error, in the form that every binding takes."""
        number = self._core.errno_of(error, node_id)
        raise OSError(number, os.strerror(number)) from error


def _binding() -> Any:
    """The first binding that is installed and finds its library.

    Raises:
        UnsupportedError: there is none.
    """
    for name in BINDINGS:
        try:
            return import_module(name)
        except (ImportError, OSError):  # not installed, or no library that it could load
            continue
    raise UnsupportedError(
        "portable mount: expected mfusepy with libfuse, macFUSE or WinFsp, found none; "
        "run: pip install mfusepy"
    )


class PortableServer:
    """Serves one mount until it is taken away."""

    def __init__(self, binding: Any, root: Folder, repository: Path | None) -> None:
        self._ready = threading.Event()
        self._ended = threading.Event()  # a join that a signal interrupts forgets the thread
        kind = type("timefs", (PathOperations, binding.Operations), {})
        self._operations = kind(FileSystem(root, repository), self._ready.set)
        self._binding = binding
        self._failure: BaseException | None = None

    def start(self, mountpoint: Path, *, allow_other: bool) -> None:
        """Mount; answers when requests are.

        Raises:
            DeniedError: the library refuses.
            TimefsError: it does not begin to serve.
        """
        threading.Thread(
            target=self._serve, args=(mountpoint, allow_other), name="fuse-portable", daemon=True
        ).start()
        if not self._ready.wait(_READY_SECONDS):
            raise TimefsError(f"{mountpoint}: portable mount: libfuse does not begin to serve")
        if self._failure is not None:
            raise DeniedError(f"{mountpoint}: portable mount: libfuse refuses ({self._failure})")

    def _serve(self, mountpoint: Path, allow_other: bool) -> None:
        try:
            point = os.fsencode(mountpoint).decode(ENCODING)
            self._binding.FUSE(self._operations, point, **_options(allow_other=allow_other))
        except (RuntimeError, OSError) as error:
            self._failure = error
        finally:
            self._ended.set()
            self._ready.set()

    @property
    def serving(self) -> bool:
        """Whether the mount still is there."""
        return not self._ended.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Return when the mount is gone, or after so long."""
        self._ended.wait(seconds)


@contextmanager
def mounted_portably(
    root: Folder,
    mountpoint: Path,
    repository: Path | None = None,
    *,
    allow_other: bool = False,
) -> Generator[PortableServer]:
    """Show `root` at a folder as long as the block runs, or until somebody unmounts it.

    Raises:
        TimefsError: it cannot be mounted.
    """
    server = PortableServer(_binding(), root, repository)
    server.start(mountpoint, allow_other=allow_other)
    try:
        yield server
    finally:
        if server.serving:
            _take_away(mountpoint)
        server.wait(_LEAVE_SECONDS)


def _take_away(mountpoint: Path) -> None:
    """Unmount, in use or not."""
    if sys.platform != "linux":
        subprocess.run(["umount", "-f", mountpoint], capture_output=True, check=False, timeout=60)
        return
    try:
        detach(mountpoint)
    except BusyError:
        detach(mountpoint, lazily=True)


def _options(*, allow_other: bool) -> dict[str, Any]:
    """By keyword: bindings differ in the order of their parameters. One thread is the fastest."""
    options: dict[str, Any] = {
        "encoding": ENCODING,
        "foreground": True,
        "nothreads": True,
        "ro": True,
        "default_permissions": True,
        "use_ino": True,
        "fsname": "timefs",
        "allow_other": allow_other,
    }
    if sys.platform == "linux":
        options |= {"nosuid": True, "nodev": True, "subtype": "timefs"}
    return options
