"""Shipping against real journals and real servers: whatever the store forgets or fails at, each event counts once."""

import asyncio
import errno
import os
import random
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adserver import events, journal, metrics, salvage, segments, ship, syncing
from adserver.background import wait_for_any
from adserver.errors import JournalUnavailable, StoreUnavailable
from adserver.events import TOKEN_BIT, Event, Type
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD
from adserver.ship import Shipper
from adserver.store import Store, open_store, partition
from tests.edges.journals import HandledKernel, with_journal
from tests.edges.servers import Server
from tests.records import field_of, stored

DAY = 20514
AD = bytes.fromhex("0b5d1122334455") + b"\0"
IMPRESSION = "3:14:0b5d1122334455"
SERVED = "1:14:0b5d1122334455"


def put(to: Journal, serial: int, type_: Type = Type.IMPRESSION, day: int = DAY) -> int:
    return to.append(type_, 0, day, 14, to.issuer, serial, AD, 1_772_000_000.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loop with shorter rests, so that a test need not wait for seconds."""
    monkeypatch.setattr(ship, "FLUSH_S", 0.005)
    monkeypatch.setattr(ship, "ADOPT_S", 0.02)
    monkeypatch.setattr(ship, "REREAD_S", 0.05)
    monkeypatch.setattr(ship, "RELEASE_S", 0.2)


class Shipping:
    """A journal, its shipper, and the loop that runs it."""

    def __init__(self, root: Path, url: str, segment_bytes: int) -> None:
        self.journal = create_journal(root, segment_bytes=segment_bytes)
        self.shipper = Shipper(self.journal, root, url)
        self.stopping = asyncio.Event()
        self.task = asyncio.create_task(self.shipper.run(self.stopping))

    async def counted(self, within_s: float = 15) -> None:
        """Everything stored so far has been counted."""
        await self.journal.wait_synced()
        await eventually(
            lambda: (self.shipper.waiting() == 0 and self.shipper.trouble is None) or self.task.done(), within_s
        )
        assert not self.task.done() or self.task.result() is None

    async def stop(self) -> None:
        await self.journal.drain()
        self.stopping.set()
        await self.task

    async def close(self) -> None:
        if not self.task.done():
            await self.stop()
        await self.journal.close()
        self.shipper.close()


async def eventually(condition: Callable[[], object], within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it may depend on anything
            await asyncio.sleep(0.005)


def shipping(
    root: Path, url: str, body: Callable[[Shipping], Awaitable[None]], segment_bytes: int = HEADER + 64 * RECORD
) -> None:
    async def main() -> None:
        one = Shipping(root, url, segment_bytes)
        try:
            await body(one)
        finally:
            await one.close()

    asyncio.run(main())


def counts(server: Server, day: int = DAY) -> dict[str, int]:
    async def main() -> dict[str, int]:
        async with open_store(server.url) as store:
            return {field: count for field, count in (await store.counts(day)).items() if count}

    return asyncio.run(main())


async def look(server: Server, day: int = DAY) -> dict[str, int]:
    return await asyncio.to_thread(counts, server, day)


async def shows(server: Server, expected: Mapping[str, int], day: int = DAY) -> None:
    """Wait until *day* shows these counts."""
    async with asyncio.timeout(10):
        while await look(server, day) != expected:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


def ask(server: Server, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def dead_journal(root: Path, count: int, day: int = DAY) -> Path:
    """A journal of *count* impressions whose writer is gone, with the ad's name in it."""

    async def main() -> Path:
        made = create_journal(root, segment_bytes=HEADER + 64 * RECORD)
        made.name(AD[:7], "889990/spring/loaf")
        for serial in range(count):
            put(made, serial, day=day)
        await made.close()
        return made.directory

    return asyncio.run(main())


def test_what_is_synced_is_counted(root: Path, server: Server) -> None:
    """
    Events of several types over many segments arrive, and nothing waits at the end.
    """

    async def body(one: Shipping) -> None:
        for n in range(3000):
            put(one.journal, n // 3, (Type.SERVED, Type.IMPRESSION, Type.CLICK)[n % 3])
        await one.counted()

    shipping(root, server.url, body)

    assert counts(server) == {SERVED: 1000, IMPRESSION: 1000, "5:14:0b5d1122334455": 1000}


def test_what_is_not_synced_is_not_counted(root: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A record that power could still take away is not shipped.
    """
    monkeypatch.setattr(journal, "SYNC_WITHIN_S", 3600)

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await one.counted()
        put(one.journal, 2)
        await asyncio.sleep(0.1)
        assert await look(server) == {IMPRESSION: 1}
        assert one.shipper.own.position == 1
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 2}


def test_an_outage_delays_counts_and_loses_none(root: Path, own_server: Server) -> None:
    """
    Events of a time without store are counted when it is back; the shipper says why they wait.
    """

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await one.counted()
        own_server.kill()
        for serial in range(2, 500):
            put(one.journal, serial)
        await one.journal.wait_synced()
        await eventually(lambda: one.shipper.trouble)
        assert "cannot be reached" in (one.shipper.trouble or "")
        assert metrics.REGISTRY.get_sample_value("adserver_store_up") == 0
        assert one.shipper.waiting() > 0
        await asyncio.to_thread(own_server.start)
        await one.counted()
        assert metrics.REGISTRY.get_sample_value("adserver_store_up") == 1

    shipping(root, own_server.url, body)
    assert counts(own_server) == {IMPRESSION: 499}


def test_no_store_at_the_start_is_ridden_out(root: Path, own_server: Server) -> None:
    """
    The worker may start before the store does.
    """
    own_server.kill()

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await eventually(lambda: "reached" in (one.shipper.trouble or ""))
        await asyncio.to_thread(own_server.start)
        await one.counted()

    shipping(root, own_server.url, body)
    assert counts(own_server) == {IMPRESSION: 1}


@pytest.mark.parametrize("aof", ["kept", "cut", "gone"])
def test_a_killed_store_counts_each_event_once(root: Path, own_server: Server, aof: str) -> None:
    """
    kill -9 amid batches, then a restart with its file, with half of it, and without: the journal fills what is gone.
    """

    async def body(one: Shipping) -> None:
        for turn in range(3):
            for n in range(400):
                put(one.journal, 1000 * turn + n)
                put(one.journal, 0, Type.SERVED)
            await one.journal.wait_synced()
            await asyncio.sleep(random.random() * 0.02)
            own_server.kill()
            (log,) = (own_server.directory / "appendonlydir").glob("*.incr.aof")
            if aof == "cut":
                log.write_bytes(log.read_bytes()[: random.randrange(log.stat().st_size + 1)])
            if aof == "gone":
                shutil.rmtree(own_server.directory / "appendonlydir")
            await asyncio.to_thread(own_server.start)
        await shows(own_server, {IMPRESSION: 1200, SERVED: 1200})

    shipping(root, own_server.url, body)
    assert counts(own_server) == {IMPRESSION: 1200, SERVED: 1200}


def watch(shipper: Shipper, monkeypatch: pytest.MonkeyPatch, before: Callable[[bool], Awaitable[None]]) -> list[bool]:
    """Have *before* run ahead of each look at a journal, told whether it is the live one; returns whether each was."""
    looks: list[bool] = []
    real = shipper._ship_some

    async def watched(store: Store, source: ship.Source) -> bool:
        looks.append(source is shipper.own)
        await before(looks[-1])
        return await real(store, source)

    monkeypatch.setattr(shipper, "_ship_some", watched)
    return looks


def test_live_events_do_not_wait_behind_a_dead_journal(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What is synced while a dead worker's long journal is being counted comes next, and not after all of it.
    """
    monkeypatch.setattr(ship, "FLUSH_S", 0.0)
    monkeypatch.setattr(ship, "MOST_RECORDS", 50)
    dead_journal(root, 1000)

    async def body(one: Shipping) -> None:
        positions: list[int] = []

        async def store_one(live: bool) -> None:
            if not live and not one.journal.written:
                put(one.journal, 0, Type.SERVED)
                await one.journal.wait_synced()
            elif live:
                positions.append(one.shipper.sources[-1].position)

        looks = watch(one.shipper, monkeypatch, store_one)
        await eventually(lambda: len(one.shipper.sources) == 2 and one.shipper.waiting() == 0)
        assert positions == [50]
        assert looks[:3] == [False, True, False]
        assert looks.count(False) >= 20

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 1000, SERVED: 1}


def test_a_dead_journal_is_counted_without_rests(root: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A worker that has nothing of its own to count goes through what a dead one left in one go.
    """
    monkeypatch.setattr(ship, "FLUSH_S", 0.0)
    monkeypatch.setattr(ship, "MOST_RECORDS", 50)
    dead_journal(root, 1000)

    async def body(one: Shipping) -> None:
        left: list[int] = []
        real = one.shipper._rest

        async def rest(stopping: asyncio.Event) -> None:
            left.append(one.shipper.waiting())
            await real(stopping)

        monkeypatch.setattr(one.shipper, "_rest", rest)
        await eventually(lambda: left)
        assert left[0] == 0
        assert len(one.shipper.sources) == 2

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 1000}


def test_a_resting_shipper_wakes_for_what_is_synced(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a quiet time an event is counted when it is synced, and not when dead journals are looked for again.
    """
    monkeypatch.setattr(ship, "ADOPT_S", 3600)
    rests: list[float] = []

    async def watched(within_s: float, *events: asyncio.Event) -> None:
        rests.append(within_s)
        await wait_for_any(within_s, *events)

    monkeypatch.setattr(ship, "wait_for_any", watched)

    async def body(one: Shipping) -> None:
        await eventually(lambda: rests and rests[-1] == 3600)
        put(one.journal, 1)
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 1}


def test_a_dead_journal_does_not_wait_behind_live_events(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A worker that never comes to rest counts what it adopted all the same; what comes meanwhile gathers for its turn.
    """
    dead_journal(root, 100)

    async def body(one: Shipping) -> None:
        async def keep_busy(live: bool) -> None:
            if live and IMPRESSION not in await look(server):
                put(one.journal, 0, Type.SERVED)
                await one.journal.wait_synced()

        watch(one.shipper, monkeypatch, keep_busy)
        put(one.journal, 0, Type.SERVED)
        async with asyncio.timeout(10):
            while IMPRESSION not in await look(server):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.02)
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server)[IMPRESSION] == 100


def test_the_largest_batch_of_records_without_a_common_field_is_counted(root: Path, server: Server) -> None:
    """
    A catalog may be so large that each record of a batch stands for another ad, and each token for another chunk.
    """

    async def body(one: Shipping) -> None:
        for n in range(2 * ship.MOST_RECORDS):
            type_ = Type.CLICK if n % 3 == 0 and n < 3 * ship.MOST_TOKEN_EVENTS else Type.SERVED
            one.journal.append(type_, 0, DAY, n % 25, one.journal.issuer, 64 * n, n.to_bytes(7, "big") + b"\0", 0.0)
        await one.counted()

    shipping(root, server.url, body, segments.SEGMENT_BYTES)
    assert list(counts(server).values()) == [1] * 2 * ship.MOST_RECORDS


def test_a_wiped_store_is_rebuilt_from_the_journals(root: Path, server: Server) -> None:
    """
    After FLUSHALL, without a single new event, counts and ad names are back, those of adopted journals too.
    """
    dead_journal(root, 200)

    async def body(one: Shipping) -> None:
        one.journal.name(b"\x07" * 7, "889991/autumn/loaf")
        for serial in range(300):
            put(one.journal, serial)
            put(one.journal, serial, day=DAY + 1)
        await one.counted()
        await eventually(lambda: len(one.shipper.sources) == 2 and one.shipper.waiting() == 0)
        before = await look(server)
        for _ in range(2):
            ask(server, "FLUSHALL")
            ask(server, "SCRIPT", "FLUSH")
            await shows(server, before)
            await shows(server, {IMPRESSION: 300}, DAY + 1)
        names = set(ask(server, "HVALS", "as:ads"))
        assert names == {b"889991/autumn/loaf", b"889990/spring/loaf"}

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 500}


def test_a_dead_journal_is_shipped_under_its_own_id(root: Path, server: Server) -> None:
    """
    What a killed worker left is adopted, counted from its own cursor, and never a second time.
    """
    directory = dead_journal(root, 500)

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.counted()
        assert int(ask(server, "HGET", partition(DAY), f"@{directory.name}")) == 500

    for boots in (1, 2):  # the second boot adopts it again, and the first one's journal
        shipping(root, server.url, body) if boots == 1 else shipping(root, server.url, still)
        assert counts(server) == {IMPRESSION: 501}


async def still(one: Shipping) -> None:
    """Nothing new; wait until both dead journals are adopted and looked through."""
    await eventually(lambda: len(one.shipper.sources) == 3)
    await one.counted()


def test_a_journal_of_many_days_counts_each(root: Path, server: Server) -> None:
    """
    Days change within a batch and come back; each day has its own cursor.
    """

    async def body(one: Shipping) -> None:
        for n in range(900):
            put(one.journal, n, day=DAY + n // 7 % 3)
        await one.counted()

    shipping(root, server.url, body)
    per_day = Counter(DAY + n // 7 % 3 for n in range(900))
    assert {day: counts(server, day) for day in per_day} == {day: {IMPRESSION: n} for day, n in per_day.items()}


def test_two_shippers_of_one_cloned_journal_count_it_once(root: Path, tmp_path: Path, server: Server) -> None:
    """
    A cloned volume is adopted by two services at once: compare-and-set lets each batch in once.
    """
    dead_journal(root, 5000)
    clone = tmp_path / "clone"
    shutil.copytree(root, clone)

    async def main() -> None:
        pair = [Shipping(place, server.url, HEADER + 64 * RECORD) for place in (root, clone)]
        for one in pair:
            await eventually(lambda one=one: len(one.shipper.sources) == 2)  # type: ignore[misc]
        for one in pair:
            await one.counted()
            await one.close()

    asyncio.run(main())
    assert counts(server) == {IMPRESSION: 5000}


def test_a_shorter_copy_of_a_dead_journal_is_taken_as_counted(root: Path, tmp_path: Path, server: Server) -> None:
    """
    An old snapshot of a volume knows less than the store: nothing to do, and our own events are counted.
    """
    directory = dead_journal(root, 100)
    clone = tmp_path / "clone"
    shutil.copytree(root, clone)

    async def adopt(one: Shipping) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.counted()

    shipping(root, server.url, adopt)
    segment = clone / directory.name / f"{1:020}.seg"
    segment.write_bytes(segment.read_bytes()[: HEADER + 40 * RECORD])
    (clone / directory.name / f"{65:020}.seg").unlink()

    async def body(one: Shipping) -> None:
        await adopt(one)
        put(one.journal, 7)
        await one.counted()

    shipping(clone, server.url, body)
    assert counts(server) == {IMPRESSION: 101}


def test_somebody_elses_progress_is_taken_over(root: Path, server: Server) -> None:
    """
    When the store stands ahead within what we have (another adopter was quicker), we go on from there.
    """
    directory = dead_journal(root, 50)

    async def ahead(store: Store) -> None:
        from adserver.tally import tally

        some = [Event(Type.IMPRESSION, 0, DAY, 14, bytes.fromhex(directory.name)[:5], n, AD, 0) for n in range(30)]
        await store.apply(bytes.fromhex(directory.name), tally(DAY, 0, 30, stored(some)))

    async def apply() -> None:
        async with open_store(server.url) as store:
            await ahead(store)

    asyncio.run(apply())

    async def body(one: Shipping) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 50}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cursor_beyond_our_own_last_record_stops_shipping(root: Path, server: Server, when: str) -> None:
    """
    Somebody else writes under our name: say so, count nothing more, keep journalling.
    """

    def alarm() -> float | None:
        return metrics.REGISTRY.get_sample_value("adserver_invariant_violations", {"invariant": "counted-written"})

    async def body(one: Shipping) -> None:
        if when == "after":
            put(one.journal, 1)
            await one.counted()
        ask(server, "HSET", partition(DAY), f"@{one.journal.producer.hex()}", 1000)
        put(one.journal, 2)
        await one.journal.wait_synced()
        await eventually(lambda: "somebody else" in (one.shipper.trouble or ""))
        assert alarm() == 1
        assert one.journal.failure is None
        ask(server, "HSET", partition(DAY), f"@{one.journal.producer.hex()}", 0 if when == "before" else 1)
        await one.counted()
        assert alarm() == 0

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 1 if when == "before" else 2}


def test_a_day_with_a_hostile_value_is_set_aside(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It is named in the log and left alone however often it is tried, other days are counted; once it is mended its
    events are counted too.
    """
    ask(server, "HSET", partition(DAY), IMPRESSION, "abc")
    ask(server, "SET", partition(DAY + 2), "another program's")

    async def body(one: Shipping) -> None:
        tried: list[set[int]] = []
        real = one.shipper._release

        def release() -> None:
            tried.append({*one.shipper.days_set_aside})
            real()

        monkeypatch.setattr(one.shipper, "_release", release)
        for n in range(30):
            put(one.journal, n, day=DAY + n % 3)
        await one.journal.wait_synced()
        await shows(server, {IMPRESSION: 10}, DAY + 1)
        await eventually(lambda: one.task.done() or tried.count({DAY, DAY + 2}) >= 2)
        assert not one.task.done()
        await eventually(lambda: f"day {DAY} is not counted" in caplog.text)
        await eventually(lambda: f"day {DAY + 2} is not counted" in caplog.text)
        assert ask(server, "HGETALL", partition(DAY)) in ({IMPRESSION.encode(): b"abc"}, [IMPRESSION.encode(), b"abc"])
        assert ask(server, "GET", partition(DAY + 2)) == b"another program's"
        ask(server, "DEL", partition(DAY), partition(DAY + 2))
        for day in (DAY, DAY + 2):
            await shows(server, {IMPRESSION: 10}, day)

    shipping(root, server.url, body)
    assert counts(server, DAY + 1) == {IMPRESSION: 10}


def test_a_day_sealed_but_not_archived_waits(root: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """
    Between sealing and archiving a day takes nothing, which is told once; the other days go on.
    """
    ask(server, "HSET", partition(DAY), "sealed", 1)

    async def body(one: Shipping) -> None:
        for n in range(20):
            put(one.journal, n, day=DAY + n % 2)
        await one.counted()
        await asyncio.sleep(0.2)  # several rounds of asking for the cursors again
        assert caplog.text.count("not (or not yet) in the archive") == 1

    shipping(root, server.url, body)
    assert counts(server, DAY + 1) == {IMPRESSION: 10}
    assert counts(server) == {}


def test_stopping_ships_what_is_left(root: Path, server: Server) -> None:
    """
    What is synced when the stop comes is counted before the shipper returns.
    """

    async def body(one: Shipping) -> None:
        for n in range(5000):
            put(one.journal, n)
        await one.stop()
        assert one.shipper.waiting() == 0

    shipping(root, server.url, body, segment_bytes=HEADER + 5000 * RECORD)
    assert counts(server) == {IMPRESSION: 5000}


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_stopping_without_a_store_is_prompt(root: Path, own_server: Server, how: str) -> None:
    """
    A store that is away or hangs holds nobody up: the events stay in the journal for a successor.
    """

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await one.counted()
        own_server.kill() if how == "killed" else own_server.pause()
        put(one.journal, 2)
        await one.journal.wait_synced()
        began = time.monotonic()
        await one.stop()
        assert time.monotonic() - began < 3
        assert one.shipper.waiting() == 1

    shipping(root, own_server.url, body)


def test_a_loop_cancelled_in_a_batch_leaves_nothing_wrong(root: Path, server: Server) -> None:
    """
    A stop that runs out of grace cancels amid a command; a successor counts the rest exactly.
    """

    async def main() -> None:
        one = Shipping(root, server.url, HEADER + 20_000 * RECORD)
        for n in range(20_000):
            put(one.journal, n)
        await one.journal.wait_synced()
        await eventually(lambda: one.shipper.own.position > 0)
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        await one.journal.close()
        one.shipper.close()

    asyncio.run(main())

    async def body(one: Shipping) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 20_000}


def test_the_loop_turns_while_a_long_journal_is_gone_through(root: Path, server: Server) -> None:
    """
    Adopting a journal that was counted long ago does not stop the worker from answering: it is worked at beside the
    loop, whose own work between two turns stays small, on a busy machine as well.
    """
    directory = dead_journal(root, 20_000)
    longest = 0.0

    async def body(one: Shipping) -> None:
        nonlocal longest
        last = time.thread_time()
        while len(one.shipper.sources) < 2 or one.shipper.waiting():
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    shipping(root, server.url, body)
    longest = 0.0
    shipping(root, server.url, body)
    assert longest < 0.25
    assert counts(server) == {IMPRESSION: 20_000}
    assert Reader(directory).last() == 20_000


def test_a_read_is_bounded(root: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However long a journal is, a batch holds MOST_RECORDS records and MOST_TOKEN_EVENTS token events at most.
    """
    dead_journal(root, 7000)
    sizes: list[int] = []
    real = Store.apply

    async def apply(store: Store, producer: bytes, batch: Any, part: str = "") -> Any:
        sizes.append(sum(map(len, batch.tokens.values())))
        return await real(store, producer, batch, part)

    monkeypatch.setattr(Store, "apply", apply)

    async def body(one: Shipping) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        assert len(await one.shipper.sources[1].read()) <= ship.MOST_RECORDS
        await one.counted()

    shipping(root, server.url, body)
    assert sum(sizes) == 7000
    assert max(sizes) <= ship.MOST_TOKEN_EVENTS


def test_a_hole_in_a_journal_is_told_and_what_precedes_it_counted(
    root: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A segment damaged on disk ends its own journal only; what a salvage puts back behind the hole is counted once.
    """
    directory = dead_journal(root, 300)
    path = directory / f"{65:020}.seg"
    whole = path.read_bytes()
    path.write_bytes(whole[: HEADER + 5 * RECORD] + b"\xff" + whole[HEADER + 5 * RECORD + 1 :])

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await eventually(lambda: "record 70 is damaged" in caplog.text)
        await shows(server, {IMPRESSION: 70})
        await one.counted()
        await eventually(lambda: len(salvage.set_aside(directory)) == 4)
        found = salvage.read_salvage(directory)
        assert (found.records, found.holes) == (300 - 64 - 1, [(70, 70)])
        salvage.apply_salvage(directory, found)
        adopted = one.shipper.adopted(one.shipper.sources[1])
        assert adopted
        adopted.refresh()
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 300}
    assert caplog.text.count("is damaged") == 1
    ask(server, "FLUSHALL")
    shipping(root, server.url, lambda one: shows(server, {IMPRESSION: 300}))


def test_a_record_of_a_later_version_waits(root: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """
    After a roll-back a journal may hold types this version does not know: they are kept, and the worker lives.
    """
    directory = dead_journal(root, 5)
    producer = bytes.fromhex(directory.name)
    record = events.pack(99, 0, DAY, 14, b"abcde", 1, AD, 1, 6)
    with (directory / f"{1:020}.seg").open("ab") as file:
        file.write(record + segments.CRC.pack(zlib.crc32(record, zlib.crc32(producer))))

    async def body(one: Shipping) -> None:
        put(one.journal, 100)
        await eventually(lambda: "later version" in caplog.text)
        await shows(server, {IMPRESSION: 6})
        assert not one.task.done()

    shipping(root, server.url, body)


def test_refused_journals_are_told_once(root: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """
    A directory that others can write to is not shipped, is named in the log once, and does not stop the rest.
    """
    dead_journal(root, 3).chmod(0o777)
    dead_journal(root, 4)

    async def body(one: Shipping) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.counted()
        await asyncio.sleep(0.1)

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 4}
    assert caplog.text.count("cannot be adopted") == 1


def test_until_the_store_is_reached_it_is_not_said_to_count(root: Path, tmp_path: Path) -> None:
    """
    A worker that boots is not ready before its shipper has seen the store.
    """

    async def body(made: Journal) -> None:
        assert Shipper(made, root, f"unix://{tmp_path}/none.sock").trouble == "the store has not been reached yet"

    with_journal(root, body)


def test_after_a_turn_over_it_is_the_new_journal_that_wakes(root: Path, tmp_path: Path) -> None:
    """
    What is synced in the journal that is in use is counted at once; the one before is no source any more.
    """

    async def body(old: Journal) -> None:
        shipper = Shipper(old, root, f"unix://{tmp_path}/none.sock")
        new = create_journal(root, segment_bytes=HEADER + 64 * RECORD)
        shipper.write_to(new)
        assert [source.producer for source in shipper.sources] == [new.producer]
        for made in (new, old):
            shipper._wake.clear()
            put(made, 1)
            await made.wait_synced()
            assert shipper._wake.is_set() == (made is new)
        assert shipper.waiting() == 1
        await new.close()

    with_journal(root, body)


def test_the_lag_is_the_age_of_the_oldest_event_that_waits(root: Path, tmp_path: Path) -> None:
    """
    Over all journals, of what is synced and not counted; none for a clock that was set back, and none at rest.
    """
    dead_journal(root, 3)
    began = 1_772_000_000.0

    async def body(made: Journal) -> None:
        shipper = Shipper(made, root, f"unix://{tmp_path}/none.sock")
        assert shipper.lag_s(began + 300) == 0
        for after in (100, 200):
            made.append(Type.IMPRESSION, 0, DAY, 14, made.issuer, after, AD, began + after)
        await made.wait_synced()
        assert shipper.lag_s(began + 300) == 200
        shipper.own.position = 1
        assert shipper.lag_s(began + 300) == 100
        assert shipper.lag_s(began) == 0
        await shipper._adopt()
        assert shipper.lag_s(began + 300) == 300
        shipper.close()

    with_journal(root, body)


def test_a_journal_that_cannot_be_read_holds_up_no_other(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A disk that fails at one record is told of once; other journals are counted, and this one when it can be read.
    """
    dead_journal(root, 5)

    async def body(one: Shipping) -> None:
        failing = True
        real = one.shipper.own.read

        async def read() -> events.Block:
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            return await real()

        monkeypatch.setattr(one.shipper.own, "read", read)
        put(one.journal, 100)
        try:
            await one.journal.wait_synced()
            await eventually(lambda: "record 1 cannot be read" in caplog.text)
            await shows(server, {IMPRESSION: 5})
        finally:
            failing = False
        await one.counted()

    shipping(root, server.url, body)
    assert counts(server) == {IMPRESSION: 6}
    assert caplog.text.count("cannot be read") == 1


def test_a_refused_server_is_left_alone(root: Path, own_server: Server) -> None:
    """
    A server that may evict keys gets nothing until it is set up well.
    """
    ask(own_server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    async def body(one: Shipping) -> None:
        put(one.journal, 1)
        await eventually(lambda: "noeviction" in (one.shipper.trouble or ""))
        assert ask(own_server, "KEYS", "*") == []
        ask(own_server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await one.counted()

    shipping(root, own_server.url, body)
    assert counts(own_server) == {IMPRESSION: 1}


def test_shipping_goes_on_across_segments_and_failing_syncs(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Batches are read while the journal rotates and moves its unsynced records. (fdatasync is replaced: see
    test_journal_syncing.)
    """
    real = os.fdatasync
    fail = random.Random(5)

    def fdatasync(fd: int) -> None:
        if fail.random() < 0.1:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(syncing, "_open_kernel", lambda: HandledKernel(asyncio.get_running_loop()))
    monkeypatch.setattr(journal, "_RETRY_S", 0.02)

    async def body(one: Shipping) -> None:
        for n in range(2000):
            while True:
                try:
                    put(one.journal, n)
                    break
                except JournalUnavailable:  # between two failures, as a beacon is told to come again
                    await asyncio.sleep(0.002)
            if n % 20 == 0:
                await asyncio.sleep(0)
            if n % 100 == 0:
                await one.journal.wait_synced()
        await one.counted()

    shipping(root, server.url, body, HEADER + 16 * RECORD)
    assert counts(server) == {IMPRESSION: 2000}


def test_the_store_says_what_the_journals_say(root: Path, server: Server) -> None:
    """
    Any stream of events, wiped and restored at random meanwhile: the counts are those of counting the journal by hand.
    """
    draw = random.Random(11)
    made: list[Event] = []

    async def body(one: Shipping) -> None:
        for turn in range(6):
            for _ in range(200):
                type_ = draw.choice(list(Type))
                serial = draw.randrange(150)
                number = one.journal.append(type_, 0, DAY, serial % 25, b"abcde", serial, AD, 1.0)
                made.append(Event(type_, 0, DAY, serial % 25, b"abcde", serial, AD, number))
            await one.counted()
            if turn % 2:
                dump = ask(server, "DUMP", partition(DAY))
            elif turn:
                ask(server, "RESTORE", partition(DAY), 0, dump, "REPLACE")
        ask(server, "FLUSHALL")
        put(one.journal, 9999, day=DAY + 9)
        expected = Counter(field_of(one) for one in made if one.type not in TOKEN_BIT)
        expected.update({(one.serial, one.type): field_of(one) for one in made if one.type in TOKEN_BIT}.values())
        await shows(server, expected)

    shipping(root, server.url, body)


def test_an_unreachable_store_is_an_answer_for_the_caller(tmp_path: Path) -> None:
    """
    Asking a store that is away raises at once; nothing hangs on to the connection.
    """

    async def main() -> None:
        async with open_store(f"unix://{tmp_path}/none.sock") as store:
            with pytest.raises(StoreUnavailable):
                await store.ask("PING")

    asyncio.run(main())
