"""A store of several servers, real ones: behind sentinels and as a cluster, with the primary killed amid shipping."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adserver import neighbours, versions
from adserver.documents import Document
from adserver.errors import Conflict, StoreRefused, StoreUnavailable
from adserver.events import Event, Type
from adserver.journal import create_journal
from adserver.neighbours import look
from adserver.segments import HEADER, RECORD
from adserver.ship import Shipper
from adserver.store import Applied, Mismatch, Store, open_store, partition
from adserver.tally import Batch, tally
from adserver.versions import Version
from tests.edges.conftest import KINDS
from tests.edges.servers import Cluster, Process, Sentinels, cluster, sentinels, several
from tests.records import stored

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
DAY = 20514
P = b"\x01producer"[:8]
AD = bytes.fromhex("0b5d1122334455") + b"\0"
IMPRESSION = "3:14:0b5d1122334455"
SERVED = "1:14:0b5d1122334455"


@pytest.fixture(scope="module", params=KINDS)
def behind_sentinels(request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    with sentinels(request.param) as found:
        yield found


@pytest.fixture(scope="module", params=KINDS)
def on_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster(request.param) as found:
        yield found


def batch(day: int, start: int, *serials: int) -> Batch:
    made = [Event(Type.IMPRESSION, 0, day, 14, b"abcde", serial, AD, 1_772_000_000) for serial in serials]
    return tally(day, start, start + len(made), stored(made))


def with_url(url: str, body: Callable[[Store], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with open_store(url) as store:
            return await body(store)

    return asyncio.run(main())


def journal_and_kill(root: Path, url: str, kill: Callable[[], None], days: int) -> dict[int, dict[str, int]]:
    """Journal events of *days* days before, while and after *kill* runs, ship them all; each day's counts."""

    async def main() -> dict[int, dict[str, int]]:
        journal = create_journal(root, segment_bytes=HEADER + 256 * RECORD)
        shipper = Shipper(journal, root, url)
        stopping = asyncio.Event()
        shipping = asyncio.create_task(shipper.run(stopping))
        killing = asyncio.create_task(asyncio.to_thread(kill))
        serial = 0
        more_until = float("inf")
        while time.monotonic() < more_until:
            for _ in range(40):
                day = DAY + serial % days
                journal.append(Type.IMPRESSION, 0, day, 14, journal.issuer, serial, AD, 1_772_000_000.0)
                journal.append(Type.SERVED, 0, day, 14, journal.issuer, 0, AD, 1_772_000_000.0)
                serial += 1
            await asyncio.sleep(0.01)
            if killing.done() and more_until == float("inf"):
                more_until = time.monotonic() + 0.3
        await killing
        await journal.drain()
        async with asyncio.timeout(30):
            while shipper.waiting() or shipper.trouble:  # noqa: ASYNC110 - the shipper tells nobody
                await asyncio.sleep(0.02)
        stopping.set()
        await shipping
        await journal.close()
        shipper.close()
        journalled.update(Counter(DAY + n % days for n in range(serial)))
        async with open_store(url) as store:
            return {day: await store.counts(day) for day in journalled}

    journalled: Counter[int] = Counter()
    found = asyncio.run(main())
    assert min(journalled.values()) > 100
    assert found == {day: {IMPRESSION: count, SERVED: count} for day, count in journalled.items()}
    return found


def use_it_for_everything(store: Store) -> Awaitable[None]:
    async def main() -> None:
        health = await store.check()
        assert health.version[0].isdigit()
        assert health.warnings == ()
        for day in range(DAY, DAY + 12):
            assert await store.apply(P, batch(day, 0, 1, 1)) == Applied(2, 1)
            assert await store.apply(P, batch(day, 0, 1, 1)) == Mismatch(2)
            assert await store.cursors(day, [P]) == [2]
            assert await store.counts(day) == {IMPRESSION: 1}
        await store.name_ads({AD[:7]: "889990/spring/loaf"})
        assert await store.ad_names() == {AD[:7].hex(): "889990/spring/loaf"}
        assert await store.ask("TIME")
        live = Version(number=1, author="ann", at=1.0, note="first", document=Document())
        image = {f"{'0' * 32}.png": b"data"}
        await versions.publish(store, live, image, 0)
        assert await versions.live_number(store) == 1
        assert await versions.read_version(store, 1) == live
        with pytest.raises(Conflict):
            await versions.publish(store, live, image, 0)

    return main()


def test_behind_sentinels_everything_works(behind_sentinels: Sentinels) -> None:
    """
    Counting, names and versions go to whom the sentinels call primary.
    """
    with_url(behind_sentinels.url, use_it_for_everything)


def test_on_a_cluster_everything_works_on_every_server(on_cluster: Cluster) -> None:
    """
    Twelve days lie on all three servers, each on one; the script is given to each of them.
    """
    with_url(on_cluster.url, use_it_for_everything)

    held = [sum(b"as:{20" in bytes(key) for key in one.ask("KEYS", "*")) for one in on_cluster.servers[:3]]
    assert min(held) > 0
    assert sum(held) == 12


def test_a_server_of_a_cluster_that_may_evict_is_refused(on_cluster: Cluster) -> None:
    """
    Every primary is looked at, not the first alone.
    """

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match="'allkeys-lru'"):
            await store.check()

    for server in on_cluster.servers[:3]:
        server.ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
        try:
            with_url(on_cluster.url, body)
        finally:
            server.ask("CONFIG SET", "maxmemory-policy", "noeviction")


def test_one_server_of_a_cluster_alone_is_refused(on_cluster: Cluster) -> None:
    """
    A redis:// URL would reach a third of the keys; the sentence says how to begin the URL.
    """

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match=r"redis\+cluster://"):
            await store.check()

    with_url(f"redis://127.0.0.1:{on_cluster.servers[0].port}", body)


def test_a_url_of_another_form_than_the_server_is_an_outage() -> None:
    """
    A lone server is no cluster and no sentinel; a sentinel that does not know the name says so.
    """

    async def body(store: Store) -> None:
        for _ in range(2):
            with pytest.raises(
                StoreUnavailable, match=r"Cluster mode is not enabled|SENTINEL|unknown command|No master"
            ):
                await store.check()

    with several("valkey", count=1) as ((server,), _):
        with_url(f"redis+cluster://127.0.0.1:{server.port}", body)
        with_url(f"redis+sentinel://127.0.0.1:{server.port}/mymaster", body)


def test_a_name_the_sentinels_do_not_know_is_an_outage(behind_sentinels: Sentinels) -> None:
    """
    It is named.
    """

    async def body(store: Store) -> None:
        with pytest.raises(StoreUnavailable, match="another"):
            await store.check()

    with_url(behind_sentinels.url.replace("mymaster", "another"), body)


def test_a_sentinel_that_is_away_or_hangs_is_passed_over(behind_sentinels: Sentinels) -> None:
    """
    One that is not there and one that is stopped cost less than the second a command has.
    """

    async def body(store: Store) -> None:
        assert await store.ask("PING")

    hung = behind_sentinels.sentinels[0]
    hung.pause()
    try:
        for _ in range(6):  # in an order of its own each time
            with_url(behind_sentinels.url.replace("//", "//127.0.0.1:1,"), body)
    finally:
        hung.resume()


def test_a_cancelled_command_on_a_cluster_leaves_no_answer_behind(on_cluster: Cluster) -> None:
    """
    The cancellation is heard, and what the server says later is not taken for the answer to something else.
    """

    async def main() -> None:
        held = {one.port: one for one in on_cluster.servers[:3]}
        async with open_store(on_cluster.url) as store:
            redis = store._redis
            assert await store.cursors(DAY + 50, [P]) == [0]
            owner = held[int(redis.node(("GET", partition(DAY + 50))).port)]  # type: ignore[union-attr]
            owner.pause()
            task = asyncio.create_task(store.apply(P, batch(DAY + 50, 0, 7, 8)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            owner.resume()
            assert await store.counts(DAY + 51) == {}
            assert await store.ad_names() is not None
            assert (await store.cursors(DAY + 50, [P]))[0] in (0, 2)

    asyncio.run(main())


def test_a_key_that_moved_to_another_server_is_an_outage_once(on_cluster: Cluster) -> None:
    """
    MOVED is not followed: the caller hears it, closes, and asks anew who holds the key.
    """
    day = DAY + 100

    async def body(store: Store) -> None:
        await store.apply(P, batch(day, 0, 1))
        redis: Any = store._redis
        slot = redis.keyslot(partition(day))
        owner = next(one for one in on_cluster.servers if one.port == int(redis.node(("GET", partition(day))).port))
        other = next(one for one in on_cluster.servers[:3] if one is not owner)
        owner.ask("DEL", partition(day))
        old, new = owner.ask("CLUSTER MYID"), other.ask("CLUSTER MYID")
        other.ask("CLUSTER SETSLOT", slot, "IMPORTING", old)  # so that taking it over is news to all
        owner.ask("CLUSTER SETSLOT", slot, "MIGRATING", new)
        for server in (other, owner, *on_cluster.servers[:3]):
            server.ask("CLUSTER SETSLOT", slot, "NODE", new)
        with pytest.raises(StoreUnavailable, match=rf"moved.*{slot}"):
            await store.apply(P, batch(day, 1, 2))
        assert await store.apply(P, batch(day, 1, 2)) == Mismatch(0)
        assert await store.apply(P, batch(day, 0, 1)) == Applied(1, 0)

    with_url(on_cluster.url, body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failover_by_sentinels_counts_each_event_once(kind: str, tmp_path: Path) -> None:
    """
    The primary is killed under shipping and its replica takes over; what it had not received is counted again.
    """
    with sentinels(kind) as found:

        def kill() -> None:
            old = found.primary()
            time_out = time.monotonic() + 20
            while not old.ask("EXISTS", partition(DAY)):  # it is counting
                assert time.monotonic() < time_out
            old.kill()
            while not found.have_moved_from(old):
                assert time.monotonic() < time_out
                time.sleep(0.02)
            old.start()  # it comes back, to become the new one's replica

        journal_and_kill(tmp_path, found.url, kill, days=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_primary_of_a_cluster_counts_each_event_once(kind: str, tmp_path: Path) -> None:
    """
    Days on all three servers; one of them dies under shipping and its replica takes over.
    """
    with cluster(kind) as found:
        first, replica = found.servers[0], found.servers[3]

        def kill() -> None:
            time_out = time.monotonic() + 20
            while not first.ask("DBSIZE"):
                assert time.monotonic() < time_out
            first.kill()
            while not (replica.is_primary() and found.is_whole()):
                assert time.monotonic() < time_out
                time.sleep(0.02)

        journal_and_kill(tmp_path, found.url, kill, days=9)
        assert replica.ask("DBSIZE") > 0


def documented_rules() -> list[str]:
    """What docs/operations.md says to give the service's user."""
    found = re.search(r"^ACL SETUSER adserver on >PASSWORD (.*)$", OPERATIONS.read_text("utf-8"), re.MULTILINE)
    assert found
    return found[1].split()


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_user_may_do_all_that_is_needed(kind: str) -> None:
    """
    The ACL line of docs/operations.md is enough on one server and on a cluster, and for no other key.
    """

    async def everything(store: Store) -> None:
        await use_it_for_everything(store)
        await store.why_unconfirmed()
        await look(store, "0" * 16, time.time())
        await store.ask("HDEL", neighbours.KEY, "0" * 16)
        for forbidden in (
            ("GET", "somebody's"),
            ("DEL", "somebody's"),
            ("FLUSHALL", "ASYNC"),
            ("KEYS", "*"),
            ("CONFIG SET", "hz", 10),
            ("FUNCTION FLUSH", "ASYNC"),
            ("PUBLISH", "as:", "x"),
        ):
            with pytest.raises(StoreUnavailable, match=r"NOPERM|permission"):
                await store.ask(*forbidden)

    def allow(server: Process) -> None:
        rules = documented_rules()
        if not server.ask("COMMAND INFO", "WAITAOF")[0]:
            rules.remove("+waitaof")
        server.ask("ACL SETUSER", "adserver", "on", ">sesame", *rules)

    with several(kind, "--appendonly", "yes", count=1) as ((server,), _):
        allow(server)
        with_url(f"redis://adserver:sesame@127.0.0.1:{server.port}", everything)
    with cluster(kind) as found:
        for one in found.servers:
            allow(one)
        with_url(found.url.replace("//", "//adserver:sesame@"), everything)
