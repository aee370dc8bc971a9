"""Rows, frames, statements and whole packs: what is encoded is decoded, and nothing else is."""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import DamagedError, UnsupportedError
from store.format.columns import decode_column, encode_column
from store.format.digest import block_digest, checksum, digests_of, nonzero_blocks, row_check
from store.format.frame import FRAME_BLOCKS_MAX, Codec, decode_frame, encode_frame
from store.format.keys import Keys
from store.format.limits import FILE_BYTES_MAX, SEQUENCE_MAX, WRITER_MAX
from store.format.pack import ENVELOPE, NO_HEAD, PackIdentity, build_pack, pack_name, parse_envelope
from store.format.row import (
    FLAGS,
    ROW,
    ROW_BLOCKS_MAX,
    Row,
    RowKind,
    epoch_of,
    position,
    sequence_of,
)
from store.format.statement import PackReference, decode_statement, encode_statement
from store.objects.backend import DirectoryBackend
from store.packs.reader import PackReader

KEY = bytes(range(32))
REPOSITORY = bytes(range(16))

rows = st.builds(
    Row,
    kind=st.sampled_from([int(kind) for kind in RowKind]),
    flags=st.integers(0, 1),
    file=st.integers(0, 2**32 - 1),
    offset=st.integers(0, FILE_BYTES_MAX),
    length=st.integers(0, FILE_BYTES_MAX),
    sequence=st.integers(1, SEQUENCE_MAX),
    time_ns=st.integers(-(2**63), 2**63 - 1),
    pack=st.integers(0, 3),
    slot=st.integers(0, 2**32 - 1),
    check=st.integers(0, 2**32 - 1),
)


def array(listed: list[Row]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.array([tuple(row) for row in listed], ROW)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9).map(lambda n: n << 20)),
    st.sampled_from([1, 1000]),
)
def test_columns_of_any_numbers_come_back(listed: list[int], scale: int):
    whole = [abs(number) // scale * scale * (-1 if number < 0 else 1) for number in listed]
    numbers = np.array(whole, np.int64)
    encoded = encode_column(numbers, scale)
    decoded, rest = decode_column(memoryview(encoded + b"rest"), len(listed), "here")
    assert decoded.tolist() == numbers.tolist()
    assert bytes(rest) == b"rest"
    if numbers.any():
        with pytest.raises(DamagedError, match="here: a column"):
            decode_column(memoryview(encoded[:-1]), len(listed), "here")


def usable(row: Row, names: int) -> Row:
    """A row as one may be: what it claims within its limits."""
    row = row._replace(flags=row.flags & FLAGS[row.kind])
    if row.kind == RowKind.FILE:
        return row._replace(offset=row.offset % names, length=row.length % (names + 1))
    if row.kind == RowKind.DATA:
        return row._replace(length=row.length % (ROW_BLOCKS_MAX * 4096 + 1))
    return row


@given(st.integers(0, 2**23 - 1), st.integers(0, 2**40 - 1))
def test_a_position_orders_epochs_before_sequences_and_fits_a_signed_number(
    epoch: int, sequence: int
):
    at = position(epoch, sequence)
    assert (epoch_of(at), sequence_of(at)) == (epoch, sequence)
    assert at < 2**63
    assert at < position(epoch + 1, 0)


@given(st.integers(1, FRAME_BLOCKS_MAX), st.integers(0, 3), st.integers(0, 2**32))
def test_frames_come_back(blocks: int, kind: int, seed: int):
    chosen = random.Random(seed)
    plain = {
        0: bytes(blocks * 4096),
        1: chosen.randbytes(blocks * 4096),
        2: (b"some text %d " % seed * 8192)[: blocks * 4096],
        3: chosen.randbytes(2048) + bytes(blocks * 4096 - 2048),
    }[kind]
    frame = encode_frame(plain)
    assert len(frame.stored) <= len(plain)
    assert frame.codec == (Codec.RAW if kind == 1 else Codec.ZSTD)
    assert decode_frame(frame.stored, blocks, frame.codec, frame.checksum) == plain
    at = chosen.randrange(len(frame.stored))
    flipped = bytearray(frame.stored)
    flipped[at] ^= 1 << chosen.randrange(8)
    with pytest.raises(DamagedError, match="checksum: expected"):
        decode_frame(bytes(flipped), blocks, frame.codec, frame.checksum)


def test_a_frame_of_another_size_or_codec_is_damage():
    frame = encode_frame(bytes(8192))
    for blocks, codec in ((1, frame.codec), (3, frame.codec), (2, 0), (2, 7)):
        with pytest.raises(DamagedError):
            decode_frame(frame.stored, blocks, codec, frame.checksum)


def test_a_format_of_the_future_is_refused_and_not_called_damage():
    content = bytearray(build_pack(identity(), [], b"", encode_statement(array([]), [], ["vm1"])))
    content[8] = 9
    content[ENVELOPE.size - 8 : ENVELOPE.size] = checksum(
        bytes(content[: ENVELOPE.size - 8])
    ).to_bytes(8, "little")
    with pytest.raises(UnsupportedError, match="use a newer timefs"):
        parse_envelope(bytes(content[: ENVELOPE.size]), "here")


def identity(number: int = 0) -> PackIdentity:
    return PackIdentity(REPOSITORY, 1, number, 1, bytes(16), 1, last=True, previous=NO_HEAD)


names = st.lists(
    (st.binary(min_size=1, max_size=20).map(os.fsdecode) | st.text(max_size=20)).filter(
        lambda name: "\0" not in name
    ),
    max_size=5,
)


@given(
    st.lists(rows, max_size=10),
    st.lists(st.tuples(st.integers(1, WRITER_MAX), st.just(7)), min_size=3, max_size=5),
    names,
)
def test_statements_come_back(
    listed: list[Row], packs: list[tuple[int, int]], some_names: list[str]
):
    all_names = ["vm1", *some_names]
    sequences = sorted({row.sequence for row in listed})
    kept = [
        usable(row, len(all_names))._replace(sequence=sequence)
        for row, sequence in zip(listed, sequences, strict=False)
    ]
    references = [PackReference(*pack) for pack in packs]
    statement = decode_statement(encode_statement(array(kept), references, all_names), "here")
    assert statement.rows.tolist() == [tuple(row) for row in kept]
    assert (statement.packs, statement.names) == (references, all_names)


@pytest.mark.parametrize("wrong", ["pack", "name", "machine"])
def test_a_statement_that_refers_to_what_it_does_not_hold_is_damage(wrong: str):
    data = Row(RowKind.DATA, 0, 1, 0, 4096, 1, 0, 1, 0, 0)
    file = Row(RowKind.FILE, 0, 1, 1, 0, 1, 0, 0, 0, 0)
    stored = encode_statement(
        array([data if wrong == "pack" else file]), [], [] if wrong == "machine" else ["vm1"]
    )
    with pytest.raises(DamagedError, match="here: statement"):
        decode_statement(stored, "here")


LIMIT_BREAKERS = {
    "offset": Row(RowKind.RESIZE, 0, 1, 2**63 + 5, 0, 1, 0, 0, 0, 0),
    "length": Row(RowKind.DATA, 0, 1, 0, 2**50, 1, 0, 0, 0, 0),
    "zeros beyond any file": Row(RowKind.ZERO, 0, 1, 0, 2**60, 1, 0, 0, 0, 0),
    "sequence": Row(RowKind.ZERO, 0, 1, 0, 1, 2**41, 0, 0, 0, 0),
}


@pytest.mark.parametrize("what", LIMIT_BREAKERS)
def test_a_row_that_claims_more_than_any_may_is_damage(what: str):
    stored = encode_statement(array([LIMIT_BREAKERS[what]]), [], ["vm1"])
    with pytest.raises(DamagedError, match="out of range"):
        decode_statement(stored, "here")


@pytest.mark.parametrize(("kind", "flags"), [(6, 0), (255, 0), (0, 1), (5, 2), (3, 4)])
def test_kinds_and_flags_of_the_future_are_refused_and_not_called_damage(kind: int, flags: int):
    stored = encode_statement(array([Row(kind, flags, 1, 0, 1, 1, 0, 0, 0, 0)]), [], ["vm1"])
    with pytest.raises(UnsupportedError, match="use a newer timefs"):
        decode_statement(stored, "here")


def test_a_statement_that_would_fill_the_memory_is_refused_before_it_is_decoded():
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 32)
    bomb = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(256)) + compressor.flush()
    with pytest.raises(DamagedError, match="at most"):
        decode_statement(bomb, "here")
    frame = zstandard.compress(bytes(1 << 28))
    with pytest.raises(DamagedError, match="leaves its size"):
        decode_frame(frame, 1, Codec.ZSTD, checksum(frame))


@pytest.mark.parametrize("scattered", [False, True])
def test_five_hundred_changes_with_times_of_their_own_take_ten_bytes_a_row(scattered: bool):
    chance = random.Random(1)
    listed: list[Row] = []
    time_ns, offset = 1_700_000_000_000_000_000, 0
    for number in range(500):
        time_ns += int(chance.expovariate(1 / 10_000)) * 1000
        offset = chance.randrange(1 << 24) * 4096 if scattered or number % 2 else offset + 4096
        check = chance.getrandbits(32)
        listed.append(Row(RowKind.DATA, 0, 1, offset, 4096, number + 1, time_ns, 0, number, check))
    assert len(encode_statement(array(listed), [], ["vm1"])) <= 10 * 500


@given(st.binary(max_size=400))
def test_no_bytes_read_as_a_statement_do_anything_but_fail_plainly(content: bytes):
    with contextlib.suppress(DamagedError):
        decode_statement(content, "here")


@settings(max_examples=30)
@given(st.lists(st.integers(1, FRAME_BLOCKS_MAX), max_size=6), st.integers(0, 2**32))
def test_whole_packs_come_back(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], seed: int
):
    chosen = random.Random(seed)
    halves = [chosen.choice((2048, 4096)) for _ in shape]  # of 4,096 random bytes none is saved
    plain = [
        chosen.randbytes(count * half) + bytes(count * (4096 - half))
        for count, half in zip(shape, halves, strict=True)
    ]
    whole = b"".join(plain)
    digests = digests_of(KEY, memoryview(whole), range(sum(shape)))
    content = build_pack(
        identity(),
        [encode_frame(each) for each in plain],
        digests,
        encode_statement(array([]), [], ["vm1"]),
    )
    backend = DirectoryBackend(Path(tmp_path_factory.mktemp("pack")))
    backend.create(pack_name(1, 0), content)
    reader = PackReader(backend, REPOSITORY, Keys(KEY), cache_bytes=64 << 10)
    assert parse_envelope(content[: ENVELOPE.size], "").total_bytes == len(content)
    assert reader.footer(1, 0).flaws == []
    assert reader.all_digests(1, 0) == digests
    for _ in range(10):
        if whole:
            address = chosen.randrange(len(whole))
            buffer = bytearray(chosen.randrange(1, len(whole) - address + 1))
            reader.read_into(1, 0, address, memoryview(buffer))
            assert buffer == whole[address : address + len(buffer)]
            slot = address // 4096
            count = chosen.randrange(1, sum(shape) - slot + 1)
            check = row_check(digests[slot * 16 : (slot + count) * 16])
            reader.prove(1, 0, slot, count, check)
            with pytest.raises(DamagedError, match="row check"):
                reader.prove(1, 0, slot, count, check ^ 1)
    with pytest.raises(DamagedError, match="expected at most"):
        reader.read_into(1, 0, len(whole), memoryview(bytearray(1)))
    with pytest.raises(DamagedError, match="expected at most"):
        reader.digests(1, 0, sum(shape), 1)


def test_a_pack_of_another_repository_is_refused(tmp_path: Path):
    backend = DirectoryBackend(tmp_path)
    backend.create(
        pack_name(1, 0), build_pack(identity(), [], b"", encode_statement(array([]), [], ["vm1"]))
    )
    with pytest.raises(DamagedError, match="put the right pack back"):
        PackReader(backend, bytes(16), Keys(KEY)).footer(1, 0)


@given(st.lists(st.sampled_from([b"\0", b"\0\0x", b"x"]), min_size=1, max_size=9))
def test_blocks_that_are_not_zeros_are_found(kinds: list[bytes]):
    content = b"".join(kind.rjust(4096, b"\0") for kind in kinds)
    expected = [any(kind) for kind in kinds]
    assert nonzero_blocks(np.frombuffer(content, np.uint8)).tolist() == expected


def test_a_digest_needs_the_key():
    assert block_digest(KEY, bytes(4096)) != block_digest(bytes(32), bytes(4096))
    assert len(block_digest(KEY, bytes(4096))) == 16
