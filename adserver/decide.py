"""Which ad answers a request, or the reason none does.

`decide` is a function of its arguments alone: no clock, no dice, no I/O. Whoever calls it with the same catalog,
instant, page, draws and pace gets the same answer, so serving, explaining and replaying cannot disagree.

The order of elimination: live window, pauses, hours, targeting, goal and pacing, frequency, priority, share or weight,
page rules, creative. Within a priority, bookings with a goal come first: each has the part of the draw that its pace
asks for, side by side like shares, so that each gets exactly that; what they leave is chosen among by weight. A page is
decided as a whole, highest priority first over all its slots: no creative is shown twice on it, no two line items share
a category, no advertiser has two of them unless it asks, and a roadblock has all of its slots or none.

Choices follow the golden-ratio sequence: the n-th draw of a slot is frac(n / phi), which keeps every share within 3
of its exact number after 10,000 draws where a lottery strays by 44 to 96. Slots that stand on the same pages are asked
equally often, so each takes its draws in an order of its own (see `draw_of`): else two that are sold by halves
to two banks each would meet the banks together on every page, and one bank would never show. What is left over of a
draw after it has chosen a line item is again evenly spread, and chooses the creative.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from math import inf

from msgspec import Struct, structs

from adserver.catalog import PRIORITIES, Ad, Booking, Catalog, Live, Tier, is_live
from adserver.model import Format, Group, Kind, LineItem, NoFill, PageRule, Priority, Rotation, SlotId
from adserver.pacing import Pace
from adserver.targeting import UNKNOWN, Context, withheld

GOLDEN = 0.6180339887498949
"""1 / phi, to the last bit of a double."""

Draws = Mapping[int | str, int]
"""The draw number of each slot (by id) and group (by id) of the page; a slot's is `draw_of` one of its views."""

SHOWS: Mapping[Format, frozenset[Kind]] = {
    Format.HTML: frozenset(Kind),
    Format.PLACEHOLDER: frozenset(Kind),
    Format.NATIVE: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE, Kind.HTML}),
    Format.EMAIL: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE}),
    Format.AMP: frozenset({Kind.IMAGE, Kind.TEXT, Kind.NATIVE}),
}
"""Which kinds of creative each format can carry: mail readers and AMP run no bought markup."""
_OWN = frozenset(Kind) - {Kind.TAG}
"""What may show to a reader who has not consented to third parties."""
_PICTURES = frozenset({Kind.IMAGE})


class Page(Struct, frozen=True):
    """What a page asks for, in its order: slot ids, and groups one of whose slots shall answer.

    *held* are line items that this reader may not be shown now, and why; None where nobody knows, which holds back
    every line item with a frequency cap. *left* are how many views frequency caps leave this reader, by the field they
    count (see `catalog.Limit`). *pictures* leaves every kind of creative out but images.
    """

    asks: tuple[SlotId | Group, ...]
    format: Format = Format.HTML
    context: Context = UNKNOWN
    held: Mapping[str, str] | None = None
    left: Mapping[str, int] = {}
    pictures: bool = False


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
    PAUSED = "paused"
    HOURS = "hours"
    TARGETING = "targeting"
    GOAL = "goal"
    PACING = "pacing"
    FREQUENCY = "frequency"
    PRIORITY = "priority"
    SHARE = "share"
    WEIGHT = "weight"
    PAGE_RULE = "page rule"
    CREATIVE = "creative"


class Lost(Struct, frozen=True):
    """Why one candidate did not win one slot, at one *place* among the page's asks: a page may ask for a slot twice."""

    place: int
    slot: SlotId
    line_item: LineItem
    step: Step
    reason: str


def spread(n: int) -> float:
    """The n-th point of the golden-ratio sequence, in [0, 1)."""
    return n * GOLDEN % 1.0


def draw_of(slot: int, view: int) -> int:
    """Which draw the *view*-th view of *slot* takes: of each eight in a row, which one is the slot's own affair.

    So after any eighth view a slot has had the very same draws as without, and those of two slots have nothing to do
    with each other. The mixing is a multiplicative hash by odd constants (Knuth, TAOCP 3, 6.4).
    """
    times, more = _order_of(slot, view >> 3)
    return view & ~7 | view * times + more & 7


def view_of(slot: int, draw: int) -> int:
    """Which view of *slot* took that *draw*: an odd number times itself is 1 modulo 8."""
    times, more = _order_of(slot, draw >> 3)
    return draw & ~7 | (draw - more) * times & 7


def _order_of(slot: int, eight: int) -> tuple[int, int]:
    mixed = slot * eight * 0x9E3779B1 & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    return mixed >> 8 | 1, mixed >> 20


# Looking a member up in its Enum takes 0.15 us on Python 3.11, walking through one 2 us.
_RANKS = tuple(range(len(PRIORITIES)))
_SPONSORSHIP = PRIORITIES.index(Priority.SPONSORSHIP)
_HTML = Format.HTML
_EVEN, _SEQUENCE, _OPTIMISED = Rotation.EVEN, Rotation.SEQUENCE, Rotation.OPTIMISED
_ONE, _ALL = PageRule.ONE, PageRule.ROADBLOCK_ALL
_NOT_LIVE, _OUTSIDE_SHARE, _GOAL, _PACING = NoFill.NOT_LIVE, NoFill.OUTSIDE_SHARE, NoFill.GOAL, NoFill.PACING
UNPACED = Pace()
_NOTHING = 1e-9
"""Less than this of a slot's draws is what rounding leaves of none."""
_MOST_TRIES = 50
"""So often at most a page is decided anew because a group's slot stays empty."""
_UNKNOWN_READER = "it has a frequency cap, and nothing says how often this reader has seen it"
_NOBODY = Live((None,) * len(PRIORITIES), inf)
"""Of a slot that is not in the catalog."""


class _Taken:
    """What is on the page so far."""

    __slots__ = ("advertisers", "block", "categories", "creatives", "line_items", "views")

    def __init__(self) -> None:
        self.creatives: set[str] = set()
        self.line_items: set[str] = set()
        self.advertisers: set[str] = set()
        self.categories: set[str] = set()
        self.views: dict[str, int] = {}
        """How often it shows what frequency caps count, by field."""
        self.block: LineItem | None = None
        """The roadblock being tried, which may be on the page in several slots."""

    def copy(self) -> "_Taken":
        other = _Taken()
        other.creatives, other.line_items = {*self.creatives}, {*self.line_items}
        other.advertisers, other.categories = {*self.advertisers}, {*self.categories}
        other.views = {**self.views}
        return other

    def become(self, other: "_Taken") -> None:
        self.creatives, self.line_items = other.creatives, other.line_items
        self.advertisers, self.categories = other.advertisers, other.categories
        self.views = other.views

    def put(self, ad: Ad, booking: Booking) -> None:
        self.creatives.add(ad.creative.id)
        self.line_items.add(booking.line_item.id)
        self.advertisers.add(booking.advertiser.id)
        self.categories.update(booking.advertiser.categories)
        for field in booking.caps:
            self.views[field] = self.views.get(field, 0) + 1

    def rivals(self, booking: Booking) -> bool:
        """Whether its own advertiser or its trade is on the page by another line item."""
        advertiser = booking.advertiser
        return booking.line_item.id not in self.line_items and (
            (advertiser.id in self.advertisers and not advertiser.several)
            or not self.categories.isdisjoint(advertiser.categories)
        )

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


class _How:
    """What the whole page is decided by."""

    __slots__ = ("asks", "held", "left", "pace", "shows", "trace")

    def __init__(self, page: Page, pace: Pace, trace: list[Lost] | None) -> None:
        self.shows = SHOWS[page.format] if page.format is not _HTML else _OWN if withheld(page.context) else None
        if page.pictures:
            self.shows = _PICTURES
        self.asks = len(page.asks)
        self.held = page.held
        self.left = page.left
        self.pace = pace
        self.trace = trace

    def holds(self, booking: Booking, taken: _Taken | None) -> str | None:
        """Why this reader may not be shown *booking*, which has a cap, on this page too; None when they may."""
        if self.held is None:
            return _UNKNOWN_READER
        if why := self.held.get(booking.line_item.id):
            return why
        if taken is None:
            return None
        line_item, at_once = booking.line_item, 1
        if line_item.page is _ALL and line_item is not taken.block:
            at_once = len(line_item.slots)
        for field in booking.caps:
            if field in self.left:
                views = taken.views.get(field, 0)
                if views >= self.left[field]:
                    return "this page shows it as often as this reader may see it"
                if min(views + at_once, self.asks) > self.left[field]:
                    return f"it shows {at_once} times at once, which is more often than this reader may still see it"
        return None


class _Spot:
    """One ask while the page is being decided."""

    __slots__ = ("ad", "live", "n", "others", "place", "reason", "slot", "u")

    def __init__(self, place: int, slot: SlotId, live: Live, n: int, others: Sequence[SlotId] = ()) -> None:
        self.place = place
        self.slot = slot
        self.live = live
        self.n = n
        self.u = n * GOLDEN % 1.0
        self.others = others
        self.ad: Ad | None = None
        self.reason = live.reason

    def lost(self, line_item: LineItem, step: Step, reason: str) -> Lost:
        return Lost(self.place, self.slot, line_item, step, reason)


def decide(
    catalog: Catalog, now: float, page: Page, draws: Draws, pace: Pace = UNPACED, trace: list[Lost] | None = None
) -> list[Decision]:
    """One decision for each of the page's asks, in their order.

    *draws* needs a number for every known slot that is asked for, for every group, and for every slot of these
    groups. *pace* says how much bookings with a goal may take now. A list given as *trace* is filled with why each
    candidate lost.
    """
    how = _How(page, pace, trace)
    spots, taken = _lay_out(catalog, now, page, draws, {})
    tried = spots
    if _fill(spots, taken, how) and any(spot.others for spot in spots if spot.ad is None):
        spots, tried = _try_other_slots(catalog, now, page, draws, spots, how)
    if trace is not None:
        _trace_unlive_and_outranked(catalog, now, page.context, tried, pace, trace)
    return [Filled(spot.ad) if spot.ad is not None else _close(catalog, spot) for spot in spots]


def _lay_out(
    catalog: Catalog, now: float, page: Page, draws: Draws, choices: Mapping[int, int]
) -> tuple[list[_Spot], _Taken | None]:
    """The page before anything is on it; of the group asked for at a place, its slot of that *choice* (or the first).

    What is on it need not be known where there is one spot and nothing on it could depend on that.
    """
    bookings, context = catalog.bookings, page.context
    spots = [
        _open(catalog, now, at, ask, draws, context, choices.get(at, 0))
        if isinstance(ask, Group) or ask not in catalog.slots
        else _Spot(at, ask, _on(bookings[ask].at(now), context), draws[ask])
        for at, ask in enumerate(page.asks)
    ]
    return spots, _Taken() if len(spots) != 1 or spots[0].others or spots[0].live.blocked else None


def _on(live: Live, context: Context) -> Live:
    return live.on(context) if live.targeted else live


def _open(
    catalog: Catalog, now: float, place: int, ask: SlotId | Group, draws: Draws, context: Context, choice: int
) -> _Spot:
    if not isinstance(ask, Group):
        return _Spot(place, ask, _NOBODY, 0)
    slot, *others = _order(ask, draws[ask.id])[choice:]
    return _Spot(place, slot, _on(catalog.bookings[slot].at(now), context), draws[slot], others)


def _order(group: Group, n: int) -> list[SlotId]:
    """The group's slots, the one that *n* chooses by weight first, then the others as listed."""
    sums = list(accumulate(member.weight for member in group.slots))
    chosen = min(bisect_right(sums, spread(n) * sums[-1]), len(sums) - 1)
    return [group.slots[chosen].slot, *(one.slot for one in group.slots if one.slot != group.slots[chosen].slot)]


def _try_other_slots(
    catalog: Catalog, now: float, page: Page, draws: Draws, first: list[_Spot], how: _How
) -> tuple[list[_Spot], list[_Spot]]:
    """Have each group whose slot stays empty answered by the next of its slots that does not; and all spots tried.

    The whole page is decided anew with another choice: a lower booking elsewhere must not block a higher one there. A
    slot that the page has anyway is left to it. A group that stays empty with all of its slots is told by its first.
    """
    choices: dict[int, int] = {}
    spots, trace = first, how.trace
    tried = list(first)
    for _ in range(_MOST_TRIES):
        used = _slots_of(spots)
        found = (
            (at, n)
            for at, spot in enumerate(spots)
            if spot.ad is None
            for n, slot in enumerate(spot.others)
            if slot not in used and _has_bookings(catalog, slot, now)
        )
        at, n = next(found, (None, 0))
        if at is None:
            break
        choices[at] = choices.get(at, 0) + 1 + n
        spots, taken = _lay_out(catalog, now, page, draws, choices)
        if trace is not None:  # what is tried again would be said twice
            again = {(one.place, one.slot) for one in spots}
            trace[:] = [lost for lost in trace if (lost.place, lost.slot) not in again]
            tried = [*(one for one in tried if (one.place, one.slot) not in again), *spots]
        _fill(spots, taken, how)
    if trace is not None:  # of slots where nothing is booked now each booking has its reason, too
        told = {(one.place, one.slot) for one in tried}
        passed = ((at, slot) for at, spot in enumerate(first) if spot.ad is None for slot in spot.others)
        empty_slots = (one for one in passed if one not in told and not _has_bookings(catalog, one[1], now))
        tried += [_Spot(at, slot, _NOBODY, 0) for at, slot in empty_slots]
    empty = [at in choices and one.ad is None for at, one in enumerate(spots)]
    return [first[at] if empty[at] else one for at, one in enumerate(spots)], tried


def _has_bookings(catalog: Catalog, slot: SlotId, now: float) -> bool:
    """Whether anything is booked in *slot* now, for whichever pages."""
    return any(catalog.bookings[slot].at(now).tiers)


def _slots_of(spots: Iterable[_Spot]) -> set[SlotId]:
    return {spot.slot for spot in spots}


def _fill(spots: list[_Spot], taken: _Taken | None, how: _How) -> int:
    """Give each spot an ad, the highest priority first over all of them; how many stay empty, and know why."""
    empty = len(spots)
    blocked = taken is not None and any(spot.live.blocked for spot in spots)
    for rank in _RANKS:
        if blocked and taken is not None and (blocks := _blocks_of(spots, rank)):
            empty -= _place_blocks(blocks, spots, rank, taken, how)
        for spot in spots:
            tier = spot.live.tiers[rank]
            if tier is None or spot.ad is not None:
                continue
            if rank == _SPONSORSHIP:
                ad = _choose_by_share(spot, tier, taken, how)
            elif tier.paced:
                ad = _choose_by_goal(spot, tier, taken, how) or _choose_by_weight(spot, tier, taken, how)
            else:
                ad = _choose_by_weight(spot, tier, taken, how)
            if ad is not None:
                spot.ad = ad
                empty -= 1
        if not empty:
            break
    return empty


def _blocks_of(spots: list[_Spot], rank: int) -> dict[str, LineItem]:
    """The roadblocks of this priority that the empty spots know of."""
    return {
        one.id: one
        for spot in spots
        if spot.ad is None and (tier := spot.live.tiers[rank]) is not None
        for one in tier.blocks
    }


def _place_blocks(blocks: dict[str, LineItem], spots: list[_Spot], rank: int, taken: _Taken, how: _How) -> int:
    """Let each roadblock of this priority have all of its slots or none; how many slots were filled.

    One draw decides for all of them, so that its share is its share of pages: that of the slot which most roadblocks
    want, so that two of them have their shares of the pages beside each other.
    """
    places = {spot.slot: spot for spot in reversed(spots) if spot.ad is None}
    filled = 0
    for name in sorted(blocks):
        line_item = blocks[name]
        mine = [places[slot] for slot in line_item.slots if slot in places and places[slot].ad is None]
        if len(mine) < len(line_item.slots):
            continue
        tiers = [tier for spot in mine if (tier := spot.live.tiers[rank])]
        lead = max(range(len(mine)), key=lambda at: len(tiers[at].blocks))
        for spot in mine:
            spot.u = mine[lead].u
        drawn, rest = _draw(tiers[lead], rank, mine[lead].u, how.pace)
        if drawn is None or drawn.line_item is not line_item:
            continue
        trying = taken.copy()
        trying.block = line_item
        bookings = [one for tier in tiers for one in tier.everyone if one.line_item is line_item]
        ads: list[Ad] = []
        trace, how.trace = how.trace, None  # what fails here is told when it is asked
        for spot, booking in zip(mine, bookings, strict=True):
            if ad := _choose_ad(spot, booking, rest, trying, how):
                ads.append(ad)
        how.trace = trace
        if len(ads) < len(mine):
            continue
        taken.become(trying)
        filled += len(ads)
        for spot, ad, tier, booking in zip(mine, ads, tiers, bookings, strict=True):
            spot.ad = ad
            if trace is not None:
                step = Step.SHARE if rank == _SPONSORSHIP else Step.WEIGHT
                _trace_tier(spot, tier.everyone, booking, step, "a roadblock has this page", how)
    return filled


def _draw(tier: Tier, rank: int, u: float, pace: Pace) -> tuple[Booking | None, float]:
    """Whose draw *u* is among all of the tier, and how far into their part it lies."""
    if rank == _SPONSORSHIP:
        return _find_sponsor(tier.bookings, u, pace)
    if tier.paced:
        booking, u = _find_paced(tier.paced, u, pace)
        if booking is not None:
            return booking, u
    total = tier.weights[-1] if tier.weights else 0.0
    if not total:
        return None, u
    at = min(bisect_right(tier.weights, u * total), len(tier.weights) - 1)
    low = tier.weights[at - 1] if at else 0.0
    return tier.bookings[at], (u * total - low) / ((tier.weights[at] - low) or 1.0)


def _choose_by_share(spot: _Spot, tier: Tier, taken: _Taken | None, how: _How) -> Ad | None:
    """An ad of the sponsor whose share the draw falls into; else the next tier gets what is left of the draw.

    What a sponsor cannot show goes to the next tier, too; but where only the company on this page keeps it away, it
    goes to the other sponsors and the unsold part as they share the rest, so that each finds pages of its own.
    """
    left, whole = tier.bookings, 1.0
    while True:
        booking, spot.u = _find_sponsor(left, spot.u * whole, how.pace, whole)
        if booking is None:
            if left is tier.bookings:
                spot.reason = _OUTSIDE_SHARE
            if how.trace is not None:
                _trace_tier(spot, left, None, Step.SHARE, "this draw fell outside the shares sold", how)
            return None
        ad = _choose_ad(spot, booking, spot.u, taken, how)
        settled = ad is not None or taken is None or not taken.rivals(booking)
        whole -= (booking.line_item.share or 0.0) / 100
        if settled or whole <= _NOTHING:
            if how.trace is not None:
                _trace_tier(spot, left, booking, Step.SHARE, "this draw belongs to another sponsor's share", how)
            return ad
        left = tuple(one for one in left if one is not booking)


def _find_sponsor(tier: tuple[Booking, ...], u: float, pace: Pace, whole: float = 1.0) -> tuple[Booking | None, float]:
    """The sponsor whose part of [0, *whole*) holds *u*, and how far into that part (or into the unsold part) it lies.

    The share of one whose goal takes nothing now is unsold.
    """
    low = 0.0
    for booking in tier:
        line_item = booking.line_item
        if line_item.goal and not pace.shares.get(line_item.id):
            continue
        share = (line_item.share or 0.0) / 100
        if u < low + share:
            return booking, (u - low) / share
        low += share
    return None, (u - low) / (whole - low) if low < whole else u


def _choose_by_goal(spot: _Spot, tier: Tier, taken: _Taken | None, how: _How) -> Ad | None:
    """An ad of the booking whose pace asks for this draw; else those without a goal get what is left of the draw."""
    left = tier.paced
    while left:
        booking, spot.u = _find_paced(left, spot.u, how.pace)
        if booking is None:
            # GOAL is said of every booking: none of an earlier tier may have another reason
            alone = spot.reason is _NOT_LIVE or spot.reason is _GOAL
            met = alone and (reached := how.pace.reached) and all(one.line_item.id in reached for one in left)
            spot.reason = _GOAL if met else _PACING
            if how.trace is not None:
                waiting = [one.line_item for one in left if how.pace.shares.get(one.line_item.id)]
                how.trace += [spot.lost(one, Step.PACING, how.pace.why(one)) for one in waiting]
            return None
        ad = _choose_ad(spot, booking, spot.u, taken, how)
        if ad is not None:
            if how.trace is not None:
                others = (one for one in left if how.pace.shares.get(one.line_item.id))
                _trace_tier(spot, others, booking, Step.PACING, "this view went to another booking's goal", how)
                _trace_tier(spot, tier.bookings, booking, Step.WEIGHT, "a booking with a goal comes first", how)
            return ad
        left = tuple(one for one in left if one is not booking)
    return None


def _find_paced(paced: Sequence[Booking], u: float, pace: Pace) -> tuple[Booking | None, float]:
    """The booking whose part of [0, 1) holds *u*, and how far into that part (or into what none asks for) it lies.

    Side by side and not each with a draw of its own: two that ask for a third each get a third each. Where together
    they ask for more than there is, everybody gets less alike.
    """
    shares = pace.shares
    if len(paced) == 1:
        part = min(1.0, shares.get(paced[0].line_item.id, 0.0) * paced[0].weight)
        if u < part:
            return paced[0], u / part
        return None, (u - part) / (1.0 - part) if part < 1 else u
    asked = [min(1.0, shares.get(one.line_item.id, 0.0) * one.weight) for one in paced]
    total = sum(asked)
    scale = 1.0 if total <= 1.0 else 1.0 / total
    low, last = 0.0, None
    for booking, part in zip(paced, asked, strict=True):
        if part:
            if u < low + part * scale:
                return booking, (u - low) / (part * scale)
            low += part * scale
            last = booking
    if total >= 1.0:  # rounding left a crack at the end
        return last, 1 - 2**-53
    return None, (u - low) / (1.0 - low)


def _choose_by_weight(spot: _Spot, tier: Tier, taken: _Taken | None, how: _How) -> Ad | None:
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
        ad = _choose_ad(spot, booking, rest, taken, how)
        if ad is not None:
            if how.trace is not None:
                _trace_tier(spot, left, booking, Step.WEIGHT, "the rotation by weight chose another this time", how)
            return ad
        left = tuple(one for one in left if one is not booking)
        sums = tuple(accumulate(one.weight for one in left))
    return None


def _choose_ad(
    spot: _Spot,
    booking: Booking,
    u: float,
    taken: _Taken | None,
    how: _How,
) -> Ad | None:
    """One of the booking's ads that this page can show; None when there is none, and *spot* knows why."""
    if booking.caps and (why := how.holds(booking, taken)):
        spot.reason = NoFill.FREQUENCY
        if how.trace is not None:
            how.trace.append(spot.lost(booking.line_item, Step.FREQUENCY, why))
        return None
    rotation, shows = booking.line_item.rotation, how.shows
    if rotation is _OPTIMISED:
        rotation, booking = _optimised(booking, how.pace)
    if taken is None:  # the only one on the page
        if shows is None:
            return _rotate(rotation, booking.ads, booking.weights, u, spot)[0]
        taken = _Taken()
    if (taken.creatives or booking.line_item.page is _ALL) and (why := taken.forbids(booking)):
        spot.reason = NoFill.PAGE_RULE
        if how.trace is not None:
            how.trace.append(spot.lost(booking.line_item, Step.PAGE_RULE, why))
        return None
    if shows is None:
        ad, rest = _rotate(rotation, booking.ads, booking.weights, u, spot)
        if ad.creative.id not in taken.creatives:
            taken.put(ad, booking)
            return ad
        u = rest
    fitting = tuple(ad for ad in booking.ads if shows is None or ad.creative.kind in shows)
    ads = tuple(ad for ad in fitting if ad.creative.id not in taken.creatives)
    if not ads:
        refused = how.shows is _OWN and not fitting
        spot.reason = NoFill.DUPLICATE_CREATIVE if fitting else NoFill.CONSENT if refused else NoFill.FORMAT
        if how.trace is not None:
            why = "its creatives are on this page already" if fitting else "its creatives do not suit this format"
            why = "its creatives are third-party tags, and this reader has not consented to any" if refused else why
            how.trace.append(spot.lost(booking.line_item, Step.CREATIVE, why))
        return None
    weights = {ad.key: weight for ad, weight in zip(booking.ads, _apart(booking.weights), strict=True)}
    ad = _rotate(rotation, ads, tuple(accumulate(weights[ad.key] for ad in ads)), u, spot)[0]
    taken.put(ad, booking)
    return ad


def _optimised(booking: Booking, pace: Pace) -> tuple[Rotation, Booking]:
    """The booking with the weights that its creatives have earned; evenly while nothing is known of them."""
    earned = pace.creatives.get(booking.line_item.id)
    if not earned:
        return _EVEN, booking
    weights = tuple(accumulate(earned.get(ad.creative.id, 0.0) for ad in booking.ads))
    return (Rotation.WEIGHTED, structs.replace(booking, weights=weights)) if weights[-1] else (_EVEN, booking)


def _apart(sums: Iterable[float]) -> list[float]:
    """The numbers whose running sums these are."""
    found, before = [], 0.0
    for each in sums:
        found.append(each - before)
        before = each
    return found


def _rotate(
    rotation: Rotation, ads: tuple[Ad, ...], sums: tuple[float, ...], u: float, spot: _Spot
) -> tuple[Ad, float]:
    """The ad whose turn it is, and how far into its part of [0, 1) *u* lies: again evenly spread, for one more choice.

    To choose among all, and among the others only where that one is on the page already, comes to the same shares as
    leaving out first what is there; and it is quicker.
    """
    if rotation is _SEQUENCE:
        return ads[view_of(spot.slot, spot.n) % len(ads)], u
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
    if spot.reason is _NOT_LIVE and any(spot.live.tiers):  # somebody may show, and nobody was asked
        return Unfilled(spot.slot, NoFill.WEIGHT)
    return Unfilled(spot.slot, spot.reason)


def _trace_tier(
    spot: _Spot, tier: Iterable[Booking], winner: Booking | None, step: Step, reason: str, how: _How
) -> None:
    """Why the others of a tier lost; of those whose goal takes nothing, `_trace_unlive_and_outranked` tells."""
    if how.trace is not None:
        lost = (one.line_item for one in tier if winner is None or one.line_item is not winner.line_item)
        how.trace += [
            spot.lost(one, step, reason) for one in lost if not _never_chosen(one) and not _rests(one, how.pace)
        ]


def _rests(line_item: LineItem, pace: Pace) -> bool:
    """Whether its goal takes nothing now: it is reached, or nothing of it is due, or nobody knows."""
    return line_item.goal is not None and not pace.shares.get(line_item.id)


def _never_chosen(line_item: LineItem) -> bool:
    return not line_item.weight and line_item.priority is not Priority.SPONSORSHIP


def _trace_unlive_and_outranked(
    catalog: Catalog, now: float, context: Context, spots: list[_Spot], pace: Pace, trace: list[Lost]
) -> None:
    """Candidates no tier has spoken of: it is not their time or page, their goal takes nothing, or a higher priority
    answered before them.
    """
    told = {(lost.place, lost.slot, lost.line_item.id) for lost in trace}
    for spot in spots:
        bookings = catalog.bookings.get(spot.slot)
        for booking in bookings.all if bookings else ():
            line_item = booking.line_item
            if (spot.place, spot.slot, line_item.id) in told or (spot.ad and spot.ad.line_item is line_item):
                continue
            if not is_live(line_item, now):
                ended = line_item.ends is not None and line_item.ends <= now
                why = "its flight has ended" if ended else "its flight has not started"
                trace.append(spot.lost(line_item, Step.LIVE_WINDOW, why))
            elif why_paused := catalog.why_paused(booking, now, context):
                trace.append(spot.lost(line_item, Step.PAUSED, why_paused))
            elif not catalog.is_open(booking, now):
                why = f"it runs {', '.join(line_item.hours)} only"
                trace.append(spot.lost(line_item, Step.HOURS, why))
            elif booking.target and not booking.target.admits(context):
                trace.append(spot.lost(line_item, Step.TARGETING, booking.target.why_not(context)))
            elif _rests(line_item, pace):
                step = Step.GOAL if line_item.id in pace.reached else Step.PACING
                trace.append(spot.lost(line_item, step, pace.why(line_item)))
            elif _never_chosen(line_item) or spot.ad is None:
                trace.append(spot.lost(line_item, Step.WEIGHT, "its weight is 0"))
            else:
                why = f"a {spot.ad.line_item.priority.value} booking comes first"
                trace.append(spot.lost(line_item, Step.PRIORITY, why))
