"""From a decided page to the bytes that leave: tokens minted, events journalled, counts metered, snippets filled.

All delivery routes answer through here. Rules: one look at the live catalog a request; an event is in the journal
before its answer leaves; a request that cannot be journalled is answered all the same, and said to be uncounted.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any

from msgspec import Struct

from adserver import metrics
from adserver.answers import Scope
from adserver.capping import hold_at_first
from adserver.caps import Caps
from adserver.catalog import Ad, Catalog
from adserver.context import PLAIN, Query
from adserver.days import Days
from adserver.decide import Decision, Draws, Filled, Page, Unfilled, decide, draw_of
from adserver.documents import Document
from adserver.errors import JournalUnavailable
from adserver.events import NO_FILLS, NO_ISSUER, TOKEN_BIT, Type, slot_subject
from adserver.explain import Explanation, explain
from adserver.journal import Ledger
from adserver.keeping import Keeper
from adserver.metrics import Both, Meter
from adserver.model import Format, Group, NoFill, SlotId
from adserver.pacer import Pacer
from adserver.pacing import Pace
from adserver.places import draws_of, number_places
from adserver.readers import Readers, agrees
from adserver.reload import LiveCatalog
from adserver.render import Snippet, compile_snippet, render_empty
from adserver.steps import Steps, at_once, pieces
from adserver.targeting import UNKNOWN, Context, withheld, withhold
from adserver.token import Mint, Token

log = logging.getLogger(__name__)

_REMEMBERED = 1024
LONGEST_MAX_AGE_S = 3600
"""A cache asks again this often even where nothing is planned: somebody may publish."""
CLOCK_SLACK_S = 120
"""How far the clock may step back without a day that has ended beginning again."""


def _steady() -> float:
    """Seconds that no setting of the clock changes; on Linux it goes on while the machine sleeps."""
    return time.clock_gettime(_STEADY)


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_REASON_NUMBER = {reason: number for number, reason in enumerate(NO_FILLS)}
_SERVED, _UNFILLED, _LOAD = int(Type.SERVED), int(Type.UNFILLED), int(Type.LOAD)
_EMAIL = Format.EMAIL
_CLICK = 1 << TOKEN_BIT[Type.CLICK]
_SEEN = sum(1 << bit for type_, bit in TOKEN_BIT.items() if type_ is not Type.CLICK)


Asks = dict[tuple[str, str], SlotId | Group]
"""What each shortcode asks for, by its name and its id."""


class PageDraws(dict[int | str, int]):
    """The draw numbers of one page, taken from the slots' counters when the decision asks for them."""

    __slots__ = ("_counters",)

    def __init__(self, counters: dict[int | str, int]) -> None:
        self._counters = counters

    def __missing__(self, name: int | str) -> int:
        view = self._counters[name] = self._counters.get(name, -1) + 1
        n = self[name] = draw_of(name, view) if isinstance(name, int) else view
        return n


class Ready(Struct, frozen=True):
    """An ad made ready for serving: its snippet, its key and which events its token may stand for (for the mint), its
    name, the metrics of a fill."""

    snippet: Snippet
    ask: tuple[bytes, int]
    name: str
    filled: Both


class Empty(Struct, frozen=True):
    """What leaving a slot empty for one reason takes: what stands there, how it is journalled, the metrics."""

    body: bytes
    subject: bytes
    reason: int
    unfilled: Both


class _Requests(dict[int, Any]):
    """The metric of each slot's requests, found when it is first asked for: a large catalog has thousands."""

    def __missing__(self, slot: int) -> Any:
        found = self[slot] = metrics.REQUESTS.labels(str(slot))
        return found


class Edition:
    """A catalog with what serving remembers of it: slots by the bytes of their ids, snippets made so far."""

    def __init__(self, catalog: Catalog, public_url: str) -> None:
        at_once(self._make(catalog, public_url))

    @classmethod
    def making(cls, catalog: Catalog, public_url: str) -> Steps["Edition"]:
        """The edition of a catalog, in steps."""
        made = cls.__new__(cls)
        yield from made._make(catalog, public_url)
        return made

    def _make(self, catalog: Catalog, public_url: str) -> Steps[None]:
        self.catalog = catalog
        self.slots: dict[bytes, SlotId] = {}
        self.pages: dict[bytes, Page] = {}
        for slots in pieces(tuple(catalog.slots)):
            for number in slots:
                slot = SlotId(number)
                self.slots[b"%d" % slot] = slot
                if slot not in catalog.about_readers:
                    self.pages[b"/ads/%d" % slot] = Page((slot,), context=self.unasked((slot,)))
            yield
        self.asks = yield from _finding_asks(catalog.document)
        self._plain = len(self.pages)
        self.requests = _Requests()
        self._filled: dict[int, Both] = {}
        self._public_url = public_url
        self._ready: dict[tuple[bytes, str, bool], Ready] = {}
        self._empty: dict[tuple[int, str, str, bool], Empty] = {}

    def parts(self) -> Iterator[list[Any]]:
        """All that there are many of in it, as `Catalog.parts`."""
        many: tuple[Iterable[Any], ...] = self.slots, self.pages, self.pages.values(), self.asks, self._ready.values()
        for part in many:
            yield list(part)

    def unasked(self, asks: Iterable[SlotId | Group], context: Context = UNKNOWN) -> Context:
        """*context* of a page whose reader has consented to nothing, as far as that matters to what it asks for."""
        return _unasked(self.catalog, asks, context)

    def ready(self, ad: Ad, form: str, eager: bool) -> "Ready":  # noqa: FBT001
        """What serving *ad* takes; *form* is a Format's value, because hashing the member is slow."""
        key = (ad.key, form, eager)
        found = self._ready.get(key)
        if found is None:
            snippet = compile_snippet(self.catalog, ad, Format(form), self._public_url, eager=eager)
            ask = ad.key, _allowed(ad, Format(form))
            filled = self._filled.get(ad.slot.id)
            if filled is None:
                served = metrics.SERVED.labels(str(ad.slot.id))
                filled = self._filled[ad.slot.id] = Both(self.requests[ad.slot.id], served)
            found = self._ready[key] = Ready(snippet, ask, ad.name, filled)
        return found

    def empty(self, slot: SlotId, reason: NoFill, form: str, own: bool) -> Empty:  # noqa: FBT001
        """What leaving *slot* empty takes; *form* is a Format's value. *own*: without another party's markup."""
        key = slot, reason.value, form, own
        found = self._empty.get(key)
        if found is None:
            body = render_empty(self.catalog.slots[slot], Format(form), own=own)
            counters = Both(self.requests[slot], metrics.UNFILLED.labels(reason.value))
            found = self._empty[key] = Empty(body, slot_subject(slot), _REASON_NUMBER[reason], counters)
        return found

    def remember(self, target: bytes, page: Page) -> None:
        """Have a target with a query answered as quickly as one without, from now on."""
        if len(self.pages) - self._plain >= _REMEMBERED:
            for old in list(self.pages)[self._plain : self._plain + _REMEMBERED // 2]:
                del self.pages[old]
        self.pages[target] = page

    def max_age(self, ask: SlotId | Group, now: float) -> int:
        """Whole seconds until something else may show there, at most an hour."""
        change = min(self.catalog.next_change(slot, now) for slot in slots_of((ask,)))
        return LONGEST_MAX_AGE_S if change == inf else max(0, min(LONGEST_MAX_AGE_S, int(change - now)))


def find_asks(document: Document) -> Asks:
    """What each shortcode asks for, by its name and its id: a closed list, so that no id is ever parsed."""
    return at_once(_finding_asks(document))


def _finding_asks(document: Document) -> Steps[Asks]:
    groups = {group.id: group for group in document.groups}
    asks: Asks = {}
    for slots in pieces(document.slots):
        asks.update((("the_ad", str(slot.id)), slot.id) for slot in slots)
        yield
    asks |= {("the_ad_group", id_): group for id_, group in groups.items()}
    for placement in document.placements:
        target = groups[placement.group] if placement.group else placement.slot
        if target is not None:
            asks["the_ad_placement", placement.id] = target
    return asks


def read_id(asks: Asks, text: str) -> SlotId | Group | None:
    """What an id of a page call asks for: a slot by its number, `group:side-rail` or `placement:article-middle`."""
    table, colon, name = text.partition(":")
    return asks.get((f"the_ad_{table}", name) if colon else ("the_ad", text))


class Answering:
    """One worker's answers; for the event loop's thread alone."""

    def __init__(
        self,
        live: LiveCatalog,
        journal: Ledger,
        mint: Mint,
        meter: Meter,
        public_url: str,
        readers: Readers | None = None,
        caps: Caps | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._keeper = keeper
        self._readers = readers or Readers(bytes(32))
        self._caps = caps or Caps("unix:///dev/null")
        self._live = live
        self._journal = journal
        self._mint = mint
        self._meter = meter
        self._public_url = public_url
        self._counters: dict[int | str, int] = {}
        self.pacer = Pacer(self._counters)
        self._planner = self.pacer.planner
        self._unknown = metrics.UNFILLED.labels(NoFill.UNKNOWN_SLOT.value)
        self._latest = 0.0
        self._ahead = time.time() - _steady()
        self._frozen_day: int | None = None
        self.jump_s = 0.0
        """Seconds the wall clock has jumped since this worker began; 0 while it goes like the steady one."""
        self._coming: Edition | None = None
        live.preparing.append(self._prepare)
        self._edition = Edition(live.current, public_url)
        self._days = Days(live.current.document.site.time_zone)

    def write_to(self, journal: Ledger) -> None:
        """The worker goes on in another journal: see `turnover`."""
        self._journal = journal

    def _prepare(self, catalog: Catalog) -> Steps[None]:
        self._coming = yield from Edition.making(catalog, self._public_url)

    def _renew(self) -> None:
        coming, self._coming = self._coming, None
        current = self._live.current
        self._live.leaving.append(self._edition)
        self._edition = coming if coming and coming.catalog is current else Edition(current, self._public_url)
        self._days = Days(self._live.current.document.site.time_zone)

    def edition(self) -> Edition:
        """The live catalog's edition, made anew when another catalog was swapped in."""
        if self._edition.catalog is not self._live.current:
            self._renew()
        return self._edition

    def now(self) -> float:
        """The wall clock in Unix seconds, held where it steps back a little."""
        now = time.time()
        if 0 <= now - self._latest <= CLOCK_SLACK_S and not self.jump_s:
            self._latest = now
            return now
        return self.check_clock(now)

    def check_clock(self, now: float) -> float:
        """What `now` does when the wall clock says *now*, and once a second: hold it against the steady clock."""
        if not -CLOCK_SLACK_S <= now - _steady() - self._ahead <= CLOCK_SLACK_S:
            self._note_jump(now)
            return now
        self._ahead = now - _steady()
        if self.jump_s:
            self._end_jump()
        if self._latest - CLOCK_SLACK_S < now < self._latest:
            return self._latest
        self._latest = now
        return now

    def clock_holds(self) -> bool:
        """Whether the wall clock can be believed now: only then may anything be closed or deleted by it."""
        self.check_clock(time.time())
        return not self.jump_s

    def _note_jump(self, now: float) -> None:
        """Hold the day: whether the old or the new time is right, only a person can tell."""
        jump_s = now - _steady() - self._ahead
        if not self.jump_s:
            self._frozen_day = self._days.locate(self._latest or now - jump_s)[0]
            log.error("the wall clock jumped by %+.0f s; events go on being counted for the day before it", jump_s)
        self.jump_s = jump_s

    def _end_jump(self) -> None:
        self.jump_s, self._frozen_day, self._latest = 0.0, None, 0.0
        log.warning("the wall clock is back where it was; days go on by it")

    def _locate(self, now: float) -> tuple[int, int]:
        if self._frozen_day is None:
            return self._days.locate(now)
        return self._frozen_day, self._days.hour_of(self._frozen_day, now)

    def answer(self, edition: Edition, page: Page, now: float) -> list[tuple[Decision, bytes]]:
        """Decide *page*, and count and render each of its decisions. The first ad loads at once, the others lazily."""
        if len(page.asks) == 1 and not isinstance(slot := page.asks[0], Group):
            return [self._answer_alone(edition, page, slot, now)]
        day, hour = self._locate(now)
        planner, draws = self._planner, PageDraws(self._counters)
        decisions = decide(edition.catalog, now, page, draws, planner.pace)
        self.pacer.last_page = page
        form, ready = page.format.value, edition.ready
        served: list[Ready] = []
        for decision in decisions:
            if isinstance(decision, Filled):
                served.append(ready(decision.ad, form, not served))
        snippets = self._serve(served, now, day, hour)
        if served and self._keeper and (mint := self._mint).next_serial > self._keeper.due:
            first, keys = mint.next_serial - len(served), [one.ask[0] for one in served]
            self._keeper.note(now, edition.catalog, page, draws, planner, mint.issuer, first, keys)
        if edition.catalog.goals:
            for decision in decisions:
                if isinstance(decision, Filled) and decision.ad.line_item.goal is not None:
                    planner.note(decision.ad.line_item.id)
        if len(snippets) == len(decisions):
            return list(zip(decisions, snippets, strict=True))
        left = iter(snippets)
        return [
            (one, next(left) if isinstance(one, Filled) else self._leave_empty(edition, one, page, now, day, hour))
            for one in decisions
        ]

    async def decide_for(
        self, catalog: Catalog, asks: tuple[SlotId | Group, ...], query: Query, scope: Scope
    ) -> tuple[Page, bytes]:
        """The page that a delivery call asks for, and its reader; empty when nobody may know.

        Waits for the store where something capped may show to a known reader, and 15 ms at most.
        """
        if query.format is _EMAIL:
            return letter_page(catalog, asks, query), b""
        context = self.context_of(catalog, asks, query, scope)
        if not query.reader or not (reader := self._readers.key(query, scope["headers"])):
            return Page(asks, query.format, context), b""
        held = await self._caps.look(catalog, slots_of(asks), reader, self.now())
        if held is None:
            return Page(asks, query.format, context), reader
        return Page(asks, query.format, context, held.line_items, held.left), reader

    def page_at(
        self, catalog: Catalog, asks: tuple[SlotId | Group, ...], query: Query, scope: Scope, at: float
    ) -> Page:
        """The page that a delivery call asks for at another instant: a reader whom it may name has seen nothing yet."""
        if query.format is _EMAIL:
            return letter_page(catalog, asks, query)
        context = self.context_of(catalog, asks, query, scope)
        if not query.reader or not self._readers.key(query, scope["headers"]):
            return Page(asks, query.format, context)
        held = hold_at_first(catalog, slots_of(asks), at)
        return Page(asks, query.format, context, held.line_items, held.left)

    def draws_for(self, page: Page, query: Query, at: float) -> Draws:
        """What the next view of *page* is drawn by; of a newsletter its places, whoever asks and however often."""
        if page.format is _EMAIL:
            issue = query.issue or self.date(at)
            return draws_of(page.asks, issue, number_places(page.asks, query.number))
        return PageDraws(dict(self._counters))

    def context_of(self, catalog: Catalog, asks: tuple[SlotId | Group, ...], query: Query, scope: Scope) -> Context:
        """What is known of the page, and of its reader's device, country and consent where that may matter."""
        slots = slots_of(asks)
        asked = not catalog.about_readers.isdisjoint(slots)
        context = self._readers.context(query, scope) if asked else query.context
        if catalog.third_party.isdisjoint(slots) or agrees(query, scope["headers"]):
            return context
        return withhold(context)

    def date(self, now: float) -> str:
        """The newsroom's date, such as 2026-03-10."""
        return Days.date(self._locate(now)[0]).isoformat()

    def answer_letter(
        self, edition: Edition, places: Sequence[tuple[Decision, bytes]], now: float
    ) -> list[tuple[Decision, bytes]]:
        """Count and render what was decided for a newsletter's *places*, each with the path of its addresses."""
        day, hour = self._locate(now)
        form = _EMAIL.value
        found: list[tuple[Decision, bytes]] = []
        served: list[Ready] = []
        for decision, path in places:
            if isinstance(decision, Filled):
                ready = edition.ready(decision.ad, form, True)  # noqa: FBT003
                served.append(ready)
                found.append((decision, path.join(ready.snippet)))
            else:
                page = Page((decision.slot,), _EMAIL)
                found.append((decision, self._leave_empty(edition, decision, page, now, day, hour)))
        self._count_served(served, now, day, hour)
        return found

    def note_load(self, ad: Ad, now: float) -> None:
        """A newsletter's picture was fetched: safe from a killed worker, as what is served; nobody waits for more."""
        day, hour = self._locate(now)
        journal = self._journal
        try:
            journal.name(ad.key, ad.name)
            journal.append(_LOAD, 0, day, hour, NO_ISSUER, 0, ad.key, now)
        except JournalUnavailable as error:
            self._note_uncounted(error)
        self._meter.add(metrics.LOADS)

    def mint_click(self, ad: Ad, now: float) -> Token:
        """A token for one click of a link that all readers share: it is used where it is made."""
        day, _ = self._locate(now)
        issuer, serial, _ = self._mint.tokens([(ad.key, _CLICK)], day, now)
        return Token(_CLICK, day, int(now) // 60, issuer, serial, ad.key)

    def remember(self, edition: Edition, decisions: Iterable[Decision], reader: bytes) -> None:
        """What *reader* was shown counts towards caps."""
        if reader:
            self._caps.tell(edition.catalog, decisions, reader, self.now())

    def peek(self, edition: Edition, page: Page, query: Query, now: float) -> list[Decision]:
        """What `answer` would decide next; counts nothing."""
        return self.decide_at(edition.catalog, now, page, self._planner.pace, query)

    def decide_at(self, catalog: Catalog, at: float, page: Page, pace: Pace, query: Query = PLAIN) -> list[Decision]:
        """What the next view would be decided as at another instant; counts nothing."""
        return decide(catalog, at, page, self.draws_for(page, query, at), pace)

    def explain(self, edition: Edition, page: Page, query: Query = PLAIN) -> list[Explanation]:
        """Why `answer` would decide *page* as it would next; counts nothing."""
        return self.explain_at(edition.catalog, self.now(), page, self._planner.pace, query)

    def explain_at(
        self, catalog: Catalog, at: float, page: Page, pace: Pace, query: Query = PLAIN
    ) -> list[Explanation]:
        """Why `decide_at` would decide as it would; counts nothing."""
        return explain(catalog, at, page, self.draws_for(page, query, at), pace)

    def note_unknown(self) -> None:
        """A number anybody can invent was asked for: counted under its reason alone."""
        self._meter.add(self._unknown)

    def _answer_alone(self, edition: Edition, page: Page, slot: SlotId, now: float) -> tuple[Decision, bytes]:
        """As `answer` for one slot: most requests, and twice as quick."""
        day, hour = self._locate(now)
        planner, counters = self._planner, self._counters
        n = counters[slot] = counters.get(slot, -1) + 1
        draws: dict[int | str, int] = {slot: draw_of(slot, n)}
        [decision] = decide(edition.catalog, now, page, draws, planner.pace)
        self.pacer.last_page = page
        if not isinstance(decision, Filled):
            return decision, self._leave_empty(edition, decision, page, now, day, hour)
        ready = edition.ready(decision.ad, page.format.value, True)  # noqa: FBT003
        journal, mint, (key, allowed) = self._journal, self._mint, ready.ask
        token = mint.token(key, day, now, allowed)
        try:
            if key not in journal.names:
                journal.name(key, ready.name)
            journal.append(_SERVED, 0, day, hour, mint.issuer, mint.next_serial - 1, key, now)
        except JournalUnavailable as error:
            self._note_uncounted(error)
        self._meter.add(ready.filled)
        if self._keeper and mint.next_serial > self._keeper.due:
            serial = mint.next_serial - 1
            self._keeper.note(now, edition.catalog, page, draws, planner, mint.issuer, serial, [key])
        if decision.ad.line_item.goal is not None:
            planner.note(decision.ad.line_item.id)
        return decision, token.join(ready.snippet)

    def _serve(self, served: list[Ready], now: float, day: int, hour: int) -> list[bytes]:
        tokens = self._count_served(served, now, day, hour)
        return [token.join(ready.snippet) for token, ready in zip(tokens, served, strict=True)]

    def _count_served(self, served: list[Ready], now: float, day: int, hour: int) -> list[bytes]:
        """Journal and meter each, under a token of its own."""
        if not served:
            return []
        journal, add = self._journal, self._meter.add
        issuer, serial, tokens = self._mint.tokens([ready.ask for ready in served], day, now)
        before = journal.written
        try:
            for ready in served:
                if ready.ask[0] not in journal.names:
                    journal.name(ready.ask[0], ready.name)
            journal.append_served(day, hour, issuer, serial, [ready.ask[0] for ready in served], now)
        except JournalUnavailable as error:
            self._note_uncounted(error, len(served) - (journal.written - before))
        for ready in served:
            add(ready.filled)
        return tokens

    def _leave_empty(self, edition: Edition, decision: Unfilled, page: Page, now: float, day: int, hour: int) -> bytes:
        empty = edition.empty(decision.slot, decision.reason, page.format.value, withheld(page.context))
        self._meter.add(empty.unfilled)
        try:
            self._journal.append(_UNFILLED, empty.reason, day, hour, NO_ISSUER, 0, empty.subject, now)
        except JournalUnavailable as error:
            self._note_uncounted(error)
        return empty.body

    def _note_uncounted(self, error: JournalUnavailable, n: int = 1) -> None:
        self._journal.failure = self._journal.failure or str(error)
        self._meter.add(metrics.UNCOUNTED, n)


def _allowed(ad: Ad, form: Format) -> int:
    """Which events the token may stand for. A mail's image loads are no impressions; a click needs a destination."""
    return (_CLICK if ad.creative.click_url else 0) | (0 if form is _EMAIL else _SEEN)


def letter_page(catalog: Catalog, asks: tuple[SlotId | Group, ...], query: Query) -> Page:
    """What a newsletter's template asks for: all of its readers get the same, so nothing is known of any of them."""
    return Page(asks, _EMAIL, _unasked(catalog, asks, query.context))


def _unasked(catalog: Catalog, asks: Iterable[SlotId | Group], context: Context) -> Context:
    return context if catalog.third_party.isdisjoint(slots_of(asks)) else withhold(context)


def slots_of(asks: Iterable[SlotId | Group]) -> list[SlotId]:
    """Every slot that may answer."""
    return [slot for ask in asks for slot in ([one.slot for one in ask.slots] if isinstance(ask, Group) else [ask])]
