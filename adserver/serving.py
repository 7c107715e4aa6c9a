"""The ad routes: `GET /ads/{id}`, one slot's snippet, and `GET /ads?id=…`, several slots as JSON.

Raw ASGI in front of Starlette's router, because the router alone costs a third of a snippet's time. Nothing here
awaits anything outside the process, but `Letters` and `Answering.decide_for`, each with a budget.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from adserver.answering import Answering, Edition, find_asks, read_id, slots_of
from adserver.answers import (
    HTML,
    JSON,
    NO_STORE,
    NOSNIFF,
    Headers,
    Responses,
    Scope,
    Send,
    keep_for,
    length,
    problem_response,
    wire,
)
from adserver.catalog import Ad
from adserver.context import PLAIN, BadQuery, Query, parse_query
from adserver.decide import Decision, Filled, Page
from adserver.documents import Document
from adserver.letters import Letters
from adserver.model import Format, Group, NoFill, Slot, SlotId
from adserver.previews import Moment, Previews
from adserver.render import render_placeholder

_MOST_SHOWN = 64
_FILLED = b"".join(b"%b: %b\r\n" % header for header in (HTML, NO_STORE, NOSNIFF))
_EMPTY = {
    reason.value: wire([NO_STORE, NOSNIFF, (b"adserver-reason", reason.value.encode())], b"") for reason in NoFill
}


class Delivery:
    """The ad routes of one worker."""

    def __init__(
        self,
        answering: Answering,
        responses: Responses,
        allowed_origins: Iterable[str] = (),
        previews: Previews | None = None,
        letters: Letters | None = None,
    ) -> None:
        self._letters = letters
        self._answering = answering
        self._previews = previews
        self._responses = responses
        self._origins = frozenset(origin.encode() for origin in allowed_origins)

    def at_once(self, target: bytes) -> tuple[int, bytes] | None:
        """What `ad` answers a plain GET of one slot with, ready for the wire; None for any other target."""
        edition = self._answering.edition()
        page = edition.pages.get(target)
        if page is None:
            page = _queried(edition, target)
        if page is None or self._origins:
            return None
        [(decision, body)] = self._answering.answer(edition, page, self._answering.now())
        if isinstance(decision, Filled):
            self._responses.note("ad", 200)
            return 200, b"%bcontent-length: %d\r\n\r\n%b" % (_FILLED, len(body), body)
        if not body:
            self._responses.note("ad", 204)
            return 204, _EMPTY[decision.reason.value]
        status, headers = _say(decision, body)
        self._responses.note("ad", status)
        return status, wire(headers, body)

    async def ad(self, scope: Scope, send: Send) -> None:
        """One slot's snippet; 204 and a reason when nothing fits."""
        edition = self._answering.edition()
        slot = edition.slots.get(scope["raw_path"][5:])
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await self._responses.method_not_allowed(send, "ad", b"GET, HEAD")
            return
        if slot is None:
            self._answering.note_unknown()
            detail = "There is no slot with this ad id. Ad ids are plain numbers, such as 889990."
            await self._refuse(scope, send, "ad", 404, detail)
            return
        try:
            query = parse_query(scope["query_string"]) if scope["query_string"] else PLAIN
            if query.at and self._previews:
                await self._preview(self._previews, query, slot, scope, send)
                return
        except BadQuery as error:
            await self._refuse(scope, send, "ad", error.status, str(error))
            return
        if query.format is Format.PLACEHOLDER:
            status, headers, body = self._placeholder(edition, edition.catalog.slots[slot])
        elif query.format is Format.EMAIL and method == "GET" and self._letters:
            [(decision, body)] = await self._letters.fill(edition, (slot,), query)
            status, headers = _say(decision, body)
        else:
            page, reader = await self._answering.decide_for(edition.catalog, (slot,), query, scope)
            if method == "HEAD":
                status, headers, body = self._head(edition, page, query)
            else:
                [(decision, body)] = self._answering.answer(edition, page, self._answering.now())
                self._answering.remember(edition, (decision,), reader)
                status, headers = _say(decision, body)
        if self._origins:
            self._allow_origin(scope, headers)
        await self._responses.send(send, "ad", status, headers, body)

    async def _preview(self, previews: Previews, query: Query, slot: SlotId, scope: Scope, send: Send) -> None:
        """One slot's snippet at another instant. Raises BadQuery."""
        moment = await previews.moment(query.at, scope["headers"], lambda _: (slot,))
        page = await previews.page(moment, (slot,), _shown(query.format), query, scope)
        [(decision, body)] = previews.show(moment, page, query)
        status, headers = _say(decision, body)
        if scope["method"] == "HEAD":
            body = b""
        await self._responses.send(send, "ad", status, [*headers, moment.header], body)

    def _placeholder(self, edition: Edition, slot: Slot) -> tuple[int, Headers, bytes]:
        """A box to be filled later: nothing is decided, so nothing is counted, and a cache may keep it."""
        body = render_placeholder(slot)
        age = edition.max_age(slot.id, self._answering.now())
        return 200, [HTML, keep_for(age), NOSNIFF, length(body)], body

    def _head(self, edition: Edition, page: Page, query: Query) -> tuple[int, Headers, bytes]:
        [decision] = self._answering.peek(edition, page, query, self._answering.now())
        status, headers = _say(decision, b"")
        return (200, [HTML, NO_STORE, NOSNIFF], b"") if isinstance(decision, Filled) else (status, headers, b"")

    def _allow_origin(self, scope: Scope, headers: Headers) -> None:
        """Let a page of a configured origin read the answer; never with credentials."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        headers.append((b"vary", b"Origin"))
        if origin in self._origins:
            headers.append((b"access-control-allow-origin", origin))

    async def _refuse(self, scope: Scope, send: Send, route: str, status: int, detail: str) -> None:
        """A problem answer, as readable for a page as an ad: else its console tells of origins, and not of *detail*."""
        headers: Headers = []
        if self._origins:
            self._allow_origin(scope, headers)
        await self._responses.problem(send, route, status, detail, headers)

    async def ads(self, scope: Scope, send: Send) -> None:
        """Several slots, decided as one page, in the order asked."""
        if scope["method"] not in ("GET", "HEAD"):
            await self._responses.method_not_allowed(send, "ads", b"GET, HEAD")
            return
        try:
            query = parse_query(scope["query_string"])
            if not query.ids:
                raise BadQuery("Name at least one slot, such as /ads?id=889990&id=889991.")
            moment = None
            if query.at and self._previews:
                moment = await self._previews.moment(query.at, scope["headers"], partial(_slots_named, query.ids))
        except BadQuery as error:
            await self._refuse(scope, send, "ads", error.status, str(error))
            return
        if scope["method"] == "HEAD":
            await self._responses.send(send, "ads", 200, [JSON, NO_STORE, NOSNIFF], b"")
            return
        edition = self._answering.edition()
        if moment and self._previews:
            await self._preview_several(self._previews, moment, query, scope, send)
            return
        entries, caching = await self._fill(edition, query, scope)
        body = msgspec.json.encode({"version": edition.catalog.version, "ads": entries})
        headers = [JSON, caching, NOSNIFF, length(body)]
        if self._origins:
            self._allow_origin(scope, headers)
        await self._responses.send(send, "ads", 200, headers, body)

    async def _preview_several(
        self, previews: Previews, moment: Moment, query: Query, scope: Scope, send: Send
    ) -> None:
        asks = find_asks(moment.catalog.document)
        known = {text: ask for text in query.ids if (ask := read_id(asks, text)) is not None}
        page = await previews.page(moment, tuple(known.values()), _shown(query.format), query, scope)
        found = dict(zip(known, previews.show(moment, page, query), strict=True))
        entries = {}
        for text in query.ids:
            if text in found:
                entries[text] = _describe(*found[text], 0)
            else:
                entries[text[:_MOST_SHOWN]] = _entry(b"", None, NoFill.UNKNOWN_SLOT, 0)
        at = moment.header[1].decode()
        body = msgspec.json.encode({"version": moment.catalog.version, "preview": at, "ads": entries})
        await self._responses.send(send, "ads", 200, [JSON, NO_STORE, NOSNIFF, moment.header, length(body)], body)

    async def explain(self, request: Request) -> Response:
        """Why this worker would answer the next view of a slot as it would; decides and counts nothing.

        Slots that the query names are on the same page, after it; `at` asks about another instant, as a preview does.
        """
        edition, headers = self._answering.edition(), {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        try:
            query = parse_query(request.scope["query_string"])
            moment = None
            if query.at and self._previews:
                ids = partial(_slots_named, (request.path_params["id"], *query.ids))
                moment = await self._previews.moment(query.at, request.scope["headers"], ids)
        except BadQuery as error:
            return problem_response(error.status, str(error))
        known = {str(slot): SlotId(slot) for slot in (moment.catalog if moment else edition.catalog).slots}
        asked = tuple(dict.fromkeys((request.path_params["id"], *query.ids)))
        if not known.keys() >= set(asked):
            return problem_response(404, "There is no slot with this ad id. Ad ids are plain numbers, such as 889990.")
        slots = tuple(known[text] for text in asked)
        if moment and self._previews:
            page = await self._previews.page(moment, slots, _shown(query.format), query, request.scope)
            first, *others = self._answering.explain_at(moment.catalog, moment.at, page, moment.pace, query)
            headers["adserver-preview"] = moment.header[1].decode()
        else:
            page, _ = await self._answering.decide_for(edition.catalog, slots, query, request.scope)
            first, *others = self._answering.explain(edition, page, query)
        body = msgspec.json.encode({**structs.asdict(first), "others": others})
        return Response(body, headers=headers, media_type="application/json")

    async def _fill(self, edition: Edition, query: Query, scope: Scope) -> tuple[dict[str, Any], tuple[bytes, bytes]]:
        """An entry for each id asked, and the answer's cache-control header."""
        asked = {text: read_id(edition.asks, text) for text in query.ids}
        known = {text: ask for text, ask in asked.items() if ask is not None}
        asks, now = tuple(known.values()), self._answering.now()
        ages = [edition.max_age(ask, now) for ask in asks]
        if query.format is Format.PLACEHOLDER:
            slots = edition.catalog.slots
            boxes = (render_placeholder(ask if isinstance(ask, Group) else slots[ask], slots) for ask in asks)
            made = [_entry(box, None, None, age) for box, age in zip(boxes, ages, strict=True)]
            caching = keep_for(min(ages, default=0))
        elif query.format is Format.EMAIL and self._letters:
            answers = await self._letters.fill(edition, asks, query)
            made = [_describe(*answer, age) for answer, age in zip(answers, ages, strict=True)]
            caching = NO_STORE
        else:
            page, reader = await self._answering.decide_for(edition.catalog, asks, query, scope)
            answers = self._answering.answer(edition, page, now)
            self._answering.remember(edition, (decision for decision, _ in answers), reader)
            made = [_describe(*answer, age) for answer, age in zip(answers, ages, strict=True)]
            caching = NO_STORE
        found = dict(zip(known, made, strict=True))
        entries = {}
        for text in asked:
            if text in found:
                entries[text] = found[text]
            else:
                self._answering.note_unknown()
                entries[text[:_MOST_SHOWN]] = _entry(b"", None, NoFill.UNKNOWN_SLOT, 0)
        return entries, caching


def _queried(edition: Edition, target: bytes) -> Page | None:
    """The page of one slot that a plain query asks for, as far as that can be told from the query alone.

    Remembered, since the pages of a site ask alike; never where a reader is named.
    """
    path, _, text = target.partition(b"?")
    slot = edition.slots.get(path[5:])
    if not text or slot is None or path[:5] != b"/ads/" or slot in edition.catalog.about_readers or b"reader" in text:
        return None
    try:
        query = parse_query(text)
    except BadQuery:
        return None
    if query.at or query.reader or query.format in (Format.PLACEHOLDER, Format.EMAIL):
        return None
    if query.consent and slot in edition.catalog.third_party:
        return None  # a header may say otherwise
    page = Page((slot,), query.format, edition.unasked((slot,), query.context))
    edition.remember(target, page)
    return page


def _shown(form: Format) -> Format:
    """A placeholder holds no ad to preview: what will fill it is shown."""
    return Format.HTML if form is Format.PLACEHOLDER else form


def _slots_named(ids: Iterable[str], document: Document) -> set[int]:
    """The slots that may answer a page call for *ids*."""
    known = find_asks(document)
    return set(slots_of(ask for text in ids if (ask := read_id(known, text)) is not None))


def _say(decision: Decision, body: bytes) -> tuple[int, Headers]:
    """The status and headers of one slot's answer; a no-fill says its reason where a site's owner can see it."""
    if isinstance(decision, Filled):
        return 200, [HTML, NO_STORE, NOSNIFF, length(body)]
    headers = [NO_STORE, NOSNIFF, (b"adserver-reason", decision.reason.value.encode())]
    return (200, [*headers, HTML, length(body)]) if body else (204, headers)


def _describe(decision: Decision, html: bytes, max_age: int) -> dict[str, Any]:
    if isinstance(decision, Filled):
        return _entry(html, decision.ad, None, max_age)
    return _entry(html, None, decision.reason, max_age)


def _entry(html: bytes, ad: Ad | None, reason: NoFill | None, max_age: int) -> dict[str, Any]:
    return {
        "html": html.decode(),
        "filled": ad is not None,
        "reason": reason.value if reason else None,
        "line_item": ad.line_item.id if ad else None,
        "creative": ad.creative.id if ad else None,
        "max_age": max_age,
    }
