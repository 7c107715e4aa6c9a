"""The closed book on every kind of shelf: written once, read back, and never changed."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from adserver.archive import ArchiveUnavailable, Book, Closed, open_book

DAY = 20514
BITS = {b"b:abcde" + bytes(4): bytes(range(32))}


def page(day: int = DAY, **facts: object) -> Closed:
    quiet = {
        "zone": "UTC",
        "producers": {"0b" * 8: 7},
        "counts": {"1:14:0b5d": 5},
        "ads": {},
        "missing": [],
        "bits": "",
    }
    return msgspec.convert({**quiet, "day": day, **facts}, Closed)


Shelves = Callable[[], Book]


@pytest.fixture(params=["sqlite", "file", "memory"])
def shelves(request: pytest.FixtureRequest, tmp_path: Path) -> Shelves:
    """Opens the same archive anew each time."""
    if request.param == "memory":
        pytest.importorskip("fsspec")
    urls = {"sqlite": None, "file": f"file://{tmp_path}/closed", "memory": f"memory://{tmp_path}/closed"}
    return lambda: open_book(urls[request.param], tmp_path)


def test_a_closed_day_is_read_back_by_another_process(shelves: Shelves) -> None:
    """
    Figures, cursors and token memory come back as they were written.
    """
    assert shelves().days() == set()
    assert shelves().read(DAY) is None
    written = shelves().write(page(), BITS)
    assert shelves().read(DAY) == written
    assert written.same_figures(page())
    assert shelves().days() == {DAY}
    assert shelves().bits(DAY) == BITS


def test_the_first_page_of_a_day_stays(shelves: Shelves) -> None:
    """
    Who closes a day for the second time gets the first one's page.
    """
    first = shelves().write(page(), BITS)
    digests = shelves().digests()
    assert shelves().write(page(counts={"1:14:0b5d": 6}), {}) == first
    assert shelves().digests() == digests
    assert shelves().bits(DAY) == BITS


def test_late_pages_follow_each_other_and_the_last_counts(shelves: Shelves) -> None:
    """
    Each repeats what came before; the memory of tokens is that of the newest.
    """
    shelves().write(page(), BITS)
    for n in range(1, 13):
        moved = page(counts={"1:14:0b5d": n}, producers={"0b" * 8: n})
        shelves().write_late(moved, {**BITS, b"b:other0000": bytes([n]) * 32})
    late = shelves().late(DAY)
    assert late
    assert late.counts == {"1:14:0b5d": 12}
    assert shelves().bits(DAY) == {**BITS, b"b:other0000": bytes([12]) * 32}
    assert shelves().read(DAY) == shelves().write(page(), {})


def test_a_late_page_that_knows_less_is_passed_over(shelves: Shelves) -> None:
    """
    Of two processes the slower may write last what it read first: what the quicker one knew still counts.
    """
    shelves().write(page(), BITS)
    shelves().write_late(page(producers={"0b" * 8: 9}), {b"b:known0000": bytes(32)})
    for _ in range(3):
        shelves().write_late(page(producers={"0b" * 8: 8}), BITS)
    late = shelves().late(DAY)
    assert late
    assert late.producers == {"0b" * 8: 9}
    assert shelves().bits(DAY) == {b"b:known0000": bytes(32)}


def test_another_archives_page_is_copied_byte_for_byte(shelves: Shelves, tmp_path: Path) -> None:
    """
    Copies have the same digest; what is no page is refused, and a page of one's own stays.
    """
    shelves().write(page(), BITS)
    (tmp_path / "second").mkdir()
    second = open_book(None, tmp_path / "second")
    second.copy(DAY, shelves().raw(DAY))
    assert second.digests() == shelves().digests()
    assert second.bits(DAY) is None
    with pytest.raises(ArchiveUnavailable, match="no page"):
        second.copy(DAY + 1, shelves().raw(DAY))
    with pytest.raises(ArchiveUnavailable, match="no page"):
        second.copy(DAY, b"{}")


def test_a_memory_without_its_late_page_is_not_believed(shelves: Shelves) -> None:
    """
    Killed between the two, the late page is written again; until then what it would say counts for nothing.
    """
    shelves().write(page(), BITS)
    book = shelves()
    real = book._put

    def put(name: str, data: bytes) -> None:
        if name.startswith("late-"):
            raise KeyboardInterrupt
        real(name, data)

    book._put = put  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        book.write_late(page(), {b"b:newer0000": bytes(32)})
    assert shelves().late(DAY) is None
    assert shelves().bits(DAY) == BITS


def test_tokens_are_forgotten_and_figures_stay(shelves: Shelves) -> None:
    for day in (DAY - 1, DAY):
        shelves().write(page(day), BITS)
    shelves().drop_bits(before=DAY)
    assert shelves().bits(DAY - 1) is None
    assert shelves().bits(DAY) == BITS
    assert shelves().days() == {DAY - 1, DAY}


def test_a_damaged_page_is_never_read(tmp_path: Path) -> None:
    """
    A digest that does not fit says so in words.
    """
    open_book(None, tmp_path).write(page(), BITS)
    with sqlite3.connect(tmp_path / "archive.sqlite") as book:
        book.execute(
            "UPDATE page SET data = CAST(replace(CAST(data AS TEXT), ':5', ':6') AS BLOB) WHERE name LIKE 'day-%'"
        )
    book.close()
    with pytest.raises(ArchiveUnavailable, match="missing or damaged"):
        open_book(None, tmp_path).read(DAY)


def test_what_does_not_read_back_is_an_error(tmp_path: Path) -> None:
    """
    A shelf that swallows a page is noticed before anything is deleted for it.
    """
    book = open_book(None, tmp_path)
    book._shelf.put = lambda name, data: None  # type: ignore[method-assign]
    with pytest.raises(ArchiveUnavailable, match="reads back other"):
        book.write(page(), BITS)


def test_an_archive_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveUnavailable, match="cannot be used"):
        open_book(None, tmp_path / "file" / "x").write(page(), BITS)
    with pytest.raises(ArchiveUnavailable, match="install adserver"):
        open_book("nosuch://user:secret@host/closed", tmp_path)


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    assert open_book(None, tmp_path).days() == set()
    assert list(tmp_path.iterdir()) == []
