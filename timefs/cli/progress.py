"""Progress: a bar with rate and time to go on standard error.

Defined here and only here: `progress_bar`. Used by the commands that take long. Nothing is shown
where standard error is not a terminal. Main thread only.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from timefs.cli.session import human_bytes


class ProgressBar:
    """A bar; nothing where standard error is not a terminal."""

    def __init__(self, label: str) -> None:
        self.shown = sys.stderr.isatty()
        self._label = label
        self._bar: Any = None
        self._task: Any = None

    def start(self, total_bytes: int) -> None:
        """Show the bar."""
        if not self.shown:
            return
        from rich.console import Console  # noqa: PLC0415  # not loaded where no bar is shown
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text  # noqa: PLC0415

        class RateColumn(ProgressColumn):
            """Binary units, as everywhere."""

            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed or 0
                return Text(f"{human_bytes(int(speed))}/s")

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            RateColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=total_bytes)
        self._bar.start()

    def advance(self, done_bytes: int) -> None:
        """Some more is done."""
        if self._bar is not None:
            self._bar.advance(self._task, done_bytes)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress_bar(label: str) -> Generator[ProgressBar]:
    """A bar that is taken away whatever happens."""
    bar = ProgressBar(label)
    try:
        yield bar
    finally:
        bar.stop()
