"""Extended attributes as Samba's modules read them.

Defined here and only here: `SambaAttributes` and `dos_attributes`. Used by the view of the share.
Thread-safe; what it shows is made from a node's own attributes when it is asked for.

Source: Samba 4.17, librpc/idl/xattr.idl (DOSATTRIB version 5, NTACL version 3), vfs_streams_xattr.
"""

import struct
from collections.abc import Iterator, Mapping
from stat import S_ISDIR
from typing import Final

from store.errors import CorruptError, UnsupportedError
from timefs.tree import Attributes, Node

DOS_ATTRIBUTES: Final = b"user.DOSATTRIB"
NT_ACL: Final = b"security.NTACL"
_STREAM_PREFIX: Final = b"user.DosStream."
_STREAM_SUFFIX: Final = b":$DATA"

_NTFS_FLAGS: Final = b"system.ntfs_attrib"
_NTFS_ACL: Final = b"system.ntfs_acl"
_OWN_PREFIX: Final = b"user.timefs."
_USER: Final = b"user."
_VALUE_BYTES_MAX: Final = 64 << 10
"""Of one extended attribute on Linux; Samba's own zero at the end of a stream counts."""

_SHOWN_FLAGS: Final = 0x30A7
"""Read-only, hidden, system, archive, normal, offline and not-indexed; not what says how Windows
stores a file (sparse, compressed, encrypted, reparse point), for it is served as plain bytes."""

_FOLDER_FLAG: Final = 0x10
_NORMAL_FLAG: Final = 0x80
_NOT_INDEXED_FLAG: Final = 0x2000
"""On what is ours, not a guest's: Windows then does not search through all times by itself."""

_DOS_INFO: Final = struct.Struct("<2xHIIIQ")
"""Empty text, version, version, which are valid, attributes, creation time."""
_VALID: Final = 0x11
_EPOCH_TICKS: Final = 116_444_736_000_000_000
_TICKS_MAX: Final = (1 << 63) - 1
"""Windows takes larger ones for something else than times."""

_ACL_HEADER: Final = struct.pack("<HHIIH64x2x", 3, 3, 0x20000, 0x20004, 0)
"""Version 3: pointers, no hash, and the descriptor behind it."""

_DESCRIPTOR: Final = struct.Struct("<4sIIII")
"""Revision and control, and where in the descriptor owner, group, audit and access lists are."""


def dos_attributes(shown: Attributes) -> bytes:
    """As the guest has them; what has none of its own is neither hidden nor searched."""
    flags = shown.windows_flags
    flags = _NOT_INDEXED_FLAG if flags is None else flags & _SHOWN_FLAGS
    flags |= _FOLDER_FLAG if S_ISDIR(shown.mode) else 0
    created = min(max(0, shown.created_ns // 100 + _EPOCH_TICKS), _TICKS_MAX)
    return _DOS_INFO.pack(5, 5, _VALID, flags or _NORMAL_FLAG, created)


class SambaAttributes(Mapping[bytes, bytes]):
    """What a node shows of its DOS attributes, creation time, streams and rights."""

    __slots__ = ("_dos", "_node", "_with_acl")

    def __init__(self, node: Node, *, with_acl: bool, dos: bytes | None = None) -> None:
        """What `node` has; `dos` are its DOS attributes where they are at hand.

        `with_acl`: whether the guest's rights are shown, so that Samba enforces them.
        """
        self._node = node
        self._with_acl = with_acl
        self._dos = dos

    def __getitem__(self, name: bytes) -> bytes:
        if name == DOS_ATTRIBUTES:
            if self._dos is None:
                self._dos = dos_attributes(self._node.attributes())
            return self._dos
        if name == NT_ACL and self._with_acl:
            return _samba_acl(self._node.xattrs()[_NTFS_ACL])
        if name.startswith(_STREAM_PREFIX) and name.endswith(_STREAM_SUFFIX):
            stream = name.removeprefix(_STREAM_PREFIX).removesuffix(_STREAM_SUFFIX)
            own = self._node.xattrs()
            if _NTFS_FLAGS in own:
                return own[_USER + stream] + b"\0"
        if name.startswith(_OWN_PREFIX):
            return self._node.xattrs()[name]
        raise KeyError(name)  # Samba asks for POSIX rights, too

    def __iter__(self) -> Iterator[bytes]:
        """Without the rights, which Samba asks for by name."""
        yield DOS_ATTRIBUTES
        own = self._node.xattrs()
        is_ntfs = _NTFS_FLAGS in own
        for name in own:
            if name.startswith(_OWN_PREFIX):
                yield name
            elif is_ntfs and name.startswith(_USER) and _fits(own, name):
                yield _STREAM_PREFIX + name.removeprefix(_USER) + _STREAM_SUFFIX

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _fits(own: Mapping[bytes, bytes], name: bytes) -> bool:
    """Whether a stream fits in an extended attribute; a larger one is no attribute at all."""
    try:
        return len(own[name]) < _VALUE_BYTES_MAX
    except UnsupportedError:
        return False


def _samba_acl(descriptor: bytes) -> bytes:
    """A guest's descriptor in Samba's wrapping, in which places count from the wrapping's start."""
    if len(descriptor) < _DESCRIPTOR.size:
        raise CorruptError(f"security descriptor: expected 20 bytes, got {len(descriptor)}")
    control, *places = _DESCRIPTOR.unpack_from(descriptor)
    shifted = [place + len(_ACL_HEADER) if place else 0 for place in places]
    return _ACL_HEADER + _DESCRIPTOR.pack(control, *shifted) + descriptor[_DESCRIPTOR.size :]
