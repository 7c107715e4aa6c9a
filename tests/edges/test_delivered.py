"""What line items have delivered, read from a real store's counts."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adserver import delivered
from adserver.archive import Book, Closed, SqliteShelf
from adserver.catalog import Catalog
from adserver.days import Days
from adserver.delivered import Delivered
from adserver.events import Event, Type, stored
from adserver.model import Goal, Measure, Rotation
from adserver.pacing import Figures
from adserver.store import Store
from adserver.tally import tally
from tests.make import catalog, line_item

Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]
DAYS = Days("Europe/Amsterdam")
NOON = DAYS.start(20_520) + 12 * 3600
TODAY, HOUR = DAYS.locate(NOON)


def made(**fields: object) -> Catalog:
    goal = {"goal": Goal(100, Measure.IMPRESSIONS), "starts": NOON - 20 * 86_400, **fields}
    return catalog(line_item("paced", creatives=("a", "b"), **goal), line_item("plain"))


class Journal:
    """A producer whose events are counted as soon as they happen."""

    def __init__(self, store: Store, of: Catalog) -> None:
        self._store, self._of, self._at, self._serial = store, of, dict[int, int](), 0

    async def count(
        self, type_: Type, creative: str, n: int, day: int = TODAY, hour: int = HOUR, reason: int = 0
    ) -> None:
        [ad] = [one for one in self._of.by_key.values() if one.creative.id == creative]
        await self._store.name_ads({ad.key: ad.name})
        events = []
        for _ in range(n):
            self._serial += 1
            events.append(Event(type_, reason, day, hour, b"\1\2\3\4\5", self._serial, ad.key + b"\0", int(NOON)))
        start = self._at.get(day, 0)
        self._at[day] = start + n
        await self._store.apply(b"12345678", tally(day, start, start + n, stored(events)))


def test_figures_are_net_and_by_line_item(with_store: Run) -> None:
    """
    Of all days since it began; invalid events are none, suspect ones are; only goals and optimised rotations are read.
    """
    of = made()

    async def body(store: Store) -> None:
        journal = Journal(store, of)
        await journal.count(Type.SERVED, "a", 5)
        await journal.count(Type.IMPRESSION, "a", 3)
        await journal.count(Type.IMPRESSION, "a", 2, reason=1)
        await journal.count(Type.IMPRESSION, "b", 1, reason=9)
        await journal.count(Type.CLICK, "b", 1)
        await journal.count(Type.IMPRESSION, "b", 4, day=TODAY - 1)
        await journal.count(Type.IMPRESSION, "b", 7, day=TODAY - 9)
        await journal.count(Type.IMPRESSION, "b", 9, day=TODAY - 21)
        await journal.count(Type.SERVED, "plain-loaf", 5)
        found = Delivered()
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals() == {"paced": Figures(5, 3 + 1 + 4 + 7, 0, 1)}
        assert found.totals(TODAY) == {"paced": Figures(5, 4, 0, 1)}
        assert found.creatives("paced") == {"a": Figures(5, 3), "b": Figures(0, 12, 0, 1)}

    with_store(body)


def test_the_next_look_sees_what_was_counted_since(with_store: Run) -> None:
    """
    The present hour and the one before are read each time, the whole day each minute; a new day begins at nothing.
    """
    of = made()

    async def body(store: Store) -> None:
        journal, found = Journal(store, of), Delivered()
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals() == {"paced": Figures()}
        for hour, total in ((HOUR, 2), (HOUR - 1, 4)):
            await journal.count(Type.IMPRESSION, "a", 2, hour=hour)
            await found.refresh(store, of, DAYS, NOON)
            assert found.totals()["paced"].impressions == total
        await journal.count(Type.IMPRESSION, "a", 2, hour=3)
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals()["paced"].impressions == 4
        await found.refresh(store, of, DAYS, NOON + 86_400)
        assert found.totals()["paced"].impressions == 6
        assert found.totals(TODAY + 1) == {"paced": Figures()}

    with_store(body)


def test_an_hour_from_long_ago_is_seen_within_a_minute(with_store: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Late events belong to their serve's hour.
    """
    of = made()
    monkeypatch.setattr(delivered, "WHOLE_EVERY_S", 0.0)

    async def body(store: Store) -> None:
        journal, found = Journal(store, of), Delivered()
        await found.refresh(store, of, DAYS, NOON)
        await journal.count(Type.IMPRESSION, "a", 2, hour=3)
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals()["paced"].impressions == 2

    with_store(body)


def test_another_catalog_is_read_for_at_once(with_store: Run) -> None:
    """
    A goal given to a booking that already ran counts what it delivered before.
    """
    before, after = catalog(line_item("paced", creatives=("a", "b"))), made()

    async def body(store: Store) -> None:
        journal, found = Journal(store, after), Delivered()
        await journal.count(Type.VIEWABLE, "a", 2, day=TODAY - 3)
        await found.refresh(store, before, DAYS, NOON)
        assert found.totals() == {}
        await found.refresh(store, after, DAYS, NOON)
        assert found.totals()["paced"] == Figures(viewables=2)

    with_store(body)
    assert before.measured == ()
    assert [one.id for one in catalog(line_item("o", rotation=Rotation.OPTIMISED)).measured] == ["o"]


def test_a_long_history_is_read_bit_by_bit(with_store: Run) -> None:
    """
    A goal given to a booking with months behind it is known once they are read; the others are known all the while.
    """
    old = line_item("old", creatives=("o",), goal=Goal(9, Measure.IMPRESSIONS), starts=NOON - 90 * 86_400)
    young = line_item("young", creatives=("y",), goal=Goal(9, Measure.IMPRESSIONS), starts=NOON - 3_600)
    before, after = catalog(young), catalog(young, old)

    async def body(store: Store) -> None:
        journal, found = Journal(store, after), Delivered()
        await journal.count(Type.IMPRESSION, "o", 2, day=TODAY - 80)
        await journal.count(Type.IMPRESSION, "y", 1)
        await found.refresh(store, before, DAYS, NOON, 0.0)
        await found.refresh(store, after, DAYS, NOON, 0.0)
        assert found.totals() == {"young": Figures(impressions=1)}
        rounds = 1
        while not found.complete:
            await found.refresh(store, after, DAYS, NOON, 0.0)
            rounds += 1
        assert rounds == 89, "a budget of nothing reads one day each time"
        assert found.totals() == {"young": Figures(impressions=1), "old": Figures(impressions=2)}

    with_store(body)


def test_a_changed_goal_reads_nothing_again(with_store: Run) -> None:
    """
    Days that are over are read once: another goal, and the next day, find them read.
    """
    first, second = made(), made(goal=Goal(50, Measure.CLICKS))

    async def body(store: Store) -> None:
        journal, found = Journal(store, first), Delivered()
        await journal.count(Type.IMPRESSION, "a", 2, day=TODAY - 9)
        await found.refresh(store, first, DAYS, NOON)
        await found.refresh(store, second, DAYS, NOON, 0.0)
        assert found.complete
        await found.refresh(store, second, DAYS, NOON + 86_400, 0.0)
        assert found.complete, "only the day that has become closed was read"
        assert found.totals() == {"paced": Figures(impressions=2)}

    with_store(body)


def old(day: int, n: int, of: Catalog) -> Closed:
    """A closed day on which *of*'s ads were seen *n* times."""
    [ad] = of.by_key.values()
    return Closed(day=day, zone="", producers={}, counts={f"3:9:{ad.key.hex()}": n}, ads={ad.key.hex(): ad.name},
                  missing=[], bits="")  # fmt: skip


@pytest.mark.parametrize("starts", [NOON - 900 * 86_400, NOON - 10_000 * 86_400, None])
def test_a_flight_may_be_longer_than_the_store_remembers(with_store: Run, tmp_path: Path, starts: float | None) -> None:
    """
    What the store has forgotten, or has not yet got back after it was wiped, is in the archive: a goal is neither begun
    anew nor waits for what nobody knows. What the store has is not counted twice.
    """
    of = catalog(line_item("paced", creatives=("a",), goal=Goal(100, Measure.IMPRESSIONS), starts=starts))
    book = Book(SqliteShelf(tmp_path / "archive.sqlite"), "test")
    for day, n in ((TODAY - 800, 5), (TODAY - 50, 7), (TODAY - 20, 30), (TODAY - 100, 99)):
        book.write(old(day, n, of), {})
    book.write_late(old(TODAY - 50, 1, of), {})

    async def body(store: Store) -> None:
        journal = Journal(store, of)
        await journal.count(Type.IMPRESSION, "a", 2, day=TODAY - 100)
        await journal.count(Type.IMPRESSION, "a", 1)
        found = Delivered(book)
        await found.refresh(store, of, DAYS, NOON)
        assert found.complete
        assert found.totals() == {"paced": Figures(impressions=5 + 7 + 1 + 30 + 2 + 1)}
        alone = Delivered()
        await alone.refresh(store, of, DAYS, NOON)
        assert alone.complete
        assert alone.totals() == {"paced": Figures(impressions=2 + 1)}

    with_store(body)


def test_while_the_archive_is_away_only_what_it_might_know_waits(
    with_store: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A goal that began before the store's memory ends is planned when the archive is back, the others at once.
    """
    monkeypatch.setattr(delivered, "WHOLE_EVERY_S", 0.0)
    goal = Goal(9, Measure.IMPRESSIONS)
    of = catalog(
        line_item("old", creatives=("o",), goal=goal, starts=NOON - 90 * 86_400),
        line_item("young", creatives=("y",), goal=goal, starts=NOON - 30 * 86_400),
    )
    (tmp_path / "archive.sqlite").write_bytes(b"no database" * 100)
    book = Book(SqliteShelf(tmp_path / "archive.sqlite"), "test")

    async def body(store: Store) -> None:
        await Journal(store, of).count(Type.IMPRESSION, "y", 2)
        found = Delivered(book)
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals() == {"young": Figures(impressions=2)}
        (tmp_path / "archive.sqlite").unlink()
        await found.refresh(store, of, DAYS, NOON)
        assert found.totals() == {"young": Figures(impressions=2), "old": Figures()}

    with_store(body)
