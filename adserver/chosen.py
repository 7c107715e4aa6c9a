"""Which ad each place in a newsletter has, in the store: whoever asks first decides, and everybody else is told.

A place is remembered for a month, so that an old mail is known to be over and is not given another ad. Anybody can
invent issues, so only so many places a day begin to be remembered: the store grows no further, and places beyond
that are decided by the catalog alone, as they are while the store is slow or away.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from struct import Struct as Layout
from typing import Any

from msgspec import Struct

from adserver import metrics
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.places import Place
from adserver.store import Store, open_store

log = logging.getLogger(__name__)

BUDGET_S = 0.25
"""A mail's picture may wait longer than a page; the first reader of an issue waits, the others hardly ever."""
REST_S = 1.0
REMEMBERED_S = 31 * 86_400
MOST_A_DAY = 5_000
_MOST_HERE = 4_096
_AT_ONCE = 16

# KEYS: the day's number of new places, then the places. ARGV: the most of them, the seconds, what each is offered.
_KEEP = """
local found = {}
for i = 2, #KEYS do
  local kept = redis.call('GET', KEYS[i])
  if not kept and ARGV[i + 1] ~= '' then
    local n = redis.call('INCR', KEYS[1])
    redis.call('EXPIRE', KEYS[1], 172800)
    if n <= tonumber(ARGV[1]) and redis.call('SET', KEYS[i], ARGV[i + 1], 'NX', 'EX', ARGV[2]) then
      kept = ARGV[i + 1]
    end
  end
  found[i - 1] = kept or ''
end
return found
"""
_KEPT = Layout(">I7s")


class Kept(Struct, frozen=True):
    """The key of a place's ad, and the Unix second since when it has it."""

    ad: bytes
    since: int


class Chosen:
    """One worker's look at it. In the event loop only."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None
        self._opened = AsyncExitStack()
        self._rests_until = 0.0
        self._under_way: set[asyncio.Task[Any]] = set()
        self._here: dict[Place, Kept] = {}

    def __repr__(self) -> str:
        return f"<Chosen, {len(self._here)} places known here>"

    async def keep(self, offers: Mapping[Place, bytes], now: float) -> dict[Place, Kept] | None:
        """What each place has, where it has something: from before, or from now on what it is offered (an ad's key, or
        nothing). None when the store does not say in time.
        """
        found = {place: self._here[place] for place in offers if place in self._here}
        asked = {place: ad for place, ad in offers.items() if place not in found}
        if not asked:
            return found
        if time.monotonic() < self._rests_until:
            metrics.PLACES_UNKNOWN.inc()
            return None
        asking = asyncio.create_task(self._ask(asked, int(now)))
        self._under_way.add(asking)
        asking.add_done_callback(self._under_way.discard)
        await asyncio.wait({asking}, timeout=BUDGET_S)  # it may end later: cut off, its connection would be lost
        told = asking.result() if asking.done() else None
        if told is None:
            metrics.PLACES_UNKNOWN.inc()
            self._rests_until = time.monotonic() + REST_S
            return None
        if len(told) < sum(1 for ad in asked.values() if ad):
            metrics.PLACES_UNKNOWN.inc()
        self._here.update(told)
        while len(self._here) > _MOST_HERE:
            del self._here[next(iter(self._here))]
        return found | told

    async def _ask(self, asked: Mapping[Place, bytes], now: int) -> dict[Place, Kept] | None:
        keys = [f"as:{{letters}}:day:{now // 86_400}", *(f"as:{{letters}}:{place.key.hex()}" for place in asked)]
        offers = [_KEPT.pack(now, ad) if ad else b"" for ad in asked.values()]
        try:
            store = await self._open()
            values = await store.ask("EVAL", _KEEP, len(keys), *keys, MOST_A_DAY, REMEMBERED_S, *offers)
        except (StoreUnavailable, StoreRefused) as error:
            log.debug("which ads a newsletter has is not known: %s", error)
            return None
        return {place: _read(value) for place, value in zip(asked, values, strict=True) if len(value) == _KEPT.size}

    async def _open(self) -> Store:
        if self._store is None:
            self._store = await self._opened.enter_async_context(open_store(self._url, connections=_AT_ONCE))
        return self._store

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=1.0)
        await self._opened.aclose()


def _read(value: bytes) -> Kept:
    since, ad = _KEPT.unpack(value)
    return Kept(ad, since)
