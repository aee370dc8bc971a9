"""Ctrl-C ends a command without a traceback, however early it comes."""

import signal
import subprocess
import time

from tests.cli.program import PROGRAM, Place


def test_from_the_first_moment(place: Place):
    for early in range(12):
        command = subprocess.Popen(
            [PROGRAM, "-r", "repo", "log"],
            cwd=place.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 0.1 + early * 0.05
        while time.monotonic() < end:
            pass
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
        assert "Traceback" not in said, early
        assert command.returncode in (-signal.SIGINT, 130, 10), (early, said)
