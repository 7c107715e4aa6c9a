"""A store to keep people in: Valkey, Redis where it is installed, and a cluster; empty at the start of each test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from adserver.store import Store, open_store
from tests.edges.conftest import KINDS
from tests.edges.servers import cluster, running_server

Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]


@pytest.fixture(scope="session", params=[*KINDS, "cluster"])
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], None]]]:
    """A store's URL, and how to empty it."""
    if request.param == "cluster":
        with cluster("valkey") as whole:

            def clean() -> None:
                for one in whole.servers[:3]:
                    one.ask("FLUSHALL")

            yield whole.url, clean
    else:
        with running_server(request.param) as server:
            yield server.url, server.clean


@pytest.fixture
def url(shared: tuple[str, Callable[[], None]]) -> str:
    found, clean = shared
    clean()
    return found


@pytest.fixture
def with_store(url: str) -> Run:
    """Runs a coroutine function with an open store."""

    def run(body: Callable[[Store], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with open_store(url, connections=128) as store:
                return await body(store)

        return asyncio.run(main())

    return run


from tests.console.desks import desk, desk_service  # noqa: E402, F401
