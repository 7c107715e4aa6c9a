"""Sums by day on a real store: closed days from the archive's page, open ones fresh, large ones kept for all."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from adserver.archive import Book, Closed, SqliteShelf
from adserver.catalog import ad_key
from adserver.console import sums
from adserver.console.figures import add_all
from adserver.console.sums import Sums
from adserver.days import Days
from adserver.store import Store, partition

Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]
ZONE = Days("Europe/Amsterdam")
NOW = 1_780_000_000.0
TODAY, HOUR = ZONE.locate(NOW)


def book(tmp_path: Path) -> Book:
    return Book(SqliteShelf(tmp_path / "archive.sqlite"), "test")


def counts_of(ads: int, hours: int = 24) -> tuple[dict[str, int], dict[bytes, str]]:
    names = {ad_key(name): name for name in (f"{889_000 + n % 9}/item-{n}/one" for n in range(ads))}
    return {f"{kind}:{hour}:{key.hex()}": 2 for key in names for hour in range(hours) for kind in (1, 3, 4)}, names


async def fill(store: Store, day: int, counts: dict[str, int], names: dict[bytes, str], *, open_: bool) -> None:
    await store.name_ads(names)
    await store.restore(day, counts, "test")
    if open_:
        await store.ask("HDEL", partition(day), "sealed")


def test_a_day_is_read_as_it_was_counted(with_store: Run, tmp_path: Path) -> None:
    """
    An open day, a sealed one and one that the store knows only as the archive's page give the same sums.
    """
    counts, names = counts_of(3)

    async def body(store: Store) -> None:
        await fill(store, TODAY, counts, names, open_=True)
        await fill(store, TODAY - 1, counts, names, open_=False)
        named = {key.hex(): name for key, name in names.items()}
        page = Closed(day=TODAY - 2, zone="", producers={}, counts=counts, ads=named, missing=[], bits="")
        await store.restore(TODAY - 2, counts, "test")
        await store.tidy(TODAY - 2, "0" * 32, msgspec.json.encode(page))
        archived = book(tmp_path)
        archived.write(msgspec.structs.replace(page, day=TODAY - 3), {})
        found = await Sums(archived).read(store, ZONE, NOW, TODAY - 3, TODAY)
        assert [day.number for day in found] == [TODAY - 3, TODAY - 2, TODAY - 1, TODAY]
        assert [day.final for day in found] == [True, True, False, False]
        assert all(day.by_ad == found[0].by_ad for day in found)
        assert found[0].total.impressions == 3 * 24 * 2

    with_store(body)


def test_a_day_is_read_from_its_first_second(with_store: Run, tmp_path: Path) -> None:
    """
    At every hour of the newsroom's day, also in the first, when none is over yet, and on days of 23 and 25 hours.
    """
    counts, names = counts_of(2, hours=1)
    changes = [ZONE.number(date(2026, 3, 29)), ZONE.number(date(2026, 10, 25))]

    async def body(store: Store) -> None:
        for day in (TODAY, *changes):
            await fill(store, day, counts, names, open_=True)
            for now in range(int(ZONE.start(day)), int(ZONE.start(day + 1)), 1800):
                (found,) = await Sums(book(tmp_path)).read(store, ZONE, now, day, day)
                assert found.total.impressions == 2 * 2

    with_store(body)


def test_hours_of_some_ads_are_theirs_alone(with_store: Run, tmp_path: Path) -> None:
    """
    The hours of one ad are those of its own counts.
    """
    counts, names = counts_of(3)

    async def body(store: Store) -> None:
        await fill(store, TODAY, counts, names, open_=True)
        mine = Sums(book(tmp_path))
        (day,) = await mine.read(store, ZONE, NOW, TODAY, TODAY)
        hours = await mine.read_hours(store, day, ["889001/item-1/one", "889001//", "889001/gone/one"])
        assert sorted(hours) == list(range(24))
        assert add_all(hours.values()) == day.by_ad["889001/item-1/one"]

    with_store(body)


def test_a_small_open_day_is_always_fresh(with_store: Run, tmp_path: Path) -> None:
    """
    What was counted meanwhile is in the next page, and nothing of a small day is kept in the store.
    """
    counts, names = counts_of(3)

    async def body(store: Store) -> None:
        await fill(store, TODAY, counts, names, open_=True)
        mine = Sums(book(tmp_path), fresh_s=0.0)
        (before,) = await mine.read(store, ZONE, NOW, TODAY, TODAY)
        await store.ask("HINCRBY", partition(TODAY), next(field for field in counts if field[0] == "3"), 5)
        (after,) = await mine.read(store, ZONE, NOW, TODAY, TODAY)
        assert after.total.impressions == before.total.impressions + 5
        assert await store.ask("GET", sums._key(TODAY)) is None

    with_store(body)


def test_a_large_day_is_added_up_once_for_all(with_store: Run, tmp_path: Path) -> None:
    """
    Another worker takes a large day as the store keeps it, at once; the loop then reads what came since.
    """
    counts, names = counts_of(sums.MANY // 60, HOUR + 1)
    late = next(field for field in counts if field.startswith(f"3:{HOUR}:"))

    async def body(store: Store) -> None:
        await fill(store, TODAY, counts, names, open_=True)
        (first,) = await Sums(book(tmp_path)).read(store, ZONE, NOW, TODAY, TODAY)
        assert await store.ask("GET", sums._key(TODAY)) is not None
        await store.ask("HINCRBY", partition(TODAY), late, 5)
        other = Sums(book(tmp_path))
        (kept,) = await other.read(store, ZONE, NOW + 60, TODAY, TODAY)
        assert kept.by_ad == first.by_ad
        await other._renew(store, ZONE, NOW + 60, TODAY, at_once=False)
        (renewed,) = await other.read(store, ZONE, NOW + 60, TODAY, TODAY)
        assert renewed.total.impressions == first.total.impressions + 5

    with_store(body)


def test_the_loop_ends_when_it_is_told(with_store: Run, tmp_path: Path) -> None:
    """
    The loop that adds up ahead stops with the server, also when the store is away.
    """

    async def body(_: Store) -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(Sums(book(tmp_path)).follow(f"unix://{tmp_path}/none.sock", lambda: ZONE, stopping))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(task, 10)

    with_store(body)
