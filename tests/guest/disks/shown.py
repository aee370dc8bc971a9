"""What the two folders of a disk show, as a user sees it."""

from store.image import Image
from timefs.guest.detect import decode
from timefs.guest.disktree import partitions_folder, volume_folder
from timefs.tree import Folder, Leaf


def listed(folder: Folder) -> dict[str, str]:
    """Names, with the text of those that say why something is not shown."""
    found: dict[str, str] = {}
    for name, node in folder.entries():
        found[name.decode()] = ""
        if isinstance(node, Leaf) and name.endswith(b".unsupported"):
            found[name.decode()] = node.open().read(0, 1000).decode()
    return found


def partitions_of(disk: Image) -> dict[str, str]:
    return listed(partitions_folder(decode(disk), b"id", 0))


def volume_of(disk: Image) -> dict[str, str]:
    return listed(volume_folder(decode(disk), b"id", 0))
