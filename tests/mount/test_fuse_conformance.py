from contextlib import AbstractContextManager
from pathlib import Path

from tests.mount.conformance import FileSystemConformance
from timefs.mount.mounting import mounted
from timefs.tree import Folder


class TestFuse(FileSystemConformance):
    @classmethod
    def show(cls, root: Folder, mountpoint: Path) -> AbstractContextManager[object]:
        return mounted(root, mountpoint)
