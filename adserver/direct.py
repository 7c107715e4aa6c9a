"""Counts events straight in the store while the journal takes none: what is left to a full disk.

Rules: an event is counted by its token's bit alone, so that the same one, sent again and journalled later, changes
nothing; it is acknowledged only by a store that syncs every write before it answers, because nothing else holds it;
how many were counted so stands under a producer of its own, so that journals and store can still be compared.
"""

import asyncio
import logging
import time

from adserver.background import wait_for_any
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.events import Event, stored
from adserver.store import NOBODY, Applied, Store, open_store
from adserver.tally import tally

log = logging.getLogger(__name__)

MOST_EVENTS = 500
PAUSE_S = 1.0
"""So long nobody is asked again after the store could not be, or would not hold what it is given."""


class Direct:
    """The way around one worker's journal. *url* is the store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: list[tuple[Event, str, asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Direct, {len(self._waiting)} wait>"

    async def count(self, event: Event, name: str, within_s: float) -> bool:
        """Whether *event*, of the ad called *name*, is counted and on the store's disk within *within_s* seconds."""
        if time.monotonic() < self._not_before:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, name, future))
        self._wake.set()
        done, _ = await asyncio.wait([future], timeout=within_s)
        return bool(done) and future.result()

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                if await self._somebody_waits(stopping):
                    async with open_store(self._url) as store:
                        if not await store.syncs_every_write():
                            raise StoreRefused("the store does not run with 'appendonly yes' and 'appendfsync always'")
                        while await self._somebody_waits(stopping):
                            await self._count(store)
            except (StoreUnavailable, StoreRefused) as error:
                if self._trouble != str(error):
                    log.error("the journal takes no events, and they cannot be counted without it: %s", error)
                self._trouble = str(error)
                self._not_before = time.monotonic() + PAUSE_S
                self._answer(self._waiting, counted=False)
        self._answer(self._waiting, counted=False)

    async def _somebody_waits(self, stopping: asyncio.Event) -> bool:
        while not self._waiting and not stopping.is_set():
            self._wake.clear()
            await wait_for_any(None, self._wake, stopping)
        return not stopping.is_set()

    async def _count(self, store: Store) -> None:
        """Count what waits; the events of one day are one batch."""
        some = self._waiting[:MOST_EVENTS]
        await store.name_ads({event.subject[:7]: name for event, name, _ in some if name})
        for day in sorted({event.day for event, _, _ in some}):
            of_day = [one for one in some if one[0].day == day]
            outcome = await store.apply(NOBODY, tally(day, 0, 0, stored([event for event, _, _ in of_day])))
            self._answer(of_day, counted=isinstance(outcome, Applied))
        self._trouble = ""

    def _answer(self, some: list[tuple[Event, str, "asyncio.Future[bool]"]], *, counted: bool) -> None:
        self._waiting = [one for one in self._waiting if one not in some]
        for _, _, future in some:
            if not future.done():
                future.set_result(counted)
