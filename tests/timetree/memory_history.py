"""A History over bytes in memory, which counts what it is asked; for tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Lock

from store.errors import NotFoundError
from store.history import FileKind, FileState, History, Instant
from store.image import BytesImage, Image


class MemoryHistory(History):
    """Instants are added by `seal`, oldest first; files not named keep their bytes."""

    def __init__(self, now_ns: int) -> None:
        self.clock_ns = now_ns
        self.asked: Counter[str] = Counter()
        self._instants: dict[str, list[Instant]] = {}
        self._states: dict[Instant, dict[str, FileState]] = {}
        self._images: dict[tuple[str, int, int], Image] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._lock = Lock()

    def seal(
        self,
        machine: str,
        time_ns: int,
        files: Mapping[str, bytes | Image] | None = None,
        *,
        fuzzy: bool = False,
        drop: Sequence[str] = (),
        disks: Sequence[str] = (),
    ) -> Instant:
        with self._lock:
            instants = self._instants.setdefault(machine, [])
            sequence = len(instants) + 1
            instant = Instant(machine, 1, 1, sequence, time_ns, fuzzy)
            states = dict(self._states[instants[-1]]) if instants else {}
            for name in drop:
                del states[name]
            for name, content in (files or {}).items():
                number = self._numbers.setdefault((machine, name), len(self._numbers) + 1)
                image = BytesImage(content) if isinstance(content, bytes) else content
                kind = FileKind.DISK if name in disks else FileKind.CONTAINER
                states[name] = FileState(name, number, kind, image.size, time_ns, 1, sequence)
                self._images[machine, number, sequence] = image
            self._states[instant] = states
            instants.append(instant)
            return instant

    def _of(self, machine: str) -> list[Instant]:
        if machine not in self._instants:
            raise NotFoundError(f"{machine}: no such machine")
        return self._instants[machine]

    def machines(self) -> Sequence[str]:
        return sorted(self._instants)

    def instants(self, machine: str) -> Sequence[Instant]:
        self.asked["instants"] += 1
        return tuple(self._of(machine))

    def changed(self, machine: str) -> Sequence[Instant]:
        before: dict[str, FileState] = {}
        found: list[Instant] = []
        for instant in self._of(machine):
            if self._states[instant] != before:
                found.append(instant)
            before = self._states[instant]
        return found

    def at(self, machine: str, time_ns: int) -> Instant:
        self.asked["at"] += 1
        found = [instant for instant in self._of(machine) if instant.time_ns <= time_ns]
        if not found:
            raise NotFoundError(f"{machine}: nothing is known before its first instant")
        return found[-1]

    def latest(self, machine: str) -> Instant:
        instants = self._of(machine)
        return ([instant for instant in instants if not instant.fuzzy] or instants)[-1]

    def watermark_ns(self, machine: str) -> int:
        return self._of(machine)[-1].time_ns

    def files(self, instant: Instant) -> Sequence[FileState]:
        self.asked["files"] += 1
        return [state for _, state in sorted(self._states[instant].items())]

    def open(self, instant: Instant, file: FileState) -> Image:
        self.asked["open"] += 1
        return self._images[instant.machine, file.number, file.changed_sequence]

    def now_ns(self) -> int:
        return self.clock_ns
