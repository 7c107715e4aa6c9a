"""Level 3: tells those who wait for it when a replica of the store has their event on its disk.

It works only while somebody waits, on a connection of its own, so that counting never waits for a replica. What it
tells is what one round found: nothing is remembered from an earlier one, because the store may have failed over.
"""

import asyncio
import logging

from adserver.background import wait_for_any
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.journal import Journal
from adserver.ship import Shipper
from adserver.store import Store, Unconfirmed, open_store

log = logging.getLogger(__name__)

PAUSE_S = 0.005


class Confirmer:
    """Confirms the events of this worker's own journal. *url* is the store that *shipper* ships to."""

    def __init__(self, shipper: Shipper, url: str) -> None:
        self._shipper = shipper
        self._url = url
        self._waiting: dict[asyncio.Future[bool], tuple[int, int]] = {}
        self._wake = asyncio.Event()
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Confirmer, {len(self._waiting)} wait>"

    def write_to(self, _: Journal) -> None:
        """The worker goes on in another journal (see `turnover`): who waits for a number of the old waits in vain."""
        self._give_up(list(self._waiting), "this worker goes on in a new journal")

    async def confirmed(self, day: int, number: int, within_s: float) -> bool:
        """Whether record *number*, of *day*, is counted and on a replica's disk; False as soon as it will not be."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[future] = (day, number)
        self._shipper.hurry.set()
        self._wake.set()
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(future, None)

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                async with open_store(self._url) as store:
                    while await self._somebody_waits(stopping):
                        await self._confirm(store)
            except (StoreUnavailable, StoreRefused) as error:
                self._give_up(list(self._waiting), str(error))
        self._give_up(list(self._waiting), "this worker stops")

    async def _somebody_waits(self, stopping: asyncio.Event) -> bool:
        """Wait for that; False when it is time to stop."""
        while not self._waiting and not stopping.is_set():
            self._wake.clear()
            await wait_for_any(None, self._wake, stopping)
        return not stopping.is_set()

    async def _confirm(self, store: Store) -> None:
        """One round for everybody whose event has been counted; the others wait for the next."""
        if self._shipper.trouble:
            self._give_up(list(self._waiting), self._shipper.trouble)
            return
        counted = self._shipper.own.position
        ready = {future: place for future, place in self._waiting.items() if place[1] <= counted}
        for day in sorted({day for day, _ in ready.values()}):
            found = await store.confirm(day, self._shipper.own.producer)
            theirs = [future for future, place in ready.items() if place[0] == day]
            if isinstance(found, Unconfirmed):
                self._give_up(theirs, found.reason)
                continue
            self._trouble = ""
            for future in theirs:
                if ready[future][1] <= found:
                    self._tell(future, confirmed=True)
        if self._waiting:
            await asyncio.sleep(PAUSE_S)

    def _give_up(self, futures: "list[asyncio.Future[bool]]", why: str) -> None:
        if futures and why != self._trouble:
            log.warning("events are acknowledged at level 2, not 3: %s", why)
            self._trouble = why
        for future in futures:
            self._tell(future, confirmed=False)

    def _tell(self, future: "asyncio.Future[bool]", *, confirmed: bool) -> None:
        self._waiting.pop(future, None)
        if not future.done():
            future.set_result(confirmed)
