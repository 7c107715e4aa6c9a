"""Store servers, each test against Valkey and, where it is installed, against Redis; and a journals' root."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from adserver.store import Store, open_store
from tests.edges.journals import Disk, HandledKernel
from tests.edges.servers import REDIS, Server, running_server

T = TypeVar("T")

KINDS = [
    "valkey",
    pytest.param(
        "redis", marks=[pytest.mark.system, pytest.mark.skipif(not REDIS, reason="redis-server is not installed")]
    ),
]


@pytest.fixture(scope="session", params=KINDS)
def shared_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running_server(request.param) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A running, empty server. It is shared: a test that kills it or changes its settings takes *own_server*."""
    shared_server.clean()
    return shared_server


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test's own, with its append-only file synced at every write."""
    with running_server(request.param, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


WithStore = Callable[[Callable[[Store], Awaitable[T]]], T]


@pytest.fixture
def with_store(server: Server) -> Callable[[Callable[[Store], Awaitable[object]]], object]:
    """Runs a coroutine function with an open store."""

    def run(body: Callable[[Store], Awaitable[object]]) -> object:
        async def main() -> object:
            async with open_store(server.url) as store:
                return await body(store)

        return asyncio.run(main())

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(params=[None, HandledKernel], ids=["thread", "kernel"])
def disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Replaced syncs, by a thread and by the kernel: neither fails or hangs on demand."""
    disk = Disk(monkeypatch, request.param)
    yield disk
    for fd in disk.failed.values():
        os.close(fd)
    assert not disk.again, "a descriptor whose sync failed was synced again"
