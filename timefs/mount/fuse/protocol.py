"""The FUSE protocol: its numbers and byte tables, and nothing else.

Defined here and only here: what is sent and received on /dev/fuse, version 7.45. Used by the
Linux adapter. All fields are in the machine's byte order; the layout is that of 64-bit hosts.

Source: linux/include/uapi/linux/fuse.h, FUSE_KERNEL_VERSION 7, FUSE_KERNEL_MINOR_VERSION 45.
"""

from enum import IntEnum, IntFlag
from functools import cache
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 45

PRUNE_MINOR: Final = 45
"""Since when the kernel takes FUSE_NOTIFY_PRUNE."""

IOC_CLONE: Final = 0x8004E500
"""FUSE_DEV_IOC_CLONE: _IOR(229, 0, uint32_t)."""


class Opcode(IntEnum):
    """enum fuse_opcode, as far as a read-only file system is asked."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


class Notice(IntEnum):
    """enum fuse_notify_code, as far as the kernel is told anything."""

    INVALIDATE_ENTRY = 3
    PRUNE = 9


WRITES: Final = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
        Opcode.COPY_FILE_RANGE,
        Opcode.TMPFILE,
    }
)
"""Requests that would change something."""


class InitFlag(IntFlag):
    """INIT request and reply flags; the upper 32 bits travel in flags2."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    INIT_EXT = 1 << 30


class OpenFlag(IntFlag):
    """FOPEN_…: how the kernel treats what was opened."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    """Closing asks nothing. Since 7.35; what it spares also keeps a program that forks from waiting
    for us when it holds a file of the mount that it serves itself."""


IN_HEADER: Final = Struct("=IIQQIIIHH")
"""fuse_in_header: length, opcode, unique, node id, uid, gid, pid, extension length, padding."""

OUT_HEADER: Final = Struct("=IiQ")
"""fuse_out_header: length, -errno, unique."""

INIT_IN: Final = Struct("=IIIII44x")
"""fuse_init_in: major, minor, max_readahead, flags, flags2; the last since 7.36."""

INIT_IN_OLD: Final = Struct("=IIII")
"""fuse_init_in before 7.36."""

INIT_OUT: Final = Struct("=IIIIHHIIHHII24x")
"""fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold,
max_write, time_gran, max_pages, map_alignment, flags2, max_stack_depth."""

ATTRIBUTES: Final = Struct("=QQQqqqIIIIIIIIII")
"""fuse_attr: ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid,
rdev, blksize, flags."""

ENTRY: Final = Struct("=QQQQII")
"""fuse_entry_out before its attributes: node id, generation, seconds the entry and the attributes
are valid, their nanoseconds."""

ATTRIBUTES_VALID: Final = Struct("=QII")
"""fuse_attr_out before its attributes: seconds they are valid, nanoseconds, padding."""

OPEN_IN: Final = Struct("=II")
"""fuse_open_in: flags, open_flags."""

OPEN_OUT: Final = Struct("=QIi")
"""fuse_open_out: handle, flags, backing id."""

READ_IN: Final = Struct("=QQI")
"""fuse_read_in up to its size: handle, offset, size; also READDIR and READDIRPLUS."""

HANDLE_IN: Final = Struct("=Q")
"""fuse_release_in up to its handle."""

LSEEK_IN: Final = Struct("=QQI4x")
"""fuse_lseek_in: handle, offset, whence."""

LSEEK_OUT: Final = Struct("=Q")
"""fuse_lseek_out: offset."""

INTERRUPT_IN: Final = Struct("=Q")
"""fuse_interrupt_in: unique of the request."""

INVALIDATED_ENTRY: Final = Struct("=QI4x")
"""fuse_notify_inval_entry_out: the parent's node id, name length; the name and a zero follow."""

PRUNED: Final = Struct("=I4x8x")
"""fuse_notify_prune_out: how many node ids follow."""

FORGET_IN: Final = Struct("=Q")
"""fuse_forget_in: lookups."""

BATCH_FORGET_IN: Final = Struct("=I4x")
"""fuse_batch_forget_in: how many fuse_forget_one follow."""

FORGET_ONE: Final = Struct("=QQ")
"""fuse_forget_one: node id, lookups."""

XATTR_IN: Final = Struct("=I4x")
"""fuse_getxattr_in: the caller's buffer in bytes, 0 asks for the size; GETXATTR's name follows."""

XATTR_OUT: Final = Struct("=I4x")
"""fuse_getxattr_out: size in bytes."""

STATFS_OUT: Final = Struct("=QQQQQIII4x24x")
"""fuse_kstatfs: blocks, free, available, files, free files, block size, name length, fragment
size."""

DIRENT: Final = Struct("=QQII")
"""fuse_dirent before its name: ino, offset of the next entry, name length, type; the name is padded
to 8 bytes. In READDIRPLUS a fuse_entry_out with attributes precedes it."""


@cache
def dirent(name_bytes: int) -> Struct:
    """A `DIRENT` with its name."""
    return Struct(f"{DIRENT.format}{name_bytes + 7 & ~7}s")


@cache
def dirent_plus(name_bytes: int) -> Struct:
    """What READDIRPLUS answers for a name: its `ENTRY`, `ATTRIBUTES` and `dirent`."""
    parts = (ENTRY, ATTRIBUTES, dirent(name_bytes))
    return Struct("=" + "".join(part.format.removeprefix("=") for part in parts))


ARGUMENTS: Final = IN_HEADER.size
"""Where the arguments of a request begin."""
