"""What readers have seen, in the store: asked before a capped page is decided, within a budget; told afterwards.

One hash a reader, so that a page is one round trip, also on a cluster; its key is a salted hash, and it goes with the
longest window that needs it. A store that is slow or away makes nobody wait twice: for a second nobody asks it, and
what has a cap is not shown.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from struct import iter_unpack
from typing import Any

from adserver import metrics
from adserver.capping import Held, capped_on, fields_of, hold, window_s
from adserver.catalog import Catalog
from adserver.decide import Decision, Filled
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.store import Store, open_store

log = logging.getLogger(__name__)

BUDGET_S = 0.015
REST_S = 1.0
_AT_ONCE = 64
_MOST_UNDER_WAY = 2_000

# ARGV: the window in seconds, the instant (4 bytes), then field and how many views to keep.
_TELL = """
for i = 3, #ARGV, 2 do
  local seen = (redis.call('HGET', KEYS[1], ARGV[i]) or '') .. ARGV[2]
  redis.call('HSET', KEYS[1], ARGV[i], string.sub(seen, -4 * ARGV[i + 1]))
end
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
"""


class Caps:
    """One worker's look at what readers have seen. In the event loop only."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None
        self._opened = AsyncExitStack()
        self._rests_until = 0.0
        self._under_way: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Caps, {len(self._under_way)} asked or told>"

    async def look(self, catalog: Catalog, slots: Iterable[int], reader: bytes, now: float) -> Held | None:
        """What *reader* may not be shown in *slots* now; None without a reader, or when it cannot be told in time."""
        if not reader:
            return None
        line_items = capped_on(catalog, slots, now)
        if not line_items:
            return Held()
        fields = list(fields_of(catalog, line_items))
        values = await self._ask(reader, fields)
        if values is None:
            return None
        seen = {field: _instants(value) for field, value in zip(fields, values, strict=True) if value}
        return hold(catalog, line_items, seen, now)

    async def _ask(self, reader: bytes, fields: list[str]) -> list[bytes | None] | None:
        if time.monotonic() < self._rests_until:
            metrics.CAPS_UNKNOWN.inc()
            return None
        asking = asyncio.create_task(self._read(reader, fields))
        self._keep(asking)
        await asyncio.wait({asking}, timeout=BUDGET_S)  # it may end later: cut off, its connection would be lost
        if asking.done() and (found := asking.result()) is not None:
            return found
        metrics.CAPS_UNKNOWN.inc()
        self._rests_until = time.monotonic() + REST_S
        return None

    async def _read(self, reader: bytes, fields: list[str]) -> list[bytes | None] | None:
        try:
            found: list[bytes | None] = await (await self._open()).ask("HMGET", _key(reader), *fields)
        except (StoreUnavailable, StoreRefused) as error:
            log.debug("what a reader has seen is not known: %s", error)
            return None
        return found

    def tell(self, catalog: Catalog, decisions: Iterable[Decision], reader: bytes, now: float) -> None:
        """Remember what *reader* was shown, beside the answer."""
        line_items = [
            one.ad.line_item.id for one in decisions if isinstance(one, Filled) and one.ad.line_item.id in catalog.caps
        ]
        if not line_items or not reader or len(self._under_way) >= _MOST_UNDER_WAY:
            return
        most = fields_of(catalog, line_items)
        told = [word for name in line_items for field in _once(catalog, name) for word in (field, most[field])]
        window = window_s(catalog, line_items)
        at = int(now).to_bytes(4, "big")
        self._keep(asyncio.create_task(self._tell("EVAL", _TELL, 1, _key(reader), window, at, *told)))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _tell(self, *command: str | bytes | int) -> None:
        try:
            await (await self._open()).ask(*command)
        except (StoreUnavailable, StoreRefused) as error:
            metrics.CAPS_LOST.inc()
            log.debug("what a reader was shown is not remembered: %s", error)

    async def _open(self) -> Store:
        if self._store is None:
            self._store = await self._opened.enter_async_context(open_store(self._url, connections=_AT_ONCE))
        return self._store

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=1.0)
        await self._opened.aclose()


def _once(catalog: Catalog, line_item: str) -> list[str]:
    return list(dict.fromkeys(limit.field for limit in catalog.caps[line_item]))


def _key(reader: bytes) -> str:
    return f"as:{{reader:{reader.hex()}}}"


def _instants(value: bytes) -> list[int]:
    return [at for (at,) in iter_unpack(">I", value[: len(value) // 4 * 4])]
