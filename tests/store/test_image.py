"""MappedImage: whatever is stacked on whatever reads as the bytes say."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store.image
from store.errors import CorruptError
from store.image import (
    WINDOW_BYTES,
    BytesImage,
    DescriptorImage,
    Extent,
    ExtentKind,
    Image,
    MappedImage,
    read_exactly,
)


class Pieces(MappedImage):
    """Runs as they are given; the layers of the tests."""

    def __init__(self, runs: list[Extent]) -> None:
        super().__init__(sum(run.length for run in runs))
        self.runs = runs

        self.mapped = 0

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        self.mapped += 1
        for run in self.runs:
            if run.offset + run.length > offset and run.offset < offset + length:
                yield run


Layer = tuple[Image, bytes]


def layer_on(below: list[Layer], plan: list[tuple[int, int, int, int]]) -> Layer:
    """A layer of runs of what is below, and the bytes that it must read as."""
    runs: list[Extent] = []
    content = b""
    for which, kind, place, length in plan:
        image, whole = below[which % len(below)]
        if kind == ExtentKind.ZERO or place >= len(whole):
            runs.append(Extent(len(content), length, ExtentKind.ZERO, None, 0))
            content += bytes(length)
            continue
        piece = whole[place : place + length]
        runs.append(Extent(len(content), len(piece), ExtentKind(kind), image, place))
        content += piece
    return Pieces(runs), content


plans = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 900), st.integers(1, 300)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150)
@given(st.lists(plans, min_size=1, max_size=5), st.sampled_from([64, 256, 4 << 20]), st.integers())
def test_stacked_mappings_read_as_their_bytes(
    stack: list[list[tuple[int, int, int, int]]], window: int, seed: int
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.image, "WINDOW_BYTES", window)
        patch.setattr(store.image, "WINDOWS_MAX", 3)
        patch.setattr(store.image, "RUNS_MAX", 20)
        ground = random.Random(1).randbytes(1000)
        layers: list[Layer] = [(BytesImage(ground), ground)]
        for plan in stack:
            layers.append(layer_on(layers, plan))
        image, content = layers[-1]
        chosen = random.Random(seed)
        assert image.read(0, image.size + 10) == content
        for _ in range(10):
            offset = chosen.randrange(len(content) + 1)
            length = chosen.randrange(len(content) + 50)
            assert image.read(offset, length) == content[offset : offset + length]
            check_extents(image, content, offset, length)


def check_extents(image: Image, content: bytes, offset: int, length: int) -> None:
    """In order, gapless, flat down to the ground, and each says what its bytes are."""
    at = offset
    for extent in image.extents(offset, length):
        assert extent.offset == at
        assert extent.length > 0
        expected = content[at : at + extent.length]
        if extent.kind == ExtentKind.ZERO:
            assert expected == bytes(extent.length)
        else:
            assert extent.backing is not None
            assert extent.backing.read(extent.place, extent.length) == expected
        if extent.kind == ExtentKind.DATA:
            assert isinstance(extent.backing, BytesImage)
        at += extent.length
    assert at == max(offset, min(offset + length, len(content)))


@pytest.mark.parametrize(
    ("run_bytes", "windows_kept"), [(1 << 30, 32), (1 << 20, 16), (1 << 19, 8)]
)
def test_the_fewer_pieces_the_more_windows_are_kept(
    run_bytes: int, windows_kept: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.image, "RUNS_MAX", 64)
    monkeypatch.setattr(store.image, "WINDOWS_MAX", 32)
    grounds = [BytesImage(b"one"), BytesImage(b"two")]  # what alternates never becomes one run
    starts = range(0, 1 << 30, run_bytes)
    image = Pieces(
        [
            Extent(at, run_bytes, ExtentKind.OPAQUE, grounds[number % 2], 0)
            for number, at in enumerate(starts)
        ]
    )
    windows = range(0, windows_kept * WINDOW_BYTES, WINDOW_BYTES)
    for _ in range(3):
        for at in windows:
            list(image.extents(at, 1))
    assert image.mapped == windows_kept
    list(image.extents(1 << 29, 1))
    list(image.extents(0, 1))
    assert image.mapped == windows_kept + 2


def test_runs_that_follow_one_another_below_become_one():
    ground = BytesImage(bytes(range(200)))
    runs = [Extent(at, 10, ExtentKind.DATA, ground, at) for at in range(0, 200, 10)]
    assert list(Pieces(runs).extents(0, 200)) == [Extent(0, 200, ExtentKind.DATA, ground, 0)]


@pytest.mark.parametrize(
    "runs",
    [
        [Extent(0, 5, ExtentKind.ZERO, None, 0), Extent(6, 5, ExtentKind.ZERO, None, 0)],
        [Extent(1, 10, ExtentKind.ZERO, None, 0)],
        [Extent(0, 10, ExtentKind.DATA, BytesImage(b"short"), 0)],
    ],
)
def test_a_mapping_with_gaps_or_beyond_what_is_below_is_corrupt(runs: list[Extent]):
    image = Pieces(runs)
    with pytest.raises(CorruptError):
        image.read(0, image.size)


def test_opaque_runs_of_an_image_that_ends_early_are_corrupt():
    image = Pieces([Extent(0, 10, ExtentKind.OPAQUE, BytesImage(b"short"), 0)])
    with pytest.raises(CorruptError, match="the image below ends"):
        image.read(0, 10)


def test_structures_beyond_the_end_are_corrupt():
    image = BytesImage(b"0123456789")
    assert read_exactly(image, 2, 3, "here") == b"234"
    for offset, length in ((8, 3), (-1, 2), (0, -1), (11, 0)):
        with pytest.raises(CorruptError, match="here: expected"):
            read_exactly(image, offset, length, "here")


def test_an_open_file_is_an_image(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        image = DescriptorImage(descriptor)
        assert image.read(90, 100) == bytes(range(90, 100))
        assert image.read(100, 5) == b""
        check = list(image.extents(50, 100))
        assert check == [Extent(50, 50, ExtentKind.DATA, image, 50)]
        os.truncate(path, 20)
        with pytest.raises(CorruptError, match="expected 100 bytes, got 20"):
            image.read(0, 100)
    finally:
        os.close(descriptor)
