"""What Samba's modules read, byte for byte as Samba itself writes it."""

import struct
from stat import S_IFDIR

import pytest

from store.errors import CorruptError, UnsupportedError
from tests.share.serve_memory import EVERYONE, NtfsFile, descriptor
from tests.timetree.memory_tree import TIME_NS, MemoryFile, MemoryFolder
from timefs.share.attributes import DOS_ATTRIBUTES, NT_ACL, SambaAttributes, dos_attributes

TICKS = TIME_NS // 100 + 116_444_736_000_000_000
STREAM = b"user.DosStream.Zone.Identifier:$DATA"


def shown(node: MemoryFile | MemoryFolder, *, with_acl: bool = True) -> SambaAttributes:
    return SambaAttributes(node, with_acl=with_acl)


def test_dos_attributes_are_the_guests_with_its_creation_time():
    found = shown(NtfsFile(b"file", b""))[DOS_ATTRIBUTES]
    assert found == bytes.fromhex("0000 0500 05000000 11000000 22000000") + struct.pack("<Q", TICKS)


def test_what_says_how_windows_stores_a_file_is_not_shown():
    """A client that believes in a reparse point, or in sparse ranges, asks for more."""
    stored = NtfsFile(b"file", b"").attributes()._replace(windows_flags=0x0001_FFFF)
    (flags,) = struct.unpack_from("<I", dos_attributes(stored), 12)
    assert flags & (0x200 | 0x400 | 0x800 | 0x4000 | 0x10) == 0
    assert flags & 0x27 == 0x27


def test_what_is_no_guests_is_neither_hidden_nor_indexed():
    (file,) = struct.unpack_from("<I", shown(MemoryFile(b"f", b""))[DOS_ATTRIBUTES], 12)
    folder = MemoryFolder(b"d", {})
    assert folder.attributes().mode & S_IFDIR
    (held,) = struct.unpack_from("<I", shown(folder)[DOS_ATTRIBUTES], 12)
    assert (file, held) == (0x2000, 0x2010)


def test_streams_are_listed_and_end_with_the_zero_that_samba_takes_off():
    found = shown(NtfsFile(b"file", b""))
    assert set(found) == {DOS_ATTRIBUTES, STREAM}
    assert found[STREAM] == b"[ZoneTransfer]\r\nZoneId=3\r\n\0"
    assert len(found) == 2


class Huge(dict[bytes, bytes]):
    """A stream that no extended attribute can hold."""

    def __getitem__(self, name: bytes) -> bytes:
        if name == b"user.huge":
            raise UnsupportedError("stream huge: 100000 bytes")
        return super().__getitem__(name)


def test_a_stream_beyond_64_kib_does_not_hide_the_others():
    own = {b"system.ntfs_attrib": bytes(4), b"user.huge": b"", b"user.full": bytes(65536)}
    found = shown(MemoryFile(b"file", b"", xattrs=Huge({**own, b"user.small": b"s"})))
    assert set(found) == {DOS_ATTRIBUTES, b"user.DosStream.small:$DATA"}


def test_a_linux_guests_attributes_are_no_streams():
    found = shown(
        MemoryFile(b"file", b"", xattrs={b"user.mime": b"x", b"user.timefs.actual": b"t"})
    )
    assert set(found) == {DOS_ATTRIBUTES, b"user.timefs.actual"}
    for name in (b"user.mime", b"user.DosStream.mime:$DATA", b"system.ntfs_attrib", NT_ACL):
        assert found.get(name) is None


def test_rights_are_wrapped_as_samba_wraps_them():
    """Samba counts places in the descriptor from the beginning of the wrapping, of 80 bytes."""
    acl = shown(NtfsFile(b"file", b""))[NT_ACL]
    assert acl[:12] == bytes.fromhex("0300 0300 00000200 04000200")
    owner, group, audit, access = struct.unpack_from("<IIII", acl, 84)
    plain = descriptor(EVERYONE)
    assert audit == 0
    assert acl[owner:group] == plain[20:48]
    assert acl[access:] == plain[76:]
    assert shown(NtfsFile(b"file", b""), with_acl=False).get(NT_ACL) is None


def test_a_descriptor_that_is_cut_off_is_an_error_not_an_absence():
    node = MemoryFile(b"file", b"", xattrs={b"system.ntfs_acl": b"\x01\0\x04\x80"})
    with pytest.raises(CorruptError, match="expected 20 bytes, got 4"):
        shown(node)[NT_ACL]
