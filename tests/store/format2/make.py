"""Writes the frozen repository anew: `python -m tests.store.format2.make`. Run when the format is
still free to change, never after that: it makes `repo` and `expected.json` beside this file.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

from store.description import create_repository
from store.history import FileKind
from store.log.transaction import Transaction
from store.repository import Repository

HERE = Path(__file__).parent
START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


def begin(repository: Repository, machine: str, time_ns: int) -> Transaction:
    return repository.logs.begin(repository.logs.state(machine), time_ns)


def write(repository: Repository) -> None:
    chance = Random(2)
    content = chance.randbytes(20_000) + bytes(40_000) + b"text " * 2_000
    log = begin(repository, "vm1", START_NS)
    log.declare(1, "disk.vhdx", FileKind.CONTAINER)
    log.resize(1, len(content))
    log.write(1, 0, content)
    log.declare(2, "caf\udce9.img", FileKind.DISK)
    log.resize(2, 5_000)
    log.write(2, 0, chance.randbytes(5_000))
    log.instant(START_NS, fuzzy=False)
    log.commit()
    log = begin(repository, "vm1", START_NS + SECOND_NS)
    log.resize(1, 90_000)
    log.write(1, 12_345, b"unaligned" * 700)
    log.zero(1, len(content), 90_000 - len(content))
    log.instant(START_NS + SECOND_NS, fuzzy=True)
    log.commit()
    given_up = begin(repository, "vm1", START_NS + 2 * SECOND_NS)
    given_up.write(1, 0, chance.randbytes(4_096))
    given_up.abandon()
    log = begin(repository, "vm1", START_NS + 3 * SECOND_NS + 5)
    log.declare(1, "renamed.vhdx", FileKind.CONTAINER)
    log.drop(2)
    log.write(1, 40_960, content[:8_192])  # stored already
    log.instant(START_NS + 3 * SECOND_NS + 5, fuzzy=False)
    log.commit()
    log = begin(repository, "vm2", START_NS + 4 * SECOND_NS)
    log.declare(1, "copy.raw", FileKind.CONTAINER)
    log.resize(1, 16_384)
    log.write(1, 0, content[:16_384])  # another machine's blocks
    log.instant(START_NS + 4 * SECOND_NS, fuzzy=False)
    log.commit()


def expected(repository: Repository) -> list[dict[str, object]]:
    history = repository.history
    return [
        {
            "machine": machine,
            "time_ns": instant.time_ns,
            "fuzzy": instant.fuzzy,
            "file": state.number,
            "name": state.name,
            "kind": state.kind.value,
            "size_bytes": state.size,
            "sha256": hashlib.sha256(history.open(instant, state).read(0, state.size)).hexdigest(),
        }
        for machine in history.machines()
        for instant in history.instants(machine)
        for state in history.files(instant)
    ]


def make() -> None:
    root = HERE / "repo"
    shutil.rmtree(root, ignore_errors=True)
    create_repository(root)
    with tempfile.TemporaryDirectory() as cache:
        repository = Repository(root, Path(cache))
        write(repository)
        (HERE / "expected.json").write_text(json.dumps(expected(repository), indent=1) + "\n")
        repository.close()


if __name__ == "__main__":
    make()
