"""LVM2 groups: what the metadata of their physical volumes says, and logical volumes as images.

Defined here and only here. Used by timefs.guest.lvm. Immutable and thread-safe. Linear, striped and
mirrored volumes are read (a mirror by its first leg, which the kernel too takes for the right one);
RAID, thin, cached and snapshot volumes are named with a reason.

Source: lvm2, lib/format_text (metadata), lvmraid(7), lvmthin(7).
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.lvm.label import SECTOR_BYTES, PhysicalVolume
from timefs.guest.lvm.text import Section, list_of, number_of, parse, section_of, text_of

NESTED_MAX: Final = 4
"""Logical volumes within logical volumes: legs of mirrors, and what is moved in them."""

SEGMENTS_MAX: Final = 1 << 16
STRIPES_MAX: Final = 128
VOLUME_BYTES_MAX: Final = 1 << 60


class LogicalVolume(NamedTuple):
    """A volume of a group that the guest sees."""

    group_id: str
    group: str
    name: str
    image: Image | None
    problem: str
    """Why there is no image."""


class _Newest(NamedTuple):
    sequence: int
    name: str
    section: Section


def logical_volumes(found: Sequence[PhysicalVolume]) -> list[LogicalVolume]:
    """The visible logical volumes of all groups, by group and name.

    Metadata that contradicts itself makes its own volumes unreadable, no others.
    """
    newest: dict[str, _Newest] = {}
    for text in dict.fromkeys(text for physical in found for text in physical.texts):
        try:
            group_id, group = _group(text)
        except (CorruptError, UnsupportedError):
            continue  # another copy may be whole; without one, the disk itself shows it
        if group_id not in newest or group.sequence > newest[group_id].sequence:
            newest[group_id] = group
    made: list[LogicalVolume] = []
    for group_id, group in newest.items():
        with suppress(CorruptError):  # as above
            made += _Group(group_id, group, found).volumes()
    return sorted(made, key=lambda volume: (volume.group, volume.group_id, volume.name))


def group_name(physical: PhysicalVolume) -> str | None:
    """The name of the group that a physical volume says it belongs to, if it says so.

    Raises:
        CorruptError: what it says is damaged.
        UnsupportedError: it says more than is read.
    """
    if not physical.texts:
        return None
    return _group(physical.texts[0])[1].name


def _group(text: str) -> tuple[str, _Newest]:
    sections = [(name, value) for name, value in parse(text).items() if isinstance(value, dict)]
    if len(sections) != 1:
        raise CorruptError(f"LVM2 metadata: expected one group, got {len(sections)}")
    name, section = sections[0]
    return text_of(section, "id"), _Newest(number_of(section, "seqno"), name, section)


class _Group:
    """One group's volumes."""

    def __init__(self, group_id: str, group: _Newest, found: Sequence[PhysicalVolume]) -> None:
        self._id = group_id
        self._name = group.name
        self._section = group.section
        self._found = found
        self._logical = section_of(group.section, "logical_volumes")
        self._physical = section_of(group.section, "physical_volumes")
        self._made: dict[str, Image] = {}

    def volumes(self) -> Iterator[LogicalVolume]:
        """Each volume that is visible, with its image or what is the matter with it."""
        snapshots = set(self._snapshots())
        for name, section in self._logical.items():
            if isinstance(section, dict) and "VISIBLE" not in list_of(section, "status"):
                continue
            image, problem = None, "an LVM2 snapshot: this version does not read it"
            if name not in snapshots:
                try:
                    image, problem = self._volume(name, 0), ""
                except (CorruptError, UnsupportedError) as error:
                    problem = str(error)
            yield LogicalVolume(self._id, self._name, name, image, problem)

    def _snapshots(self) -> Iterator[str]:
        """Volumes that hold differences to an origin, as which they must not be read."""
        for section in self._logical.values():
            for segment in section.values() if isinstance(section, dict) else ():
                if isinstance(segment, dict) and segment.get("type") == "snapshot":
                    names = (segment.get("cow_store"), segment.get("merging_store"))
                    yield from (name for name in names if isinstance(name, str))

    def _extent_bytes(self) -> int:
        extent_bytes = number_of(self._section, "extent_size") * SECTOR_BYTES
        if not 0 < extent_bytes <= VOLUME_BYTES_MAX:
            raise CorruptError(f"LVM2 group {self._name!a}: extent size: got {extent_bytes}")
        return extent_bytes

    def _volume(self, name: str, depth: int) -> Image:
        """A volume's bytes; made once, however many others hold it."""
        if name not in self._made:
            self._made[name] = self._joined(name, depth)
        return self._made[name]

    def _joined(self, name: str, depth: int) -> Image:
        section = section_of(self._logical, name)
        count = number_of(section, "segment_count")
        if count > SEGMENTS_MAX or depth > NESTED_MAX:
            raise CorruptError(f"LVM2 volume {name!a}: more parts than a volume can have")
        pieces: list[Piece] = []
        at = 0
        for number in range(1, count + 1):
            segment = section_of(section, f"segment{number}")
            start = number_of(segment, "start_extent") * self._extent_bytes()
            length = number_of(segment, "extent_count") * self._extent_bytes()
            if start != at or not length or at + length > VOLUME_BYTES_MAX:
                raise CorruptError(f"LVM2 volume {name!a}: segment {number} does not follow")
            pieces += self._segment(segment, start, length, depth)
            at += length
        if not at:
            raise CorruptError(f"LVM2 volume {name!a}: it has no segments")
        return JoinedImage(at, pieces)

    def _segment(self, segment: Section, start: int, length: int, depth: int) -> list[Piece]:
        """The pieces of a segment; none for zeros."""
        kind = text_of(segment, "type").partition("+")[0]
        if kind == "zero":
            return []
        if kind not in ("striped", "linear", "mirror"):
            raise UnsupportedError(f"LVM2: a {kind} volume, which this version does not read")
        areas = list_of(segment, "mirrors" if kind == "mirror" else "stripes")
        pairs = list(zip(areas[::2], areas[1::2], strict=False))
        if not 0 < len(pairs) <= STRIPES_MAX or len(areas) % 2:
            raise CorruptError("LVM2 segment: expected pairs of volumes and extents, got others")
        if kind == "mirror":
            pairs = pairs[:1]
        rows = length // len(pairs)
        placed = [self._area(name, extent, rows, depth) for name, extent in pairs]
        if len(placed) == 1:
            return [Piece(start, length, *placed[0])]
        stripe_bytes = number_of(segment, "stripe_size") * SECTOR_BYTES
        if not stripe_bytes or rows * len(pairs) != length or rows % stripe_bytes:
            raise CorruptError(f"LVM2 segment: stripes of {stripe_bytes} bytes do not fill it")
        return [Piece(start, length, Striped(length, stripe_bytes, placed), 0)]

    def _area(
        self, name: int | str, extent: int | str, length: int, depth: int
    ) -> tuple[Image, int]:
        """The image of a physical or inner volume, and where in it an area begins."""
        if not isinstance(name, str) or not isinstance(extent, int) or extent < 0:
            raise CorruptError(f"LVM2 segment: expected a volume and an extent, got {name!a}")
        start = extent * self._extent_bytes()
        if name in self._physical:
            physical = section_of(self._physical, name)
            start += number_of(physical, "pe_start") * SECTOR_BYTES
            image = self._physical_image(name, physical)
        elif name in self._logical:
            image = self._volume(name, depth + 1)
        else:
            raise CorruptError(f"LVM2 segment: {name!a} is no volume of its group")
        if start + length > image.size:
            raise CorruptError(
                f"LVM2 volume {name!a}: expected {start + length} bytes, got {image.size}"
            )
        return image, start

    def _physical_image(self, name: str, section: Section) -> Image:
        wanted = text_of(section, "id")
        images = [each.volume for each in self._found if each.id == wanted.replace("-", "")]
        if "MISSING" in list_of(section, "flags"):
            raise CorruptError(
                f"LVM2 group {self._name!a}: the guest itself missed {name} {wanted}"
            )
        if not images:
            raise CorruptError(
                f"LVM2 group {self._name!a}: expected the disk of {name} {wanted} among the "
                f"machine's files at this instant; capture it too"
            )
        if len(images) > 1:
            raise UnsupportedError(
                f"LVM2 group {self._name!a}: {name} {wanted} is on {len(images)} disks at once, "
                f"so that nothing says which of them counts"
            )
        return images[0]


class Striped(MappedImage):
    """Areas of equal length that take turns."""

    def __init__(self, size: int, stripe_bytes: int, areas: list[tuple[Image, int]]) -> None:
        super().__init__(size)
        self._stripe_bytes = stripe_bytes
        self._areas = areas

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        stripe_bytes = self._stripe_bytes
        for number in range(offset // stripe_bytes, -(-(offset + length) // stripe_bytes)):
            row, column = divmod(number, len(self._areas))
            image, start = self._areas[column]
            place = start + row * stripe_bytes
            yield Extent(number * stripe_bytes, stripe_bytes, ExtentKind.DATA, image, place)
