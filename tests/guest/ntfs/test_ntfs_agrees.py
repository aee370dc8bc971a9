"""A generated volume shows exactly what ntfs-3g shows of it, at every cluster size."""

from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ntfs.volume import (
    Recipe,
    Seen,
    make_volume,
    mounted,
    opened,
    view_mounted,
    view_parsed,
)
from timefs.guest.ntfs.boot import read_geometries
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.tree import Leaf

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.usefixtures("ntfs_3g")]


def recipe_of(cluster_bytes: int, *, soak: bool) -> Recipe:
    names, files = (10_000, 3000) if soak else (1000, 200)
    if cluster_bytes == 65536:
        return Recipe(cluster_bytes, 1, 160 << 20, names, files, fragments=400)
    return Recipe(cluster_bytes, 1, (128 if soak else 48) << 20, names, files)


def difference(
    expected: dict[bytes, Seen], got: dict[bytes, Seen]
) -> list[tuple[bytes, Seen | None, Seen | None]]:
    """What differs, shortened for the report."""
    return [
        (path, expected.get(path), got.get(path))
        for path in sorted(expected.keys() | got.keys())
        if expected.get(path) != got.get(path)
    ][:5]


@pytest.mark.parametrize("cluster_bytes", [512, 1024, 4096, 8192, 16384, 65536])
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


def test_table_in_pieces_with_its_own_attribute_list(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    make_volume(image, Recipe(4096, 3, 64 << 20, 30, 30))
    with image.open("rb") as file:
        source = DescriptorImage(file.fileno())
        table = Table(source, read_geometries(source)[0])
        assert len(FileRecord(table, table.record(0)).listed()) > 3
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    image = tmp_path / "volume"
    make_volume(image, Recipe(4096, 4, 48 << 20, 50, 30, sector_bytes=4096, fragments=100))
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        assert difference(expected, view_parsed(volume.root)) == []
