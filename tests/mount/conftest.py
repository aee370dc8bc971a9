"""What the mount's tests share."""

import os

import pytest


@pytest.fixture(autouse=True)
def needs(request: pytest.FixtureRequest) -> None:
    """Tests that mount need the kernel's device."""
    if request.node.get_closest_marker("system"):
        request.getfixturevalue("fuse")
    if request.node.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
