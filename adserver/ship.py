"""Applies synced records to the store from the cursor it remembers: for this worker's journal and those it adopted.

One task with one connection. Memory of cursors from before a reconnect is void. Nothing is forgotten on a reply:
records stay in the journal, and when a cursor is found further back than it was (the store failed over, was
restored or wiped), shipping goes on from there.
"""

import asyncio
import logging
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic

import msgspec

from adserver import metrics
from adserver.adoption import Adopted, adopt_dead
from adserver.archive import ArchiveUnavailable, Book
from adserver.background import wait_for_any
from adserver.disk import read_closed, volume
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.events import Block, unpack
from adserver.journal import Journal
from adserver.reader import Reader
from adserver.retention import Producer, Rules
from adserver.store import CLOSING, LATE, Applied, Mismatch, Sealed, Store, open_store
from adserver.tally import tally

log = logging.getLogger(__name__)

FLUSH_S = 0.1
ADOPT_S = 1.0
REREAD_S = 5.0
RELEASE_S = 60.0
FAR_BEHIND = 20_000
"""So many events of its own, a second's work at most, a worker counts before its live ones; more, and it turns over."""
MOST_RECORDS = 3000
MOST_NAMES = 1000
MOST_TOKEN_EVENTS = 500
"""With these two a batch stays below the 8,000 values that Lua's unpack allows, should no two records share a field.

It writes two values for each field (a record's at worst), each chunk (a token event's at worst) and each of 25 hours.
"""


class SomebodyElse(StoreRefused):
    """The store has counted more under our own name than we wrote."""


class Source:
    """One journal being shipped: where it stands, and what the store said of it on this connection."""

    def __init__(
        self,
        reader: Reader,
        last: Callable[[], int],
        names: Mapping[bytes, str],
        recent: Callable[[int, int], Block | None] = lambda *_: None,
    ) -> None:
        self.reader = reader
        self._recent = recent
        self.producer = reader.producer
        self.last = last
        self.names = names
        self.position = 0
        self.cursors: dict[int, int] = {}
        self.days: set[int] = set()
        self.named = 0
        self.told = -1

    def __repr__(self) -> str:
        return f"<Source {self.producer.hex()} record {self.last():,} synced, {self.position:,} counted>"

    def forget(self) -> None:
        """The connection is gone, and with it what is known of the store."""
        self.cursors.clear()
        self.named = 0

    def learn(self, day: int, cursor: int) -> None:
        """Take the store's word; go back to *cursor* when it has forgotten what was counted."""
        believed = self.cursors.get(day)
        self.cursors[day] = cursor
        if cursor < self.position and (believed is None or cursor < believed):
            self.position = cursor
            self.named = 0

    async def read(self) -> Block:
        """The next records, of types this version knows; from memory where they are there. Raises OSError.

        Of a stretch that the store is known to have counted whole, only the last record is returned.
        """
        block = self._recent(self.position, MOST_RECORDS)
        if block is None:  # not in the event loop: the disk may be slow
            block = await asyncio.to_thread(self.reader.read_block, self.position, self.last(), MOST_RECORDS)
        if block and all(self.cursors.get(day, -1) >= block.last for day in block.days()):
            block = block.after(block.last - 1)
        return block.known()

    def tell(self, why: str) -> None:
        """Say once why reading does not go on from here."""
        if self.told != self.position:
            self.told = self.position
            left = self.last() - self.position
            log.error("%s: %s; %d events wait behind it", self.reader.directory, why, left)


class Shipper:
    """Ships this worker's journal and every dead one it finds, for as long as it runs."""

    def __init__(
        self, journal: Journal, root: Path, url: str, book: Book | None = None, rules: Rules | None = None
    ) -> None:
        self._book = book
        self._rules = rules
        self._booted = time.time()
        self._journal = journal
        self._root = root
        self._url = url
        self._adopted: list[Adopted] = []
        self.own = _live(journal)
        self.sources = [self.own]
        self.trouble: str | None = "the store has not been reached yet"
        self.warnings: tuple[str, ...] = ()
        self._refused: list[str] = []
        self._quarantine: dict[int, str] = {}
        self._told: dict[int, str] = {}
        self._wake = asyncio.Event()
        self._listed: set[int] = set()
        self._closed: dict[int, dict[str, int]] = {}
        self._late: set[int] = set()
        self._registered: set[bytes] = set()
        self.hurry = asyncio.Event()
        """Set by who waits for the next event to be counted: it is not let gather then."""
        self.clock_holds: Callable[[], bool] = lambda: True
        """Whether ages can be told by the wall clock."""
        self.turn_over: Callable[[], Awaitable[None]] | None = None
        """Has the worker go on in another journal; called when the store is back and the one in use is far behind."""
        journal.on_synced = self._wake.set

    def __repr__(self) -> str:
        return f"<Shipper of {len(self.sources)} journals, {self.trouble or 'connected'}>"

    def waiting(self) -> int:
        """Synced events the store has not counted yet."""
        return sum(source.last() - source.position for source in self.sources)

    def has_counted(self, journal: Journal, number: int) -> bool:
        """Whether the store has counted *journal* up to record *number*; one that is no more here is counted whole."""
        return all(source.position >= number for source in self.sources if source.producer == journal.producer)

    @property
    def days_set_aside(self) -> Mapping[int, str]:
        """The days that are not counted as the store has them, and why."""
        return self._quarantine

    def lag_s(self, now: float) -> float:
        """Seconds since the oldest event still waiting was accepted. Not in the event loop; raises OSError."""
        waiting = [source for source in self.sources if source.last() > source.position]
        found = [source.reader.read(source.position, source.last(), 1) for source in waiting]
        ages = [now - unpack(records[0][1])[0].at for records in found if records]
        return max([0.0, *ages])

    async def run(self, stopping: asyncio.Event) -> None:
        """Ship until *stopping* is set and what is synced is counted, or the store cannot be reached."""
        pause_s = 0.05
        while True:
            try:
                async with open_store(self._url) as store:
                    health = await store.check()
                    self.warnings = health.warnings
                    pause_s = 0.05
                    await self._ship_all(store, stopping)
                    return
            except (StoreUnavailable, StoreRefused) as error:
                if self.trouble != str(error):
                    log.warning("counting is put off, events stay in the journal: %s", error)
                self.trouble = str(error)
                metrics.STORE_UP.set(0)
                metrics.SHIP_ERRORS.inc()
            for source in self.sources:
                source.forget()
            self._late.clear()
            self._registered.clear()
            if stopping.is_set():
                return
            await wait_for_any(pause_s * random.uniform(0.5, 1.0), stopping)  # noqa: S311
            pause_s = min(2.0, pause_s * 2)

    async def _ship_all(self, store: Store, stopping: asyncio.Event) -> None:
        adopt_at = reread_at = release_at = 0.0
        while True:
            last_round = stopping.is_set()
            self._wake.clear()
            if monotonic() >= reread_at:
                if monotonic() >= release_at:
                    self._release()
                    release_at = monotonic() + RELEASE_S
                await self._reread(store)
                reread_at = monotonic() + REREAD_S
                if self.trouble:
                    log.info("the store counts")
                    if self.turn_over and self.own.last() - self.own.position > FAR_BEHIND and not last_round:
                        await self.turn_over()
                self.trouble = None
                metrics.STORE_UP.set(1)
                metrics.INVARIANTS.labels("counted-written").set(0)
            if monotonic() >= adopt_at and not last_round:
                await self._adopt()
                adopt_at = monotonic() + ADOPT_S
            await self._register(store)
            self.hurry.clear()
            until = monotonic() + FLUSH_S
            await self._ship_own(store)
            more = await self._ship_dead(store, until)
            metrics.WAITING.set(self.waiting())
            if more:
                continue
            if last_round:
                await self._sign_off(store)
                return
            await self._rest(stopping)

    def write_to(self, journal: Journal) -> None:
        """The worker goes on in *journal* (see `turnover`); the one before is let go, for whoever adopts it."""
        self._journal.on_synced = lambda: None
        journal.on_synced = self._wake.set
        self.sources.remove(self.own)
        self._registered.discard(self.own.producer)
        self._journal, self.own, self._booted = journal, _live(journal), time.time()
        self.sources.insert(0, self.own)

    async def _ship_own(self, store: Store) -> None:
        """What was synced when the turn began. What comes meanwhile gathers: else batches would become ever smaller."""
        end = self.own.last()
        while self.own.position < end and await self._ship_some(store, self.own):
            pass

    async def _ship_dead(self, store: Store, until: float) -> bool:
        """Ship adopted journals, however long, for the rest of a turn only: live events never wait behind them.

        True when there is more of them.
        """
        for source in [*self.sources]:
            while source is not self.own and await self._ship_some(store, source):
                if monotonic() >= until or self.hurry.is_set():
                    return True
        return False

    async def _rest(self, stopping: asyncio.Event) -> None:
        """Let events gather for a moment, then go on as soon as some are synced or we are to stop."""
        await wait_for_any(FLUSH_S, self.hurry, stopping)
        if self.own.position >= self.own.last():
            await wait_for_any(ADOPT_S, self._wake, stopping)

    async def _register(self, store: Store) -> None:
        """Before anything of a journal is counted, everybody can know of it."""
        for source in self.sources:
            if source.producer not in self._registered:
                boot = self._booted if source is self.own else 0.0
                await store.register_new(source.producer, encode_producer(self.facts(boot)), time.time())
                self._registered.add(source.producer)

    def facts(self, boot: float) -> Producer:
        """What is said of a journal of this volume, before anything is known of its records."""
        try:
            name = volume(self._root)
        except OSError:  # the disk is full or fails: that is told elsewhere, and stops nobody from counting
            name = "unknown"
        return Producer(host=socket.gethostname(), volume=name, boot=boot)

    async def _sign_off(self, store: Store) -> None:
        """All of this boot's journal is counted and nothing will be added: no day need wait for it."""
        if not self._quarantine.keys() & self.own.days:
            await self._reread(store)
            if self.own.position >= self.own.last():
                done = self.facts(self._booted)
                done.at, done.closed = time.time(), self.own.last()
                done.ends = {day: cursor for day, cursor in self.own.cursors.items() if cursor}
                await store.register(self.own.producer, encode_producer(done))

    async def _reread(self, store: Store) -> None:
        with suppress(OSError):  # the list read last is still true
            self._listed = set(await asyncio.to_thread(read_closed, self._root))
        for day in sorted({day for source in self.sources for day in source.days} - self._quarantine.keys()):
            sources = [source for source in self.sources if day in source.days]
            try:
                cursors = await self._cursors(store, day, [source.producer for source in sources])
            except (StoreRefused, ArchiveUnavailable) as error:
                self._set_aside(day, error)
                continue
            for source, cursor in zip(sources, cursors, strict=True):
                self._check_cursor(source, cursor)
                source.learn(day, cursor)

    def _check_cursor(self, source: Source, cursor: int) -> None:
        """Nobody but us counts our own journal. (A dead one may be a copy, shorter than what was counted of it.)"""
        if source is self.own and cursor > source.last():
            metrics.INVARIANTS.labels("counted-written").set(1)
            raise SomebodyElse(
                f"the store has counted {cursor:,} events of {source.producer.hex()}, which has only "
                f"{source.last():,}: somebody else writes under its name"
            )

    async def _cursors(self, store: Store, day: int, producers: Sequence[bytes]) -> list[int]:
        """How far each producer is counted: in a closed day by its page, and in what came late once that is open."""
        if day in self._late:
            return await store.cursors(day, producers, LATE)
        if day in self._listed and day not in self._closed:
            await self._close(day)
        if (closed := self._closed.get(day)) is not None:
            return [closed.get(producer.hex(), 0) for producer in producers]
        return await store.cursors(day, producers)

    async def _close(self, day: int) -> None:
        """Take *day* for closed. Raises StoreRefused when it is not in the archive yet, or not in ours."""
        self._late.discard(day)
        page = await asyncio.to_thread(self._book.read, day) if self._book else None
        if page is None:
            place = f" {self._book.place}" if self._book else ""
            raise StoreRefused(f"day {day} is sealed, and not (or not yet) in the archive{place}")
        self._closed[day] = page.producers

    async def _open_late(self, store: Store, day: int) -> None:
        """Have a partition for what comes late, which knows all that the closed day and earlier late ones counted."""
        assert self._book
        if not await store.is_late_open(day):
            try:
                fields = await asyncio.to_thread(late_fields, self._book, day)
            except StoreRefused:  # an archive on another machine may know more
                await store.ask("HSET", CLOSING, f"late:{day}", "1")
                raise
            if not await store.open_late(day, fields, secrets.token_hex(8)):
                raise StoreRefused(f"somebody else opens day {day} for late events")
        log.warning("events of the closed day %d arrive; they are counted as late, beside its figures", day)
        self._late.add(day)
        for source in self.sources:
            source.cursors.pop(day, None)

    def _set_aside(self, day: int, error: Exception) -> None:
        """Leave out a day whose partition must not be touched as it is; the other days go on."""
        if self._told.get(day) != str(error):
            log.error("day %d is not counted, its events stay in the journal: %s", day, error)
        self._quarantine[day] = self._told[day] = str(error)
        metrics.SHIP_ERRORS.inc()

    def _release(self) -> None:
        """Try the days set aside again, from the cursors the store has for them."""
        for day in self._quarantine:
            for source in self.sources:
                source.cursors.pop(day, None)
        self._quarantine.clear()

    async def _adopt(self) -> None:
        known = {source.producer for source in self.sources}
        try:
            too_old = time.time() - self._rules.quarantine_s if self._rules and self.clock_holds() else 0.0
            adopted, refused = await asyncio.to_thread(adopt_dead, self._root, known, too_old)
        except OSError as error:
            adopted, refused = [], [f"journals cannot be adopted: {error}"]
        for sentence in refused:
            if sentence not in self._refused:
                log.warning("%s", sentence)
        self._refused = refused
        for one in adopted:
            log.info("adopted the journal of %s: %d events", one.producer.hex(), one.last)
            metrics.ADOPTED.inc()
            metrics.CORRUPT.inc(one.corrupt)
            metrics.QUARANTINED.inc(one.quarantined)
            self._adopted.append(one)
            self.sources.append(Source(one.reader, lambda one=one: one.last, one.names))  # type: ignore[misc]

    async def _ship_some(self, store: Store, source: Source) -> bool:
        """Count the next records of *source*; False when there are none."""
        if source.position >= source.last():
            return False
        try:
            block = await source.read()
        except OSError as error:
            source.tell(f"record {source.position + 1} cannot be read ({error})")
            return False
        if not block:
            source.tell(f"record {source.position + 1} is damaged or of a later version")
            await self._cut_at_hole(source)
            return False
        if len(source.names) > source.named:
            fresh = dict(islice(source.names.items(), source.named, source.named + MOST_NAMES))
            await store.name_ads(fresh)
            source.named += len(fresh)
            if len(source.names) > source.named:
                return True
        for part in block.parts(MOST_TOKEN_EVENTS):
            for day in part.days():
                if not await self._ship_day(store, source, day, part):
                    return True
            source.position = max(source.position, part.last)
        return True

    async def _ship_day(self, store: Store, source: Source, day: int, part: Block) -> bool:
        """Count *part*'s events of *day*; False when the store stands elsewhere and reading must start again."""
        new = day not in source.days
        source.days.add(day)
        if day in self._quarantine:
            return True
        try:
            if day not in source.cursors:
                stands = (await self._cursors(store, day, [source.producer]))[0]
                self._check_cursor(source, stands)
                if new:
                    source.cursors[day] = stands
                else:  # it was closed meanwhile, maybe with less than the store had counted: its records come again
                    source.learn(day, stands)
                    if source.position < part.first - 1:
                        return False
            cursor = source.cursors[day]
            data, end = part.after(cursor).of(day)
            if not data:
                return True
            if day in self._closed and day not in self._late:
                await self._open_late(store, day)
                return False
            batch = tally(day, cursor, end, data)
            outcome = await store.apply(source.producer, batch, LATE if day in self._late else "")
            if isinstance(outcome, Sealed):
                await self._close(day)
        except SomebodyElse:
            raise
        except (StoreRefused, ArchiveUnavailable) as error:
            self._set_aside(day, error)
            return True
        match outcome:
            case Applied(cursor=now_at, repeats=repeats):
                source.cursors[day] = now_at
                metrics.SHIPPED.inc(batch.events)
                metrics.BATCHES.inc()
                if day in self._late:
                    metrics.LATE.inc(batch.events)
                if repeats:
                    metrics.REPEATS.inc(repeats)
                return True
            case Mismatch(cursor=now_at):
                self._check_cursor(source, now_at)
                source.learn(day, now_at)
                return now_at >= end
            case Sealed():
                for each in self.sources:
                    each.cursors.pop(day, None)
                return False

    async def _cut_at_hole(self, source: Source) -> None:
        """What lies behind a hole waits for a person; the journal ends before it."""
        one = self.adopted(source)
        if one is None:
            return
        with suppress(OSError):
            cut = await asyncio.to_thread(one.cut_at_hole, source.position)
            metrics.CORRUPT.inc(int(cut))

    def adopted(self, source: Source) -> Adopted | None:
        """The dead journal that *source* ships; None for this worker's own."""
        return next((one for one in self._adopted if one.reader is source.reader), None)

    def release(self, source: Source) -> None:
        """Let go of a dead journal that was deleted."""
        if one := self.adopted(source):
            self.sources.remove(source)
            self._adopted.remove(one)
            self._registered.discard(source.producer)
            one.close()

    def close(self) -> None:
        for one in self._adopted:
            one.close()


def _live(journal: Journal) -> Source:
    return Source(Reader(journal.directory), lambda: journal.synced, journal.names, journal.recent)


def encode_producer(facts: Producer) -> str:
    return msgspec.json.encode(facts).decode()


def late_fields(book: Book, day: int) -> dict[str | bytes, str | bytes]:
    """What *day*'s late partition begins with: all that the archive knows of it. Does I/O.

    Raises StoreRefused when *day* is not closed, or so long ago that its tokens are forgotten; ArchiveUnavailable.
    """
    closed, late, bits = book.read(day), book.late(day), book.bits(day)
    if closed is None or bits is None:
        raise StoreRefused(
            f"late events of day {day} cannot be told from those counted: its tokens are in another machine's archive, "
            "which is asked for them, or forgotten after 40 days"
        )
    fields: dict[str | bytes, str | bytes] = {}
    for name, cursor in {**closed.producers, **(late.producers if late else {})}.items():
        fields[f"@{name}"] = str(cursor)
    for field, n in sorted(late.counts.items()) if late else ():
        fields[field] = str(n)
        directory = f"F{field.split(':')[1]}"
        fields[directory] = f"{fields.get(directory, '')!s}{field}\n"
    fields.update(bits.items())
    return fields
