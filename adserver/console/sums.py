"""What was counted, day by day: sums by ad, added up once and remembered.

A day of a thousand ads is some hundred thousand counts; its sums are a thousand. They are kept in the worker, and
where they are many also in the store, so that one worker does it for all and a new one need not. Closed
days never change. Of a day that does, a page shows at once what was counted a little earlier, when reading it again
takes longer than a page may.
"""

import asyncio
import logging
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from adserver.archive import ArchiveUnavailable, Book, parse_page
from adserver.background import wait_for_any
from adserver.catalog import ad_key
from adserver.console.figures import Ads, Day, Sum, add_days, add_up, fields_of, join
from adserver.days import Days
from adserver.errors import AdserverError, StoreRefused, StoreUnavailable
from adserver.store import Store, open_store

log = logging.getLogger(__name__)

MOST_DAYS = 400
"""Days that a worker remembers; the one asked for longest ago is forgotten."""
AHEAD_DAYS = 31
"""Days up to now that are added up before anybody asks."""
PATIENCE_S = 5.0
MANY = 5_000
"""Counts that take some 50 ms to read: a day of more is kept in the store, and read again beside the requests."""
_COST = 20
"""Reading the open days again takes at most one part in so many of a worker's time."""
_STALE_S = 300.0
_OLD_DAYS, _OLD_S = 4, 60.0
"""An open day this long ago changes seldom: it waits for a journal that is away, or nothing was counted on it."""
_BASE_S = {True: 600.0, False: 1800.0}
"""How old the sums kept in the store may be of today, its last hours excepted; and of an earlier open day."""
_ROUND_S = 240.0
_KEPT_S = {True: 400 * 86_400, False: 86_400}
_WHOLES = 6
_TURN = "as:{console}:sums-turn"


def _key(number: int) -> str:
    return f"as:{{console}}:sums-2:{number}"


class _Kept(Struct, frozen=True, array_like=True):
    """What the store keeps of a day, as read *at* that Unix second: *before* an hour, and what came *after*."""

    at: float
    hour: int
    before: Day
    after: Day | None = None


_DECODER = msgspec.msgpack.Decoder(_Kept)


class NotYet(AdserverError):
    """The days asked for have to be added up for the first time, and that takes longer than a page may."""


class Sums:
    """One worker's, for the event loop alone; long work is done in threads. An open day is good for *fresh_s*."""

    def __init__(self, book: Book, fresh_s: float = 1.0) -> None:
        self.ads = Ads()
        self._book = book
        self._fresh_s = fresh_s
        self._days: dict[int, Day] = {}
        self._read_at: dict[int, float] = {}
        self._took: dict[int, float] = {}
        self._large: set[int] = set()
        self._names: dict[str, str] = {}
        self._wholes: dict[tuple[int, ...], dict[str, Sum]] = {}
        self._in_archive: set[int] = set()
        self._archived_at = float("-inf")
        self._reading = asyncio.Lock()
        self._asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Sums of {len(self._days)} days>"

    async def read(self, store: Store, zone: Days, now: float, first: int, last: int) -> list[Day]:
        """The sums of the days *first* to *last*.

        Raises NotYet, StoreUnavailable, StoreRefused or ArchiveUnavailable. After NotYet, the next time goes on there.
        """
        numbers, began = range(first, last + 1), time.monotonic()
        today = zone.locate(now)[0]
        if not all(self._is_good(number, today) for number in numbers):
            async with self._reading:
                for number in reversed(numbers):
                    if not self._is_good(number, today):
                        if time.monotonic() > began + PATIENCE_S and number not in self._days:
                            raise NotYet(f"{number - first + 1} of {len(numbers)} days are still to be added up")
                        await self._renew(store, zone, now, number)
        found = []
        for number in numbers:
            self._days[number] = self._days.pop(number)  # the one asked for last
            found.append(self._days[number])
        while len(self._days) > MOST_DAYS:
            oldest = next(iter(self._days))
            del self._days[oldest], self._read_at[oldest], self._took[oldest]
            self._large.discard(oldest)
        return found

    async def whole(self, days: Sequence[Day]) -> dict[str, Sum]:
        """The sums of *days* together, by ad; not to be changed."""
        final = [day for day in days if day.final]
        key = tuple(day.number for day in final)
        if key not in self._wholes:
            self._wholes[key] = await asyncio.to_thread(add_days, final)
            while len(self._wholes) > _WHOLES:
                del self._wholes[next(iter(self._wholes))]
        closed = self._wholes[key] = self._wholes.pop(key)
        return await asyncio.to_thread(add_days, [day for day in days if not day.final], closed)

    async def read_hours(self, store: Store, day: Day, ads: Iterable[str]) -> dict[int, Sum]:
        """The sums of some *ads* in each hour of *day*."""
        keys = {name: _key_of(name) for name in ads if not name.endswith("//")}
        fields = fields_of(day, keys)
        counts = await store.counts_of(day.number, fields) if fields else {}
        if fields and not counts and (page := await asyncio.to_thread(self._book.look, day.number)):
            counts = {field: page.counts[field] for field in fields if field in page.counts}
        found = add_up(day.number, counts, {key: name for name, key in keys.items()}, final=day.final)
        return found.of_slot(None)

    async def follow(self, url: str, zone: Callable[[], Days], stopping: asyncio.Event) -> None:
        """Add up what nobody has asked for yet, one worker for all; and read again what a page has found too old."""
        me, next_round = secrets.token_hex(8), time.monotonic()
        while not stopping.is_set():
            try:
                async with open_store(url) as store:
                    if self._asked.is_set():
                        self._asked.clear()
                        await self._renew_open(store, zone(), stopping)
                    if time.monotonic() >= next_round:
                        next_round = time.monotonic() + _ROUND_S
                        if await store.ask("SET", _TURN, me, "NX", "EX", int(_ROUND_S) - 5):
                            await self._prepare(store, zone(), stopping)
            except (StoreUnavailable, StoreRefused, ArchiveUnavailable) as error:
                log.warning("the days of reports are not added up for now: %s", error)
                await wait_for_any(5.0, stopping)
            pause = max((_COST * self._took[one] for one, day in self._days.items() if not day.final), default=0.0)
            await wait_for_any(min(_STALE_S / 2, pause), stopping)
            await wait_for_any(max(0.0, next_round - time.monotonic()), stopping, self._asked)

    async def _renew_open(self, store: Store, zone: Days, stopping: asyncio.Event) -> None:
        for number in [one for one, day in self._days.items() if not day.final]:
            if not stopping.is_set() and number in self._large:
                await self._renew(store, zone, time.time(), number, at_once=False)

    async def _prepare(self, store: Store, zone: Days, stopping: asyncio.Event) -> None:
        """Have the store keep the days up to now, where adding them up takes long."""
        today = zone.locate(time.time())[0]
        for number in range(today, today - AHEAD_DAYS - 1, -1):
            day = self._days.get(number)
            if stopping.is_set() or (day is not None and day.final):
                continue
            kept, began = await self._kept(store, number), time.monotonic()
            age = _BASE_S[number == today] - _ROUND_S - 60
            if kept is None or (not kept.before.final and time.time() - kept.at > age):
                await self._add_up(store, zone, time.time(), number)
                await wait_for_any(3 * (time.monotonic() - began), stopping)

    def _is_good(self, number: int, today: int) -> bool:
        day = self._days.get(number)
        if day is None or day.final:
            return day is not None
        age, took = time.monotonic() - self._read_at[number], self._took[number]
        if age < self._fresh_s or (age < _OLD_S and today - number > _OLD_DAYS):
            return True
        if number in self._large and age < _STALE_S:
            if age >= _COST * took:
                self._asked.set()
            return True
        return False

    async def _renew(self, store: Store, zone: Days, now: float, number: int, *, at_once: bool = True) -> None:
        """Read a day, as the store keeps it where it does; not *at_once*, also what came since."""
        began = time.monotonic()
        today = zone.locate(now)[0]
        kept = await self._kept(store, number)
        if kept is not None and kept.before.final:
            day = kept.before
        elif kept is not None and 0 <= now - kept.at < _BASE_S[number == today]:
            after, since = kept.after, range(kept.hour, 25)
            if number == today and not at_once:
                counts, names, _ = await self._counts(store, number, since)
                after = await self._add(store, number, counts, names, final=False)
            day = await asyncio.to_thread(join, kept.before, after) if after else kept.before
            self._large.add(number)
        else:
            day = await self._add_up(store, zone, now, number)
        self.ads.learn(day.by_ad)
        self._days.pop(number, None)
        self._days[number] = day
        self._took[number] = time.monotonic() - began
        self._read_at[number] = time.monotonic()
        if kept is not None and not day.final and at_once and number == today:
            self._read_at[number] -= _STALE_S / 2
            self._asked.set()

    async def _add_up(self, store: Store, zone: Days, now: float, number: int) -> Day:
        """Read a whole day, and have the store keep it when it is large."""
        today, hour = zone.locate(now)
        last = max(0, hour - 1) if number == today else 25
        counts, names, final = await self._counts(store, number, range(last))
        before, after, many = await self._add(store, number, counts, names, final=final), None, len(counts)
        if number == today and not final:
            counts, names, _ = await self._counts(store, number, range(last, 25))
            after = await self._add(store, number, counts, names, final=False)
            many += len(counts)
        if many > MANY:
            self._large.add(number)
            data = await asyncio.to_thread(_pack, _Kept(now, last, before, after))
            await store.ask("SET", _key(number), data, "EX", _KEPT_S[final])
        return await asyncio.to_thread(join, before, after) if after else before

    async def _add(
        self, store: Store, number: int, counts: dict[str, int], names: dict[str, str], *, final: bool
    ) -> Day:
        keys = {field.split(":")[2] for field in counts if field[:2] != "2:" and field.count(":") > 1}
        if not keys <= names.keys():
            if not keys <= self._names.keys():
                self._names.update(await store.ad_names())
            names = {**self._names, **names}
        return await asyncio.to_thread(lambda: add_up(number, counts, names, final=final))

    async def _archived(self) -> set[int]:
        """Which days the archive has, as of a minute ago: looking may be slow and cost money."""
        if time.monotonic() - self._archived_at > _OLD_S:
            self._in_archive = await asyncio.to_thread(self._book.days)
            self._archived_at = time.monotonic()
        return self._in_archive

    async def _kept(self, store: Store, number: int) -> _Kept | None:
        data = await store.ask("GET", _key(number))
        if data is None:
            return None
        try:
            return await asyncio.to_thread(lambda: _DECODER.decode(zlib.decompress(data)))
        except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
            return None  # of another version

    async def _counts(
        self, store: Store, number: int, hours: Sequence[int] = range(25)
    ) -> tuple[dict[str, int], dict[str, str], bool]:
        """A day's counts, the names of ads that came with them, and whether they are final; then they are all of it.

        From the archive where the store has forgotten them, and where that is quicker.
        """
        sealed, digest = await store.state(number)
        if digest is not None and (data := await store.page(number)):
            page = await asyncio.to_thread(parse_page, data)
            if page is not None:
                return page.counts, page.ads, True
        if (
            not sealed
            and number in await self._archived()
            and (page := await asyncio.to_thread(self._book.look, number))
        ):
            return page.counts, page.ads, True
        return await store.counts(number, hours=hours), {}, digest is not None


def _key_of(name: str) -> str:
    """The key of an ad; of one that nobody has named, its name is made of it."""
    return name.rpartition("/")[2] if name.startswith("/") else ad_key(name).hex()


def _pack(kept: _Kept) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(kept), 1)
