"""Closes days: sealed in the store, written to the archive, listed on the journals' volume, tidied up; then deletes.

Every worker tells of the journals it holds and deletes from them; one at a time, by a lock in the store, closes days.
The lock only saves work: each step may be done twice, at once, or again after a crash anywhere between them, because

- sealing compares every cursor and seals in one script, and a sealed partition takes nothing more;
- the archive keeps the first page of a day, and nothing is taken out of the store before that page was read back;
- what the store forgets of a closed day is put back from its page, and what the volume's list names is never counted
  again.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from adserver import metrics
from adserver.adoption import delete_journal, delete_leftovers, delete_segment
from adserver.archive import ArchiveUnavailable, Book, Closed, parse_page
from adserver.background import wait_for_any
from adserver.days import Days
from adserver.disk import list_closed, read_closed
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.reader import Contents, Reader
from adserver.retention import (
    Due,
    Held,
    Open,
    Producer,
    Rules,
    given_up_at,
    is_kept,
    judge,
    last_to_close,
    may_go,
    parse_producers,
)
from adserver.salvage import set_aside
from adserver.ship import Shipper, Source, encode_producer, late_fields
from adserver.store import CLOSING, LATE, SINCE, Snapshot, Store, open_store, partition

log = logging.getLogger(__name__)

EVERY_S = 30.0
LATE_EVERY_S = 600.0
"""What came late is archived this often, as long as more comes."""
SETTLED_S = 3600.0
"""A registry younger than this may not know every producer yet, so no day is closed by it."""
_LOCK = "as:closing:lock"
_LOOK_BACK = 40
_WANTED = re.compile(rb"late:([0-9]{1,5})")


class Closer:
    """Closes days and deletes what they free, beside one worker's shipper."""

    def __init__(
        self,
        shipper: Shipper,
        root: Path,
        url: str,
        book: Book,
        days: Callable[[], Days],
        rules: Rules,
    ) -> None:
        self._shipper = shipper
        self._root = root
        self._url = url
        self._book = book
        self._days = days
        self._rules = rules
        self._contents: dict[bytes, Contents] = {}
        self._late_at: dict[int, float] = {}
        self._late_since: dict[tuple[int, str, int], float] = {}
        self._alike: dict[int, tuple[bool, str | None]] = {}
        self._looked = False
        self._told: set[str] = set()
        self._me = secrets.token_hex(8)
        self.clock_holds: Callable[[], bool] = lambda: True

    def __repr__(self) -> str:
        return f"<Closer with {self._book!r}>"

    async def run(self, stopping: asyncio.Event) -> None:
        """Close and delete until *stopping* is set; whatever is away is tried again."""
        while not stopping.is_set():
            await wait_for_any(EVERY_S, stopping)
            if stopping.is_set():
                return
            if not self.clock_holds():  # a day that is closed by a wrong clock stays closed when it is right again
                self._say("no day is closed and nothing is deleted while the clock is wrong")
                continue
            try:
                async with open_store(self._url) as store:
                    await self.round(store, time.time())
            except (StoreUnavailable, StoreRefused, ArchiveUnavailable, OSError) as error:
                self._say(f"days are not closed for now: {error}")

    async def round(self, store: Store, now: float) -> None:
        """All of it once. Raises StoreUnavailable, StoreRefused, ArchiveUnavailable or OSError."""
        contents = await self.declare(store, now)
        if await store.ask("SET", _LOCK, self._me, "NX", "PX", int(EVERY_S * 4000)) or (
            await store.ask("GET", _LOCK) == self._me.encode()
        ):
            await store.ask("PEXPIRE", _LOCK, int(EVERY_S * 4000))
            await self.close_days(store, now)
        await self._keep_up(store, now)
        await asyncio.to_thread(list_closed, self._root, await asyncio.to_thread(self._book.digests))
        await self.delete(store, contents, now)

    # Telling of journals

    async def declare(self, store: Store, now: float) -> dict[bytes, list[Held]]:
        """Tell everybody how far the journals held here go, per day; what their segments hold."""
        known = parse_producers(await store.producers())
        found: dict[bytes, list[Held]] = {}
        for source in [*self._shipper.sources]:
            adopted = self._shipper.adopted(source)
            contents = self._contents.setdefault(source.producer, Contents(source.reader))
            if adopted:
                await asyncio.to_thread(adopted.refresh)
            try:
                held = await asyncio.to_thread(contents.read)
            except OSError as error:
                self._say(f"{source.reader.directory} cannot be read: {error}")
                continue
            found[source.producer] = held
            before = known.get(source.producer.hex())
            facts = self._shipper.facts(before.boot if before else 0.0)
            facts.at, facts.ends = now, ends_of(held)
            facts.closed = source.last() if adopted else None
            await store.register_new(source.producer, encode_producer(facts), now)
            await store.register(source.producer, encode_producer(facts))
        self._contents = {name: one for name, one in self._contents.items() if name in found}
        return found

    # Closing

    async def close_days(self, store: Store, now: float) -> None:
        """Close every day that may be, and put back what the store forgot of those that are."""
        rules, days = self._rules, self._days()
        texts = await store.producers()
        producers = parse_producers(texts)
        closed = await asyncio.to_thread(self._book.digests)
        newest = last_to_close(days, now, rules)
        alarms: list[str] = []
        blocked = 0
        if (since := texts.get(SINCE, "")).isdigit() and now - int(since) >= SETTLED_S:
            over = {day for one in producers.values() for day in one.ends if day <= newest}
            for day in sorted((over | await self._counted(store, newest)) - closed.keys()):
                match judge(day, days, now, producers, rules):
                    case Due() as due:
                        try:
                            trouble = await self.close_day(store, day, due, now)
                        except StoreRefused as error:  # the other days go on
                            trouble = str(error)
                        if not trouble:
                            for name in due.missing:
                                producers[name].lost = True
                                await store.register(bytes.fromhex(name), encode_producer(producers[name]))
                    case Open(missing=missing):
                        hosts = sorted({f"{producers[name].host} ({name})" for name in missing})
                        trouble = f"it waits for the journals of {', '.join(hosts)}; bring their volume back"
                if trouble:
                    blocked += 1
                    alarms.append(f"{days.date(day).isoformat()} cannot be closed: {trouble}")
        metrics.CLOSING_BLOCKED.set(blocked)
        alarms += await self._look_after(store, now)
        for sentence in alarms:
            self._say(sentence)
        await store.ask("HSET", CLOSING, "alarm", msgspec.json.encode(alarms))
        await self._forget_producers(store, producers, now)

    async def _counted(self, store: Store, newest: int) -> set[int]:
        """The days of late that the store knows anything of."""
        days = range(newest - _LOOK_BACK, newest + 1)
        return {day for day in days if await store.ask("EXISTS", partition(day))}

    async def close_day(self, store: Store, day: int, due: Due, now: float) -> str | None:
        """Seal, archive, list and tidy *day*; the reason when it has to wait."""
        ends, missing = {**due.ends}, [*due.missing]
        while behind := await store.seal(day, ends, secrets.token_hex(8)):
            if now < given_up_at(self._days(), day, self._rules):
                return (
                    f"{behind.cursor} of {ends[behind.producer]} records of {behind.producer} are counted; "
                    "see adserver journal status"
                )
            missing.append(behind.producer)
            del ends[behind.producer]
        snapshot = await store.snapshot(day)
        if snapshot is None or not snapshot.sealed:
            return "it changed while it was read"
        page = await asyncio.to_thread(self._book.read, day)
        if page is None and snapshot.page:
            await asyncio.to_thread(self._book.copy, day, snapshot.page)
        elif page is None:
            page = self._page(day, snapshot, await store.ad_names(), missing)
            page = await asyncio.to_thread(self._book.write, page, snapshot.bits)
            metrics.CLOSINGS.inc()
            log.info("closed %s: %d figures of %d producers", self._days().date(day), len(page.counts), len(ends))
        await self._finish(store, day)
        return None

    def _page(self, day: int, snapshot: Snapshot, names: dict[str, str], missing: list[str]) -> Closed:
        subjects = {field.split(":")[2] for field in snapshot.counts}
        return Closed(
            day=day,
            zone=self._days().zone,
            producers=snapshot.producers,
            counts=snapshot.counts,
            ads={key: name for key, name in names.items() if key in subjects},
            missing=sorted(missing),
            bits="",
        )

    async def _finish(self, store: Store, day: int) -> None:
        """Once there is a page: list the day, see that the store says the same, and take out what is done with."""
        page = await asyncio.to_thread(self._book.read, day)
        digest = (await asyncio.to_thread(self._book.digests))[day]
        assert page
        await asyncio.to_thread(list_closed, self._root, {day: digest})
        sealed, _ = await store.state(day)
        if not sealed or await store.counts(day) != page.counts:
            log.warning("the store's counts of the closed day %s are put back", self._days().date(day))
            await store.restore(day, page.counts, self._me)
        if await store.counts(day) == page.counts:
            await store.tidy(day, digest, await asyncio.to_thread(self._book.raw, day))
        for start in range(0, len(page.ads), 1000):
            some = list(page.ads.items())[start : start + 1000]
            await store.name_ads({bytes.fromhex(key): name for key, name in some if len(key) == 14})

    async def _look_after(self, store: Store, now: float) -> list[str]:
        """Keep the store in step with the archive: closed days as they were, old ones gone."""
        rules, days = self._rules, self._days()
        alarms = []
        for day, digest in (await asyncio.to_thread(self._book.digests)).items():
            try:
                if not is_kept(day, days, now, rules):
                    await store.forget_day(day)
                elif not await self._is_in_step(store, day, digest):
                    await self._finish(store, day)
            except StoreRefused as error:  # the other days go on
                alarms.append(f"{days.date(day).isoformat()} is closed, and the store spoils it: {error}")
        return alarms

    async def _is_in_step(self, store: Store, day: int, digest: str) -> bool:
        """Whether the store holds *day* as the archive does, or as another machine's does, with the same figures."""
        state = await store.state(day)
        if state == (True, digest) or state == self._alike.get(day):
            return True
        if not all(state):
            return False
        ours, data = await asyncio.to_thread(self._book.read, day), await store.page(day)
        theirs = parse_page(data) if data else None
        if ours is None or theirs is None or not ours.same_figures(theirs):
            return False
        self._alike[day] = state
        return True

    async def _keep_up(self, store: Store, now: float) -> None:
        """What every machine does for its own archive: copy pages, archive late events, open what others want open."""
        newest = last_to_close(self._days(), now, self._rules)
        look_back = _LOOK_BACK if self._looked else int(self._rules.keep_counts_s // 86400)
        ours = await asyncio.to_thread(self._book.days)
        for day in range(newest - look_back, newest + 1):
            if day not in ours and (data := await store.page(day)):
                await asyncio.to_thread(self._book.copy, day, data)
            if day in ours and newest - day <= _LOOK_BACK and now >= self._late_at.get(day, 0.0):
                await self.archive_late(store, day)
                self._late_at[day] = now + LATE_EVERY_S
        self._looked = True
        await asyncio.to_thread(self._book.drop_bits, newest - _LOOK_BACK)
        for name in await store.ask("HKEYS", CLOSING):
            if match := _WANTED.fullmatch(name):
                day = int(match[1])
                with suppress(StoreRefused):  # this archive does not know its tokens either
                    fields = await asyncio.to_thread(late_fields, self._book, day)
                    if await store.is_late_open(day) or await store.open_late(day, fields, secrets.token_hex(8)):
                        await store.ask("HDEL", CLOSING, name)

    async def archive_late(self, store: Store, day: int) -> None:
        """Write down what came late for *day*, if it is more than what was."""
        if not await store.is_late_open(day):
            return
        snapshot = await store.snapshot(day, LATE)
        before = await asyncio.to_thread(self._book.late, day)
        if snapshot is None or not snapshot.counts:
            return
        page = self._page(day, snapshot, await store.ad_names(), [])
        if before is None or not page.same_figures(before):
            await asyncio.to_thread(self._book.write_late, page, snapshot.bits)

    async def _forget_producers(self, store: Store, producers: dict[str, Producer], now: float) -> None:
        """Strike out those that nobody has spoken of for weeks and that no open day waits for."""
        closed = await asyncio.to_thread(self._book.days)
        await store.deregister(
            [
                name
                for name, one in producers.items()
                if (one.closed is not None or one.lost)
                and one.ends.keys() <= closed
                and now - max(one.at, one.boot) > self._rules.quarantine_s
            ]
        )

    # Deleting

    async def delete(self, store: Store, contents: dict[bytes, list[Held]], now: float) -> None:
        """Delete the segments all of whose records are in the archive, and dead journals with nothing else in them."""
        await asyncio.to_thread(delete_leftovers, self._root)
        listed = await asyncio.to_thread(read_closed, self._root)
        for source in [*self._shipper.sources]:
            held = contents.get(source.producer, [])
            adopted = self._shipper.adopted(source)
            if source.producer not in contents:
                continue
            archived = await asyncio.to_thread(self._archived, source, held, set(listed), now)
            last_ones = 1 if adopted else 2  # a live journal still writes to its last, and may sync the one before
            going = 0
            for segment in held[: max(0, len(held) - last_ones)]:
                if not may_go(segment, archived, now, self._rules):
                    break
                going += 1
            if adopted and going >= len(held) - 1 and self._may_end(source, held, archived, now):
                if not await asyncio.to_thread(_delete_as_seen, source.reader, held):
                    continue
                metrics.SEGMENTS_DELETED.inc(len(held))
                self._shipper.release(source)
                await store.deregister([source.producer.hex()])
                continue
            for segment in held[:going]:
                await asyncio.to_thread(delete_segment, source.reader.directory, segment.first)
                metrics.SEGMENTS_DELETED.inc()

    def _may_end(self, source: Source, held: list[Held], archived: dict[int, int], now: float) -> bool:
        """Whether a dead journal has nothing left but a last segment that may go, or none, and nothing for a person."""
        read = held[-1].last if held else 0
        gone = not held or not held[-1].ends or may_go(held[-1], archived, now, self._rules)
        return read >= source.last() and gone and not set_aside(source.reader.directory)

    def _archived(self, source: Source, held: list[Held], listed: set[int], now: float) -> dict[int, int]:
        """Per closed day, the last of *source*'s records that the archive holds for good, late ones included.

        The late partition stays open, and a store that loses its last hours has it as it was before: what only a page
        of late events holds must be there to be shipped again for as long as any journal is kept.
        """
        name = source.producer.hex()
        found: dict[int, int] = {}
        for day in {day for one in held for day in one.ends} & listed:
            page = self._book.read(day)
            found[day] = page.producers.get(name, 0) if page else 0
            if found[day] < ends_of(held)[day] and (late := self._book.late(day)):
                cursor = late.producers.get(name, 0)
                since = self._late_since.setdefault((day, name, cursor), now)
                if now - since >= self._rules.keep_journal_s:
                    found[day] = max(found[day], cursor)
        return found

    def _say(self, sentence: str) -> None:
        if sentence not in self._told:
            if len(self._told) > 1000:
                self._told.clear()
            self._told.add(sentence)
            log.error("%s", sentence)


def _delete_as_seen(reader: Reader, held: list[Held]) -> bool:
    """Delete a dead journal, unless a salvage has put something back since *held* was read. Raises OSError."""
    if reader.starts() != [one.first for one in held]:
        return False
    delete_journal(reader.directory)
    return True


def ends_of(held: list[Held]) -> dict[int, int]:
    """The last record of each day."""
    found: dict[int, int] = {}
    for one in held:
        found.update(one.ends)
    return found


async def alarms(store: Store) -> list[str]:
    """What keeps days from being closed, as whoever closes them said last."""
    text = await store.ask("HGET", CLOSING, "alarm")
    try:
        return msgspec.json.decode(text, type=list[str]) if text else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
