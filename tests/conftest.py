"""Options that several tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(  # a loaded machine is not a defect
    "timefs", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("timefs")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs we start inherit it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--images", default=None)
    parser.addoption("--cases", type=int, default=300)
    parser.addoption("--soak", action="store_true", default=False)


@pytest.fixture(scope="session")
def images_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of real images."""
    folder = request.config.getoption("--images")
    if folder is None:
        pytest.skip("real images: give --images DIR")
    return Path(folder)


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> int:
    """How many cases a fuzz test tries."""
    count = request.config.getoption("--cases")
    assert isinstance(count, int)
    return count


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether tests run at their full size."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def fuse() -> None:
    """Tests that mount need the kernel's device, open to this user."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not there or not open to this user")
