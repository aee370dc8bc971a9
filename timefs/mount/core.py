"""The file-system core: a tree as file-system operations; it knows no kernel interface.

Defined here and only here: `FileSystem` and the values that it answers with. Used by the adapters,
which translate requests and answers and nothing else. Thread-safe. Operations raise; an adapter
answers a failed one with `errno_of` of what was raised.
"""

import errno
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from store.budget import spend
from store.errors import IsFolderError, NotFolderError, ReadOnlyError, UsageError
from store.image import RUN_COST_BYTES, ExtentKind, Image
from timefs.mount.failures import Failures, FileSystemError
from timefs.mount.handles import Handle, Handles, inode_of
from timefs.mount.listing import NAME_BYTES_MAX, Listing, Record
from timefs.tree import Attributes, Folder, Leaf, Link

FOREVER_SECONDS: Final = 1 << 31
"""How long an answer that can never change may be kept."""

SHORT_SECONDS: Final = 1
"""How long any other answer may be kept."""

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
        kept, attributes = seconds_kept(node.frozen), node.attributes()
        handle = self.handles.grant(node, parent_id, name)
        return Found(handle.node_id, inode_of(node), attributes, seconds_kept(frozen), kept)

    def forget(self, node_id: int, lookups: int) -> None:
        """The kernel gives back `lookups` of a node's grants."""
        self.handles.forget(node_id, lookups)

    def attributes(self, node_id: int) -> Found:
        """A node's attributes; counts as nothing."""
        handle: Handle = self.handles[node_id]
        kept = seconds_kept(handle.node.frozen)
        return Found(node_id, inode_of(handle.node), handle.node.attributes(), 0, kept)

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
            spend(RUN_COST_BYTES)
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

    def read_ahead(self, handle: int) -> None:
        """Gather what a reader of an open folder is likely to want next."""
        listing = self._listings.get(handle)
        if listing is not None:
            listing.read_ahead()

    def grant(self, listing: Listing, records: Sequence[Record]) -> list[int]:
        """Give listed nodes to the kernel; their node ids, 0 where attributes are unknown."""
        grant, parent_id = self.handles.grant, listing.node_id
        return [
            0 if attributes is None else grant(node, parent_id, name).node_id
            for name, _, _, node, attributes, _ in records
        ]

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
        return Listing(self._folder(node_id), node_id, self._failures)


def seconds_kept(frozen: bool) -> int:
    """How long the kernel may keep an answer; `frozen`: it can never change again."""
    return FOREVER_SECONDS if frozen else SHORT_SECONDS
