"""Run-lists and names, without a volume: whatever they are, reads and extents agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, ExtentKind, Image
from timefs.guest.ntfs.boot import Geometry, parse_boot
from timefs.guest.ntfs.name import Collation, escaped, find_name, show_name
from timefs.guest.ntfs.record import DATA, Attribute, mend
from timefs.guest.ntfs.stream import open_pieces

CLUSTER = 512
CLUSTERS = 64
VOLUME = bytes(range(1, 252)) * (CLUSTER * CLUSTERS // 251 + 1)
GEOMETRY = Geometry(CLUSTER, 1024, CLUSTERS, 0, 0)

Run = tuple[int, int | None]
runs_of = st.lists(
    st.tuples(st.integers(1, 5), st.none() | st.integers(0, CLUSTERS - 5)), min_size=1, max_size=30
)


def signed(value: int) -> bytes:
    length = 1
    while not -(1 << (8 * length - 1)) <= value < 1 << (8 * length - 1):
        length += 1
    return value.to_bytes(length, "little", signed=True)


def encode(runs: list[Run]) -> bytes:
    """The run-list of runs: cluster counts and places, None for a hole."""
    pairs = b""
    last = 0
    for count, place in runs:
        length = signed(count)
        delta = b"" if place is None else signed(place - last)
        last = last if place is None else place
        pairs += bytes([len(length) | len(delta) << 4]) + length + delta
    return pairs + b"\0"


def piece(runs: list[Run], first: int, size: int, initialized: int) -> Attribute:
    count = sum(run[0] for run in runs)
    return Attribute(
        DATA, b"", 0, 0, None, size, count * CLUSTER, first, first + count - 1, initialized,
        encode(runs),
    )  # fmt: skip


def expected_bytes(runs: list[Run], size: int, initialized: int) -> bytes:
    whole = b"".join(
        bytes(count * CLUSTER)
        if place is None
        else VOLUME[place * CLUSTER : (place + count) * CLUSTER]
        for count, place in runs
    )
    return whole[:initialized].ljust(size, b"\0")[:size]


def by_extents(image: Image, offset: int, length: int) -> bytes:
    """What the extents say the bytes are, which must follow each other without a gap."""
    got = b""
    for extent in image.extents(offset, length):
        assert extent.offset == offset + len(got)
        assert extent.length > 0
        if extent.kind == ExtentKind.ZERO:
            got += bytes(extent.length)
        else:
            assert extent.kind == ExtentKind.DATA
            assert extent.backing is not None
            got += extent.backing.read(extent.place, extent.length)
    return got


@given(runs=runs_of, cuts=st.data())
def test_reads_and_extents_give_the_same_right_bytes(runs: list[Run], cuts: st.DataObject) -> None:
    total = sum(run[0] for run in runs) * CLUSTER
    size = cuts.draw(st.integers(0, total))
    initialized = cuts.draw(st.integers(0, size))
    cut = cuts.draw(st.integers(0, len(runs)))
    first = sum(run[0] for run in runs[:cut])
    pieces = [piece(runs[:cut], 0, size, initialized), piece(runs[cut:], first, 0, 0)]
    pieces = [one for one in pieces if one.last_cluster >= one.first_cluster]
    pieces[0] = pieces[0]._replace(size=size, initialized_bytes=initialized)
    image = open_pieces(BytesImage(VOLUME), GEOMETRY, pieces, "test")
    expected = expected_bytes(runs, size, initialized)
    assert image.read(0, size + 10) == expected
    for _ in range(4):
        offset = cuts.draw(st.integers(0, size))
        length = cuts.draw(st.integers(0, size))
        assert image.read(offset, length) == expected[offset : offset + length]
        assert by_extents(image, offset, length) == expected[offset : offset + length]


@given(pairs=st.binary(max_size=64), last=st.integers(-1, 1 << 62))
def test_any_bytes_as_a_run_list_are_read_or_corrupt(pairs: bytes, last: int) -> None:
    attribute = Attribute(DATA, b"", 0, 0, None, 700, 1024, 0, last, 700, pairs)
    try:
        image = open_pieces(BytesImage(VOLUME[: CLUSTER * CLUSTERS]), GEOMETRY, [attribute], "test")
    except CorruptError:
        return
    assert image.read(0, 700) == by_extents(image, 0, 700)


def test_a_missing_piece_is_corrupt() -> None:
    pieces = [piece([(2, 3)], 0, 2000, 2000), piece([(2, 9)], 3, 0, 0)]
    with pytest.raises(CorruptError, match="expected a piece at cluster 2, got 3"):
        open_pieces(BytesImage(VOLUME), GEOMETRY, pieces, "test")


def test_a_run_beyond_the_image_is_corrupt() -> None:
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    boot[11:14] = b"\x00\x02\x08"
    boot[40:48] = (1 << 40).to_bytes(8, "little")
    boot[64] = 0xF6
    geometry = parse_boot(bytes(boot), 1 << 20)
    assert geometry.clusters == 256
    with pytest.raises(CorruptError, match="within 256 clusters"):
        open_pieces(BytesImage(VOLUME), geometry, [piece([(1, 256)], 0, 9, 9)], "test")


@pytest.mark.parametrize(
    ("sector_bytes", "per_cluster", "cluster_bytes"),
    [(512, 1, 512), (512, 128, 65536), (512, 0xF8, 131072), (512, 0xF4, 2 << 20), (4096, 1, 4096),
     (4096, 16, 65536), (4096, 0xF7, 2 << 20)],
)  # fmt: skip
def test_cluster_sizes(sector_bytes: int, per_cluster: int, cluster_bytes: int) -> None:
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    boot[11:13] = sector_bytes.to_bytes(2, "little")
    boot[13] = per_cluster
    boot[40:48] = (1 << 40).to_bytes(8, "little")
    boot[64] = 0xF4
    geometry = parse_boot(bytes(boot), 1 << 40)
    assert (geometry.cluster_bytes, geometry.record_bytes) == (cluster_bytes, 4096)


@given(boot=st.binary(min_size=512, max_size=512))
def test_any_boot_sector_is_read_or_refused(boot: bytes) -> None:
    sector = boot[:3] + b"NTFS    " + boot[11:]
    try:
        geometry = parse_boot(sector, 1 << 30)
    except (CorruptError, UnsupportedError):
        return
    assert geometry.table_place + geometry.cluster_bytes <= 1 << 30


@given(units=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20))
def test_every_name_is_shown_without_harm_and_found_again(units: list[int]) -> None:
    stored = b"".join(unit.to_bytes(2, "little") for unit in units)
    shown = show_name(stored)
    assert b"/" not in shown
    assert b"\0" not in shown
    assert shown not in (b".", b"..")
    assert find_name(shown) == stored or escaped(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\ud800", b"\xed\xa0\x80"), ("\U0001f600", b"\xf0\x9f\x98\x80"), (".", "\uf02e".encode()),
     ("..", "\uf02e\uf02e".encode()), ("...", b"..."), ("a/b", "a\uf02fb".encode())],
)  # fmt: skip
def test_how_names_are_shown(text: str, shown: bytes) -> None:
    assert show_name(text.encode("utf-16-le", "surrogatepass")) == shown


def test_names_are_ordered_by_the_volumes_own_table() -> None:
    table = bytearray(range(256)) * 512
    table[:] = b"".join(unit.to_bytes(2, "little") for unit in range(0x10000))
    table[2 * ord("q") : 2 * ord("q") + 2] = b"A\0"
    keys = Collation(bytes(table)).keys(["q".encode("utf-16-le"), "a".encode("utf-16-le")])
    assert keys == [b"\0A", b"\0a"]


@given(data=st.binary(min_size=1024, max_size=1024))
def test_mending_proves_every_stride(data: bytes) -> None:
    record = bytearray(b"FILE" + b"\x30\x00\x03\x00" + data[8:])
    record[510:512] = record[1022:1024] = record[48:50]
    kept = bytes(record)
    mend(record, b"FILE", "test")
    assert record[510:512] == kept[50:52]
    assert record[1022:1024] == kept[52:54]
    torn = bytearray(kept)
    torn[1023] ^= 1
    with pytest.raises(CorruptError, match="torn: its part 2"):
        mend(torn, b"FILE", "test")
