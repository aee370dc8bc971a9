"""A generated volume shows exactly what ntfs-3g shows of it, at every cluster size."""

import random
from pathlib import Path

import pytest

from store.errors import CorruptError
from store.image import BytesImage, DescriptorImage, Image
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import (
    Recipe,
    difference,
    fill_many,
    format_volume,
    make_volume,
    mounted,
    opened,
    scatter,
    view_mounted,
    view_parsed,
)
from timefs.guest.ntfs.boot import read_geometries
from timefs.guest.ntfs.record import DATA, NUMBER_MASK
from timefs.guest.ntfs.table import FileRecord, Listed, Table
from timefs.tree import Leaf

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.usefixtures("ntfs_3g")]


def recipe_of(cluster_bytes: int, *, soak: bool) -> Recipe:
    names, files = (10_000, 3000) if soak else (1000, 200)
    if cluster_bytes == 65536:
        return Recipe(cluster_bytes, 1, (400 if soak else 160) << 20, names, files, fragments=400)
    return Recipe(cluster_bytes, 1, (128 if soak else 48) << 20, names, files)


@pytest.mark.parametrize("cluster_bytes", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_everything_agrees_with_ntfs_3g(tmp_path: Path, cluster_bytes: int, *, soak: bool) -> None:
    image = tmp_path / "volume"
    make_volume(image, recipe_of(cluster_bytes, soak=soak))
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []
        assert volume.label == "timefs \u00e4"
        fragmented = volume.root.lookup(b"fragmented")
        assert isinstance(fragmented, Leaf)
        content = fragmented.open()
        assert len(list(content.extents(0, content.size))) >= 40


def test_a_file_of_very_many_runs_with_an_attribute_list(tmp_path: Path, *, soak: bool) -> None:
    image = tmp_path / "volume"
    runs = 20_480 if soak else 2000
    format_volume(image, Recipe(512, size=64 << 20))
    with mounted(image, "rw") as root:
        scatter(root / "scattered", runs, 512, random.Random(8))
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []
        node = volume.root.lookup(b"scattered")
        assert isinstance(node, Leaf)
        content = node.open()
        extents = [one for one in content.extents(0, content.size) if one.backing is not None]
        assert len(extents) == runs
        places = [extent.place for extent in extents]
        assert places != sorted(places)


def test_very_many_files(tmp_path: Path, *, soak: bool) -> None:
    image = tmp_path / "volume"
    files, folder_names = (100_000, 10_000) if soak else (2000, 1000)
    format_volume(image, Recipe(size=(1 << 30) if soak else (64 << 20)))
    with mounted(image, "rw") as root:
        fill_many(root, files, folder_names)
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    assert sum(seen.kind == "file" for seen in expected.values()) == files
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []


@pytest.mark.parametrize("cluster_bytes", [256 << 10, 2 << 20])
def test_clusters_beyond_64_kib(tmp_path: Path, cluster_bytes: int) -> None:
    image = tmp_path / "volume"
    make_volume(image, Recipe(cluster_bytes, 5, 512 << 20, 200, 30, fragments=0))
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume whose table is so fragmented that it needs an attribute list."""
    need_ntfs_3g()
    image = tmp_path_factory.mktemp("pieces") / "volume"
    make_volume(image, Recipe(4096, 3, 64 << 20, 30, 30))
    return image


def pieces_of_table(image: Image) -> list[Listed]:
    table = Table(image, read_geometries(image)[0])
    return [one for one in FileRecord(table, table.record(0)).listed() if one.kind == DATA]


def test_a_table_in_pieces_with_its_own_attribute_list(in_pieces: Path) -> None:
    with in_pieces.open("rb") as file:
        assert len(pieces_of_table(DescriptorImage(file.fileno()))) > 1
    with mounted(in_pieces, "ro") as root:
        expected = view_mounted(root)
    with opened(in_pieces) as volume:
        assert difference(expected, view_parsed(volume.root)) == []


def test_behind_a_damaged_piece_of_the_table_files_are_corrupt_and_others_served(
    in_pieces: Path,
) -> None:
    content = in_pieces.read_bytes()
    patient = Patient(content)
    last = pieces_of_table(BytesImage(content))[-1].reference & NUMBER_MASK
    patient.content[patient.place(last) + 511] ^= 1
    good = bad = 0
    for _, node in patient.open().root.entries():
        try:
            node.attributes()
            good += 1
        except CorruptError:
            bad += 1
    assert good
    assert bad


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    make_volume(image, Recipe(4096, 4, 48 << 20, 50, 30, sector_bytes=4096, fragments=100))
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []
