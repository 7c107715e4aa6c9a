"""Traffic curves in a real store: workers add up, days are put away once, what strangers wrote is ignored."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from adserver.curves import (
    MOST_PAGES,
    SAMPLED_DAYS,
    Curves,
    put_away,
    read_day,
    read_live,
    read_pages,
    sample_of,
    settled,
)
from adserver.days import Days
from adserver.decide import Page
from adserver.errors import StoreRefused
from adserver.model import SlotId
from adserver.store import Store
from adserver.targeting import NO_READER, know
from adserver.traffic import STEPS
from tests.edges.servers import Server
from tests.make import NOON, SLOT, group

Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]
DAYS = Days("UTC")
TODAY = DAYS.locate(NOON)[0]
STEP = STEPS // 2
"""Noon's."""


def test_what_workers_hand_over_adds_up(with_store: Run) -> None:
    """
    Two workers' requests of one step are summed; a later step is another number; other slots have none.
    """

    async def body(store: Store) -> None:
        for n in (3, 4):
            curves = Curves()
            curves.add({SLOT: n}, DAYS, NOON)
            curves.add({SLOT: 1}, DAYS, NOON)
            curves.add({SLOT: 10}, DAYS, NOON + 301)
            await curves.flush(store)
            await curves.flush(store)
        found = await read_live(store, TODAY, [SLOT, 5])
        assert found.keys() == {SLOT}
        assert {at: n for at, n in enumerate(found[SLOT]) if n} == {STEP: 9, STEP + 1: 20}

    with_store(body)


def test_a_day_is_put_away_once(with_store: Run) -> None:
    """
    Afterwards it reads the same, give or take 3 %, and the room it took is given back; a second time changes nothing.
    """

    async def body(store: Store) -> None:
        curves = Curves()
        curves.add({SLOT: 1001, 5: 2}, DAYS, NOON)
        await curves.flush(store)
        assert (await read_day(store, TODAY, [SLOT]))[SLOT][STEP] == 1001
        await put_away(store, TODAY, [SLOT, 5])
        assert await read_live(store, TODAY, [SLOT]) == {}
        await put_away(store, TODAY, [SLOT, 5])
        found = await read_day(store, TODAY, [SLOT, 5, 6])
        assert found.keys() == {SLOT, 5}
        assert found[SLOT][STEP] == pytest.approx(1001, rel=0.03)
        assert found[5][STEP] == 2
        assert await read_day(store, TODAY - 1, [SLOT]) == {}

    with_store(body)


def test_five_weeks_of_a_thousand_slots_take_a_few_megabytes(server: Server, with_store: Run) -> None:
    """
    A day of 1,000 busy slots with noise, put away, is below 170 kB: 35 of them below 6 MB.
    """
    from random import Random

    dice = Random(1)
    slots = range(1000)

    async def body(store: Store) -> None:
        with server.client() as client:
            for slot in slots:
                steps = [max(0, round(dice.gauss(100, 10))).to_bytes(4, "big") for _ in range(STEPS)]
                client.set(f"as:{{curves}}:{TODAY}:{slot}", b"".join(steps))
            await put_away(store, TODAY, slots)
            assert int(client.memory_usage(f"as:{{curves}}:{TODAY}") or 0) < 170_000

    with_store(body)


def test_pages_are_kept_as_long_as_they_are_read(server: Server, with_store: Run) -> None:
    """
    Over a week, and those of days gone by compressed: 8 days of all different pages take less than 4 MB beside the
    curves, of which two days are not put away yet.
    """
    from random import Random

    dice = Random(1)

    def page(n: int) -> Page:
        words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(9)]
        url = f"https://www.courier.example/{words[0]}/2026/03/{n}-{'-'.join(words[1:7])}"
        keys = {"author": [words[7]], "subscription": [dice.choice(("none", "trial", "full"))]}
        said = {"section": dice.choice(("sport", "news", "business")), "lang": "nl-NL", "device": "phone"}
        context = know(tags=words[7:], url=url, keys=keys, **said)
        return Page(tuple(SlotId(889_000 + dice.randrange(1000)) for _ in range(5)), context=context)

    async def body(store: Store) -> None:
        curves = Curves()
        for n in range(MOST_PAGES):
            curves.add_page(page(n), DAYS, NOON)
            if n % 400 == 399:
                await curves.flush(store)
        with server.client() as client:
            [live] = client.keys("as:*")
            assert 7 * 86_400 < client.ttl(live) <= 9 * 86_400
            of_today = int(client.memory_usage(live, samples=0) or 0)
            before = await read_pages(store, [TODAY])
            await put_away(store, TODAY, [])
            assert not client.exists(live)
            [whole] = client.keys("as:*")
            assert 7 * 86_400 < client.ttl(whole) <= 9 * 86_400
            of_a_day = int(client.memory_usage(whole) or 0)
        assert await read_pages(store, [TODAY]) == before
        assert len(before) == MOST_PAGES
        await put_away(store, TODAY, [])
        assert await read_pages(store, [TODAY]) == before
        assert 2 * of_today + (SAMPLED_DAYS - 2) * of_a_day < 4_000_000, (of_today, of_a_day)

    with_store(body)


def test_sampled_pages_say_nothing_of_who_read_them(with_store: Run) -> None:
    """
    Asks, facts, the path and whether anybody was named stay; a query, a fragment and a password of the address do not.
    """
    context = know(section="sport", tags=["a"], url="https://ann:pw@Site.example/live/1?reader=ann#x")
    page = Page((SLOT, group(889991, id="side")), context=context)

    async def body(store: Store) -> None:
        curves = Curves()
        curves.add_page(page, DAYS, NOON)
        await curves.flush(store)
        [found] = await read_pages(store, [TODAY - 1, TODAY])
        assert found == sample_of(page)
        assert found.asks == (SLOT, "side")
        assert found.context.facts == {"section=sport", "tag=a", NO_READER}
        assert sample_of(structs.replace(page, held={"seen": "enough"})).facts == ("section=sport", "tag=a")
        assert (found.path, found.address) == ("/live/1", "https://site.example/live/1")

    with_store(body)


def test_a_day_keeps_so_many_pages(with_store: Run) -> None:
    """
    Beyond its most, a new page takes the place of an old one, all over.
    """

    async def body(store: Store) -> None:
        curves = Curves()
        for n in range(MOST_PAGES + 400):
            curves.add_page(Page((SLOT,), context=know(section=str(n))), DAYS, NOON)
            if n % 400 == 399:
                await curves.flush(store)
        found = [int(one.facts[-1].removeprefix("section=")) for one in await read_pages(store, [TODAY])]
        assert len(found) == MOST_PAGES
        late = [n for n in found if n >= MOST_PAGES]
        assert 300 < len(late) <= 400

    with_store(body)


def test_what_others_wrote_is_no_curve(server: Server, with_store: Run) -> None:
    """
    A damaged day is refused in words; a page that is none is left out.
    """

    async def body(store: Store) -> None:
        with server.client() as client:
            client.set(f"as:{{curves}}:{TODAY}", b"junk")
            client.rpush(f"as:{{curves}}:{TODAY}:pages", b"junk", b"\xff")
            client.set(f"as:{{curves}}:{TODAY}:pages:whole", b"junk")
        assert await read_pages(store, [TODAY]) == []
        with pytest.raises(StoreRefused, match="holds no curve"):
            await read_day(store, TODAY, [SLOT])

    with_store(body)


def test_days_are_put_away_a_quarter_of_an_hour_after_their_end() -> None:
    """
    The last requests of a day are handed over a little after it.
    """
    midnight = DAYS.start(TODAY)
    assert settled(DAYS, midnight + 899) == [TODAY - 3, TODAY - 2]
    assert settled(DAYS, midnight + 901) == [TODAY - 2, TODAY - 1]
