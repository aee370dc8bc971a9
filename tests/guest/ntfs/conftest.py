"""Volumes that several tests read."""

import os
from pathlib import Path

import pytest

from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import small_volume


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small volume with a bit of everything."""
    need_ntfs_3g()
    return small_volume(tmp_path_factory.mktemp("ntfs") / "small")


@pytest.fixture
def patient(small: bytes) -> Patient:
    """The small volume, to be damaged."""
    return Patient(small)


@pytest.fixture
def ntfs_3g() -> None:
    """Skips where ntfs-3g cannot mount."""
    need_ntfs_3g()


def need_ntfs_3g() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting with ntfs-3g needs root")
    if not Path("/dev/fuse").exists():
        pytest.skip("mounting with ntfs-3g needs /dev/fuse")
