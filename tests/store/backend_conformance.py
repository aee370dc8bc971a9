"""What every backend must do; subclassed once a backend."""

import threading

import pytest

from store.errors import DamagedError, ExistsError, NotFoundError
from store.format.pack import pack_name
from store.objects.backend import Backend


class BackendConformance:
    """Subclasses give the fixture `backend`: one that holds nothing yet."""

    def test_what_was_created_reads_back_in_any_range(self, backend: Backend):
        content = bytes(range(256)) * 40
        backend.create(pack_name(1, 0), content)
        assert backend.size(pack_name(1, 0)) == len(content)
        for offset, length in ((0, len(content)), (0, 1), (255, 2), (len(content) - 1, 1), (5, 0)):
            assert backend.read(pack_name(1, 0), offset, length) == content[offset:][:length]
            buffer = memoryview(bytearray(length))
            backend.read_into(pack_name(1, 0), offset, buffer)
            assert buffer == content[offset:][:length]

    def test_an_empty_object_is_an_object(self, backend: Backend):
        backend.create(pack_name(1, 0), b"")
        assert backend.exists(pack_name(1, 0))
        assert backend.size(pack_name(1, 0)) == 0
        assert backend.read(pack_name(1, 0), 0, 0) == b""

    def test_a_taken_name_is_refused_and_its_object_stays(self, backend: Backend):
        backend.create(pack_name(1, 0), b"first")
        with pytest.raises(ExistsError):
            backend.create(pack_name(1, 0), b"second")
        assert backend.read(pack_name(1, 0), 0, 5) == b"first"
        assert backend.list(1) == [0]

    def test_of_many_who_create_one_name_at_once_one_wins(self, backend: Backend):
        start = threading.Barrier(8)
        won: list[int] = []

        def create(number: int) -> None:
            start.wait(timeout=60)
            try:
                backend.create(pack_name(1, 0), b"%d" % number * 5000)
            except ExistsError:
                return
            won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        (winner,) = won
        assert backend.read(pack_name(1, 0), 0, 5000) == b"%d" % winner * 5000

    def test_what_is_not_there_is_said(self, backend: Backend):
        assert not backend.exists(pack_name(1, 0))
        with pytest.raises(NotFoundError):
            backend.size(pack_name(1, 0))
        with pytest.raises(NotFoundError):
            backend.read(pack_name(1, 0), 0, 1)
        with pytest.raises(NotFoundError):
            backend.read_into(pack_name(1, 0), 0, memoryview(bytearray(1)))
        assert backend.list(1) == []
        assert backend.sizes(1) == {}
        assert backend.writers() == []

    @pytest.mark.parametrize(("offset", "length"), [(0, 4), (3, 1), (2, 2), (100, 1)])
    def test_a_range_beyond_the_end_is_damage(self, backend: Backend, offset: int, length: int):
        backend.create(pack_name(1, 0), b"abc")
        with pytest.raises(DamagedError, match=f"expected {length} bytes at {offset}"):
            backend.read(pack_name(1, 0), offset, length)
        with pytest.raises(DamagedError, match=f"expected {length} bytes at {offset}"):
            backend.read_into(pack_name(1, 0), offset, memoryview(bytearray(length)))

    def test_writers_and_their_numbers_are_listed_sorted(self, backend: Backend):
        for writer, number in ((1, 10), (1, 9), (0xFFFF, 3), (1, 123_456_789), (2, 0)):
            backend.create(pack_name(writer, number), b"x" * number.bit_length())
        assert backend.writers() == [1, 2, 0xFFFF]
        assert backend.list(1) == [9, 10, 123_456_789]
        assert backend.sizes(1) == {9: 4, 10: 4, 123_456_789: 27}
        assert backend.list(3) == []

    def test_a_sweep_takes_no_object_away(self, backend: Backend):
        backend.create(pack_name(1, 0), b"abc")
        backend.sweep(1)
        backend.sweep(7)
        assert backend.list(1) == [0]
        assert backend.read(pack_name(1, 0), 0, 3) == b"abc"

    def test_what_was_forgotten_is_read_anew(self, backend: Backend):
        backend.create(pack_name(1, 0), b"abc")
        assert backend.read(pack_name(1, 0), 0, 3) == b"abc"
        backend.forget(pack_name(1, 0))
        assert backend.read(pack_name(1, 0), 0, 3) == b"abc"
