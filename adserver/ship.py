"""Applies synced records to the store from the cursor it remembers: for this worker's journal and those it adopted.

One task with one connection. Memory of cursors from before a reconnect is void. Nothing is forgotten on a reply:
records stay in the journal, and when a cursor is found further back than it was (the store failed over, was
restored or wiped), shipping goes on from there.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic

from adserver import metrics
from adserver.background import wait_for_any
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.events import Block
from adserver.journal import Adopted, Journal, Reader, adopt_dead
from adserver.store import Applied, Mismatch, Sealed, Store, open_store
from adserver.tally import tally

log = logging.getLogger(__name__)

FLUSH_S = 0.1
ADOPT_S = 1.0
REREAD_S = 5.0
RELEASE_S = 60.0
MOST_RECORDS = 4000
MOST_NAMES = 1000
MOST_TOKEN_EVENTS = 500
"""With these two a batch stays far below the 8,000 values that Lua's unpack allows."""


class SomebodyElse(StoreRefused):
    """The store has counted more under our own name than we wrote."""


class Source:
    """One journal being shipped: where it stands, and what the store said of it on this connection."""

    def __init__(self, reader: Reader, last: Callable[[], int], names: Mapping[bytes, str]) -> None:
        self.reader = reader
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

    def read(self) -> Block:
        """The next records, of types this version knows. Not in the event loop: the disk may be slow. Raises OSError.

        Of a stretch that the store is known to have counted whole, only the last record is returned.
        """
        block = self.reader.read_block(self.position, self.last(), MOST_RECORDS)
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

    def __init__(self, journal: Journal, root: Path, url: str) -> None:
        self._journal = journal
        self._root = root
        self._url = url
        self._adopted: list[Adopted] = []
        self.own = Source(Reader(journal.directory), lambda: journal.synced, journal.names)
        self.sources = [self.own]
        self.trouble: str | None = "the store has not been reached yet"
        self.warnings: tuple[str, ...] = ()
        self._refused: list[str] = []
        self._quarantine: dict[int, str] = {}
        self._wake = asyncio.Event()
        self.hurry = asyncio.Event()
        """Set by who waits for the next event to be counted: it is not let gather then."""
        journal.on_synced = self._wake.set

    def __repr__(self) -> str:
        return f"<Shipper of {len(self.sources)} journals, {self.trouble or 'connected'}>"

    def waiting(self) -> int:
        """Synced events the store has not counted yet."""
        return sum(source.last() - source.position for source in self.sources)

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
            if stopping.is_set():
                return
            await _wait(stopping, pause_s * random.uniform(0.5, 1.0))  # noqa: S311
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
                self.trouble = None
                metrics.STORE_UP.set(1)
            if monotonic() >= adopt_at and not last_round:
                await self._adopt()
                adopt_at = monotonic() + ADOPT_S
            for source in self.sources:
                while await self._ship_some(store, source):
                    pass
            metrics.WAITING.set(self.waiting())
            if last_round:
                return
            await self._rest(stopping)

    async def _rest(self, stopping: asyncio.Event) -> None:
        """Let events gather for a moment, then go on as soon as some are synced or we are to stop."""
        await wait_for_any(FLUSH_S, self.hurry, stopping)
        self.hurry.clear()
        if self.own.position >= self.own.last():
            await wait_for_any(ADOPT_S, self._wake, stopping)

    async def _reread(self, store: Store) -> None:
        for day in sorted({day for source in self.sources for day in source.days} - self._quarantine.keys()):
            sources = [source for source in self.sources if day in source.days]
            try:
                cursors = await store.cursors(day, [source.producer for source in sources])
            except StoreRefused as error:
                self._set_aside(day, error)
                continue
            for source, cursor in zip(sources, cursors, strict=True):
                self._check_cursor(source, cursor)
                source.learn(day, cursor)

    def _check_cursor(self, source: Source, cursor: int) -> None:
        """Nobody but us counts our own journal. (A dead one may be a copy, shorter than what was counted of it.)"""
        if source is self.own and cursor > source.last():
            raise SomebodyElse(
                f"the store has counted {cursor:,} events of {source.producer.hex()}, which has only "
                f"{source.last():,}: somebody else writes under its name"
            )

    def _set_aside(self, day: int, error: StoreRefused) -> None:
        """Leave out a day whose partition must not be touched as it is; the other days go on."""
        if self._quarantine.get(day) != str(error):
            log.error("day %d is not counted, its events stay in the journal: %s", day, error)
        self._quarantine[day] = str(error)
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
            adopted, refused = await asyncio.to_thread(adopt_dead, self._root, known)
        except OSError as error:
            adopted, refused = [], [f"journals cannot be adopted: {error}"]
        for sentence in refused:
            if sentence not in self._refused:
                log.warning("%s", sentence)
        self._refused = refused
        for one in adopted:
            log.info("adopted the journal of %s: %d events", one.producer.hex(), one.last)
            metrics.ADOPTED.inc()
            self._adopted.append(one)
            self.sources.append(Source(one.reader, lambda one=one: one.last, one.names))  # type: ignore[misc]

    async def _ship_some(self, store: Store, source: Source) -> bool:
        """Count the next records of *source*; False when there are none."""
        if source.position >= source.last():
            return False
        try:
            block = await asyncio.to_thread(source.read)
        except OSError as error:
            source.tell(f"record {source.position + 1} cannot be read ({error})")
            return False
        if not block:
            source.tell(f"record {source.position + 1} is damaged or of a later version")
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
        source.days.add(day)
        if day in self._quarantine:
            return True
        try:
            if day not in source.cursors:
                source.cursors[day] = (await store.cursors(day, [source.producer]))[0]
                self._check_cursor(source, source.cursors[day])
            cursor = source.cursors[day]
            data, end = part.after(cursor).of(day)
            if not data:
                return True
            batch = tally(day, cursor, end, data)
            outcome = await store.apply(source.producer, batch)
        except SomebodyElse:
            raise
        except StoreRefused as error:
            self._set_aside(day, error)
            return True
        match outcome:
            case Applied(cursor=now_at, repeats=repeats):
                source.cursors[day] = now_at
                metrics.SHIPPED.inc(batch.events)
                metrics.BATCHES.inc()
                if repeats:
                    metrics.REPEATS.inc(repeats)
                return True
            case Mismatch(cursor=now_at):
                self._check_cursor(source, now_at)
                source.learn(day, now_at)
                return now_at >= end
            case Sealed():
                log.error("%d events of a closed day %d were left out", batch.events, day)
                metrics.LATE.inc(batch.events)
                source.cursors[day] = end
                source.days.discard(day)  # the store's cursor stays where it was: not a sign that it forgot
                return True

    def close(self) -> None:
        for one in self._adopted:
            one.close()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
