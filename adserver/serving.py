"""The delivery routes: snippets, pages and articles; and what they have in common with tracking.

A small ASGI app of its own in front of Starlette's router, because the router alone costs a third of a snippet's
time. Rules of the path: one look at `live.current` a request; nothing awaits anything outside the process; an event
is in the journal before its answer leaves; a request that cannot be journalled is answered all the same.
"""

import logging
import time
from collections.abc import Iterable
from math import inf
from typing import Any

import msgspec

from adserver import metrics, repair
from adserver.answers import HTML, JSON, NO_STORE, NOSNIFF, Headers, Receive, Responses, Scope, Send, read_body
from adserver.catalog import Ad, Catalog
from adserver.context import MOST_IDS, BadQuery, Query, parse_query
from adserver.days import Days
from adserver.decide import Decision, Filled, Page, Unfilled, decide
from adserver.errors import JournalUnavailable
from adserver.events import NO_FILLS, NO_ISSUER, TOKEN_BIT, Type, slot_subject
from adserver.journal import Ledger
from adserver.metrics import Meter
from adserver.model import Format, Group, Kind, NoFill, Slot, SlotId
from adserver.render import Snippet, compile_snippet, render_empty, render_placeholder
from adserver.reload import LiveCatalog
from adserver.shortcode import Shortcode
from adserver.token import Mint

log = logging.getLogger(__name__)

MOST_ARTICLE_BYTES = 2 * 1024 * 1024
LONGEST_MAX_AGE_S = 3600
"""A cache asks again this often even where nothing is planned: somebody may publish."""

_REASON_NUMBER = {reason: number for number, reason in enumerate(NO_FILLS)}


class PageDraws(dict[int | str, int]):
    """The draw numbers of one page, taken from the slots' counters as the decision asks for them."""

    __slots__ = ("_counters",)

    def __init__(self, counters: dict[int | str, int]) -> None:
        super().__init__()
        self._counters = counters

    def __missing__(self, name: int | str) -> int:
        n = self[name] = self._counters[name] = self._counters.get(name, -1) + 1
        return n


class Edition:
    """A catalog with what serving remembers of it: snippets made so far, slots by the bytes of their ids."""

    def __init__(self, catalog: Catalog, public_url: str) -> None:
        self.catalog = catalog
        self.slots = {str(slot).encode(): SlotId(slot) for slot in catalog.slots}
        self.requests = {slot: metrics.REQUESTS.labels(str(slot)) for slot in catalog.slots}
        self.served = {slot: metrics.SERVED.labels(str(slot)) for slot in catalog.slots}
        self._public_url = public_url
        self._snippets: dict[tuple[bytes, Format, bool], Snippet] = {}

    def snippet(self, ad: Ad, form: Format, eager: bool) -> Snippet:  # noqa: FBT001
        found = self._snippets.get((ad.key, form, eager))
        if found is None:
            found = compile_snippet(self.catalog, ad, form, self._public_url, eager=eager)
            self._snippets[ad.key, form, eager] = found
        return found


class Delivery:
    """`/ads/{id}`, `/ads?id=…` and `/render`. *other* answers every path that is not ours."""

    def __init__(
        self,
        live: LiveCatalog,
        journal: Ledger,
        mint: Mint,
        meter: Meter,
        public_url: str,
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._live = live
        self._journal = journal
        self._mint = mint
        self._meter = meter
        self._public_url = public_url
        self._origins = frozenset(origin.encode() for origin in allowed_origins)
        self._counters: dict[int | str, int] = {}
        self._edition = Edition(live.current, public_url)
        self._days = Days(live.current.document.site.time_zone)
        self._latest = 0.0
        self._unfilled = {reason: metrics.UNFILLED.labels(reason.value) for reason in NoFill}
        self._articles: dict[tuple[bytes, bool], repair.Article] = {}
        self._responses = Responses(meter)

    # What a decision becomes

    def edition(self) -> Edition:
        """The live catalog's edition; made anew when the catalog was swapped."""
        edition = self._edition
        if edition.catalog is not self._live.current:
            edition = self._edition = Edition(self._live.current, self._public_url)
            zone = edition.catalog.document.site.time_zone
            if zone != self._days.zone:
                self._days = Days(zone)
        return edition

    def _now(self) -> float:
        """The wall clock, held where it steps back a little, so that a day that has ended does not begin again."""
        now = time.time()
        if self._latest - 120 < now < self._latest:
            return self._latest
        self._latest = now
        return now

    def _snip(self, edition: Edition, decision: Decision, form: Format, eager: bool, now: float) -> bytes:  # noqa: FBT001
        """The decision's HTML, journalled and metered. An ad's token is minted here."""
        meter = self._meter
        day, hour = self._days.locate(now)
        if isinstance(decision, Filled):
            ad = decision.ad
            slot = ad.slot.id
            serial = self._mint.next_serial
            token = self._mint.token(ad.key, day, now, _allowed(ad, form))
            try:
                self._journal.name(ad.key, ad.name)
                self._journal.append(Type.SERVED, 0, day, hour, self._journal.issuer, serial, ad.key, now)
            except JournalUnavailable as error:
                self._note_uncounted(error)
            meter.add(edition.requests[slot])
            meter.add(edition.served[slot])
            return token.join(edition.snippet(ad, form, eager))
        self._count_unfilled(edition, decision, day, hour, now)
        known = edition.catalog.slots.get(decision.slot)
        return render_empty(known, form) if known else b""

    def _count_unfilled(self, edition: Edition, decision: Unfilled, day: int, hour: int, now: float) -> None:
        self._meter.add(self._unfilled[decision.reason])
        if decision.slot not in edition.requests:
            return  # a number anybody can invent: counted under its reason alone
        self._meter.add(edition.requests[decision.slot])
        try:
            subject = slot_subject(decision.slot)
            reason = _REASON_NUMBER[decision.reason]
            self._journal.append(Type.UNFILLED, reason, day, hour, NO_ISSUER, 0, subject, now)
        except JournalUnavailable as error:
            self._note_uncounted(error)

    def _note_uncounted(self, error: JournalUnavailable) -> None:
        if not self._journal.failure:
            self._journal.failure = str(error)
        self._meter.add(metrics.UNCOUNTED)

    # GET /ads/{id}

    async def ad(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One slot's snippet; 204 and a reason when nothing fits."""
        method = scope["method"]
        edition = self.edition()
        slot = edition.slots.get(scope["raw_path"][5:])
        if method not in ("GET", "HEAD"):
            return await self._responses.method_not_allowed(send, "ad", b"GET, HEAD")
        if slot is None:
            self._meter.add(self._unfilled[NoFill.UNKNOWN_SLOT])
            return await self._responses.problem(
                send, "ad", 404, "There is no slot with this ad id. Ad ids are plain numbers, such as 889990."
            )
        form = Format.HTML
        if scope["query_string"]:
            try:
                form = parse_query(scope["query_string"]).format
            except BadQuery as error:
                return await self._responses.problem(send, "ad", error.status, str(error))
            if form is Format.PLACEHOLDER:
                return await self._placeholder(scope, send, edition, edition.catalog.slots[slot])
        now = self._now()
        counters = self._counters if method == "GET" else dict(self._counters)
        decision = decide(edition.catalog, now, Page((slot,), form), PageDraws(counters))[0]
        headers: Headers
        if method == "HEAD":
            status, body = (200 if isinstance(decision, Filled) else 204), b""
        else:
            body = self._snip(edition, decision, form, True, now)  # noqa: FBT003
            status = 200 if body else 204
        if isinstance(decision, Filled):
            headers = [HTML, NO_STORE, NOSNIFF, (b"content-length", b"%d" % len(body))]
            if method == "HEAD":
                headers.pop()
        else:
            headers = [NO_STORE, NOSNIFF, (b"adserver-reason", decision.reason.value.encode())]
            if body:
                headers += [HTML, (b"content-length", b"%d" % len(body))]
        await self._responses.send(send, "ad", status, self._cors(scope, headers), body)

    async def _placeholder(self, scope: Scope, send: Send, edition: Edition, slot: Slot) -> None:
        """A box to be filled later: nothing is decided, so nothing is counted, and a cache may keep it."""
        age = _max_age(edition.catalog, slot.id, time.time())
        body = render_placeholder(slot)
        headers = [
            HTML,
            (b"cache-control", b"public, max-age=%d" % age),
            NOSNIFF,
            (b"content-length", b"%d" % len(body)),
        ]
        await self._responses.send(send, "ad", 200, self._cors(scope, headers), body)

    def _cors(self, scope: Scope, headers: Headers) -> Headers:
        """Allow a page of a configured origin to read the answer; never with credentials."""
        if self._origins:
            origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
            headers.append((b"vary", b"Origin"))
            if origin in self._origins:
                headers.append((b"access-control-allow-origin", origin))
        return headers

    # GET /ads?id=…&id=…

    async def ads(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Several slots, decided as one page, as JSON in the order asked."""
        if scope["method"] not in ("GET", "HEAD"):
            return await self._responses.method_not_allowed(send, "ads", b"GET, HEAD")
        try:
            query = parse_query(scope["query_string"])
        except BadQuery as error:
            return await self._responses.problem(send, "ads", error.status, str(error))
        if not query.ids:
            detail = "Name at least one slot, such as /ads?id=889990&id=889991."
            return await self._responses.problem(send, "ads", 400, detail)
        if scope["method"] == "HEAD":
            return await self._responses.send(send, "ads", 200, [JSON, NO_STORE, NOSNIFF], b"")
        answer = self._answer_ids(query)
        body = msgspec.json.encode(answer)
        caching = NO_STORE
        if query.format is Format.PLACEHOLDER:
            caching = (b"cache-control", b"public, max-age=%d" % min(one["max_age"] for one in answer["ads"].values()))
        headers = [JSON, caching, NOSNIFF, (b"content-length", b"%d" % len(body))]
        await self._responses.send(send, "ads", 200, self._cors(scope, headers), body)
        return None

    def _answer_ids(self, query: Query) -> dict[str, Any]:
        edition = self.edition()
        catalog = edition.catalog
        asked = [edition.slots.get(text.encode("utf-8", "replace")) for text in query.ids]
        slots = tuple(slot for slot in asked if slot is not None)
        now = self._now()
        if query.format is Format.PLACEHOLDER:
            boxes = {slot: render_placeholder(catalog.slots[slot]).decode() for slot in slots}
            decisions: list[Decision] = []
        else:
            boxes = {}
            decisions = decide(catalog, now, Page(slots, query.format), PageDraws(self._counters))
        decided = iter(decisions)
        entries: dict[str, Any] = {}
        eager = True
        for text, slot in zip(query.ids, asked, strict=True):
            if slot is None:
                self._meter.add(self._unfilled[NoFill.UNKNOWN_SLOT])
                entries[text[:64]] = _entry("", None, NoFill.UNKNOWN_SLOT, 0)
                continue
            age = _max_age(catalog, slot, now)
            if boxes:
                entries[text] = _entry(boxes[slot], None, None, age)
                continue
            decision = next(decided)
            html = self._snip(edition, decision, query.format, eager, now).decode()
            if isinstance(decision, Filled):
                eager = False
                entries[text] = _entry(html, decision.ad, None, age)
            else:
                entries[text] = _entry(html, None, decision.reason, age)
        return {"version": catalog.version, "ads": entries}

    # POST /render

    async def render(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An article with each ad shortcode replaced by its snippet, all decided as one page."""
        if scope["method"] != "POST":
            return await self._responses.method_not_allowed(send, "render", b"POST")
        try:
            query = parse_query(scope["query_string"])
            media = _article_type(scope["headers"])
            body = await read_body(receive, scope["headers"], MOST_ARTICLE_BYTES)
            article = self._read_article(body, query.repair)
        except BadQuery as error:
            return await self._responses.problem(send, "render", error.status, str(error))
        text, filled, unknown, age = self.fill(article, query.format)
        headers: Headers = [
            (b"content-type", media + b"; charset=utf-8"),
            (b"cache-control", b"public, max-age=%d" % age) if query.format is Format.PLACEHOLDER else NO_STORE,
            NOSNIFF,
            (b"adserver-filled", b"%d" % filled),
            (b"content-length", b"%d" % len(text)),
        ]
        if unknown:
            headers.append((b"adserver-unknown", ", ".join(unknown).encode()))
        if article.repairs:
            headers.append((b"adserver-repaired", b"%d" % sum(article.repairs.values())))
            for kind, n in article.repairs.items():
                self._meter.add(metrics.REPAIRS.labels(kind), n)
        await self._responses.send(send, "render", 200, headers, text)
        return None

    def _read_article(self, body: bytes, mend: bool) -> repair.Article:  # noqa: FBT001
        """The article's pieces; those of lately seen articles are remembered. Raises BadQuery."""
        found = self._articles.get((body, mend))
        if found is not None:
            return found
        try:
            text = body.decode()
            article = repair.read(text, MOST_IDS) if mend else repair.read_strict(text, MOST_IDS)
        except UnicodeDecodeError as error:
            raise BadQuery(f"The article is not UTF-8: byte {error.start} cannot be read.") from None
        except repair.TooManyShortcodes:
            raise BadQuery(f"The article has more than {MOST_IDS} ad shortcodes; send it in parts.") from None
        if len(body) <= 65536:
            if len(self._articles) >= 256:
                self._articles.pop(next(iter(self._articles)))
            self._articles[body, mend] = article
        return article

    def fill(self, article: repair.Article, form: Format) -> tuple[bytes, int, list[str], int]:
        """The article's bytes with every shortcode answered, how many were filled, unknown ids, and a cache's seconds."""
        edition = self.edition()
        catalog = edition.catalog
        codes = [piece for piece in article.pieces if not isinstance(piece, str)]
        asks = [_ask(catalog, code) for code in codes]
        now = self._now()
        known = tuple(ask for ask in asks if ask is not None)
        answers: list[bytes] = []
        filled, age = 0, LONGEST_MAX_AGE_S
        unknown: list[str] = []
        if form is Format.PLACEHOLDER:
            for ask in known:
                answers.append(render_placeholder(ask if isinstance(ask, Group) else catalog.slots[ask]))
                slots = [one.slot for one in ask.slots] if isinstance(ask, Group) else [ask]
                age = min(age, *(_max_age(catalog, slot, now) for slot in slots))
        else:
            for decision in decide(catalog, now, Page(known, form), PageDraws(self._counters)):
                answers.append(self._snip(edition, decision, form, filled == 0, now))
                filled += isinstance(decision, Filled)
        answered = iter(answers)
        out: list[bytes] = []
        waiting = iter(asks)
        for piece in article.pieces:
            if isinstance(piece, str):
                out.append(piece.encode())
            elif next(waiting) is not None:
                out.append(next(answered))
            else:
                self._meter.add(self._unfilled[NoFill.UNKNOWN_SLOT])
                if len(unknown) < 20 and (name := _presentable(piece)):
                    unknown.append(name)
        return b"".join(out), filled, list(dict.fromkeys(unknown)), age


def _allowed(ad: Ad, form: Format) -> int:
    """Which events the token may stand for. A mail's image loads are no impressions; a link needs a destination."""
    mask = 1 << TOKEN_BIT[Type.CLICK] if ad.creative.click_url else 0
    if form is not Format.EMAIL:
        mask |= 1 << TOKEN_BIT[Type.IMPRESSION] | 1 << TOKEN_BIT[Type.VIEWABLE]
    return mask


def _entry(html: str, ad: Ad | None, reason: NoFill | None, max_age: int) -> dict[str, Any]:
    return {
        "html": html,
        "filled": ad is not None,
        "reason": reason.value if reason else None,
        "line_item": ad.line_item.id if ad else None,
        "creative": ad.creative.id if ad else None,
        "max_age": max_age,
    }


def _max_age(catalog: Catalog, slot: SlotId, now: float) -> int:
    """Whole seconds until something else may show in *slot*, at most an hour."""
    change = catalog.next_change(slot, now)
    return LONGEST_MAX_AGE_S if change == inf else max(0, min(LONGEST_MAX_AGE_S, int(change - now)))


def _ask(catalog: Catalog, code: Shortcode) -> SlotId | Group | None:
    """What *code* asks for; None when nothing here goes by that id."""
    name = str(code.attrs.get("id", "")).strip()
    match code.name:
        case "the_ad":
            return (
                SlotId(int(name))
                if name.isascii() and name.isdigit() and len(name) <= 10 and int(name) in catalog.slots
                else None
            )
        case "the_ad_group":
            return catalog.groups.get(name)
        case _:
            placement = catalog.placements.get(name)
            if placement is None:
                return None
            return catalog.groups[placement.group] if placement.group else placement.slot


def _presentable(code: Shortcode) -> str:
    """An id that may stand in a header; nothing else of an article ever does."""
    name = str(code.attrs.get("id", "")).strip()
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64 else ""


def _article_type(headers: Headers) -> bytes:
    """The article's media type. Raises BadQuery for a type or charset /render does not read."""
    values = [value for name, value in headers if name == b"content-type"]
    media, _, parameters = (values[0] if values else b"").lower().partition(b";")
    media = media.strip()
    if media not in (b"text/html", b"text/plain"):
        raise BadQuery("Send the article as text/html or text/plain.", 415)
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip().strip(b'"')
    if charset not in (b"", b"utf-8", b"utf8"):
        raise BadQuery("Send the article in UTF-8.", 415)
    if any(name == b"content-encoding" and value.strip().lower() != b"identity" for name, value in headers):
        raise BadQuery("Send the article uncompressed.", 415)
    return media
