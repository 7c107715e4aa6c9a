"""The page as it was or will be at another instant, for staff: decided like any other, marked PREVIEW, never counted.

What will be is the live catalog with its goals as far as the expected traffic takes them; what was is the version that
was live then, with what had been delivered by the hour. Within a second of now it is what is served now.
"""

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from msgspec import Struct, structs

from adserver.answering import Answering
from adserver.answers import Headers, Scope
from adserver.catalog import Catalog
from adserver.context import PLAIN, BadQuery, Query
from adserver.decide import Decision, Filled, Page
from adserver.documents import Document
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.model import Format, Group, SlotId
from adserver.pacer import read_pace
from adserver.pacing import Pace
from adserver.pauses import take_pauses
from adserver.reload import LiveCatalog
from adserver.render import render_empty, render_preview
from adserver.store import open_store
from adserver.versions import FARTHEST_S, read_version_at

_NOW_S = 1.0
NOT_STAFF = "Parameter 'at' previews another instant and needs the staff token, as a Bearer token or a password."
CHALLENGE = (b"www-authenticate", b'Basic realm="preview", charset="UTF-8"')


class Moment(Struct, frozen=True):
    """An instant to look at, and everything that is decided by."""

    catalog: Catalog
    at: float
    pace: Pace
    is_now: bool = False

    @property
    def header(self) -> tuple[bytes, bytes]:
        """Says in an answer which instant it is of."""
        return b"adserver-preview", datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds").encode()


def narrow(document: Document, number: int, slots: Collection[int]) -> Catalog:
    """The catalog of what decides about *slots*: a page has few, and a document may book thousands.

    Beside their line items it has those in the other slots of goals among them, whose sponsorships leave these goals
    a part of the traffic.
    """
    asked = frozenset(slots)
    goals = (one for one in document.line_items if one.goal and not asked.isdisjoint(one.slots))
    near = asked.union(*(one.slots for one in goals))
    items = tuple(one for one in document.line_items if not near.isdisjoint(one.slots))
    shown = {name for one in items for name in one.creatives}
    creatives = tuple(one for one in document.creatives if one.id in shown)
    less = structs.replace(document, line_items=items, creatives=creatives)
    return Catalog(take_pauses(less, document.pauses), number)


class Previews:
    """One worker's previews. *token* is the staff's."""

    def __init__(self, live: LiveCatalog, answering: Answering, url: str, token: str, public_url: str) -> None:
        self._live = live
        self._answering = answering
        self._url = url
        self._token = token.encode()
        self._public_url = public_url

    def allows(self, headers: Headers) -> bool:
        """Whether a request brings the staff token."""
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, value = given.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        return bool(value) and hmac.compare_digest(value, self._token)

    async def moment(self, at: str, headers: Headers, slots: Callable[[Document], Collection[int]]) -> Moment:
        """Everything that decides what *slots* show at an instant.

        Raises BadQuery: 403 without the staff token, 400 for no instant, 503 while the store is away.
        """
        if not self.allows(headers):
            raise BadQuery(NOT_STAFF, 403)
        live, now = self._live.current, time.time()
        instant = _parse(at, live.document.site.time_zone)
        if abs(instant - now) > FARTHEST_S:
            raise BadQuery("Parameter 'at' lies more than 400 days away.")
        if abs(instant - now) <= _NOW_S:
            return Moment(live, instant, self._answering.pacer.planner.pace, is_now=True)
        await asyncio.sleep(0)  # requests begin without a task (see `http_speed`); from here on this one has its own
        try:
            async with open_store(self._url) as store:
                document, number = live.document, live.version
                if instant < now:
                    version = await read_version_at(store, instant)
                    if version is None:
                        raise BadQuery("Parameter 'at' lies before the first version that was published.")
                    document, number = version.document, version.number
                catalog = await asyncio.to_thread(narrow, document, number, slots(document))
                pacer = self._answering.pacer
                return Moment(catalog, instant, await read_pace(store, catalog, now, instant, pacer.known, pacer.book))
        except (StoreUnavailable, StoreRefused):
            raise BadQuery("Another instant cannot be looked at while the store is away.", 503) from None

    async def page(
        self, moment: Moment, asks: tuple[SlotId | Group, ...], form: Format, query: Query, scope: Scope
    ) -> Page:
        """What a call asks for at that moment, as if it were no preview; a reader whom it names has now seen what they
        have, and at another instant nothing yet.
        """
        query = structs.replace(query, format=form)
        if moment.is_now:
            page, _ = await self._answering.decide_for(moment.catalog, asks, query, scope)
            return page
        return self._answering.page_at(moment.catalog, asks, query, scope, moment.at)

    def show(self, moment: Moment, page: Page, query: Query = PLAIN) -> list[tuple[Decision, bytes]]:
        """What *page*, which *query* asks for, shows at that moment; counts nothing."""
        decisions = self._answering.decide_at(moment.catalog, moment.at, page, moment.pace, query)
        found: list[tuple[Decision, bytes]] = []
        eager = True
        for decision in decisions:
            if isinstance(decision, Filled):
                html = render_preview(moment.catalog, decision.ad, page.format, self._public_url, eager=eager)
                eager = False
            else:
                slot = moment.catalog.slots.get(decision.slot)
                html = render_empty(slot, page.format) if slot else b""
            found.append((decision, html))
        return found


def _parse(text: str, time_zone: str) -> float:
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query is a blank
    except ValueError:
        raise BadQuery("Parameter 'at' is no instant; write it as 2026-03-10T09:00 or with an offset.") from None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(time_zone))).timestamp()
    except (OverflowError, ValueError):
        raise BadQuery("Parameter 'at' lies more than 400 days away.") from None
