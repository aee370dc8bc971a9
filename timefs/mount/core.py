"""The file-system core: a tree as file-system operations; it knows no kernel interface.

Defined here and only here: `FileSystem` and the values that it answers with. Used by the adapters,
which translate requests and answers and nothing else. Thread-safe. Operations raise; an adapter
answers a failed one with `errno_of` of what was raised.
"""

import errno
import os
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

from store.errors import IsFolderError, NotFolderError, ReadOnlyError, UsageError
from store.image import ExtentKind, Image
from timefs.mount.failures import Failures, FileSystemError
from timefs.mount.handles import Handle, Handles, inode_of
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Node

FOREVER_SECONDS: Final = 1 << 31
"""How long an answer that can never change may be kept."""

SHORT_SECONDS: Final = 1
"""How long any other answer may be kept."""

NAME_BYTES_MAX: Final = 1024
"""A name of 255 UTF-16 units takes up to 765 bytes as WTF-8."""

BLOCK_BYTES: Final = 4096


class Found(NamedTuple):
    """A node that is given to the kernel."""

    node_id: int
    inode: int
    attributes: Attributes
    entry_seconds: int
    attributes_seconds: int


class Opened(NamedTuple):
    """An open file or folder; `frozen`: what the kernel has cached of it stays right for ever."""

    handle: int
    frozen: bool


class Space(NamedTuple):
    """Of the disk that holds the repository, in blocks of `BLOCK_BYTES`; zeros if unknown."""

    blocks: int
    free: int
    available: int


class Record(NamedTuple):
    """One entry of a listing. `attributes` is None when they could not be had."""

    name: bytes
    inode: int
    type_bits: int
    node: Node
    attributes: Attributes | None


class Listing:
    """What one open folder shows: a snapshot that grows as it is read."""

    def __init__(self, node_id: int, records: Iterator[Record], *, frozen: bool) -> None:
        self.node_id = node_id
        self.frozen = frozen
        self._coming = records
        self._records: list[Record] = []
        self._failure: Exception | None = None
        self._lock = Lock()

    def record(self, position: int) -> Record | None:
        """The entry at a position, None beyond the end.

        Raises:
            Exception: what the folder raised, each time again: a listing that broke has no end.
        """
        with self._lock:
            while position >= len(self._records):
                following = self._following()
                if following is None:
                    return None
                self._records.append(following)
            return self._records[position]

    def _following(self) -> Record | None:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._coming, None)
        except Exception as error:
            self._failure = error
            raise


class FileSystem:
    """A tree's file-system operations. Node ids and open handles are numbers given out here."""

    def __init__(self, root: Folder, repository: Path | None = None) -> None:
        """`repository` is where the free space that is shown is counted."""
        self.handles = Handles(root)
        self._repository = repository
        self._failures = Failures()
        self._next_handle = count(1)
        self._files: dict[int, Image] = {}
        self._listings: dict[int, Listing] = {}

    def errno_of(self, error: Exception, node_id: int) -> int:
        """The error number with which an operation on `node_id` is answered that raised `error`."""
        if isinstance(error, FileSystemError):
            return error.errno_code
        return self._failures.errno_of(error, self.handles.path(node_id) or "/")

    def lookup(self, parent_id: int, name: bytes) -> Found:
        """The node of a name; counts as given to the kernel."""
        if len(name) > NAME_BYTES_MAX:
            raise FileSystemError(errno.ENAMETOOLONG)
        folder = self._folder(parent_id)
        frozen = folder.answer_frozen(name)  # before the answer: the watermark may rise meanwhile
        node = folder.lookup(name)
        kept, attributes = _seconds(node.frozen), node.attributes()
        handle = self.handles.grant(node, inode_of(node), parent_id, name)
        return Found(handle.node_id, handle.inode, attributes, _seconds(frozen), kept)

    def forget(self, node_id: int, lookups: int) -> None:
        """The kernel gives back `lookups` of a node's grants."""
        self.handles.forget(node_id, lookups)

    def attributes(self, node_id: int) -> Found:
        """A node's attributes; counts as nothing."""
        handle: Handle = self.handles[node_id]
        kept = _seconds(handle.node.frozen)
        return Found(node_id, handle.inode, handle.node.attributes(), 0, kept)

    def readlink(self, node_id: int) -> bytes:
        """Where a symbolic link points."""
        node = self.handles[node_id].node
        if not isinstance(node, Link):
            raise UsageError("readlink: not a symbolic link")
        return node.target()

    def open(self, node_id: int, flags: int) -> Opened:
        """Open a file; what it resolved to stays open whatever the tree becomes."""
        node = self.handles[node_id].node
        if isinstance(node, Folder):
            raise IsFolderError("open: a folder")
        if not isinstance(node, Leaf):
            raise FileSystemError(errno.ELOOP)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise ReadOnlyError("open: history is read-only")
        frozen = node.frozen
        image = node.open()
        handle = next(self._next_handle)
        self._files[handle] = image
        return Opened(handle, frozen)

    def read_into(self, handle: int, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from an open file; answer how many bytes there were before its end."""
        return self._files[handle].read_into(offset, buffer)

    def release(self, handle: int) -> None:
        """Close a file."""
        self._files.pop(handle, None)

    def seek(self, handle: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE: where the next data or hole begins, ENXIO beyond the end."""
        image = self._files[handle]
        if not 0 <= offset < image.size:
            raise FileSystemError(errno.ENXIO)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise UsageError(f"seek: expected SEEK_DATA or SEEK_HOLE, got {whence}")
        for extent in image.extents(offset, image.size - offset):
            if (extent.kind == ExtentKind.ZERO) == (whence == os.SEEK_HOLE):
                return max(offset, extent.offset)
        if whence == os.SEEK_DATA:
            raise FileSystemError(errno.ENXIO)
        return image.size

    def opendir(self, node_id: int) -> Opened:
        """Open a folder; its listing is a snapshot taken when reading starts at its beginning."""
        frozen = self._folder(node_id).frozen
        handle = next(self._next_handle)
        self._listings[handle] = self._listing(node_id)
        return Opened(handle, frozen)

    def listing(self, handle: int, position: int) -> Listing:
        """The snapshot of an open folder; reading from the beginning again takes a new one."""
        listing = self._listings[handle]
        if position == 0:
            listing = self._listings[handle] = self._listing(listing.node_id)
        return listing

    def grant(self, listing: Listing, record: Record) -> Found | None:
        """Give a listed node to the kernel with its name; None if its attributes are unknown."""
        name, inode, _, node, attributes = record
        if attributes is None:
            return None
        kept = _seconds(node.frozen)
        handle = self.handles.grant(node, inode, listing.node_id, name)
        return Found(handle.node_id, inode, attributes, _seconds(listing.frozen), kept)

    def releasedir(self, handle: int) -> None:
        """Close a folder."""
        self._listings.pop(handle, None)

    def xattr(self, node_id: int, name: bytes) -> bytes:
        """The value of an extended attribute."""
        value = self.handles[node_id].node.xattrs().get(name)
        if value is None:
            raise FileSystemError(errno.ENODATA)
        return value

    def xattr_names(self, node_id: int) -> list[bytes]:
        """The names of a node's extended attributes."""
        return list(self.handles[node_id].node.xattrs())

    def space(self) -> Space:
        """How large the disk that holds the repository is, and how full."""
        if self._repository is None:
            return Space(0, 0, 0)
        disk = os.statvfs(self._repository)
        counts = (disk.f_blocks, disk.f_bfree, disk.f_bavail)
        return Space(*(count * disk.f_frsize // BLOCK_BYTES for count in counts))

    def _folder(self, node_id: int) -> Folder:
        node = self.handles[node_id].node
        if not isinstance(node, Folder):
            raise NotFolderError("not a folder")
        return node

    def _listing(self, node_id: int) -> Listing:
        folder = self._folder(node_id)
        frozen = folder.frozen  # before the entries: the watermark may rise meanwhile
        return Listing(node_id, self._records(folder), frozen=frozen)

    def _records(self, folder: Folder) -> Iterator[Record]:
        for entry in folder.entries():
            if _showable(entry.name):
                yield self._record(entry)

    def _record(self, entry: Entry) -> Record:
        name, node = entry
        try:
            attributes = node.attributes()
        except Exception as error:  # noqa: BLE001 - one bad node must not hide all the others
            self._failures.errno_of(error, name.decode(errors="backslashreplace"))
            attributes = None
        return Record(name, inode_of(node), _type_bits(node, attributes), node, attributes)


def _seconds(frozen: bool) -> int:
    return FOREVER_SECONDS if frozen else SHORT_SECONDS


def _type_bits(node: Node, attributes: Attributes | None) -> int:
    if attributes is not None:
        return stat.S_IFMT(attributes.mode)
    if isinstance(node, Folder):
        return stat.S_IFDIR
    return stat.S_IFLNK if isinstance(node, Link) else stat.S_IFREG


def _showable(name: bytes) -> bool:
    """Whether a kernel takes this as a name; one it refuses would fail the whole listing."""
    return 0 < len(name) <= NAME_BYTES_MAX and name not in (b".", b"..") and not {0, 47} & {*name}
