"""What a worker has heard of goals, for who asks what is to come."""

import asyncio
import time

from adserver.catalog import Catalog
from adserver.days import Days
from adserver.events import Type
from adserver.model import Goal, Measure
from adserver.pacer import Pacer, read_pace
from adserver.store import open_store
from tests.edges.servers import Server
from tests.edges.test_delivered import Journal
from tests.make import catalog, line_item

DAY_S = 86_400


def booked(*more: str) -> Catalog:
    """Half of a goal of 4,000 is delivered, of a flight that began long ago and ends in ten days."""
    now = time.time()
    goal = {"goal": Goal(4000, Measure.IMPRESSIONS), "starts": now - 300 * DAY_S, "ends": now + 10 * DAY_S}
    return catalog(*(line_item(name, creatives=(f"{name}-a",), **goal) for name in ("paced", *more)))


def test_a_later_instant_is_planned_by_what_the_worker_has_heard(server: Server) -> None:
    """
    The pace is that of a reader who goes through all days, and needs none of them; a draft's own goal is read for.
    """
    live, draft = booked(), booked("new")

    async def body() -> None:
        stopping = asyncio.Event()
        async with open_store(server.url) as store:
            today, hour = Days(live.document.site.time_zone).locate(time.time())
            await Journal(store, live).count(Type.IMPRESSION, "paced-a", 2000, day=today - 200, hour=hour)
            pacer = Pacer({1: 5})

            def current() -> Catalog:
                """What a round begins with; the round that finds everything known is the last."""
                if pacer.known is not None and pacer.known.heard.whole:
                    stopping.set()
                return live

            async with asyncio.timeout(20):
                await pacer.run(current, server.url, stopping)
            known, now = pacer.known, time.time()
            at = now + 5 * DAY_S
            read = await read_pace(store, live, now, at)
            assert read.shares["paced"] > 0
            assert await read_pace(store, live, now, at, known) == read
            with_new = await read_pace(store, draft, now, at)
            assert set(with_new.shares) == {"paced", "new"}
            assert await read_pace(store, draft, now, at, known) == with_new
            assert await read_pace(store, live, now, now - DAY_S, known) == await read_pace(
                store, live, now, now - DAY_S
            )

            await store.ask("FLUSHALL")
            assert await read_pace(store, live, now, at, known) == read, "it has read no day"
            assert await read_pace(store, live, now, at) != read

    asyncio.run(body())
