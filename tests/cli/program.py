"""Running the real program, as a person or a script would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = Path(sys.executable).with_name("timefs")
SECONDS_MAX = 120


class Done(NamedTuple):
    """What a command said and answered."""

    code: int
    out: str
    err: str

    def records(self) -> list[dict[str, Any]]:
        """The objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self) -> dict[str, Any]:
        """The one error on standard error, as JSON."""
        (line,) = self.err.splitlines()
        (said,) = json.loads(line).values()
        return said


class Place(NamedTuple):
    """A folder of its own, where commands run with nothing set from outside."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        cache = self.folder / "cache"
        return kept | {"XDG_CACHE_HOME": str(cache), "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def run(self, *words: str | Path, code: int | None = 0, **environment: str) -> Done:
        """`timefs` with these words; `code` is the exit code expected, None for any."""
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        said = Done(
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="surrogateescape"),
        )
        assert code is None or said.code == code, said
        return said

    def refused(self, *words: str | Path, code: int = 1, **environment: str) -> str:
        """The one plain line with which `timefs` refuses."""
        said = self.run(*words, code=code, **environment)
        assert said.err.startswith("timefs: "), said
        assert said.err.count("\n") == 1, said
        return said.err.removeprefix("timefs: ").rstrip("\n")
