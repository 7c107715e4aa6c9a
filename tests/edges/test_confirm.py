"""Level 3 against a real primary and its replica: confirmed is what the replica really has, and nothing else is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from adserver import ship
from adserver.confirm import Confirmer
from adserver.events import Type
from adserver.journal import Journal, create_journal
from adserver.ship import Shipper
from adserver.store import open_store
from tests.edges.conftest import KINDS
from tests.edges.servers import Process, cluster, pair, sentinels, several, until

DAY = 20514
AD = bytes.fromhex("0b5d1122334455") + b"\0"
IMPRESSION = "3:14:0b5d1122334455"
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


def url_of(server: Process) -> str:
    return f"redis://127.0.0.1:{server.port}"


def put(journal: Journal, serial: int, day: int = DAY) -> int:
    return journal.append(Type.IMPRESSION, 0, day, 14, journal.issuer, serial, AD, 1_772_000_000.0)


Body = Callable[[Journal, Shipper, Confirmer], Awaitable[None]]


def confirming(root: Path, url: str, body: Body) -> None:
    """Run *body* beside a shipper and a confirmer that has been through one outage at most."""

    async def main() -> None:
        journal = create_journal(root)
        shipper = Shipper(journal, root, url)
        confirmer = Confirmer(shipper, url)
        stopping = asyncio.Event()
        loops = [asyncio.create_task(one.run(stopping)) for one in (shipper, confirmer)]
        try:
            async with asyncio.timeout(20):
                while shipper.trouble:  # noqa: ASYNC110 - the shipper tells nobody
                    await asyncio.sleep(0.01)
            await body(journal, shipper, confirmer)
        finally:
            stopping.set()
            await asyncio.gather(*loops)
            await journal.close()
            shipper.close()

    asyncio.run(main())


async def ask(journal: Journal, confirmer: Confirmer, serial: int, within_s: float = 2.0, day: int = DAY) -> bool:
    number = put(journal, serial, day)
    await journal.wait_synced()
    return await confirmer.confirmed(day, number, within_s)


async def counts(url: str, day: int = DAY) -> dict[str, int]:
    async with open_store(url) as store:
        return await store.counts(day)


async def eventually(url: str, expected: dict[str, int]) -> None:
    async with asyncio.timeout(10):
        while await counts(url) != expected:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


@pytest.fixture
def servers() -> Iterator[list[Process]]:
    with pair("valkey", *ALWAYS) as found:
        yield found


def test_what_is_confirmed_outlives_the_primary(servers: list[Process], tmp_path: Path) -> None:
    """
    The moment an event is confirmed its primary is killed: the replica, made primary and started again, has it.
    """
    primary, replica = servers

    async def body(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        for serial in range(20):
            assert await ask(journal, confirmer, serial)
        primary.kill()

    confirming(tmp_path, url_of(primary), body)
    replica.kill()
    replica.start()

    until(lambda: replica.says("PING"))
    assert asyncio.run(counts(url_of(replica))) == {IMPRESSION: 20}


def test_many_at_once_are_confirmed_soon(
    servers: list[Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A hundred events of three days wait together; none waits for the shipper's rest, however long that is.
    """
    monkeypatch.setattr(ship, "FLUSH_S", 3600)

    async def body(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        asked = [ask(journal, confirmer, serial, day=DAY + serial % 3) for serial in range(100)]
        assert all(await asyncio.gather(*asked))

    confirming(tmp_path, url_of(servers[0]), body)


def test_without_its_replica_nothing_is_confirmed_and_all_is_counted_once(
    servers: list[Process], tmp_path: Path
) -> None:
    """
    A replica that hangs and one that is gone: told within the time, counted all the same, confirmed once it is back.
    """
    primary, replica = servers

    async def body(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        assert await ask(journal, confirmer, 1)
        replica.pause()
        began = time.monotonic()
        assert not await ask(journal, confirmer, 2)
        assert time.monotonic() - began < 2.1
        await eventually(url_of(primary), {IMPRESSION: 2})
        replica.resume()
        async with asyncio.timeout(20):
            while not await ask(journal, confirmer, 3):  # the same token: counted once
                pass
        replica.kill()
        assert not await ask(journal, confirmer, 4)
        await eventually(url_of(primary), {IMPRESSION: 4})
        replica.start()
        await asyncio.to_thread(until, lambda: replica.says("REPLICAOF", "127.0.0.1", primary.port))
        async with asyncio.timeout(20):
            while not await ask(journal, confirmer, 5):
                pass
        await eventually(url_of(primary), {IMPRESSION: 5})

    confirming(tmp_path, url_of(primary), body)


@pytest.mark.parametrize("which", [0, 1])
def test_who_syncs_once_a_second_confirms_nothing(servers: list[Process], tmp_path: Path, which: int) -> None:
    """
    WAITAOF would answer too early there; it is noticed for the primary and for the replica, also while running.
    """

    async def body(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        assert await ask(journal, confirmer, 1)
        servers[which].ask("CONFIG SET", "appendfsync", "everysec")
        assert not await ask(journal, confirmer, 2)
        async with open_store(url_of(servers[0])) as store:
            assert "'appendfsync always'" in (await store.why_unconfirmed() or "")
        servers[which].ask("CONFIG SET", "appendfsync", "always")
        assert await ask(journal, confirmer, 3)

    confirming(tmp_path, url_of(servers[0]), body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_without_replica_says_at_once_that_it_confirms_nothing(kind: str, tmp_path: Path) -> None:
    """
    In words: WAITAOF is too new for it, or it has no replica. Nobody waits for that.
    """

    async def body(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        began = time.monotonic()
        assert not await ask(journal, confirmer, 1)
        assert time.monotonic() - began < 1
        async with open_store(url) as store:
            why = await store.why_unconfirmed()
        assert why in ("the store has no replica", "the store is version 7.0.15, and WAITAOF came with Redis 7.2")

    with several(kind, *ALWAYS, count=1) as ((server,), _):
        url = url_of(server)
        confirming(tmp_path, url, body)


def test_a_store_that_is_away_is_not_waited_for(servers: list[Process], tmp_path: Path) -> None:
    """
    Told as soon as the shipper has noticed; the event is counted when the store is back.
    """
    primary, _ = servers

    async def body(journal: Journal, shipper: Shipper, confirmer: Confirmer) -> None:
        assert await ask(journal, confirmer, 1)
        primary.kill()
        assert not await ask(journal, confirmer, 2)
        async with asyncio.timeout(10):
            while not shipper.trouble:  # noqa: ASYNC110 - the shipper tells nobody
                await asyncio.sleep(0.01)
        began = time.monotonic()
        assert not await ask(journal, confirmer, 3)
        assert time.monotonic() - began < 0.5
        primary.start()
        async with asyncio.timeout(20):
            while not await ask(journal, confirmer, 4):
                pass
        await eventually(url_of(primary), {IMPRESSION: 4})

    confirming(tmp_path, url_of(primary), body)


def test_behind_sentinels_and_on_a_cluster(tmp_path: Path) -> None:
    """
    The same there; on a cluster only days whose own server has a replica are confirmed.
    """

    async def all_confirmed(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        assert await ask(journal, confirmer, 1)

    async def some_confirmed(journal: Journal, _: Shipper, confirmer: Confirmer) -> None:
        found = {await ask(journal, confirmer, day, day=DAY + day) for day in range(9)}
        assert found == {True, False}

    with sentinels("valkey", "--appendfsync", "always") as watched:
        confirming(tmp_path / "a", watched.url, all_confirmed)
    with cluster("valkey", "--appendfsync", "always") as whole:
        confirming(tmp_path / "b", whole.url, some_confirmed)
