"""Names as Windows can take them: legal, distinct, and reversible, whatever a guest made."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from tests.share.serve_memory import ODD_NAMES
from timefs.share.names import distinct_names, folded, from_windows, to_windows

ILLEGAL = re.compile(rb'[\x00-\x1f"*:<>?\\|]|[ .]\Z')
DEVICE = re.compile(
    rb"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)([0-9]|\xc2[\xb9\xb2\xb3])) *(\.|\Z)",
    re.IGNORECASE,
)

texts = some.text(alphabet='aAbB:?*."\\ \u00e9\uf022\uf028\uf02a', min_size=1, max_size=8)
names = (
    some.one_of(
        some.binary(min_size=1, max_size=12),
        texts.map(str.encode),
        some.sampled_from(
            [b"con", b"NUL", b"com1", b"Lpt9.txt", b"aux .x", b"CONOUT$", *ODD_NAMES]
        ),
    )
    .map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"_"))
    .filter(lambda name: name not in (b".", b".."))
)


@given(names)
@example(b"COM1")
@example(b"...")
@example(b" ")
@example("COM\u00b2.log".encode())
def test_what_is_shown_is_legal_and_utf8(name: bytes):
    shown = to_windows(name)
    shown.decode()
    assert not ILLEGAL.search(shown)
    assert not DEVICE.match(shown)


@given(names)
def test_what_is_shown_leads_back(name: bytes):
    mapped = to_windows(name)
    is_private = re.search("[\uf000-\uf0ff\uf780-\uf7ff]", name.decode(errors="replace"))
    assert from_windows(mapped) == name or is_private
    if name.isascii() and not ILLEGAL.search(name) and not DEVICE.match(name):
        assert mapped == name


@given(some.lists(names, unique=True, max_size=12))
@example([b"a", b"A", b"a (2)", b"A (2)"])
@example([b"x.txt", b"X.TXT", b"x (2).txt"])
@example([b"a:b", "a\uf022b".encode()])
@example([b":", ":\uf02a".encode()])
@example([b"CON", b"con", "CON\uf02a".encode()])
def test_a_folders_names_are_distinct_without_case_and_lead_back(folder: list[bytes]):
    """As the view looks them up: exactly what is meant first, then without case."""
    shown = distinct_names(folder)
    assert list(shown) == folder
    without_case = {folded(name): true for true, name in shown.items()}
    assert len(without_case) == len(folder)
    for true, name in shown.items():
        meant = from_windows(name)
        assert (meant if meant in shown else without_case[folded(name)]) == true


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a:b?", "a\uf022b\uf025"),
        (b"end.", "end\uf029"),
        (b"end ", "end\uf028"),
        (b"nul.txt", "nul\uf02a.txt"),
        (b"caf\xe9", "caf\uf7e9"),
        (b"bell\x07", "bell\uf007"),
    ],
)
def test_the_mapping_is_the_one_that_other_systems_know(name: bytes, shown: str):
    assert to_windows(name) == shown.encode()
