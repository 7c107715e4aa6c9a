"""Counting without a journal, on real servers."""

import asyncio
from collections.abc import Awaitable, Callable

from adserver.direct import Direct
from adserver.events import Event, Type
from adserver.store import partition
from tests.edges.servers import Server
from tests.records import field_of

DAY = 20514
AD = b"\x01\x02\x03\x04\x05\x06\x07\x00"


def impression(serial: int, day: int = DAY, reason: int = 0) -> Event:
    return Event(Type.IMPRESSION, reason, day, 14, b"abcde", serial, AD, 1_772_000_000)


def counting(url: str, body: Callable[[Direct], Awaitable[None]]) -> None:
    async def main() -> None:
        direct, stopping = Direct(url), asyncio.Event()
        task = asyncio.create_task(direct.run(stopping))
        try:
            await body(direct)
        finally:
            stopping.set()
            await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_an_event_is_counted_once_however_often_it_is_sent(own_server: Server) -> None:
    """
    A store that syncs every write counts an event by its token's bit, and how many came this way stands beside.
    """

    async def body(direct: Direct) -> None:
        assert all(await asyncio.gather(*(direct.count(impression(n % 40), "1/a/b", 5) for n in range(700))))
        assert await direct.count(impression(7, reason=1), "1/a/b", 5)
        assert await direct.count(impression(7, DAY + 1), "1/a/b", 5)

    counting(own_server.url, body)
    with own_server.client() as client:
        counts = client.hgetall(partition(DAY))
        assert counts[field_of(impression(0)).encode()] == b"40"
        assert counts[b"@0000000000000000"] == b"40"
        assert client.hgetall(partition(DAY + 1))[field_of(impression(0)).encode()] == b"1"
        assert client.hget("as:ads", AD[:7].hex()) == b"1/a/b"
        assert client.info("commandstats")["cmdstat_hset"]["calls"] < 100  # many events, few batches


def test_a_store_that_syncs_later_holds_nothing(server: Server) -> None:
    """
    With appendfsync everysec an event is not acknowledged, because a power cut could take it.
    """

    async def body(direct: Direct) -> None:
        assert not await direct.count(impression(1), "1/a/b", 5)
        assert not await direct.count(impression(2), "1/a/b", 5)

    counting(server.url, body)
    with server.client() as client:
        assert not client.exists(partition(DAY))


def test_without_a_store_the_answer_is_no_and_comes_at_once() -> None:
    """
    Nobody waits for a store that is away, and stopping tells whoever waits.
    """

    async def body(direct: Direct) -> None:
        assert not await direct.count(impression(1), "1/a/b", 30)
        began = asyncio.get_running_loop().time()
        assert not any(await asyncio.gather(*(direct.count(impression(n), "1/a/b", 30) for n in range(100))))
        assert asyncio.get_running_loop().time() - began < 20

    counting("redis://127.0.0.1:1/0", body)
