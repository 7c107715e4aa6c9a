"""A worker that was cut off from its store for long, through its whole application: live events do not wait."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adserver import ship
from adserver.app import Worker
from adserver.journal import Journal
from adserver.settings import Settings
from tests.edges.servers import running_server
from tests.service.live import BROWSER, SAMPLE, tokens

EVENTS = 40


async def page_view(http: httpx.AsyncClient) -> None:
    """An ad is fetched and seen."""
    [token] = tokens((await http.get("/ads/889990")).text)
    answer = await http.get(f"/i/{token}")
    assert answer.status_code == 200
    assert "adserver-ignored" not in answer.headers


async def impressions(http: httpx.AsyncClient) -> int:
    """What the report shows; 0 where the store is away."""
    rows = (await http.get("/api/report?by=slot")).json().get("rows", [])
    return sum(row["impressions"] for row in rows)


@pytest.mark.parametrize("far", [True, False])
def test_a_worker_far_behind_goes_on_in_a_new_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, far: bool
) -> None:
    """
    What waited is counted out of the journal that was let go, and what comes now out of a new one: each event once.
    With little waiting the journal stays.
    """
    monkeypatch.setattr(ship, "FAR_BEHIND", EVENTS if far else 3 * EVENTS)
    monkeypatch.setattr(ship, "ADOPT_S", 0.05)

    async def until(probe: Any, expected: object) -> None:
        async with asyncio.timeout(20):
            while await probe() != expected:  # noqa: ASYNC110 - it may depend on anything
                await asyncio.sleep(0.02)

    async def main(server: Any) -> None:
        worker = Worker(Settings(config=str(SAMPLE), data_dir=str(tmp_path), redis_url=server.url))
        lifespan: AbstractAsyncContextManager[Any] = worker._pages.router.lifespan_context(worker._pages)
        transport = httpx.ASGITransport(app=worker)
        agent = {"user-agent": BROWSER}
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://ads", headers=agent) as http:
            tracking = worker._tracking
            assert tracking
            before = tracking._journal
            assert isinstance(before, Journal)
            await page_view(http)
            await until(lambda: impressions(http), 1)
            server.kill()
            for _ in range(EVENTS):
                await page_view(http)
            assert tracking._journal is before
            server.start()
            await until(lambda: impressions(http), 1 + EVENTS)
            assert (tracking._journal is not before) == far
            assert all(user._journal is tracking._journal for user in (worker._delivery._answering, tracking))  # type: ignore[union-attr]
            await page_view(http)
            await until(lambda: impressions(http), 2 + EVENTS)
            assert before.written == (2 + 2 * EVENTS if far else 4 + 2 * EVENTS)
            ready = (await http.get("/readyz")).json()
            assert ready["status"] != "failing", ready

    with running_server("valkey") as server:
        asyncio.run(main(server))
    left = [path for path in (tmp_path / "journal").iterdir() if path.is_dir()]
    assert len(left) == (2 if far else 1)
