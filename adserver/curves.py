"""Traffic curves in the store: requests by slot and five minutes, of today as they come and of the weeks before.

A day that is being counted is one string of 288 numbers a slot; a day that is over is one key for all slots, its
numbers made coarse and compressed: 1,000 busy slots take less than 6 MB in five weeks. Beside them lies a sample of the
pages that asked, with what they said of themselves and nothing of who read them, so that a forecast can ask again: of
the last days alone, those that are over compressed as well, less than 4 MB.

Curves are for planning. They are not counted exactly: what a worker had not handed over when it was killed is missing.
"""

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from struct import unpack
from urllib.parse import urlsplit, urlunsplit

import msgspec

from adserver.days import Days
from adserver.decide import Page
from adserver.errors import StoreRefused
from adserver.model import Format, Group
from adserver.store import Store
from adserver.targeting import NO_READER, Context
from adserver.traffic import KEPT_DAYS, STEPS, coarse, step_of

_KEPT_S = (KEPT_DAYS + 1) * 86_400
SAMPLED_DAYS = 8
"""How many days' pages a forecast asks again, today's included; others are not kept."""
_SAMPLED_S = (SAMPLED_DAYS + 1) * 86_400
_LIVE_S = 3 * 86_400
_SETTLED_S = 900
"""How long after a day's end its last requests may still be handed over."""
_AT_ONCE = 500
MOST_PAGES = 2_000
"""Of each day."""
_MOST_ASKS = 30

# ARGV: for each key the step and how many requests.
_ADD = """
for i, key in ipairs(KEYS) do
  redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', 'INCRBY', 'u32', '#' .. ARGV[2 * i], ARGV[2 * i + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
"""

# ARGV: how many to keep, for how long, a number that says which to replace, and the page.
_SAMPLE = """
local n = redis.call('LLEN', KEYS[1])
if n < tonumber(ARGV[1]) then
  redis.call('RPUSH', KEYS[1], ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
else
  redis.call('LSET', KEYS[1], ARGV[3] % n, ARGV[4])
end
"""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A page that asked: slots by id and groups by name."""

    asks: tuple[int | str, ...]
    facts: tuple[str, ...] = ()
    path: str = ""
    address: str = ""
    format: str = "html"

    @property
    def context(self) -> Context:
        return Context(frozenset(self.facts), self.path, self.address)


def sample_of(page: Page) -> Sample:
    """*page* without what may tell who reads it, but for whether it named anybody."""
    address = page.context.address
    if address:
        parts = urlsplit(address)
        address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    asks = tuple(ask.id if isinstance(ask, Group) else int(ask) for ask in page.asks[:_MOST_ASKS])
    facts = page.context.facts if page.held is not None else page.context.facts | {NO_READER}
    return Sample(asks, tuple(sorted(facts)), page.context.path, address, page.format.value)


def _live(day: int, slot: int) -> str:
    return f"as:{{curves}}:{day}:{slot}"


def _whole(day: int) -> str:
    return f"as:{{curves}}:{day}"


def _pages(day: int) -> str:
    return f"as:{{curves}}:{day}:pages"


def _whole_pages(day: int) -> str:
    return f"as:{{curves}}:{day}:pages:whole"


class Curves:
    """One worker's part in the curves. For the event loop's thread alone."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int, int], int] = {}
        self._samples: list[tuple[int, Sample]] = []
        self._sampled = 0

    def add(self, requests: Mapping[int, int], days: Days, now: float) -> None:
        """Note so many *requests* by slot, of just now."""
        day, _ = days.locate(now)
        step = step_of(now - days.start(day))
        for slot, n in requests.items():
            key = day, slot, step
            self._waiting[key] = self._waiting.get(key, 0) + n

    def add_page(self, page: Page, days: Days, now: float) -> None:
        if page.format is not Format.PLACEHOLDER and len(self._samples) < _AT_ONCE:
            self._samples.append((days.locate(now)[0], sample_of(page)))

    async def flush(self, store: Store) -> None:
        """Hand over what was noted. What fails on the way is lost or, seldom, counted twice."""
        waiting, self._waiting = list(self._waiting.items()), {}
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            keys = [_live(day, slot) for (day, slot, _), _ in some]
            pairs = [number for (_, _, step), n in some for number in (step, n)]
            await store.ask("EVAL", _ADD, len(keys), *keys, _LIVE_S, *pairs)
        samples, self._samples = self._samples, []
        for day, sample in samples:
            self._sampled += 1
            place = self._sampled * 0x9E3779B1 % 2**31  # wanders evenly over all places
            page = msgspec.msgpack.encode(sample)
            await store.ask("EVAL", _SAMPLE, 1, _pages(day), MOST_PAGES, _SAMPLED_S, place, page)


async def read_live(store: Store, day: int, slots: Sequence[int]) -> dict[int, list[int]]:
    """A day's requests by slot and step, while it is not put away; slots without any are left out."""
    found = {}
    for start in range(0, len(slots), _AT_ONCE):
        some = slots[start : start + _AT_ONCE]
        values = await store.ask("MGET", *(_live(day, slot) for slot in some))
        for slot, value in zip(some, values, strict=True):
            if value is not None:
                numbers = unpack(f">{len(value) // 4}I", value[: len(value) // 4 * 4])[:STEPS]
                found[slot] = [*numbers, *[0] * (STEPS - len(numbers))]
    return found


async def put_away(store: Store, day: int, slots: Iterable[int]) -> None:
    """Make one key of a day that is over, and one of its pages, unless another worker did."""
    wanted = sorted(slots)
    if not await store.ask("EXISTS", _whole(day)) and (found := await read_live(store, day, wanted)):
        data = await asyncio.to_thread(_pack, found)
        await store.ask("SET", _whole(day), data, "NX", "EX", _KEPT_S)
    for start in range(0, len(wanted), _AT_ONCE):
        await store.ask("UNLINK", *(_live(day, slot) for slot in wanted[start : start + _AT_ONCE]))
    await _put_pages_away(store, day)


async def _put_pages_away(store: Store, day: int) -> None:
    pages = await store.ask("LRANGE", _pages(day), 0, -1)
    if pages:
        data = await asyncio.to_thread(lambda: zlib.compress(msgspec.msgpack.encode(pages), 9))
        await store.ask("SET", _whole_pages(day), data, "NX", "EX", SAMPLED_DAYS * 86_400)
        await store.ask("UNLINK", _pages(day))


def _pack(found: Mapping[int, Sequence[int]]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode({slot: [coarse(n) for n in steps] for slot, steps in found.items()}), 9)


async def read_day(store: Store, day: int, slots: Sequence[int]) -> dict[int, Sequence[int]]:
    """The requests of a day that is over by slot and step; nothing where none were kept."""
    data = await store.ask("GET", _whole(day))
    if data is None:
        return dict(await read_live(store, day, slots))
    try:
        steps = await asyncio.to_thread(_unpack, data)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreRefused(f"{_whole(day)} holds no curve: {error}") from error
    return {slot: steps[slot] for slot in slots if slot in steps}


def _unpack(data: bytes) -> dict[int, list[int]]:
    found = msgspec.msgpack.decode(zlib.decompress(data), type=dict[int, list[int]])
    return {slot: steps for slot, steps in found.items() if len(steps) == STEPS}


async def read_pages(store: Store, days: Iterable[int]) -> list[Sample]:
    """Pages that asked on these days; what nobody here wrote is left out."""
    found = []
    for day in days:
        pages = await store.ask("LRANGE", _pages(day), 0, -1)
        whole = await store.ask("GET", _whole_pages(day))
        if whole is not None:
            pages += await asyncio.to_thread(_unpack_pages, whole)
        for data in pages:
            try:
                found.append(msgspec.msgpack.decode(data, type=Sample))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
    return found


def _unpack_pages(data: bytes) -> list[bytes]:
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=list[bytes])
    except (zlib.error, msgspec.MsgspecError):
        return []


def settled(days: Days, now: float) -> list[int]:
    """The days that are over for good and may not be put away yet."""
    today, _ = days.locate(now)
    last = today - 1 if now - days.start(today) >= _SETTLED_S else today - 2
    return [last - 1, last]
