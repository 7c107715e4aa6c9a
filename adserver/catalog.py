"""Everything bookable as one immutable snapshot: indexed, ready to be decided on.

Rules: it is made of a document that `checks` found nothing wrong with, and never changes afterwards; what it remembers
lazily (who is live in which stretch of time) is a function of its content alone. An ad is one creative of one line item
in one slot, and its key is a hash of those three names: every worker and every machine gives it the same key without
asking anybody.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any

from msgspec import Struct, structs

from adserver import hours
from adserver.documents import Document
from adserver.hours import Spans
from adserver.model import (
    Advertiser,
    Campaign,
    Cap,
    Creative,
    Group,
    Kind,
    LineItem,
    NoFill,
    OnShortfall,
    PageRule,
    Pause,
    Placement,
    Priority,
    Rotation,
    Slot,
    SlotId,
    Targeting,
)
from adserver.pauses import finding_pauses, in_force, is_paused, section_fact, why
from adserver.steps import AT_ONCE, Steps, at_once, pieces
from adserver.targeting import PREFERRED, Context, Target

PRIORITIES = tuple(Priority)


class Ad(Struct, frozen=True):
    """One creative of one line item in one slot. *key* is 7 bytes."""

    key: bytes
    slot: Slot
    line_item: LineItem
    creative: Creative

    @property
    def name(self) -> str:
        return ad_name(self.slot.id, self.line_item.id, self.creative.id)


def ad_name(slot: int, line_item: str, creative: str) -> str:
    """The three ids as counts and journals write them: `889990/spring-sale/spring-300`."""
    return f"{slot}/{line_item}/{creative}"


def ad_key(name: str) -> bytes:
    """56 bits: among a million ads two collide once in 140,000 catalogs, and then the catalog is refused."""
    return hashlib.blake2s(name.encode(), digest_size=7, person=b"ad-key").digest()


class Booking(Struct, frozen=True):
    """A line item's part in one slot: its ads that fit there, the running sum of their weights, their creatives.

    *weight* is its own among the others of its priority. *caps* are the views that frequency caps count: its own, its
    campaign's or its advertiser's, as `Limit.field` names them. *pauses* are those that hold it back on every page.
    """

    line_item: LineItem
    ads: tuple[Ad, ...]
    weights: tuple[float, ...]
    creatives: frozenset[str]
    weight: float
    advertiser: Advertiser
    hours: Spans = ()
    target: Target | None = None
    caps: tuple[str, ...] = ()
    pauses: tuple[Pause, ...] = ()


class Tier(Struct, frozen=True):
    """The bookings of one priority, and the running sum of their weights.

    Those with a goal are apart, in *paced*: they come first, each with as much as its pace asks for. A sponsorship has
    a share instead, with a goal or without. *blocks* are those who take all of their slots on a page or none.
    """

    bookings: tuple[Booking, ...]
    weights: tuple[float, ...]
    paced: tuple[Booking, ...] = ()
    blocks: tuple[LineItem, ...] = ()

    @property
    def everyone(self) -> tuple[Booking, ...]:
        return self.paced + self.bookings


class Live(Struct, frozen=True):
    """Who may answer in one stretch of time: a tier, or None, per priority. It holds *until* that Unix second.

    *reason* is why nobody answers where there is no tier; *targeted*, whether some ask what page it is; *blocked*,
    whether some take all of their slots on a page or none; *capped*, whether some ask who the reader is. On pages that
    say one of *paused* of themselves *there* holds instead.
    """

    tiers: tuple[Tier | None, ...]
    until: float
    reason: NoFill = NoFill.NOT_LIVE
    targeted: bool = False
    blocked: bool = False
    capped: bool = False
    _narrowed: dict[Context, "Live"] = {}
    paused: frozenset[str] = frozenset()
    there: "Live | None" = None

    def on(self, context: Context) -> "Live":
        """Who of them may answer on such a page. Pages of one section are alike, so it is remembered."""
        found = self._narrowed.get(context)
        if found is None:
            if self.there is not None and not self.paused.isdisjoint(context.facts):
                found = self.there.on(context)
            else:
                tiers = tuple(tier and _narrow(tier, context) for tier in self.tiers)
                reason = self.reason if any(tiers) or not any(self.tiers) else NoFill.NOT_TARGETED
                found = Live(tiers, self.until, reason, blocked=_is_blocked(tiers), capped=self.capped)
            if len(self._narrowed) >= _REMEMBERED:
                self._narrowed.clear()
            self._narrowed[context] = found
        return found


_REMEMBERED = 256


def _narrow(tier: Tier, context: Context) -> Tier | None:
    admitted = [one for one in tier.everyone if one.target is None or one.target.admits(context)]
    return _tier(
        [
            structs.replace(one, weight=one.weight * PREFERRED) if one.target and one.target.prefers(context) else one
            for one in admitted
        ]
    )


class Bookings:
    """One slot's bookings, and who of them is live when."""

    __slots__ = ("_changes", "_edges", "_from", "_live", "_now", "_sections", "_week", "all")

    def __init__(self, bookings: Iterable[Booking], week: hours.Week, sections: tuple[Pause, ...] = ()) -> None:
        self.all = tuple(bookings)
        self._week = week
        self._sections = sections
        spans = [booking.hours for booking in self.all if booking.hours]
        self._edges = hours.edges(spans) if spans else []
        instants = {at for booking in self.all for at in (booking.line_item.starts, last_instant(booking.line_item))}
        pauses = [*sections, *(pause for booking in self.all for pause in booking.pauses)]
        instants.update(at for pause in pauses for at in (pause.starts, pause.ends))
        self._changes = sorted(at for at in instants if at is not None)
        self._live: dict[int, Live] = {}
        self._from, self._now = inf, Live((None,) * len(PRIORITIES), inf)

    def at(self, now: float) -> Live:
        """Who is live at *now*. Remembered per stretch between two changes; asking about the same again is quick."""
        if self._from <= now < self._now.until:
            return self._now
        stretch = bisect_right(self._changes, now)
        begins = self._changes[stretch - 1] if stretch else -inf
        until = self._changes[stretch] if stretch < len(self._changes) else inf
        if self._edges:
            live = self._find(now, min(until, self._week.until(now, self._edges)))
            begins = max(begins, now)
        else:
            found = self._live.get(stretch)
            live = self._live[stretch] = found or self._find(now, until)
        self._from, self._now = begins, live
        return live

    def _find(self, now: float, until: float) -> Live:
        on = [booking for booking in self.all if is_live(booking.line_item, now)]
        running = [booking for booking in on if not booking.pauses or not is_paused(booking.pauses, now)]
        live = self._live_of(running, NoFill.PAUSED if on and not running else NoFill.NOT_LIVE, now, until)
        paused = frozenset(map(section_fact, in_force(self._sections, now)))
        if not paused:
            return live
        house = [booking for booking in running if booking.line_item.priority is Priority.HOUSE]
        there = self._live_of(house, NoFill.PAUSED if on and not house else NoFill.NOT_LIVE, now, until)
        return structs.replace(live, targeted=True, paused=paused, there=there)

    def _live_of(self, running: list[Booking], reason: NoFill, now: float, until: float) -> Live:
        """Those of *running* whose hours it is; *reason* is why nobody answers where none is running."""
        minute = self._week.minute(now) if self._edges else 0
        open_ = [booking for booking in running if not booking.hours or hours.holds(booking.hours, minute)]
        tiers = tuple(_tier([one for one in open_ if one.line_item.priority is rank]) for rank in PRIORITIES)
        if running and not open_:
            reason = NoFill.OUTSIDE_HOURS
        targeted, capped = any(one.target for one in open_), any(one.caps for one in open_)
        return Live(tiers, until, reason, targeted, _is_blocked(tiers), capped, {})


def _is_blocked(tiers: Iterable[Tier | None]) -> bool:
    return any(tier.blocks for tier in tiers if tier)


def _tier(bookings: list[Booking]) -> Tier | None:
    """Roadblocks first and by name, so that a draw that is theirs in one of their slots is theirs in all of them."""
    if not bookings:
        return None
    blocks = tuple(one.line_item for one in bookings if one.line_item.page is PageRule.ROADBLOCK_ALL)
    if blocks:
        bookings = sorted(bookings, key=_blocks_first)
    paced = tuple(one for one in bookings if one.line_item.goal and one.line_item.share is None)
    others = tuple(one for one in bookings if not one.line_item.goal or one.line_item.share is not None)
    return Tier(others, tuple(accumulate(one.weight for one in others)), paced, blocks)


def _blocks_first(booking: Booking) -> tuple[bool, str]:
    blocks = booking.line_item.page is PageRule.ROADBLOCK_ALL
    return not blocks, booking.line_item.id if blocks else ""


def last_instant(line_item: LineItem) -> float | None:
    """When it shows no more whatever has been delivered; None where only its goal ends it, or nothing does."""
    return None if line_item.on_shortfall is OnShortfall.RUN_ON else line_item.ends


def is_live(line_item: LineItem, now: float) -> bool:
    """A flight holds its first instant and not its last."""
    ends = last_instant(line_item)
    return (line_item.starts is None or line_item.starts <= now) and (ends is None or now < ends)


class Catalog:
    """One version of the booking document, indexed. *bookings* has an entry for every slot."""

    __slots__ = (
        "_places",
        "about_readers",
        "advertisers",
        "assets",
        "bookings",
        "by_key",
        "campaigns",
        "caps",
        "document",
        "goals",
        "groups",
        "level_3",
        "measured",
        "pauses",
        "placements",
        "sections",
        "slots",
        "third_party",
        "version",
        "week",
    )

    def __init__(self, document: Document, version: int) -> None:
        at_once(self._make(document, version))

    @classmethod
    def making(cls, document: Document, version: int) -> Steps["Catalog"]:
        """The catalog of a document, in steps."""
        made = cls.__new__(cls)
        yield from made._make(document, version)
        return made

    def _make(self, document: Document, version: int) -> Steps[None]:
        self.document = document
        self.version = version
        self.slots: Mapping[int, Slot] = yield from _by_id(document.slots)
        self.groups: Mapping[str, Group] = yield from _by_id(document.groups)
        self.placements: Mapping[str, Placement] = yield from _by_id(document.placements)
        self.advertisers: Mapping[str, Advertiser] = yield from _by_id(document.advertisers)
        self.level_3 = frozenset(advertiser.id for advertiser in document.advertisers if advertiser.count_level == 3)
        self.campaigns: Mapping[str, Campaign] = yield from _by_id(document.campaigns)
        self.week = hours.Week(document.site.time_zone)
        creatives: Mapping[str, Creative] = yield from _by_id(document.creatives)
        tags = {one.id for one in document.creatives if one.kind is Kind.TAG}
        goals, measured = list[LineItem](), list[LineItem]()
        about_readers, tagged = set[SlotId](), {slot.id for slot in document.slots if slot.passback}
        yield
        for line_items in pieces(document.line_items):
            for one in line_items:
                if one.goal:
                    goals.append(one)
                if one.goal or one.rotation is Rotation.OPTIMISED:
                    measured.append(one)
                if one.targeting and _asks_of_readers(one.targeting):
                    about_readers.update(one.slots)
                if tags and not tags.isdisjoint(one.creatives):
                    tagged.update(one.slots)
            yield
        self.goals = tuple(goals)
        self.measured = tuple(measured)
        """The line items whose deliveries deciding goes by."""
        self.about_readers = frozenset(about_readers)
        """The slots of line items for some devices or countries only, which a request's headers may tell."""
        self.third_party = frozenset(tagged)
        """The slots where another party's markup may stand, which takes the reader's consent."""
        self.caps: Mapping[str, tuple[Limit, ...]] = yield from _limits(document, self.campaigns, self.advertisers)
        self.pauses: Mapping[str, tuple[Pause, ...]] = yield from finding_pauses(document)
        """Of the line items that have any, by id."""
        self.sections = tuple(pause for pause in document.pauses if pause.section is not None)
        """The pauses of sections."""
        items, places = yield from _places(document, self.slots, creatives)
        of = {one.id: self.advertisers[one.advertiser] for one in document.campaigns}
        books = _Books(self.slots, items, creatives, of, self.caps, self.week, self.pauses, self.sections)
        self.bookings: Mapping[int, Bookings] = books
        self._places = places
        self.by_key: Mapping[bytes, Ad] = _Ads(places, books)
        self.assets = frozenset(name for creative in document.creatives for name in creative.files)

    def __repr__(self) -> str:
        return f"<Catalog version {self.version}, {len(self.slots)} slots, {len(self.document.line_items)} line items>"

    def missing_from(self, other: "Catalog") -> Steps[dict[bytes, Ad]]:
        """The ads, by key, that *other* does not have."""
        found: dict[bytes, Ad] = {}
        for part in self._places:
            for key in [key for key in part if key not in other._places[key[0]]]:
                found[key] = self.by_key[key]
                yield
            yield
        return found

    def parts(self) -> Iterator[list[Any]]:
        """All that there are many of in it. Who holds these lets go of the catalog at once, and of them bit by bit."""
        document = self.document
        yield from (list(getattr(document, name)) for name in document.__struct_fields__ if name != "site")
        for made in (self.bookings, self.by_key):
            if isinstance(made, _Books | _Ads):
                yield from made.parts()

    def is_open(self, booking: Booking, now: float) -> bool:
        """Whether *now* is within the booking's hours of the week."""
        return not booking.hours or hours.holds(booking.hours, self.week.minute(now))

    def why_paused(self, booking: Booking, now: float, context: Context) -> str | None:
        """Why a pause keeps the booking from such a page, as the rest of a sentence; None when none does."""
        found = in_force(booking.pauses, now)
        if booking.line_item.priority is not Priority.HOUSE:
            found += [one for one in in_force(self.sections, now) if section_fact(one) in context.facts]
        if not found:
            return None
        last = max(found, key=lambda pause: pause.ends)
        return why(last, self.week.say(last.ends, now))

    def next_change(self, slot: SlotId, now: float) -> float:
        """The Unix second at which something else may show in *slot*; infinity when nothing is planned."""
        return self.bookings[slot].at(now).until


def _asks_of_readers(targeting: Targeting) -> bool:
    asked = (targeting.any, targeting.all, targeting.none, targeting.prefer)
    return any(terms and (terms.device or terms.country) for terms in asked)


class Limit(Struct, frozen=True):
    """A frequency cap and whose it is: *level* is `line_item`, `campaign` or `advertiser`, *id* its id."""

    level: str
    id: str
    cap: Cap

    @property
    def field(self) -> str:
        """Whose views it looks at: `line_item:spring-sale`."""
        return f"{self.level}:{self.id}"


def _by_id(rows: Sequence[Any]) -> Steps[dict[Any, Any]]:
    found: dict[Any, Any] = {}
    for part in pieces(rows):
        found.update((one.id, one) for one in part)
        yield
    return found


def _limits(
    document: Document, campaigns: Mapping[str, Campaign], advertisers: Mapping[str, Advertiser]
) -> Steps[dict[str, tuple[Limit, ...]]]:
    """Every cap a line item is under, by line item: its own, its campaign's and its advertiser's."""
    found = {}
    above = {one.id for one in document.campaigns if one.frequency or advertisers[one.advertiser].frequency}
    for line_items in pieces(document.line_items):
        for line_item in line_items:
            campaign = campaigns[line_item.campaign]
            if not line_item.frequency and campaign.id not in above:
                continue
            advertiser = advertisers[campaign.advertiser]
            owners = (("line_item", line_item), ("campaign", campaign), ("advertiser", advertiser))
            if limits := tuple(Limit(level, one.id, cap) for level, one in owners for cap in one.frequency):
                found[line_item.id] = limits
        yield
    return found


class _Books(dict[int, Bookings]):
    """Every slot's bookings, made when they are first asked for: of a large catalog most are not for a while.

    *items* are the line items of each slot, in their order.
    """

    __slots__ = ("_caps", "_creatives", "_items", "_made", "_of", "_pauses", "_sections", "_slots", "_week")

    def __init__(
        self,
        slots: Mapping[int, Slot],
        items: Mapping[int, list[LineItem]],
        creatives: Mapping[str, Creative],
        of: Mapping[str, Advertiser],
        caps: Mapping[str, tuple[Limit, ...]],
        week: hours.Week,
        pauses: Mapping[str, tuple[Pause, ...]],
        sections: tuple[Pause, ...],
    ) -> None:
        self._slots, self._items, self._creatives, self._of, self._week = slots, items, creatives, of, week
        self._caps, self._pauses, self._sections = caps, pauses, sections
        self._made: dict[str, tuple[Spans, Target | None]] = {}

    def __missing__(self, slot: int) -> Bookings:
        booked = (one for item in self._items[slot] if (one := self._book(self._slots[slot], item)))
        found = self[slot] = Bookings(booked, self._week, self._sections)
        return found

    def get(self, slot: int, default: Any = None) -> Any:
        return self[slot] if slot in self._slots else default

    def values(self) -> Any:
        return [self[slot] for slot in self._slots]

    def parts(self) -> Iterator[list[Any]]:
        yield list(super().values())
        yield list(self._items.values())
        yield list(self._made.values())

    def _book(self, slot: Slot, line_item: LineItem) -> Booking | None:
        ready = self._made.get(line_item.id)
        if ready is None:
            target = Target(line_item.targeting) if line_item.targeting else None
            ready = self._made[line_item.id] = hours.spans_of(line_item.hours), target
        named = (self._creatives[name] for name in line_item.creatives)
        fitting = [creative for creative in named if creative.weight and fits(creative, slot)]
        if not fitting:
            return None
        ads = tuple(_ad(slot, line_item, creative) for creative in fitting)
        weights = tuple(accumulate(creative.weight for creative in fitting))
        names = frozenset(ad.creative.id for ad in ads)
        owner = self._of[line_item.campaign]
        caps = tuple(dict.fromkeys(limit.field for limit in self._caps.get(line_item.id, ())))
        pauses = self._pauses.get(line_item.id, ())
        return Booking(line_item, ads, weights, names, line_item.weight, owner, *ready, caps, pauses)


class _Ads(dict[bytes, Ad]):
    """Every ad by its key, made with the bookings of its slot. *places* are the slots of all keys."""

    __slots__ = ("_books", "_places")

    def __init__(self, places: "_Places", books: _Books) -> None:
        self._places, self._books = places, books

    def __missing__(self, key: bytes) -> Ad:
        for booking in self._books[self._places[key[0]][key]].all:
            self.update((ad.key, ad) for ad in booking.ads)
        return self[key]

    def get(self, key: bytes, default: Any = None) -> Any:
        return self[key] if key and key in self._places[key[0]] else default

    def keys(self) -> Any:
        return {key for part in self._places for key in part}

    def values(self) -> Any:
        return [self[key] for key in self.keys()]

    def parts(self) -> Iterator[list[Any]]:
        yield list(super().values())
        yield list(self._places)


_Places = tuple[dict[bytes, int], ...]
"""The slot of each ad's key, by the key's first byte: a single dict of 100,000 grows in steps of 5 ms, in which nobody
else gets the interpreter.
"""


def _places(
    document: Document, slots: Mapping[int, Slot], creatives: Mapping[str, Creative]
) -> Steps[tuple[dict[int, list[LineItem]], _Places]]:
    """Each slot's line items, and the slot of each ad's key. Raises KeyError for a name that leads nowhere."""
    items: dict[int, list[LineItem]] = {slot: [] for slot in slots}
    places: _Places = tuple({} for _ in range(256))
    made = 0
    for line_item in document.line_items:
        mine = [creatives[name] for name in line_item.creatives]
        for slot in line_item.slots:
            items[slot].append(line_item)
            for creative in mine:
                if creative.weight and fits(creative, slots[slot]):
                    key = ad_key(ad_name(slot, line_item.id, creative.id))
                    places[key[0]][key] = slot
                made += 1  # one line item may have 100,000 ads
                if made % AT_ONCE == 0:
                    yield
    return items, places


def _ad(slot: Slot, line_item: LineItem, creative: Creative) -> Ad:
    return Ad(ad_key(ad_name(slot.id, line_item.id, creative.id)), slot, line_item, creative)


def fits(creative: Creative, slot: Slot) -> bool:
    """Text and native creatives have no size and fit every slot."""
    return creative.size is None or creative.size in slot.sizes
