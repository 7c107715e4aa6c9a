"""A wall clock that jumps, through one worker's whole application: nothing is closed by a wrong time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adserver import answering, closing
from adserver.app import Worker
from adserver.days import Days
from adserver.settings import Settings
from adserver.store import Store, open_store
from tests.edges.servers import running_server
from tests.service.live import BROWSER, SAMPLE

DAY_S = 86400.0


class Clock:
    """The wall clock, and the one that nobody can set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, steady = time.time, answering._steady
        self.wall = self.steady = 0.0
        monkeypatch.setattr(time, "time", lambda: real() + self.wall)
        monkeypatch.setattr(answering, "_steady", lambda: steady() + self.steady)


async def until(probe: Callable[[], Awaitable[object]]) -> None:
    while not await probe():  # noqa: ASYNC110 - the store tells nobody
        await asyncio.sleep(0.01)


async def counted(store: Store, day: int) -> int:
    return sum((await store.counts(day)).values())


async def counts_all(store: Store, day: int) -> bool:
    return await counted(store, day) == 3


async def sealed(store: Store, day: int) -> bool:
    return (await store.state(day))[0]


@pytest.mark.parametrize("jumps", [True, False])
def test_a_day_is_closed_when_it_is_over_and_not_when_a_clock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, jumps: bool
) -> None:
    """
    The wall clock jumps by three days: the day that is held stays open, and is there when the clock is put right. Where
    three days do pass it is closed.
    """
    clock = Clock(monkeypatch)
    monkeypatch.setattr(closing, "EVERY_S", 0.05)

    async def main(url: str) -> None:
        worker = Worker(Settings(config=str(SAMPLE), data_dir=str(tmp_path), redis_url=url))
        lifespan: AbstractAsyncContextManager[Any] = worker._pages.router.lifespan_context(worker._pages)
        transport = httpx.ASGITransport(app=worker)
        agent = {"user-agent": BROWSER}
        async with (
            lifespan,
            httpx.AsyncClient(transport=transport, base_url="http://ads", headers=agent) as http,
            open_store(url) as store,
            asyncio.timeout(20),
        ):
            assert worker._tracking
            day = Days(worker._tracking._live.current.document.site.time_zone).locate(time.time())[0]
            await http.get("/ads/889990")
            await until(lambda: counted(store, day))
            clock.wall = 3 * DAY_S
            if not jumps:
                clock.steady = 3 * DAY_S
                await until(lambda: sealed(store, day))
                return
            await until(lambda: asyncio.sleep(0.01, "while the clock is wrong" in caplog.text))
            assert not await sealed(store, day)
            clock.wall = 0.0
            await http.get("/ads/889990")
            await until(lambda: asyncio.sleep(0.01, worker._delivery._answering.jump_s == 0))  # type: ignore[union-attr]
            await http.get("/ads/889990")
            await until(lambda: counts_all(store, day))

    with running_server("valkey") as server:
        asyncio.run(main(server.url))
