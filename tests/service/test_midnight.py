"""An ad shown in the last second of a day and clicked in the next day, through one worker's whole application."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adserver import answering
from adserver.app import Worker
from adserver.days import Days
from adserver.events import TOKEN_BIT, Type
from adserver.settings import Settings
from adserver.store import partition
from tests.edges.servers import running_server
from tests.service.live import BROWSER, SAMPLE, tokens

ZONE = "Europe/Amsterdam"
TODAY = Days(ZONE).locate(time.time())[0]
MIDNIGHT = Days(ZONE).start(TODAY + 1)


class Clock:
    """Both clocks, in seconds; they stand still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = MIDNIGHT - 1
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(answering, "_steady", lambda: self.wall)


async def counted(read: Callable[[int], Any], events: int) -> dict[bytes, bytes]:
    """Today's partition, once its one producer's cursor stands at *events*."""
    async with asyncio.timeout(20):
        while True:
            found: dict[bytes, bytes] = await asyncio.to_thread(read, TODAY)
            if [value for name, value in found.items() if name[:1] == b"@"] == [b"%d" % events]:
                return found
            await asyncio.sleep(0.01)


def test_a_beacon_before_midnight_and_its_click_after_it_stand_in_one_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Shown at 23:59:59 and clicked at 00:00:10: both count, in the partition of the day and hour that served the ad.
    """
    clock = Clock(monkeypatch)

    async def main(url: str, read: Callable[[int], Any]) -> None:
        worker = Worker(Settings(config=str(SAMPLE), data_dir=str(tmp_path), redis_url=url))
        lifespan: AbstractAsyncContextManager[Any] = worker._pages.router.lifespan_context(worker._pages)
        transport = httpx.ASGITransport(app=worker)
        agent = {"user-agent": BROWSER}
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://ads", headers=agent) as http:
            [token] = tokens((await http.get("/ads/889990")).text)
            shown = await http.get(f"/i/{token}")
            clock.wall = MIDNIGHT + 10
            clicked = await http.get(f"/c/{token}")
            served_after = await http.get("/ads/889990")
            found = await counted(read, 3)
        assert (shown.status_code, clicked.status_code, served_after.status_code) == (200, 302, 200)
        assert not [answer for answer in (shown, clicked) if "adserver-ignored" in answer.headers]

        counts = {name[:5]: value for name, value in found.items() if name[:1] in b"12345"}
        assert counts == {b"1:23:": b"1", b"3:23:": b"1", b"5:23:": b"1"}
        [bits] = [value for name, value in found.items() if name[:2] == b"b:"]
        both = 1 << TOKEN_BIT[Type.IMPRESSION] | 1 << TOKEN_BIT[Type.CLICK]
        assert bits == both.to_bytes(32, "little")
        after = await asyncio.to_thread(read, TODAY + 1)
        assert {name[:4]: value for name, value in after.items() if name[:1] in b"12345"} == {b"1:0:": b"1"}
        assert not [name for name in after if name[:2] == b"b:"]

    with running_server("valkey") as server, server.client() as client:
        asyncio.run(main(server.url, lambda day: client.hgetall(partition(day))))
