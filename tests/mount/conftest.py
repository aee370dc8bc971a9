"""What the mount's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def fuse(request: pytest.FixtureRequest) -> None:
    """Tests that mount need the kernel's device."""
    if request.node.get_closest_marker("system") and not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")
    if request.node.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
