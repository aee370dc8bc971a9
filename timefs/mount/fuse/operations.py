"""FUSE requests translated to operations of the file-system core, and answers back to bytes.

Defined here and only here: `Operations`. Used by the device server. Thread-safe: the buffers are
the calling thread's own.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from timefs.mount.core import BLOCK_BYTES, SHORT_SECONDS, FileSystem, seconds_kept
from timefs.mount.failures import FileSystemError
from timefs.mount.fuse.protocol import (
    ARGUMENTS,
    ATTRIBUTES,
    ATTRIBUTES_VALID,
    BATCH_FORGET_IN,
    DIRENT,
    ENTRY,
    FORGET_IN,
    FORGET_ONE,
    HANDLE_IN,
    LSEEK_IN,
    LSEEK_OUT,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    STATFS_OUT,
    WRITES,
    XATTR_IN,
    XATTR_OUT,
    Opcode,
    OpenFlag,
    dirent,
    dirent_plus,
)
from timefs.mount.handles import Handle
from timefs.mount.listing import NAME_BYTES_MAX, Listing, Record
from timefs.tree import Attributes

Handler = Callable[[memoryview, int, memoryview], int]
"""(request, node id, reply body) -> bytes of the body that were filled."""

_SECOND_NS: Final = 1_000_000_000
_LISTED_PLUS: Final = ENTRY.size + ATTRIBUTES.size + DIRENT.size
_NO_ATTRIBUTES: Final = (0,) * 16
_UNKNOWN: Final = Attributes(*(0,) * 8)
"""In the place of attributes that could not be had; the kernel does not look at them."""


class Operations:
    """One handler for each request; those of `silent` get no answer."""

    def __init__(self, filesystem: FileSystem) -> None:
        self._core = filesystem
        self._owner, self._group = os.getuid(), os.getgid()
        self.handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: self._release,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.LSEEK: self._lseek,
            Opcode.DESTROY: _nothing,
        }
        self.handlers.update(dict.fromkeys(WRITES, _refuse))
        self.afterwards: dict[int, Callable[[memoryview], None]] = {
            Opcode.READDIR: self._read_ahead,
            Opcode.READDIRPLUS: self._read_ahead,
        }
        """What is done once a request has been answered, while the kernel takes the answer in."""
        self.silent: dict[int, Callable[[memoryview, int], None]] = {
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
        }
        self.undone: dict[int, Callable[[memoryview], None]] = {
            Opcode.LOOKUP: self._unlookup,
            Opcode.OPEN: self._close,
            Opcode.OPENDIR: self._closedir,
            Opcode.READDIRPLUS: self._unlist,
        }
        """What takes back an answer (its body) that the kernel wanted no more."""

    def surplus(self) -> list[Handle]:
        """Nodes that the kernel is to forget."""
        return self._core.handles.surplus()

    def errno_of(self, error: Exception, node_id: int) -> int:
        """The error number that a failed request is answered with."""
        return self._core.errno_of(error, node_id)

    def _forget(self, request: memoryview, node_id: int) -> None:
        self._core.forget(node_id, *FORGET_IN.unpack_from(request, ARGUMENTS))

    def _batch_forget(self, request: memoryview, _node_id: int) -> None:
        (count,) = BATCH_FORGET_IN.unpack_from(request, ARGUMENTS)
        start = ARGUMENTS + BATCH_FORGET_IN.size
        for node_id, lookups in FORGET_ONE.iter_unpack(
            request[start : start + count * FORGET_ONE.size]
        ):
            self._core.forget(node_id, lookups)

    def _unlookup(self, reply: memoryview) -> None:
        node_id, *_ = ENTRY.unpack_from(reply)
        self._core.forget(node_id, 1)

    def _unlist(self, reply: memoryview) -> None:
        at = 0
        while at < len(reply):
            self._unlookup(reply[at:])
            *_, name_bytes, _ = DIRENT.unpack_from(reply, at + ENTRY.size + ATTRIBUTES.size)
            at += dirent_plus(name_bytes).size

    def _close(self, reply: memoryview) -> None:
        self._core.release(*HANDLE_IN.unpack_from(reply))

    def _closedir(self, reply: memoryview) -> None:
        self._core.releasedir(*HANDLE_IN.unpack_from(reply))

    def _lookup(self, request: memoryview, node_id: int, reply: memoryview) -> int:
        name = bytes(request[ARGUMENTS:-1])
        try:
            found = self._core.lookup(node_id, name)
        except Exception as error:
            if self.errno_of(error, node_id) != errno.ENOENT:
                raise
            ENTRY.pack_into(reply, 0, 0, 0, SHORT_SECONDS, 0, 0, 0)
            ATTRIBUTES.pack_into(reply, ENTRY.size, *_NO_ATTRIBUTES)
            return ENTRY.size + ATTRIBUTES.size
        node_id, inode, attributes, entry_seconds, attributes_seconds = found
        ENTRY.pack_into(reply, 0, node_id, 0, entry_seconds, attributes_seconds, 0, 0)
        ATTRIBUTES.pack_into(reply, ENTRY.size, *self._shown(inode, attributes))
        return ENTRY.size + ATTRIBUTES.size

    def _shown(self, inode: int, attributes: Attributes) -> tuple[int, ...]:
        """The fields of `ATTRIBUTES`."""
        (mode, size, allocated_bytes, links, mtime_ns, atime_ns, ctime_ns, _,
         owner, group, device, _) = attributes  # fmt: skip
        return (
            inode, size, (allocated_bytes + 511) // 512,
            atime_ns // _SECOND_NS, mtime_ns // _SECOND_NS, ctime_ns // _SECOND_NS,
            atime_ns % _SECOND_NS, mtime_ns % _SECOND_NS, ctime_ns % _SECOND_NS, mode, links,
            self._owner if owner is None else owner, self._group if group is None else group,
            device, BLOCK_BYTES, 0,
        )  # fmt: skip

    def _getattr(self, _request: memoryview, node_id: int, reply: memoryview) -> int:
        found = self._core.attributes(node_id)
        ATTRIBUTES_VALID.pack_into(reply, 0, found.attributes_seconds, 0, 0)
        shown = self._shown(found.inode, found.attributes)
        ATTRIBUTES.pack_into(reply, ATTRIBUTES_VALID.size, *shown)
        return ATTRIBUTES_VALID.size + ATTRIBUTES.size

    def _readlink(self, _request: memoryview, node_id: int, reply: memoryview) -> int:
        return _put(reply, self._core.readlink(node_id))

    def _open(self, request: memoryview, node_id: int, reply: memoryview) -> int:
        flags, _ = OPEN_IN.unpack_from(request, ARGUMENTS)
        handle, frozen = self._core.open(node_id, flags)
        flags = OpenFlag.NOFLUSH | (OpenFlag.KEEP_CACHE if frozen else 0)
        OPEN_OUT.pack_into(reply, 0, handle, flags, 0)
        return OPEN_OUT.size

    def _read(self, request: memoryview, _node_id: int, reply: memoryview) -> int:
        handle, offset, size = READ_IN.unpack_from(request, ARGUMENTS)
        return self._core.read_into(handle, offset, reply[:size])

    def _release(self, request: memoryview, _node_id: int, _reply: memoryview) -> int:
        self._core.release(*HANDLE_IN.unpack_from(request, ARGUMENTS))
        return 0

    def _lseek(self, request: memoryview, _node_id: int, reply: memoryview) -> int:
        LSEEK_OUT.pack_into(reply, 0, self._core.seek(*LSEEK_IN.unpack_from(request, ARGUMENTS)))
        return LSEEK_OUT.size

    def _statfs(self, _request: memoryview, _node_id: int, reply: memoryview) -> int:
        space = self._core.space()
        STATFS_OUT.pack_into(reply, 0, *space, 0, 0, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES)
        return STATFS_OUT.size

    def _getxattr(self, request: memoryview, node_id: int, reply: memoryview) -> int:
        name = bytes(request[ARGUMENTS + XATTR_IN.size : -1])
        return _put_sized(request, reply, self._core.xattr(node_id, name))

    def _listxattr(self, request: memoryview, node_id: int, reply: memoryview) -> int:
        names = b"".join(name + b"\0" for name in self._core.xattr_names(node_id))
        return _put_sized(request, reply, names)

    def _opendir(self, _request: memoryview, node_id: int, reply: memoryview) -> int:
        handle, frozen = self._core.opendir(node_id)
        flags = OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE if frozen else 0
        OPEN_OUT.pack_into(reply, 0, handle, flags, 0)
        return OPEN_OUT.size

    def _releasedir(self, request: memoryview, _node_id: int, _reply: memoryview) -> int:
        self._core.releasedir(*HANDLE_IN.unpack_from(request, ARGUMENTS))
        return 0

    def _readdir(self, request: memoryview, _node_id: int, reply: memoryview) -> int:
        return self._page(request, reply, plus=False)

    def _readdirplus(self, request: memoryview, _node_id: int, reply: memoryview) -> int:
        return self._page(request, reply, plus=True)

    def _read_ahead(self, request: memoryview) -> None:
        handle, _, _ = READ_IN.unpack_from(request, ARGUMENTS)
        self._core.read_ahead(handle)

    def _page(self, request: memoryview, reply: memoryview, *, plus: bool) -> int:
        """As many entries as fit, from the position that the kernel has reached."""
        handle, position, size = READ_IN.unpack_from(request, ARGUMENTS)
        listing = self._core.listing(handle, position)
        fixed = _LISTED_PLUS if plus else DIRENT.size
        size = min(size, len(reply))
        records = _fitting(listing.page(position, size // fixed), fixed, size)
        if plus:
            return self._put_plus(reply, position, listing, records)
        at = 0
        for name, inode, type_bits, *_ in records:
            position += 1
            shape = dirent(len(name))
            shape.pack_into(reply, at, inode, position, len(name), type_bits >> 12, name)
            at += shape.size
        return at

    def _put_plus(
        self, reply: memoryview, position: int, listing: Listing, records: Sequence[Record]
    ) -> int:
        """Entries with attributes; of one that has none the kernel asks by LOOKUP.

        One call a name, with what `_shown` does written out, which takes two thirds of the time.
        """
        node_ids = self._core.grant(listing, records)
        entry_seconds = seconds_kept(listing.frozen)
        own_owner, own_group, second = self._owner, self._group, _SECOND_NS
        at = 0
        for node_id, (name, inode, type_bits, _, attributes, frozen) in zip(
            node_ids, records, strict=True
        ):
            (mode, size, allocated_bytes, links, mtime_ns, atime_ns, ctime_ns, _,
             owner, group, device, _) = attributes or _UNKNOWN  # fmt: skip
            position += 1
            length = len(name)
            shape = dirent_plus(length)
            shape.pack_into(
                reply, at, node_id, 0, entry_seconds, seconds_kept(frozen), 0, 0,
                inode, size, (allocated_bytes + 511) // 512,
                atime_ns // second, mtime_ns // second, ctime_ns // second,
                atime_ns % second, mtime_ns % second, ctime_ns % second, mode, links,
                own_owner if owner is None else owner, own_group if group is None else group,
                device, BLOCK_BYTES, 0,
                inode, position, length, type_bits >> 12, name,
            )  # fmt: skip
            at += shape.size
        return at


def _fitting(records: Sequence[Record], fixed: int, size: int) -> Sequence[Record]:
    """The first records that fit together; each takes `fixed` bytes and its name."""
    for fitting, record in enumerate(records):
        size -= fixed + (len(record.name) + 7 & ~7)
        if size < 0:
            return records[:fitting]
    return records


def _put(reply: memoryview, content: bytes) -> int:
    reply[: len(content)] = content
    return len(content)


def _put_sized(request: memoryview, reply: memoryview, content: bytes) -> int:
    """Answer with `content`, or with its size alone when the caller has no room yet."""
    (room,) = XATTR_IN.unpack_from(request, ARGUMENTS)
    if room == 0:
        XATTR_OUT.pack_into(reply, 0, len(content))
        return XATTR_OUT.size
    if len(content) > room:
        raise FileSystemError(errno.ERANGE)
    return _put(reply, content)


def _nothing(_request: memoryview, _node_id: int, _reply: memoryview) -> int:
    return 0


def _refuse(_request: memoryview, _node_id: int, _reply: memoryview) -> int:
    raise FileSystemError(errno.EROFS)
