"""A disk format of one line, for tests of the tree above it.

`TOY:` + disk is a container; a disk `FS:name=text,name=text` has one volume of those files, with a
folder `deep/` of the same.
"""

from collections import Counter
from collections.abc import Iterable

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Image
from tests.timetree.memory_tree import MemoryFile, MemoryFolder, MemoryLink
from timefs.guest.siblings import Find
from timefs.timetree.disks import DiskParsers
from timefs.tree import Folder, Node

asked: Counter[str] = Counter()


def references(container: Image) -> list[str]:
    """`ON:name:` + disk stands on another file."""
    if container.read(0, 3) != b"ON:":
        return []
    return [container.read(3, container.size).partition(b":")[0].decode()]


def decode(container: Image, find: Find) -> Image:
    for name in references(container):
        below = find(name)
        if below is None:
            raise CorruptError(f"toy disk: expected {name} beside it")
        own = container.read(3, container.size).partition(b":")[2]
        return BytesImage(decode(below, find).read(0, below.size) + own)
    magic = container.read(0, 4)
    if magic == b"BAD:":
        raise CorruptError("toy disk: expected sense, got none")
    if magic == b"NEW:":
        raise UnsupportedError("toy disk: version 2 is not decoded")
    return BytesImage(container.read(4, container.size)) if magic == b"TOY:" else container


def has_volumes(file: Image, find: Find) -> bool:
    try:
        return decode(file, find).read(0, 3) == b"FS:"
    except (CorruptError, UnsupportedError):
        return True


def volume_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    del time_ns
    asked["volume"] += 1
    nodes: dict[bytes, Node] = {}
    for pair in disk.read(3, disk.size).split(b","):
        name, _, text = pair.partition(b"=")
        nodes[name] = MemoryFile(identity + b"/" + name, text)
    links = {
        b"in": MemoryLink(identity + b"/in", b"../a"),
        b"out": MemoryLink(identity, b"../../a"),
    }
    links[b"root"] = MemoryLink(identity + b"/root", b"/etc/passwd")
    nodes[b"deep"] = MemoryFolder(identity + b"/deep", {**nodes, **links})
    return MemoryFolder(identity + b"/", nodes)


def partitions_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    return MemoryFolder(identity + b"/d", {b"p1-DATA": volume_folder(disk, identity, time_ns)})


def refusal_folder(reason: str, identity: bytes, time_ns: int) -> Folder:
    del time_ns
    return MemoryFolder(identity + b"/", {b"why": MemoryFile(identity + b"/why", reason.encode())})


def as_vhdx(disk: Image, identity: bytes) -> Image:
    return BytesImage(b"VHDX:" + identity + disk.read(0, disk.size))


def as_vhd(disk: Image, identity: bytes) -> Image:
    return BytesImage(disk.read(0, disk.size) + b":VHD" + identity)


def as_vmdk(disk: Image, identity: bytes) -> Image:
    return BytesImage(b"VMDK:" + identity + disk.read(0, disk.size))


def has_physical_volumes(disk: Image) -> bool:
    """`FS:group=…` is a disk of a group."""
    return disk.read(0, 9) == b"FS:group="


def group_folder(disks: Iterable[Image], identity: bytes, time_ns: int) -> Folder:
    """Each group's folder shows how its disks name it."""
    nodes: dict[bytes, Node] = {}
    for disk in disks:
        name = disk.read(9, disk.size).partition(b",")[0]
        folder = volume_folder(disk, identity + b"/" + name, time_ns)
        nodes[name] = folder
    return MemoryFolder(identity + b"/groups", nodes)


TOY_DISKS = DiskParsers(
    decode=decode,
    as_vhdx=as_vhdx,
    as_vhd=as_vhd,
    as_vmdk=as_vmdk,
    references=references,
    has_volumes=has_volumes,
    volume_folder=volume_folder,
    partitions_folder=partitions_folder,
    refusal_folder=refusal_folder,
    has_physical_volumes=has_physical_volumes,
    group_folder=group_folder,
)
