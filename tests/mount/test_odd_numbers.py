"""Whatever numbers a guest claims: a parser refuses them, or every door can show them."""

import stat
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import CorruptError, TimefsError
from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.cli.session import human_bytes, rfc3339
from timefs.mount.core import FileSystem
from timefs.mount.fuse.operations import Operations
from timefs.mount.fuse.protocol import ARGUMENTS, READ_IN, Opcode
from timefs.mount.handles import ROOT_ID
from timefs.restore import Restore
from timefs.share.attributes import DOS_ATTRIBUTES, SambaAttributes
from timefs.tree import LARGE, SMALL, TIME_NS_MAX, Attributes

REPLY_BYTES = 64 << 10

edges = [edge + near for edge in (0, SMALL, LARGE, 2 * LARGE, TIME_NS_MAX) for near in (-1, 0, 1)]
numbers = st.sampled_from(edges) | st.integers(-(1 << 96), 1 << 96) | st.integers(0, 1 << 64)
sized = st.integers(0, LARGE) | numbers
small = st.integers(0, SMALL) | numbers
times = st.sampled_from([edge * sign for edge in edges for sign in (1, -1)]) | numbers
claims = st.builds(
    Attributes, small, sized, sized, small, times, times, times, times,
    st.none() | small, st.none() | small, small, st.none() | small,
)  # fmt: skip
sound = st.builds(
    Attributes,
    st.just(stat.S_IFREG | 0o444),
    *[st.integers(0, LARGE - 1)] * 2,
    st.integers(0, SMALL - 1),
    *[st.integers(-TIME_NS_MAX, TIME_NS_MAX)] * 4,
    *[st.none() | st.integers(0, SMALL - 1)] * 2,
    st.integers(0, SMALL - 1),
    st.none() | st.integers(0, SMALL - 1),
)


class Claiming(MemoryFile):
    """A file with attributes that a test gives it."""

    def __init__(self, attributes: Attributes) -> None:
        super().__init__(b"claiming", b"content")
        self._attributes = attributes

    def attributes(self) -> Attributes:
        return self._attributes


def request(body: bytes) -> memoryview:
    return memoryview(bytes(ARGUMENTS) + body)


def shown_everywhere(attributes: Attributes) -> None:
    """By the mount's answers, to Samba, by the commands."""
    node = Claiming(attributes)
    operations = Operations(FileSystem(MemoryFolder(b"root", {b"name": node})))
    reply = memoryview(bytearray(REPLY_BYTES))
    handle = operations.handlers[Opcode.LOOKUP](request(b"name\0"), ROOT_ID, reply)
    assert handle > 0
    node_id = int.from_bytes(reply[:8], "little")
    assert operations.handlers[Opcode.GETATTR](request(b""), node_id, reply) > 0
    operations.handlers[Opcode.OPENDIR](request(b""), ROOT_ID, reply)
    listing = READ_IN.pack(int.from_bytes(reply[:8], "little"), 0, REPLY_BYTES)
    assert operations.handlers[Opcode.READDIRPLUS](request(listing), ROOT_ID, reply) > 0
    assert len(SambaAttributes(node, with_acl=False)[DOS_ATTRIBUTES]) == 24
    for time_ns in (attributes.mtime_ns, attributes.atime_ns, attributes.ctime_ns):
        assert rfc3339(time_ns).endswith("Z")
    for count in (attributes.size, attributes.allocated_bytes):
        assert human_bytes(count)
    assert len(stat.filemode(attributes.mode)) == 10


@given(claims)
def test_what_no_file_can_have_is_refused_and_all_else_is_shown(claimed: Attributes):
    try:
        attributes = claimed.checked("file 7")
    except CorruptError as error:
        assert str(error).startswith("file 7: expected a ")  # noqa: PT017
        return
    assert attributes is claimed
    shown_everywhere(attributes)


@given(sound)
def test_what_a_file_may_have_is_never_refused(claimed: Attributes):
    assert claimed.checked("file 7") is claimed
    shown_everywhere(claimed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(claimed=sound)
def test_a_restored_file_has_the_nearest_time_that_its_new_home_knows(
    claimed: Attributes, tmp_path: Path
):
    failed: list[TimefsError] = []
    restore = Restore(lambda _bytes: None, failed.append, force=True)
    restore.run(Claiming(claimed), b"name", tmp_path / "file")
    assert failed == []
    assert (tmp_path / "file").read_bytes() == b"content"
