"""Holes of terabytes in captured files: known to be zeros without a look at each of their pages."""

from pathlib import Path

from store.description import create_repository
from store.history import FileKind, Instant
from store.image import ExtentKind, Image
from store.index.run import PAGE_BYTES
from store.repository import Repository
from tests.fuzz.bounds import bounded_case

SIZE = 2 << 40
MIDDLE = SIZE // 2 // PAGE_BYTES * PAGE_BYTES


def runs(image: Image, offset: int = 0) -> list[tuple[int, bool]]:
    """(end, whether it is zeros) of the runs from an offset on, like ones joined."""
    found: list[tuple[int, bool]] = []
    at = offset
    for extent in image.extents(offset, image.size - offset):
        assert extent.offset == at
        at += extent.length
        zeros = extent.kind == ExtentKind.ZERO
        if found and found[-1][1] == zeros:
            found.pop()
        found.append((at, zeros))
    return found


def test_a_walk_over_a_large_hole_is_a_few_questions(tmp_path: Path):
    create_repository(tmp_path / "repository")
    repository = Repository(tmp_path / "repository", tmp_path / "cache")
    instants: list[Instant] = []

    def commit(*writes: tuple[int, bytes], zeros: tuple[int, int] | None = None) -> None:
        state = repository.logs.state("vm1")
        time_ns = max(repository.history.now_ns(), (state.newest_ns or 0) + 1)
        transaction = repository.logs.begin(state, time_ns)
        transaction.declare(1, "disk", FileKind.CONTAINER)
        transaction.resize(1, SIZE)
        if zeros is not None:
            transaction.zero(1, *zeros)
        for offset, content in writes:
            transaction.write(1, offset, content)
        transaction.instant(time_ns, fuzzy=False)
        transaction.commit()
        instants.append(repository.history.latest("vm1"))

    commit(zeros=(0, SIZE))
    commit((MIDDLE + 8192, b"x" * 4096))
    commit(zeros=(PAGE_BYTES, SIZE - PAGE_BYTES))
    commit((0, b"y" * 4096), (SIZE - 4096, b"z" * 4096))
    with bounded_case(0, b"", tmp_path):
        images = [
            repository.history.open(instant, repository.history.files(instant)[0])
            for instant in instants
        ]
        assert runs(images[0]) == [(SIZE, True)]
        held = [(MIDDLE + 8192, True), (MIDDLE + 12288, False), (SIZE, True)]
        assert runs(images[1]) == held
        assert runs(images[1], 777) == held
        assert runs(images[1], MIDDLE + 9000) == held[1:]
        assert runs(images[2]) == [(SIZE, True)]
        assert runs(images[3]) == [(4096, False), (SIZE - 4096, True), (SIZE, False)]
    repository.close()
