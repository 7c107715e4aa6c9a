"""Alive, and ready: what probes, ops and reports ask of a running service."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from adserver import metrics
from adserver.address_file import AddressFile
from adserver.answers import problem_response
from adserver.archive import ArchiveUnavailable, Book
from adserver.closing import alarms
from adserver.condition import Condition
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.journal import Ledger
from adserver.neighbours import look
from adserver.reload import LiveCatalog
from adserver.reporting import BadRange, parse_request, read_report
from adserver.settings import Settings
from adserver.ship import Shipper
from adserver.store import open_store

_REPORT_PATIENCE_S = 0.5


class Health(Struct):
    """The probes' and ops' routes of one worker."""

    settings: Settings
    live: LiveCatalog
    journal: Ledger
    shipper: Shipper | None
    book: Book
    fingerprint: str
    meter: metrics.Meter
    listed: AddressFile
    jump_s: Callable[[], float]
    condition: Condition
    unpaced: Callable[[], str | None]

    def write_to(self, journal: Ledger) -> None:
        """The worker goes on in another journal: see `turnover`."""
        self.journal = journal

    async def healthz(self, _: Request) -> Response:
        """Alive: the event loop turns."""
        return PlainTextResponse("ok\n", headers={"cache-control": "no-store"})

    async def readyz(self, _: Request) -> Response:
        """Ready when a catalog is loaded and the journal is writable; degraded, and still ready, in lesser trouble."""
        failing = []
        if not self.live.loaded:
            failing.append("no catalog is loaded")
        if self.journal.failure:
            failing.append(f"the journal takes no records: {self.journal.failure}")
        degraded = await self._ask_store()
        if not degraded and (trouble := self.unpaced()):
            degraded.append(f"goals are paced by what was last heard: {trouble}")
        if trouble := self.journal.trouble:
            degraded.append(f"the journal takes {self.journal.room:,} more events and then none: {trouble}")
        degraded += self.condition.words()
        if self.listed.trouble:
            degraded.append(self.listed.trouble)
        if jump_s := self.jump_s():
            degraded.append(
                f"the wall clock jumped by {jump_s:+.0f} s, so events are counted for the day before it; "
                "set the clock right, or restart the workers if the new time is the right one"
            )
        status = "failing" if failing else "degraded" if degraded else "ok"
        body: dict[str, Any] = {
            "status": status,
            "reasons": failing + degraded,
            "catalog_version": self.live.current.version,
        }
        return JSONResponse(body, 503 if failing else 200, headers={"cache-control": "no-store"})

    async def _ask_store(self) -> list[str]:
        """Asked at each probe, so that every worker gives the same answer."""
        try:
            async with open_store(self.settings.store_url) as store:
                health = await store.check()
                sentences = [*health.warnings, *await look(store, self.fingerprint, time.time()), *await alarms(store)]
                if self.live.current.level_3 and (why := await store.why_unconfirmed()):
                    sentences.append(f"advertisers that ask for count_level 3 get level 2: {why}")
                return sentences
        except (StoreUnavailable, StoreRefused) as error:
            return [f"{error}; events are kept in the journals until it is back"]

    async def metrics(self, _: Request) -> Response:
        self.meter.flush()
        await asyncio.sleep(metrics.HAND_OVER_S)  # for the other workers to hand over what was answered before this
        body = await asyncio.to_thread(metrics.exposition)
        return Response(
            body, media_type="text/plain; version=0.0.4; charset=utf-8", headers={"cache-control": "no-store"}
        )

    async def report(self, request: Request) -> Response:
        """Delivery figures as JSON, the same that `adserver report` prints."""
        asked = request.query_params
        try:
            wanted = parse_request(asked.get("from"), asked.get("to"), asked.get("by", "slot"))
            async with open_store(self.settings.store_url) as store:
                found = await read_report(store, self.book, Path(self.settings.journals), wanted, _REPORT_PATIENCE_S)
        except BadRange as error:
            return problem_response(400, str(error))
        except (StoreUnavailable, StoreRefused, ArchiveUnavailable) as error:
            return problem_response(503, f"{error}. The events are safe in the journals; ask again later.")
        return JSONResponse(found.as_dict(), headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})
