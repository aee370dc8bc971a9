import errno
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.mount.conformance import FileSystemConformance
from timefs.mount.mounting import mounted
from timefs.tree import Folder


class TestFuse(FileSystemConformance):
    @classmethod
    def show(cls, root: Folder, mountpoint: Path) -> AbstractContextManager[object]:
        return mounted(root, mountpoint)

    def test_names_before_damage_in_a_folder_are_listed_before_the_error(self, top: Path):
        with os.scandir(top / "broken") as entries:
            assert next(entries).name == "seen"
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                next(entries)
