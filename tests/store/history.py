"""Histories for tests: a machine's instants written straight through transactions."""

from collections.abc import Sequence

from store.history import FileKind
from store.repository import Repository


def write_instants(repository: Repository, machine: str, contents: Sequence[bytes]) -> list[int]:
    """One file `disk`, one instant for each content; answers the instants' times."""
    times: list[int] = []
    for content in contents:
        state = repository.logs.state(machine)
        time_ns = max(repository.history.now_ns(), (state.newest_ns or 0) + 1)
        transaction = repository.logs.begin(state, time_ns)
        transaction.declare(1, "disk", FileKind.CONTAINER)
        transaction.resize(1, len(content))
        transaction.write(1, 0, content)
        transaction.instant(time_ns, fuzzy=False)
        transaction.commit()
        times.append(time_ns)
    return times
