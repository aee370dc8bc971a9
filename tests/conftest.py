"""Options that several tests share."""

import os
import signal
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(  # a loaded machine is not a defect
    "timefs", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("timefs")


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """Ignores a signal, as its being ignored does, but programs that we start do not inherit it."""


for ignored in (signal.SIGINT, signal.SIGHUP):  # by a background job, by nohup
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, _pass_over)


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
