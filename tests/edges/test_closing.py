"""Days that close, against real journals and real servers: nothing changes afterwards and nothing is lost."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver import ship
from adserver.archive import Book, Closed, open_book
from adserver.closing import Closer, alarms
from adserver.days import Days
from adserver.disk import read_closed
from adserver.events import Type
from adserver.journal import Journal, create_journal
from adserver.reader import Contents, Reader
from adserver.retention import Producer, Rules, closes_at, may_go, parse_producers
from adserver.segments import HEADER, RECORD
from adserver.ship import Shipper
from adserver.store import CLOSING, LATE, PRODUCERS, Store, open_store, partition
from tests.edges.servers import Server
from tests.edges.test_ship import ask, counts, eventually

DAYS = Days("UTC")
RULES = Rules()
DAY = DAYS.locate(time.time())[0] - 6
AT = DAYS.start(DAY) + 14.5 * 3600
CLOSES = closes_at(DAYS, DAY, RULES)
AD = bytes.fromhex("0b5d1122334455") + b"\0"
IMPRESSION = "3:14:0b5d1122334455"
SERVED = "1:14:0b5d1122334455"
HOUR = 3600.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "FLUSH_S", 0.005)
    monkeypatch.setattr(ship, "ADOPT_S", 0.02)
    monkeypatch.setattr(ship, "REREAD_S", 0.05)
    monkeypatch.setattr(ship, "RELEASE_S", 0.1)


def put(
    to: Journal, serial: int, type_: Type = Type.IMPRESSION, day: int = DAY, issuer: bytes = b"", reason: int = 0
) -> int:
    at = DAYS.start(day) + 14.5 * HOUR
    return to.append(type_, reason, day, 14, issuer or to.issuer, serial, AD, at)


def write(
    root: Path, *days: int, n: int = 10, issuer: bytes = b"", type_: Type = Type.IMPRESSION, reason: int = 0
) -> Path:
    """A dead journal with *n* events on each of *days*, in segments of 8 records."""

    async def main() -> Path:
        made = create_journal(root, segment_bytes=HEADER + 8 * RECORD)
        made.name(AD[:7], "889990/spring/loaf")
        for day in days:
            for serial in range(n):
                put(made, serial, type_, day, issuer, reason)
        await made.close()
        return made.directory

    return asyncio.run(main())


class Working:
    """One worker's journal, shipper and closer."""

    def __init__(self, journal: Journal, shipper: Shipper, closer: Closer, book: Book, store: Store) -> None:
        self.journal, self.shipper, self.closer, self.book, self.store = journal, shipper, closer, book, store

    async def counted(self) -> None:
        """All journals there are have been adopted and counted."""
        await self.journal.wait_synced()
        root = self.journal.directory.parent
        await eventually(lambda: len(self.shipper.sources) == len([path for path in root.iterdir() if path.is_dir()]))
        await eventually(lambda: self.shipper.waiting() == 0 and self.shipper.trouble is None)

    async def round(self, now: float) -> None:
        """A round of the closer in a world whose registry is not new."""
        await self.store.ask("HSET", PRODUCERS, "since", "1")
        await self.store.ask("DEL", "as:closing:lock")
        await self.closer.round(self.store, now)


@asynccontextmanager
async def working(root: Path, server: Server, data: Path | None = None) -> AsyncIterator[Working]:
    book = open_book(None, data or root.parent)
    journal = create_journal(root, segment_bytes=HEADER + 8 * RECORD)
    shipper = Shipper(journal, root, server.url, book, RULES)
    closer = Closer(shipper, root, server.url, book, lambda: DAYS, RULES)
    stopping = asyncio.Event()
    task = asyncio.create_task(shipper.run(stopping))
    try:
        async with open_store(server.url) as store:
            yield Working(journal, shipper, closer, book, store)
    finally:
        await journal.drain()
        stopping.set()
        await task
        await journal.close()
        shipper.close()


def run(root: Path, server: Server, body: Callable[[Working], Any], data: Path | None = None) -> Any:
    async def main() -> Any:
        async with working(root, server, data) as one:
            return await body(one)

    return asyncio.run(main())


def close(root: Path, server: Server, now: float = CLOSES + 1) -> None:
    async def body(one: Working) -> None:
        await one.counted()
        await one.round(now)

    run(root, server, body)


def late(server: Server, day: int = DAY) -> dict[str, int]:
    async def main() -> dict[str, int]:
        async with open_store(server.url) as store:
            return {field: n for field, n in (await store.counts(day, LATE)).items() if n}

    return asyncio.run(main())


def state(server: Server, day: int = DAY) -> tuple[bool, str | None]:
    async def main() -> tuple[bool, str | None]:
        async with open_store(server.url) as store:
            return await store.state(day)

    return asyncio.run(main())


def test_a_day_closes_when_its_time_has_come(root: Path, server: Server) -> None:
    """
    A second too early nothing happens; then it is sealed, archived, listed, and its tokens and cursors are gone.
    """
    directory = write(root, DAY, DAY + 1, n=10)
    close(root, server, CLOSES - 1)
    assert state(server) == (False, None)
    assert read_closed(root) == {}

    close(root, server, CLOSES + 1)

    book = open_book(None, root.parent)
    page = book.read(DAY)
    assert page
    assert page.counts == {IMPRESSION: 10} == counts(server, DAY)
    assert page.producers == {directory.name: 10}
    assert page.ads == {AD[:7].hex(): "889990/spring/loaf"}
    assert page.missing == []
    assert read_closed(root) == book.digests()
    assert state(server) == (True, book.digests()[DAY])
    fields = {name.decode() for name in ask(server, "HKEYS", partition(DAY))}
    assert fields == {"sealed", "closed", "page", "F14", IMPRESSION}
    assert state(server, DAY + 1) == (False, None)
    assert any(name.startswith(b"b:") for name in ask(server, "HKEYS", partition(DAY + 1)))


def test_nothing_is_counted_again_after_a_wipe(root: Path, server: Server) -> None:
    """
    The list on the volume keeps the shippers off a closed day, and its totals come back from the archive.
    """
    write(root, DAY, DAY + 1)
    close(root, server)
    ask(server, "FLUSHALL")

    async def body(one: Working) -> None:
        await one.counted()
        assert await one.store.counts(DAY) == {}
        assert await one.store.counts(DAY + 1) == {IMPRESSION: 10}
        await one.round(CLOSES + 60)
        assert await one.store.counts(DAY) == {IMPRESSION: 10}
        assert not await one.store.is_late_open(DAY)
        assert (await one.store.ad_names())[AD[:7].hex()] == "889990/spring/loaf"

    run(root, server, body)


def test_a_wipe_without_the_list_is_put_right(root: Path, server: Server) -> None:
    """
    A volume that had not heard of the closing counts the day anew; the archive's page takes its place.
    """
    write(root, DAY)
    other = write(root, DAY, n=3, issuer=b"other")
    close(root, server)
    before = open_book(None, root.parent).digests()
    ask(server, "FLUSHALL")
    (root / "closed").unlink()
    shutil.rmtree(other)

    async def body(one: Working) -> None:
        await one.counted()
        assert await one.store.counts(DAY) == {IMPRESSION: 10}
        await one.round(CLOSES + 60)
        assert await one.store.counts(DAY) == {IMPRESSION: 13}
        assert one.book.digests() == before

    run(root, server, body)


_KILLED = """
import asyncio, os, signal, sys, time
from pathlib import Path
from adserver import closing
from adserver.archive import Book, open_book
from adserver.days import Days
from adserver.journal import create_journal
from adserver.retention import Rules
from adserver.ship import Shipper
from adserver.store import Store, open_store
root, url, now, step = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
owner, name, when = step.split(".")
where = {"Store": Store, "Book": Book, "closing": closing}[owner]
real = getattr(where, name)
def cut(*arguments, **named):
    if when == "before":
        die()
    result = real(*arguments, **named)
    if asyncio.iscoroutine(result):
        async def finish():
            await result
            die()
        return finish()
    die()
async def main():
    book = open_book(None, root.parent)
    journal = create_journal(root)
    shipper = Shipper(journal, root, url, book, Rules())
    closer = closing.Closer(shipper, root, url, book, lambda: Days("UTC"), Rules())
    setattr(where, name, cut)
    async with open_store(url) as store:
        await store.ask("HSET", "as:producers", "since", "1")
        await closer.close_days(store, now)
asyncio.run(main())
"""


@pytest.mark.parametrize("wiped", [False, True], ids=["", "and the store wiped"])
@pytest.mark.parametrize(
    "step",
    [
        "Store.seal.before",
        "Store.seal.after",
        "Book._put.before",
        "Book._put.after",
        "Book.write.after",
        "closing.list_closed.after",
        "Store.tidy.before",
        "Store.tidy.after",
    ],
)
def test_killed_between_any_two_steps_closing_ends_the_same(root: Path, server: Server, step: str, wiped: bool) -> None:
    """
    kill -9 at each step, and whoever comes next finishes: the same page, the same totals.
    """
    directory = write(root, DAY, DAY, n=12)
    served = write(root, DAY, n=5, type_=Type.SERVED)

    async def declare(one: Working) -> None:
        await one.counted()
        await one.closer.declare(one.store, CLOSES + 1)

    run(root, server, declare)
    done = subprocess.run([sys.executable, "-c", _KILLED, str(root), server.url, str(CLOSES + 1), step], check=False)
    assert done.returncode == -9
    if wiped:
        ask(server, "FLUSHALL")

    close(root, server)

    page = open_book(None, root.parent).read(DAY)
    assert page
    assert page.counts == {IMPRESSION: 12, SERVED: 5} == counts(server, DAY)
    assert page.producers == {directory.name: 24, served.name: 5}
    assert state(server)[1] == read_closed(root)[DAY]
    assert not [name for name in ask(server, "HKEYS", partition(DAY)) if name[:1] in (b"@", b"b")]
    assert late(server) == {}


def test_two_may_close_at_once(root: Path, server: Server) -> None:
    """
    Without any lock between them, two closers end with one page, and neither fails.
    """
    write(root, DAY, n=20)

    async def body(one: Working) -> None:
        await one.counted()
        await one.closer.declare(one.store, CLOSES + 1)
        await one.store.ask("HSET", PRODUCERS, "since", "1")
        second = Closer(one.shipper, root, server.url, open_book(None, root.parent), lambda: DAYS, RULES)
        async with open_store(server.url) as store:
            await asyncio.gather(one.closer.close_days(one.store, CLOSES + 1), second.close_days(store, CLOSES + 1))
            await second.close_days(store, CLOSES + 2)

    run(root, server, body)
    assert len([name for name in open_book(None, root.parent)._shelf.names() if name.startswith("day-")]) == 1
    assert counts(server, DAY) == {IMPRESSION: 20}


def test_a_day_waits_three_days_for_a_volume_that_is_away(root: Path, server: Server, tmp_path: Path) -> None:
    """
    It is said where it is asked for; then the day closes without it; what comes back is late, and counted once.
    """
    write(root, DAY)
    away = write(root, DAY, n=7, issuer=b"other")
    ask(server, "HSET", PRODUCERS, away.name, ship.encode_producer(Producer(host="pod-2", volume="v2", boot=AT)))
    shutil.move(away, tmp_path / away.name)
    close(root, server, CLOSES + 71 * HOUR)
    assert state(server) == (False, None)

    async def told(one: Working) -> list[str]:
        return await alarms(one.store)

    assert any("pod-2" in sentence for sentence in run(root, server, told))

    close(root, server, CLOSES + 73 * HOUR)
    page = open_book(None, root.parent).read(DAY)
    assert page
    assert page.missing == [away.name]
    assert run(root, server, told) == []

    shutil.move(tmp_path / away.name, away)
    for _ in range(2):
        run(root, server, lambda one: eventually_async(lambda: async_late(one), {IMPRESSION: 7}))
    assert counts(server, DAY) == {IMPRESSION: 10}
    assert open_book(None, root.parent).read(DAY) == page


async def async_late(one: Working, day: int = DAY) -> dict[str, int]:
    return {field: n for field, n in (await one.store.counts(day, LATE)).items() if n}


async def eventually_async(probe: Callable[[], Any], expected: object) -> None:
    async with asyncio.timeout(10):
        while await probe() != expected:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


def test_late_events_count_once_beside_the_figures(root: Path, server: Server) -> None:
    """
    A repeat of what the day had counted is no late event; whether the store is wiped before or after it is archived,
    each late one counts once and the day's own totals stay.
    """
    write(root, DAY, issuer=b"first")
    close(root, server)
    write(root, DAY, n=14, issuer=b"first")
    write(root, DAY, n=5, type_=Type.SERVED)
    expected = {IMPRESSION: 4, SERVED: 5}

    async def arrive(one: Working) -> None:
        await eventually_async(lambda: async_late(one), expected)

    run(root, server, arrive)
    ask(server, "FLUSHALL")
    run(root, server, arrive)

    async def archive(one: Working) -> None:
        await arrive(one)
        await one.round(CLOSES + 2 * HOUR)
        page = one.book.late(DAY)
        assert page
        assert {field: n for field, n in page.counts.items() if n} == expected

    run(root, server, archive)
    ask(server, "FLUSHALL")
    write(root, DAY, n=15, issuer=b"first")
    run(root, server, lambda one: eventually_async(lambda: async_late(one), {IMPRESSION: 5, SERVED: 5}))
    close(root, server, CLOSES + 3 * HOUR)
    assert counts(server, DAY) == {IMPRESSION: 10}


def test_what_a_page_lacks_is_late_though_it_was_counted_before(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A day closed without a journal, which the store had counted all the same: all of its events are late.
    """
    monkeypatch.setattr(ship, "REREAD_S", 60.0)  # that the day is closed is heard of in the midst of shipping
    page = Closed(day=DAY, zone=DAYS.zone, producers={}, counts={}, ads={}, missing=[], bits="")

    async def body(one: Working) -> None:
        for serial in range(5):
            put(one.journal, serial, Type.IMPRESSION, DAY)
        await one.counted()
        one.book.write(page, {})
        await one.round(CLOSES + 60)
        assert await one.store.counts(DAY) == {}
        for serial in range(5, 8):
            put(one.journal, serial, Type.IMPRESSION, DAY)
        await one.counted()
        await eventually(lambda: one.shipper.own.cursors.get(DAY) == 8)

    run(root, server, body)
    assert late(server) == {IMPRESSION: 8}


def test_a_live_journals_old_segments_go_and_open_days_stay(root: Path, server: Server) -> None:
    """
    Of a journal in use nothing of an open day is deleted, nor its last segments; a dead one goes whole.
    """
    dead = write(root, DAY, n=20)
    mixed = write(root, DAY, DAY + 3, n=12)
    empty = write(root, n=0)

    async def body(one: Working) -> None:
        for serial in range(40):
            put(one.journal, serial)
        for serial in range(4):
            put(one.journal, serial, day=DAY + 3)
        await one.counted()
        await one.round(CLOSES + 1)
        assert not empty.exists()
        assert dead.exists(), "closed, and not 48 h old"
        live = one.journal.directory
        assert len(list(live.glob("*.seg"))) == 6
        await one.round(AT + 48 * HOUR)
        assert not dead.exists()
        assert dead.name not in await one.store.producers()
        assert sorted(path.name for path in live.glob("*.seg")) == [f"{first:020}.seg" for first in (33, 41)]
        assert sorted(path.name for path in mixed.glob("*.seg")) == [f"{first:020}.seg" for first in (9, 17)]
        put(one.journal, 100, day=DAY + 3)
        await one.counted()
        await one.round(AT + 49 * HOUR)

    run(root, server, body)
    assert counts(server, DAY) == {IMPRESSION: 72}
    ask(server, "FLUSHALL")

    async def rebuilt(one: Working) -> None:
        await eventually_async(lambda: one.store.counts(DAY + 3), {IMPRESSION: 17})

    run(root, server, rebuilt)


@settings(max_examples=60)
@given(
    days=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    pages=st.dictionaries(st.integers(0, 3), st.integers(0, 40)),
    hours=st.integers(0, 120),
    torn=st.integers(0, 40),
)
def test_no_record_that_the_archive_lacks_is_ever_deleted(
    days: list[int], pages: dict[int, int], hours: int, torn: int
) -> None:
    """
    Whatever days a journal mixes, whatever of them is archived, and whichever record is damaged: what may go holds
    nothing but archived records that are old enough.
    """
    with TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o700)
        journal = write(root, *(DAY + day for day in days), n=1)
        archived = {DAY + day: number for day, number in pages.items()}
        path = journal / f"{torn // 8 * 8 + 1:020}.seg"
        if torn < len(days):
            data = bytearray(path.read_bytes())
            data[HEADER + torn % 8 * RECORD] ^= 1
            path.write_bytes(data)
        now = AT + (48 + hours) * HOUR
        for segment in Contents(Reader(journal)).read()[:-1]:  # of the last one only a whole journal's end decides
            if may_go(segment, archived, now, RULES):
                numbers = range(segment.first, segment.first + 8)
                assert torn + 1 not in numbers
                assert all(archived.get(DAY + days[number - 1], -1) >= number for number in numbers)
                assert days[numbers[-1] - 1] * 24 <= hours


def test_nothing_is_deleted_for_a_day_the_archive_does_not_hold(root: Path, server: Server) -> None:
    """
    The list on the volume alone is not believed.
    """
    dead = write(root, DAY, n=20)
    (root / "closed").write_text(f"{DAY} {'0' * 32}\n")

    async def body(one: Working) -> None:
        await eventually(lambda: len(one.shipper.sources) == 2)
        await one.closer.delete(one.store, await one.closer.declare(one.store, AT + 500 * HOUR), AT + 500 * HOUR)

    run(root, server, body)
    assert len(list(dead.glob("*.seg"))) == 3


def test_late_records_are_kept_until_they_are_archived(root: Path, server: Server) -> None:
    """
    A closed day's journal that holds more than the day's page stays until the page of late ones has held it for two
    days, so that a store which loses its last hours is told of it again.
    """
    write(root, DAY, issuer=b"first")
    close(root, server)
    late_one = write(root, DAY, n=20, issuer=b"other")

    async def body(one: Working) -> None:
        await eventually_async(lambda: async_late(one), {IMPRESSION: 20})
        contents = await one.closer.declare(one.store, AT + 100 * HOUR)
        await one.closer.delete(one.store, contents, AT + 100 * HOUR)
        assert late_one.exists()
        await one.closer.archive_late(one.store, DAY)
        await one.closer.delete(one.store, contents, AT + 100 * HOUR)
        await one.closer.delete(one.store, contents, AT + 148 * HOUR - 1)
        assert late_one.exists()
        await one.store.forget_day(DAY)
        await one.closer.close_days(one.store, AT + 148 * HOUR)
        await eventually_async(lambda: async_late(one), {IMPRESSION: 20})
        await one.closer.delete(one.store, contents, AT + 148 * HOUR)
        assert not late_one.exists()

    run(root, server, body)


def test_totals_stay_400_days_in_the_store_and_for_good_in_the_archive(root: Path, server: Server) -> None:
    write(root, DAY)
    close(root, server)
    end = DAYS.start(DAY + 1)
    close(root, server, end + 400 * 24 * HOUR - 1)
    assert counts(server, DAY) == {IMPRESSION: 10}
    close(root, server, end + 400 * 24 * HOUR)
    assert counts(server, DAY) == {}
    page = open_book(None, root.parent).read(DAY)
    assert page
    assert page.counts == {IMPRESSION: 10}


def test_a_segment_that_turns_up_after_weeks_is_set_aside(root: Path, server: Server) -> None:
    """
    What is older than thirty days is not counted by itself; a salvage counts it once.
    """
    from adserver.salvage import apply_salvage, read_salvage

    old = DAY - 40
    directory = write(root, old, DAY, n=8)

    async def body(one: Working) -> None:
        await one.counted()
        assert await one.store.counts(old) == {}
        assert await one.store.counts(DAY) == {IMPRESSION: 8}

    run(root, server, body)
    assert [path.name for path in directory.glob("*.quarantined")] == [f"{1:020}.quarantined"]
    apply_salvage(directory, read_salvage(directory))
    for _ in range(2):
        run(root, server, lambda one: eventually_async(lambda: one.store.counts(old), {IMPRESSION: 8}))
    assert counts(server, DAY) == {IMPRESSION: 8}


def test_a_clean_stop_lets_days_close_without_its_volume(root: Path, server: Server, tmp_path: Path) -> None:
    """
    A drained producer has told all: its journal may be gone when the day closes.
    """

    async def work(one: Working) -> Path:
        for serial in range(9):
            put(one.journal, serial)
        await one.counted()
        return one.journal.directory

    gone = run(root, server, work)
    told = parse_producers({name.decode(): text.decode() for name, text in _registry(server).items()})[gone.name]
    assert (told.closed, told.ends) == (9, {DAY: 9})
    shutil.rmtree(gone)
    close(root, server)
    page = open_book(None, root.parent).read(DAY)
    assert page
    assert (page.producers, page.counts, page.missing) == ({gone.name: 9}, {IMPRESSION: 9}, [])


def _registry(server: Server) -> dict[bytes, bytes]:
    found = ask(server, "HGETALL", PRODUCERS)
    return found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))


def test_a_journal_is_registered_before_anything_of_it_is_counted(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    This worker's own and an adopted one: at each batch its producer is known to everybody.
    """
    write(root, DAY)
    batches: list[bool] = []
    real = Store.apply

    async def apply(store: Store, producer: bytes, batch: Any, part: str = "") -> Any:
        batches.append(producer.hex() in await store.producers())
        return await real(store, producer, batch, part)

    monkeypatch.setattr(Store, "apply", apply)

    async def body(one: Working) -> None:
        put(one.journal, 1)
        await one.counted()

    run(root, server, body)
    assert len(batches) >= 2
    assert all(batches)


def test_a_registry_just_born_closes_no_day(root: Path, server: Server) -> None:
    """
    After a wipe not everybody may have told of itself again: an hour passes first.
    """
    write(root, DAY)

    async def body(one: Working) -> None:
        await one.counted()
        await one.store.ask("HSET", PRODUCERS, "since", int(CLOSES))
        await one.closer.round(one.store, CLOSES + HOUR - 1)
        assert await one.store.state(DAY) == (False, None)
        await one.closer.round(one.store, CLOSES + HOUR)
        assert (await one.store.state(DAY))[0]

    run(root, server, body)


def test_each_machine_has_an_archive_of_its_own(root: Path, server: Server, tmp_path: Path) -> None:
    """
    What one machine closed the others copy, byte for byte; late events there are counted once all the same, although
    only the first one's archive knows the day's tokens.
    """
    write(root, DAY, issuer=b"first")
    close(root, server)
    (tmp_path / "other").mkdir()
    elsewhere = tmp_path / "other" / "journal"
    elsewhere.mkdir(mode=0o700)
    write(elsewhere, DAY, n=14, issuer=b"first")

    async def copies(one: Working) -> None:
        await one.counted()
        await one.round(CLOSES + HOUR)
        await eventually_async(lambda: one.store.ask("HEXISTS", CLOSING, f"late:{DAY}"), 1)  # its tokens are asked for
        assert await async_late(one) == {}
        assert one.book.bits(DAY) is None

    run(elsewhere, server, copies, tmp_path / "other")
    assert open_book(None, tmp_path / "other").digests() == open_book(None, root.parent).digests()
    assert read_closed(elsewhere) == read_closed(root)

    close(root, server, CLOSES + 2 * HOUR)

    async def arrives(one: Working) -> None:
        await eventually_async(lambda: async_late(one), {IMPRESSION: 4})
        one.closer._late_at.clear()
        await one.round(CLOSES + 3 * HOUR)
        assert one.book.late(DAY)
        await one.round(AT + 49 * HOUR)

    run(elsewhere, server, arrives, tmp_path / "other")
    assert counts(server, DAY) == {IMPRESSION: 10}
    assert [path.name for path in elsewhere.iterdir() if path.is_dir() and list(path.glob("*.seg"))] == [
        path.name for path in elsewhere.iterdir() if path.is_dir()
    ]


def test_an_interrupted_deletion_is_swept_up(root: Path, server: Server) -> None:
    """
    A journal renamed to be deleted is no journal any more: not adopted, and gone at the next round.
    """
    directory = write(root, DAY)
    gone = directory.rename(directory.with_name(directory.name + ".gone"))

    async def body(one: Working) -> None:
        await one.round(CLOSES - 1)
        assert len(one.shipper.sources) == 1

    run(root, server, body)
    assert not gone.exists()


def test_what_is_not_ours_in_the_registry_is_passed_over() -> None:
    good = Producer(host="h", volume="v", boot=1.0)
    texts = {"since": "1", "zz": "{}", "0b" * 8: msgspec.json.encode(good).decode(), "0c" * 8: "host-1"}
    assert parse_producers(texts) == {"0b" * 8: good}
