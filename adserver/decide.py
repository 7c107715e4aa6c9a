"""Which ad answers a request, or the reason none does.

`decide` is a function of its arguments alone: no clock, no dice, no I/O. Whoever calls it with the same catalog,
instant, page and draws gets the same answer, so serving, explaining and replaying cannot disagree.

The order of elimination: live window, hours, targeting, priority, share or weight, page rules, creative. A page is
decided as a whole, highest priority first over all its slots: no creative is shown twice on it, no two line items share
a category, no advertiser has two of them unless it asks, and a roadblock has all of its slots or none.

Choices follow the golden-ratio sequence: the n-th draw of a slot is frac(n / phi), which keeps every share within 3
of its exact number after 10,000 draws where a lottery strays by 44 to 96. What is left over of a draw after it has
chosen a line item is again evenly spread, and chooses the creative.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import accumulate
from math import inf

from msgspec import Struct

from adserver.catalog import PRIORITIES, Ad, Booking, Catalog, Live, Tier, is_live
from adserver.model import Format, Group, Kind, LineItem, NoFill, PageRule, Priority, Rotation, SlotId
from adserver.targeting import UNKNOWN, Context

GOLDEN = 0.6180339887498949
"""1 / phi, to the last bit of a double."""

Draws = Mapping[int | str, int]
"""The draw number of each slot (by id) and group (by id) of the page."""

SHOWS: Mapping[Format, frozenset[Kind]] = {
    Format.HTML: frozenset(Kind),
    Format.PLACEHOLDER: frozenset(Kind),
    Format.NATIVE: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE, Kind.HTML}),
    Format.EMAIL: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE}),
    Format.AMP: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE}),
}
"""Which kinds of creative each format can carry: mail readers and AMP run no bought markup."""


class Page(Struct, frozen=True):
    """What a page asks for, in its order: slot ids, and groups one of whose slots shall answer."""

    asks: tuple[SlotId | Group, ...]
    format: Format = Format.HTML
    context: Context = UNKNOWN


class Filled(Struct, frozen=True, tag="filled"):
    """An ad answers."""

    ad: Ad


class Unfilled(Struct, frozen=True, tag="unfilled"):
    """None does. *slot* is the slot asked for, or a group's first choice."""

    slot: SlotId
    reason: NoFill


Decision = Filled | Unfilled


class Step(Enum):
    """Where a candidate was eliminated, in the order the steps are taken."""

    LIVE_WINDOW = "live window"
    HOURS = "hours"
    TARGETING = "targeting"
    PRIORITY = "priority"
    SHARE = "share"
    WEIGHT = "weight"
    PAGE_RULE = "page rule"
    CREATIVE = "creative"


class Lost(Struct, frozen=True):
    """Why one candidate did not win one slot."""

    slot: SlotId
    line_item: LineItem
    step: Step
    reason: str


def spread(n: int) -> float:
    """The n-th point of the golden-ratio sequence, in [0, 1)."""
    return n * GOLDEN % 1.0


# Looking a member up in its Enum takes 0.15 us on Python 3.11, walking through one 2 us.
_RANKS = tuple(range(len(PRIORITIES)))
_RANK = {priority.value: rank for rank, priority in enumerate(PRIORITIES)}
_SPONSORSHIP = PRIORITIES.index(Priority.SPONSORSHIP)
_HTML = Format.HTML
_EVEN, _SEQUENCE = Rotation.EVEN, Rotation.SEQUENCE
_ONE, _ALL = PageRule.ONE, PageRule.ROADBLOCK_ALL
_OUTSIDE_SHARE = NoFill.OUTSIDE_SHARE
_NOBODY = Live((None,) * len(PRIORITIES), inf)
"""Of a slot that is not in the catalog."""


class _Taken:
    """What is on the page so far."""

    __slots__ = ("advertisers", "block", "categories", "creatives", "line_items")

    def __init__(self) -> None:
        self.creatives: set[str] = set()
        self.line_items: set[str] = set()
        self.advertisers: set[str] = set()
        self.categories: set[str] = set()
        self.block: LineItem | None = None
        """The roadblock being tried, which may be on the page in several slots."""

    def copy(self) -> "_Taken":
        other = _Taken()
        other.creatives, other.line_items = {*self.creatives}, {*self.line_items}
        other.advertisers, other.categories = {*self.advertisers}, {*self.categories}
        return other

    def become(self, other: "_Taken") -> None:
        self.creatives, self.line_items = other.creatives, other.line_items
        self.advertisers, self.categories = other.advertisers, other.categories

    def put(self, ad: Ad, booking: Booking) -> None:
        self.creatives.add(ad.creative.id)
        self.line_items.add(booking.line_item.id)
        self.advertisers.add(booking.advertiser.id)
        self.categories.update(booking.advertiser.categories)

    def forbids(self, booking: Booking) -> str | None:
        """Why *booking* may not be on this page as well; None when it may."""
        line_item, advertiser = booking.line_item, booking.advertiser
        if line_item.page is _ALL and line_item is not self.block:
            return "it shows in all of its slots on a page or in none"
        if line_item.id in self.line_items:
            return "it is on this page already" if line_item.page is _ONE else None
        if advertiser.id in self.advertisers and not advertiser.several:
            return "its advertiser is on this page already"
        for category in advertiser.categories:
            if category in self.categories:
                return f"an ad of category {category} is on this page already"
        return None


class _Spot:
    """One ask while the page is being decided."""

    __slots__ = ("ad", "live", "n", "others", "reason", "slot", "u")

    def __init__(self, slot: SlotId, live: Live, n: int, others: Sequence[SlotId] = ()) -> None:
        self.slot = slot
        self.live = live
        self.n = n
        self.u = n * GOLDEN % 1.0
        self.others = others
        self.ad: Ad | None = None
        self.reason = live.reason


def decide(catalog: Catalog, now: float, page: Page, draws: Draws, trace: list[Lost] | None = None) -> list[Decision]:
    """One decision for each of the page's asks, in their order.

    *draws* needs a number for every known slot that is asked for, for every group, and for every slot of these
    groups. A list given as *trace* is filled with why each candidate lost.
    """
    shows = SHOWS[page.format] if page.format is not _HTML else None
    bookings = catalog.bookings
    context = page.context
    spots = [
        _open(catalog, now, ask, draws, context)
        if isinstance(ask, Group) or ask not in bookings
        else _Spot(ask, _on(bookings[ask].at(now), context), draws[ask])
        for ask in page.asks
    ]
    taken = _Taken() if len(spots) != 1 or spots[0].others or spots[0].live.blocks else None
    tried = spots
    if _fill(spots, taken, shows, trace):
        tried = list(spots)
        for at, spot in enumerate(spots):
            if spot.ad is None and spot.others:
                others = _try_other_slots(catalog, now, spot, draws, context, taken, shows, trace)
                tried += others
                spots[at] = next((other for other in others if other.ad is not None), spot)
    if trace is not None:
        _trace_unlive_and_outranked(catalog, now, context, tried, trace)
    return [Filled(spot.ad) if spot.ad is not None else _close(catalog, spot) for spot in spots]


def _on(live: Live, context: Context) -> Live:
    return live.on(context) if live.targeted else live


def _open(catalog: Catalog, now: float, ask: SlotId | Group, draws: Draws, context: Context) -> _Spot:
    if isinstance(ask, Group):
        first, *others = _order(ask, draws[ask.id])
        return _Spot(first, _on(catalog.bookings[first].at(now), context), draws[first], others)
    return _Spot(ask, _NOBODY, 0)


def _order(group: Group, n: int) -> list[SlotId]:
    """The group's slots, the one that *n* chooses by weight first, then the others as listed."""
    sums = list(accumulate(member.weight for member in group.slots))
    chosen = min(bisect_right(sums, spread(n) * sums[-1]), len(sums) - 1)
    return [group.slots[chosen].slot, *(one.slot for one in group.slots if one.slot != group.slots[chosen].slot)]


def _try_other_slots(
    catalog: Catalog,
    now: float,
    spot: _Spot,
    draws: Draws,
    context: Context,
    taken: _Taken | None,
    shows: frozenset[Kind] | None,
    trace: list[Lost] | None,
) -> list[_Spot]:
    """A group whose first choice stays empty is answered by the next of its slots that does not: the last one tried."""
    tried: list[_Spot] = []
    for slot in spot.others:
        other = _Spot(slot, _on(catalog.bookings[slot].at(now), context), draws[slot])
        tried.append(other)
        if not _fill([other], taken, shows, trace):
            break
    return tried


def _fill(spots: list[_Spot], taken: _Taken | None, shows: frozenset[Kind] | None, trace: list[Lost] | None) -> int:
    """Give each spot an ad, the highest priority first over all of them; how many stay empty, and know why."""
    empty = len(spots)
    blocks = taken is not None and any(spot.live.blocks for spot in spots)
    for rank in _RANKS:
        if blocks and taken is not None:
            empty -= _place_blocks(spots, rank, taken, shows, trace)
        for spot in spots:
            tier = spot.live.tiers[rank]
            if tier is None or spot.ad is not None:
                continue
            if rank == _SPONSORSHIP:
                ad = _choose_by_share(spot, tier, taken, shows, trace)
            else:
                ad = _choose_by_weight(spot, tier, taken, shows, trace)
            if ad is not None:
                spot.ad = ad
                empty -= 1
        if not empty:
            break
    return empty


def _place_blocks(
    spots: list[_Spot], rank: int, taken: _Taken, shows: frozenset[Kind] | None, trace: list[Lost] | None
) -> int:
    """Let each roadblock of this priority have all of its slots or none; how many slots were filled.

    The draw of its first slot decides for all of them, so that its share is its share of pages.
    """
    places = {spot.slot: spot for spot in reversed(spots) if spot.ad is None}
    found = {one.line_item.id: one.line_item for spot in places.values() for one in spot.live.blocks}
    filled = 0
    for name in sorted(found):
        line_item = found[name]
        mine = [places[slot] for slot in line_item.slots if slot in places and places[slot].ad is None]
        if _RANK[line_item.priority.value] != rank or len(mine) < len(line_item.slots):
            continue
        for spot in mine:
            spot.u = mine[0].u
        tiers = [tier for spot in mine if (tier := spot.live.tiers[rank])]
        drawn, rest = _draw(tiers[0], rank, mine[0].u)
        if drawn is None or drawn.line_item is not line_item:
            continue
        trying = taken.copy()
        trying.block = line_item
        bookings = [one for tier in tiers for one in tier.bookings if one.line_item is line_item]
        ads: list[Ad] = []
        for spot, booking in zip(mine, bookings, strict=True):
            if ad := _choose_ad(spot, booking, rest, trying, shows, None):  # what fails here is told when it is asked
                ads.append(ad)
        if len(ads) < len(mine):
            continue
        taken.become(trying)
        filled += len(ads)
        for spot, ad, tier, booking in zip(mine, ads, tiers, bookings, strict=True):
            spot.ad = ad
            if trace is not None:
                step = Step.SHARE if rank == _SPONSORSHIP else Step.WEIGHT
                _trace_tier(spot, tier.bookings, booking, step, "a roadblock has this page", trace)
    return filled


def _draw(tier: Tier, rank: int, u: float) -> tuple[Booking | None, float]:
    """Whose draw *u* is among all of the tier, and how far into their part it lies."""
    if rank == _SPONSORSHIP:
        return _find_sponsor(tier.bookings, u)
    total = tier.weights[-1]
    if not total:
        return None, u
    at = min(bisect_right(tier.weights, u * total), len(tier.weights) - 1)
    low = tier.weights[at - 1] if at else 0.0
    return tier.bookings[at], (u * total - low) / ((tier.weights[at] - low) or 1.0)


def _choose_by_share(
    spot: _Spot, tier: Tier, taken: _Taken | None, shows: frozenset[Kind] | None, trace: list[Lost] | None
) -> Ad | None:
    """An ad of the sponsor whose share the draw falls into; else the next tier gets what is left of the draw."""
    booking, rest = _find_sponsor(tier.bookings, spot.u)
    if booking is None:
        spot.reason, spot.u = _OUTSIDE_SHARE, rest
        if trace is not None:
            _trace_tier(spot, tier.bookings, None, Step.SHARE, "this draw fell outside the shares sold", trace)
        return None
    ad = _choose_ad(spot, booking, rest, taken, shows, trace)
    if ad is None:
        spot.u = rest  # the share's owner cannot show here; the next tier inherits the draw
    if trace is not None:
        _trace_tier(spot, tier.bookings, booking, Step.SHARE, "this draw belongs to another sponsor's share", trace)
    return ad


def _find_sponsor(tier: tuple[Booking, ...], u: float) -> tuple[Booking | None, float]:
    """The sponsor whose part of [0, 1) holds *u*, and how far into that part (or into the unsold part) it lies."""
    low = 0.0
    for booking in tier:
        share = (booking.line_item.share or 0.0) / 100
        if u < low + share:
            return booking, (u - low) / share
        low += share
    return None, (u - low) / (1 - low) if low < 1 else u


def _choose_by_weight(
    spot: _Spot, tier: Tier, taken: _Taken | None, shows: frozenset[Kind] | None, trace: list[Lost] | None
) -> Ad | None:
    """An ad of a line item chosen by weight; when its creatives are all taken, the others are chosen among."""
    left, sums = tier.bookings, tier.weights
    while left and (total := sums[-1]):
        if len(left) == 1:
            booking, rest = left[0], spot.u
        else:
            point = spot.u * total
            at = bisect_right(sums, point)
            if at == len(sums):
                at -= 1
            low = sums[at - 1] if at else 0.0
            booking, rest = left[at], (point - low) / ((sums[at] - low) or 1.0)
        ad = _choose_ad(spot, booking, rest, taken, shows, trace)
        if ad is not None:
            if trace is not None:
                _trace_tier(spot, left, booking, Step.WEIGHT, "the rotation by weight chose another this time", trace)
            return ad
        left = tuple(one for one in left if one is not booking)
        sums = tuple(accumulate(one.weight for one in left))
    return None


def _choose_ad(
    spot: _Spot,
    booking: Booking,
    u: float,
    taken: _Taken | None,
    shows: frozenset[Kind] | None,
    trace: list[Lost] | None,
) -> Ad | None:
    """One of the booking's ads that this page can show; None when there is none, and *spot* knows why."""
    rotation = booking.line_item.rotation
    if taken is None:  # the only one on the page
        if shows is None:
            return _rotate(rotation, booking.ads, booking.weights, u, spot.n)[0]
        taken = _Taken()
    if (taken.creatives or booking.line_item.page is _ALL) and (why := taken.forbids(booking)):
        spot.reason = NoFill.PAGE_RULE
        if trace is not None:
            trace.append(Lost(spot.slot, booking.line_item, Step.PAGE_RULE, why))
        return None
    if shows is None:
        ad, rest = _rotate(rotation, booking.ads, booking.weights, u, spot.n)
        if ad.creative.id not in taken.creatives:
            taken.put(ad, booking)
            return ad
        u = rest
    fitting = tuple(ad for ad in booking.ads if shows is None or ad.creative.kind in shows)
    ads = tuple(ad for ad in fitting if ad.creative.id not in taken.creatives)
    if not ads:
        spot.reason = NoFill.DUPLICATE_CREATIVE if fitting else NoFill.FORMAT
        if trace is not None:
            why = "its creatives are on this page already" if fitting else "its creatives do not suit this format"
            trace.append(Lost(spot.slot, booking.line_item, Step.CREATIVE, why))
        return None
    ad = _rotate(rotation, ads, tuple(accumulate(ad.creative.weight for ad in ads)), u, spot.n)[0]
    taken.put(ad, booking)
    return ad


def _rotate(rotation: Rotation, ads: tuple[Ad, ...], sums: tuple[float, ...], u: float, n: int) -> tuple[Ad, float]:
    """The ad whose turn it is, and how far into its part of [0, 1) *u* lies: again evenly spread, for one more choice.

    To choose among all, and among the others only where that one is on the page already, comes to the same shares as
    leaving out first what is there; and it is quicker.
    """
    if rotation is _SEQUENCE:
        return ads[n % len(ads)], u
    if rotation is _EVEN:
        point = u * len(ads)
        at = min(int(point), len(ads) - 1)
        return ads[at], point - at
    point = u * sums[-1]
    at = min(bisect_right(sums, point), len(ads) - 1)
    low = sums[at - 1] if at else 0.0
    return ads[at], (point - low) / ((sums[at] - low) or 1.0)


def _close(catalog: Catalog, spot: _Spot) -> Unfilled:
    if spot.live is _NOBODY:
        return Unfilled(spot.slot, NoFill.UNKNOWN_SLOT)
    if not catalog.bookings[spot.slot].all:
        return Unfilled(spot.slot, NoFill.NO_BOOKING)
    return Unfilled(spot.slot, spot.reason)


def _trace_tier(
    spot: _Spot, tier: tuple[Booking, ...], winner: Booking | None, step: Step, reason: str, trace: list[Lost]
) -> None:
    lost = (one.line_item for one in tier if one is not winner)
    trace.extend(Lost(spot.slot, one, step, reason) for one in lost if not _never_chosen(one))


def _never_chosen(line_item: LineItem) -> bool:
    return not line_item.weight and line_item.priority is not Priority.SPONSORSHIP


def _trace_unlive_and_outranked(
    catalog: Catalog, now: float, context: Context, spots: list[_Spot], trace: list[Lost]
) -> None:
    """Candidates no tier has spoken of: it is not their time or page, or a higher priority answered before them."""
    told = {(lost.slot, lost.line_item.id) for lost in trace}
    for spot in spots:
        bookings = catalog.bookings.get(spot.slot)
        for booking in bookings.all if bookings else ():
            line_item = booking.line_item
            if (spot.slot, line_item.id) in told or (spot.ad and spot.ad.line_item is line_item):
                continue
            if not is_live(line_item, now):
                ended = line_item.ends is not None and line_item.ends <= now
                why = "its flight has ended" if ended else "its flight has not started"
                trace.append(Lost(spot.slot, line_item, Step.LIVE_WINDOW, why))
            elif not catalog.is_open(booking, now):
                why = f"it runs {', '.join(line_item.hours)} only"
                trace.append(Lost(spot.slot, line_item, Step.HOURS, why))
            elif booking.target and not booking.target.admits(context):
                trace.append(Lost(spot.slot, line_item, Step.TARGETING, booking.target.why_not(context)))
            elif _never_chosen(line_item) or spot.ad is None:
                trace.append(Lost(spot.slot, line_item, Step.WEIGHT, "its weight is 0"))
            else:
                why = f"a {spot.ad.line_item.priority.value} booking comes first"
                trace.append(Lost(spot.slot, line_item, Step.PRIORITY, why))
