"""Whether this machine lends loop devices: not every root has them, a container has none."""

import os

import pytest


def need_loop_devices() -> None:
    """Skip where there are none."""
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        pytest.skip("no loop devices here")
