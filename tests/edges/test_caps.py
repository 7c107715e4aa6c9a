"""What readers have seen, in real stores: remembered, forgotten in time, and never waited for."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from adserver import metrics
from adserver.capping import Held
from adserver.caps import BUDGET_S, Caps
from adserver.catalog import Catalog
from adserver.decide import Decision, Filled
from adserver.model import Cap
from tests.edges.servers import Cluster, Server, cluster
from tests.make import NOON, SLOT, catalog, line_item

DAY = 86_400
ANN, BOB = b"a" * 16, b"b" * 16
OF = catalog(line_item("capped", frequency=(Cap(2, DAY), Cap(1, 60))), line_item("free"))


def shown(of: Catalog, name: str = "capped") -> list[Decision]:
    return [Filled(next(ad for ad in of.by_key.values() if ad.line_item.id == name))]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Caps]:
    caps = Caps(url)
    try:
        yield caps
    finally:
        await caps.close()


async def looked(caps: Caps, now: float, reader: bytes = ANN) -> Mapping[str, str]:
    """What a reader may not be shown, as soon as the store says so."""
    while True:
        found = await caps.look(OF, [SLOT], reader, now)
        if found is not None:
            return found.line_items
        await asyncio.sleep(0.05)


async def tell(caps: Caps, reader: bytes, now: float) -> None:
    """A view, remembered before this returns."""
    caps.tell(OF, shown(OF), reader, now)
    while caps._under_way:
        await asyncio.wait(caps._under_way)


def test_what_was_seen_is_held_back_everywhere(server: Server) -> None:
    """
    Another worker knows at once; other readers and what has no cap are not affected; after the window it may show.
    """

    async def body() -> None:
        async with opened(server.url) as caps, opened(server.url) as other:
            assert await looked(caps, NOON) == await looked(other, NOON) == {}
            await tell(caps, ANN, NOON)
            assert await looked(other, NOON + 1) == {"capped": "this reader has seen it once within a minute"}
            assert await looked(other, NOON + 1, BOB) == {}
            assert await looked(other, NOON + 61) == {}
            await tell(other, ANN, NOON + 61)
            assert await looked(caps, NOON + 130) == {"capped": "this reader has seen it 2 times within a day"}
            assert await looked(caps, NOON + DAY + 30) == {}

    asyncio.run(body())


def test_nothing_is_kept_longer_than_its_window(server: Server) -> None:
    """
    One key of a reader's hash, no longer lived than the longest cap; only the last views that a cap looks at.
    """

    async def body() -> None:
        async with opened(server.url) as caps:
            for n in range(5):
                await tell(caps, ANN, NOON + n)
            caps.tell(OF, shown(OF, "free"), BOB, NOON)
            caps.tell(OF, shown(OF), b"", NOON)

    asyncio.run(body())
    with server.client() as client:
        [key] = client.keys("as:*")
        assert key == b"as:{reader:" + ANN.hex().encode() + b"}"
        assert 0 < int(client.ttl(key)) <= DAY
        assert client.hgetall(key) == {
            b"line_item:capped": b"".join((int(NOON) + n).to_bytes(4, "big") for n in (3, 4))
        }


def test_who_is_unknown_is_told_nothing(server: Server) -> None:
    """
    Without a reader, or where nothing has a cap, nobody asks the store; a reader is known there all the same.
    """

    async def body() -> None:
        async with opened("unix:///nowhere/at.all") as caps:
            assert await caps.look(OF, [SLOT], b"", NOON) is None
            assert await caps.look(catalog(line_item()), [SLOT], ANN, NOON) == Held()
            assert metrics.CAPS_UNKNOWN._value.get() == before

    before = metrics.CAPS_UNKNOWN._value.get()
    asyncio.run(body())


def test_a_slow_store_is_not_waited_for(own_server: Server) -> None:
    """
    Stopped in its tracks it costs a page its budget, the next pages nothing; afterwards it is asked again.
    """

    async def body() -> None:
        async with opened(own_server.url) as caps:
            await tell(caps, ANN, NOON)
            own_server.pause()
            try:
                waited = []
                for _ in range(3):
                    began = time.perf_counter()
                    assert await caps.look(OF, [SLOT], ANN, NOON) is None
                    waited.append(time.perf_counter() - began)
                assert waited[0] >= BUDGET_S * 0.9
                assert max(waited) < 0.5, "the store's own timeout is a second"
                assert waited[1] < BUDGET_S
                assert waited[2] < BUDGET_S
            finally:
                own_server.resume()
            async with asyncio.timeout(10):
                found = await looked(caps, NOON + 1)
            assert found == {"capped": "this reader has seen it once within a minute"}

    asyncio.run(body())


def test_many_pages_at_once_are_asked_at_once(own_server: Server) -> None:
    """
    Fifty readers do not wait for one another: all are on their way before the first is answered, and each gets its own
    answer.
    """

    async def body() -> None:
        async with opened(own_server.url) as caps:
            readers = [bytes([n]) * 16 for n in range(50)]
            await tell(caps, readers[7], NOON)
            own_server.pause()
            try:
                asked = [asyncio.create_task(caps.look(OF, [SLOT], reader, NOON + 1)) for reader in readers]
                await asyncio.wait(asked)
                assert len(caps._under_way) == 50
                assert [one.result() for one in asked] == [None] * 50
            finally:
                own_server.resume()
            async with asyncio.timeout(20):
                found = await asyncio.gather(*(looked(caps, NOON + 1, reader) for reader in readers))
            assert [n for n, one in enumerate(found) if "capped" in one] == [7]

    asyncio.run(body())


@pytest.fixture(scope="module")
def on_cluster() -> Iterator[Cluster]:
    with cluster("valkey") as found:
        yield found


@pytest.mark.system
def test_readers_are_spread_over_a_cluster(on_cluster: Cluster) -> None:
    """
    Each reader's key is on one server, whichever it is.
    """

    async def body() -> None:
        async with opened(on_cluster.url) as caps:
            async with asyncio.timeout(20):
                await looked(caps, NOON)  # the first look has to find the servers
            for n in range(20):
                reader = bytes([n]) * 16
                await tell(caps, reader, NOON)
                found = await caps.look(OF, [SLOT], reader, NOON + 1)
                assert found is None or "capped" in found.line_items

    asyncio.run(body())
    primaries = on_cluster.servers[:3]
    assert sum(len(one.ask("KEYS", "as:{reader:*")) for one in primaries) == 20
