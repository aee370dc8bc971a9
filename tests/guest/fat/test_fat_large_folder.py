"""Large folders: a listing brings all attributes, and a listed file opens without a search."""

from collections.abc import Callable
from itertools import chain

import pytest

from store.image import BytesImage, Extent
from tests.guest.fat.sketch import ExfatSketch, Sketch, entry, exfat_set
from timefs.guest.fat import FatVolume, open_exfat, open_fat
from timefs.tree import Leaf

NAMES = 3000
CLUSTERS = 5000


class Counting(BytesImage):
    """Bytes that count how many were read."""

    read_bytes = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.read_bytes += len(buffer)
        return super().read_into(offset, buffer)


def drawn(sketch: Sketch, root: int, each: Callable[[int], bytes]) -> Counting:
    """A volume of one folder with `NAMES` names, every second cluster of which lies elsewhere."""
    content = b"".join(each(number) for number in range(NAMES))
    count = -(-len(content) // 512)
    clusters = [root, *chain.from_iterable(zip(range(10, 2000), range(2010, 4000), strict=True))]
    for number, cluster in enumerate(clusters[:count]):
        sketch.fill(cluster, content[number * 512 : number * 512 + 512])
    sketch.chain(*clusters[:count])
    return Counting(bytes(sketch.content))


def exfat() -> tuple[Counting, FatVolume]:
    volume = drawn(ExfatSketch(CLUSTERS), 2, lambda number: exfat_set(f"name {number}", size=0))
    return volume, open_exfat(volume, b"id")


def fat() -> tuple[Counting, FatVolume]:
    volume = drawn(Sketch(32, 70_000), 2, lambda number: entry(b"N%07d" % number))
    return volume, open_fat(volume, b"id")


both = pytest.mark.parametrize("draw", [exfat, fat])
Draw = Callable[[], tuple[Counting, FatVolume]]


@both
def test_a_listing_reads_the_folder_once_and_nothing_for_its_files(draw: Draw):
    image, volume = draw()
    plain = [(name, node.identity) for name, node in volume.root.entries()]
    before = image.read_bytes
    listed = list(chain.from_iterable(volume.root.entries_with_attributes()))
    folder_bytes = NAMES * (96 if draw is exfat else 32)
    assert image.read_bytes - before < 2 * folder_bytes
    assert [(name, node.identity) for name, node, _ in listed] == plain
    assert len(listed) == NAMES
    for _, node, attributes in listed:
        assert attributes is not None
        assert attributes == node.attributes()


@both
def test_a_listed_file_is_had_again_without_reading_its_folder(draw: Draw):
    image, volume = draw()
    listed = [node for _, node in volume.root.entries()]
    before = image.read_bytes
    for node in listed[::7]:
        again = volume.root.leaf_again(node.identity)
        assert isinstance(again, Leaf)
        assert again.identity == node.identity
        assert again.attributes() == node.attributes()
    assert image.read_bytes - before <= len(listed[::7]) * 19 * 32


def test_no_file_is_made_for_the_identity_of_another_volume():
    _, volume = fat()
    _, node = next(iter(volume.root.entries()))
    assert volume.root.leaf_again(b"another" + node.identity) is None


def test_a_contiguous_file_is_found_at_its_end_in_few_steps():
    clusters = 65_000
    sketch = Sketch(16, clusters)
    sketch.chain(*range(2, clusters + 2))
    sketch.fill(0, entry(b"LARGE", 2, size=clusters * 512))
    sketch.fill(clusters + 1, b"the end".ljust(512, b"."))
    large = sketch.open().root.lookup(b"LARGE")
    assert isinstance(large, Leaf)
    image = large.open()
    assert image.read(image.size - 512, 7) == b"the end"
    runs = list(image.extents(0, image.size))
    assert len(runs) == 1
    assert isinstance(runs[0], Extent)
    assert runs[0].length == clusters * 512
