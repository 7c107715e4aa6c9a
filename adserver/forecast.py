"""What line items will deliver: the recorded traffic asked again, step by step, through the real deciding and pacing.

The pages are a sample of those that asked lately, weighted so that each slot gets the requests its curve promises; each
page decided stands for as many as its weight. A winner takes no more of that weight than is left of its goal, or a
fiftieth of a small one, and the page is decided again without it for the rest: so a sample of thousands answers for
millions, and for goals of twenty.

How often each reader comes back is not known, so a frequency cap holds nobody back but on pages that name no reader:
what a line item with one delivers is foretold from above.

A step ends where a flight, a window of hours or a day begins or ends and where the clocks change, and after an hour at
most: within one, the same bookings are live.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate, pairwise
from math import ceil, floor, inf
from operator import add, itemgetter

from msgspec import Struct

from adserver import hours, pacing
from adserver.catalog import Booking, Catalog, is_live, last_instant
from adserver.days import Days
from adserver.decide import Filled, Page, decide, spread
from adserver.hours import QUARTER_S, WEEK, Week, holds, spans_of
from adserver.model import Group, LineItem, Measure, Pause, SlotId
from adserver.pacing import USUAL, Pace, Progress
from adserver.pauses import gaps_of, is_paused, section_fact
from adserver.targeting import NO_CONSENT, NO_READER, Context
from adserver.traffic import Outlook

DECISIONS = 20_000
"""Pages decided in one replay, about; its error is a few tenths of a percent, see the tests."""
STEP_H = 1
_LONG_S = 60 * 86_400.0
"""What looks further ahead goes by steps of four hours."""
MANY = 1_000
"""More goals than this are planned every four hours, and their flights begin and end with an hour."""
_HOUR_S = 3600.0
_FITS = 30
_PARTS = 50
_AGAIN = 6
_HALF_LIFE_S = 6 * 3600.0
_PRIOR = 20.0
SURE = 0.02
"""So much of a goal is left to a replay's error before it is taken to be out of reach."""
_DAY_REACHED = 0.005
"""So much of a day's goal may be missing: what a sample cannot tell from none."""


class View(Struct, frozen=True):
    """A page that asked: slots by id and groups by name, and what it said of itself."""

    asks: tuple[int | str, ...]
    context: Context


class Before(Struct, frozen=True):
    """What a line item had delivered when the forecast begins: *counted* in its goal's measure."""

    counted: int = 0
    served: int = 0
    counted_today: int = 0

    def rate(self, item: LineItem, usual: Mapping[Measure, float]) -> float:
        """How many events of its measure a snippet of *item* brings, where *usual* are those of all line items."""
        return pacing.likely(self.counted, self.served, usual[measure_of(item)])


class Daily(Struct, frozen=True):
    """How a daily goal does: of so many *days*, those of its hours that end within the forecast, it is *reached* on so
    many. *today* is whether on the first, of which a part may have passed.
    """

    days: int
    reached: int
    today: bool


class Forecast(Struct, frozen=True):
    """One line item's future. *counted* is what it will have delivered in its goal's measure, or of impressions where
    it has none, by the end of the forecast; *reached_at* when its goal is reached (None: not within the forecast).

    *over* is whether its time ends within the forecast, and *short* by how much it then misses its goal. A daily goal
    has *daily*, and is *short* by what its days miss together. What is *capped* by frequency delivers so much at most.
    """

    line_item: str
    before: int
    counted: float
    goal: int | None
    reached_at: float | None
    over: bool
    short: float
    daily: Daily | None = None
    capped: bool = False


class _Run:
    """One line item while it is replayed."""

    __slots__ = (
        "asked", "capped", "counted", "day", "days", "gaps", "goal", "item", "open", "pauses", "rate", "reached_at",
        "room", "served", "share", "slots", "spans", "today", "took",
    )  # fmt: skip

    def __init__(self, catalog: Catalog, item: LineItem, before: Before, rate: float) -> None:
        self.item = item
        self.capped = item.id in catalog.caps
        self.goal = item.goal
        self.slots = tuple(map(int, item.slots))
        self.spans = spans_of(item.hours)
        self.pauses = catalog.pauses.get(item.id, ())
        self.gaps = gaps_of(self.pauses)
        self.rate = rate
        self.counted = float(before.counted)
        self.today = float(before.counted_today)
        self.served = self.today / rate if item.goal and item.goal.daily else float(before.served)
        """Within its goal's time."""
        self.day = -1
        self.open = False
        """Whether it was open on its day so far."""
        self.days: list[float] = []
        """What each day that is over missed of a daily goal."""
        self.share = 0.0
        self.room = inf
        """How many snippets it takes in this step at most, beside what its goal still wants."""
        self.asked, self.took = 0.0, 0.0
        self.reached_at: float | None = None

    def left(self) -> float:
        """What its goal still wants, in its measure."""
        if self.goal is None:
            return inf
        return self.goal.n - (self.today if self.goal.daily else self.counted)

    def close_day(self) -> None:
        if self.goal is not None and self.goal.daily and self.open:
            missed = self.goal.n - self.today
            self.days.append(missed if missed > max(1.0, _DAY_REACHED * self.goal.n) else 0.0)
        self.open = False


class _Shape:
    """The pages that ask for the same. *sums* are the running sums of their weights."""

    __slots__ = ("_turns", "draws", "pages", "slots", "sums", "weight")

    def __init__(self, pages: Sequence[Page], weights: Sequence[float]) -> None:
        self.pages = pages
        self.slots = _slots(pages[0])
        names: list[int | str] = [*(ask.id for ask in pages[0].asks if isinstance(ask, Group)), *self.slots]
        self.draws = [(name, 2 * place + 1) for place, name in enumerate(names)]  # apart from each other
        self.sums = list(accumulate(weights))
        self.weight = self.sums[-1]
        self._turns: dict[tuple[bool, ...], tuple[list[int], list[int]]] = {}

    def next(self, open_: tuple[bool, ...]) -> tuple[Page, int]:
        """The page whose turn it is, and which draw of its own: each has its exact part of every share.

        It has turns of its own in each set of hours that are *open_*: of 34 draws a day those of one half-hour would
        be alike.
        """
        turns = self._turns.get(open_)
        if turns is None:
            turns = self._turns[open_] = [0], [17 * number for number in range(len(self.pages))]
        n, numbers = turns
        n[0] += 1
        at = min(bisect_right(self.sums, spread(n[0]) * self.weight), len(self.pages) - 1)
        numbers[at] += 1
        return self.pages[at], numbers[at]


class Asked(Struct, frozen=True):
    """The pages that can be asked of a catalog, and how often each asks in a week."""

    pages: Sequence[Page]
    weights: Sequence[float]

    def slots(self) -> set[int]:
        return {slot for page in self.pages for slot in _slots(page)}

    def near(self, catalog: Catalog, slots: Collection[int]) -> "Asked":
        """Only those that have a say in what shows in *slots*: pages that ask for them, and pages that ask for other
        slots of the goals met there.
        """
        met = {slot for page in self.pages if not set(slots).isdisjoint(found := _slots(page)) for slot in found}
        wide = {*slots, *(slot for one in catalog.goals if not met.isdisjoint(one.slots) for slot in one.slots)}
        kept = [at for at, page in enumerate(self.pages) if not wide.isdisjoint(_slots(page))]
        return Asked([self.pages[at] for at in kept], [self.weights[at] for at in kept])


def gather(
    catalog: Catalog,
    views: Sequence[View],
    outlook: Outlook,
    anywhere: Collection[str] = (),
    beside: Catalog | None = None,
) -> Asked:
    """The pages of *views*, weighted by what *outlook* promises each slot. The targeting of the line items *anywhere*
    tells pages apart in slots that they do not have, too; and so does all that *beside* tells them apart by.
    """
    pages, numbers = _pages(catalog, views, anywhere, beside)
    return Asked(pages, _fit(pages, numbers, {slot: sum(week) for slot, week in outlook.weeks.items()}))


def replay(
    catalog: Catalog,
    outlook: Outlook,
    views: Sequence[View],
    before: Mapping[str, Before],
    begins: float,
    ends: float,
    *,
    decisions: int = DECISIONS,
    many: int = MANY,
    usual: Mapping[Measure, float] = USUAL,
    beside: Catalog | None = None,
    told: Callable[[float], None] = lambda _: None,
) -> list[Forecast]:
    """What each line item delivers between two instants. *usual* is how many events a snippet brings; more goals than
    *many* are replayed more coarsely.

    Replayed *beside* each other, two catalogs are asked by the same pages at the same turns: what shows alike in both
    delivers alike, to the last impression.
    """
    asked = gather(catalog, views, outlook, beside=beside)
    return replay_asked(
        catalog,
        outlook,
        asked,
        before,
        begins,
        ends,
        decisions=decisions,
        many=many,
        usual=usual,
        beside=beside,
        told=told,
    )


def replay_asked(
    catalog: Catalog,
    outlook: Outlook,
    asked: Asked,
    before: Mapping[str, Before],
    begins: float,
    ends: float,
    *,
    decisions: int = DECISIONS,
    step_h: int = STEP_H,
    many: int = MANY,
    usual: Mapping[Measure, float] = USUAL,
    aim: str | None = None,
    beside: Catalog | None = None,
    told: Callable[[float], None] = lambda _: None,
) -> list[Forecast]:
    """`replay` of pages that are known, for the line items that may show there. It ends early when the goal of *aim* is
    out of reach.
    """
    days = Days(catalog.document.site.time_zone)
    slots = asked.slots()
    runs = {
        item.id: _Run(catalog, item, found := before.get(item.id, Before()), found.rate(item, usual))
        for item in catalog.document.line_items
        if not slots.isdisjoint(item.slots)
    }
    goals = [run for run in runs.values() if run.goal]
    others = [one for one in beside.document.line_items if not slots.isdisjoint(one.slots)] if beside else []
    items = [*(run.item for run in runs.values()), *others]
    coarse = max(len(goals), sum(one.goal is not None for one in others)) > many
    if coarse or ends - begins > _LONG_S:
        step_h = max(step_h, 4)
    pauses = [*catalog.document.pauses, *(beside.document.pauses if beside else ())]
    steps = _steps(catalog.week, items, pauses, begins, ends, step_h, _HOUR_S if coarse else None)
    loads = _Loads(asked, outlook, steps, max(1, decisions))
    paced = {
        id(shape): [(run, times) for run in runs.values() if run.goal and (times := _times(run, shape.slots))]
        for shape in loads.shapes
    }
    hours_of = [(spans_of(one.hours), frozenset(one.slots)) for one in items if one.hours]
    timed = {
        id(shape): sorted({spans for spans, theirs in hours_of if not theirs.isdisjoint(shape.slots)})
        for shape in loads.shapes
    }
    for number, (now, until) in enumerate(pairwise(steps)):
        minute = catalog.week.minute(now)
        _plan(goals, catalog.week, outlook, now, until, days)
        for shape, weight in loads.of(now, until):
            open_ = tuple(holds(spans, minute) for spans in timed[id(shape)])
            _show(catalog, runs, shape, shape.next(open_), paced[id(shape)], weight, (now + until) / 2)
        _fade(goals, until - now)
        told((number + 1) / (len(steps) - 1))
        if aim is not None and _is_out_of_reach(runs[aim], outlook, until, ends):
            ends = until
            break
    return [_tell(run, before.get(name, Before()), ends, days) for name, run in runs.items()]


def measure_of(item: LineItem) -> Measure:
    """What is foretold of a line item: its goal's measure, or impressions where it has none."""
    return item.goal.of if item.goal else Measure.IMPRESSIONS


def _times(run: _Run, slots: Sequence[int]) -> int:
    return sum(slot in run.slots for slot in slots)


def _steps(
    week: Week,
    items: Iterable[LineItem],
    pauses: Iterable[Pause],
    begins: float,
    ends: float,
    step_h: int,
    grid_s: float | None,
) -> list[float]:
    """The instants between which nothing begins or ends, from *begins* to *ends*; with *grid_s* flights are taken to
    begin and end at multiples of it.
    """
    cuts = {begins, ends}
    cuts.update(at for pause in pauses for at in (pause.starts, pause.ends) if begins < at < ends)
    spans = set()
    for item in items:
        flight = (at for at in (item.starts, item.ends) if at is not None and begins < at < ends)
        cuts.update(ceil(at / grid_s) * grid_s for at in flight) if grid_s else cuts.update(flight)
        if item.hours:
            spans.add(spans_of(item.hours))
    edges = hours.edges(spans)
    quarter = floor(begins) // QUARTER_S * QUARTER_S
    before = week.minute(quarter) - 15
    while quarter < ends:
        minute = week.minute(quarter)
        if minute % (60 * step_h) == 0 or (minute - before) % WEEK != 15:
            cuts.add(float(quarter))
        at = bisect_left(edges, minute)
        while at < len(edges) and edges[at] < minute + 15:
            cuts.add(float(quarter + (edges[at] - minute) * 60))
            at += 1
        before, quarter = minute, quarter + QUARTER_S
    return sorted(cut for cut in cuts if begins <= cut <= ends)


def _pages(
    catalog: Catalog, views: Sequence[View], anywhere: Collection[str], beside: Catalog | None
) -> tuple[list[Page], list[int]]:
    """The pages that can be asked of *catalog*, and of how many views each is one: those that no booking, also of
    *beside*, tells apart are one page, and nor does a paused section, their readers' consent or, where something is
    capped, whether they name a reader. Each slot that none asks for has one of its own, of a reader who is known.
    """
    both = (catalog, beside) if beside else (catalog,)
    tells = frozenset(section_fact(pause) for each in both for pause in each.sections) | {NO_CONSENT}
    if any(each.caps for each in both):
        tells |= {NO_READER}
    everywhere = {
        one.line_item.id: one
        for item in catalog.document.line_items
        if item.id in anywhere and item.targeting
        for one in catalog.bookings[item.slots[0]].all
        if one.line_item.id == item.id
    }
    targeted: dict[tuple[int | str, ...], tuple[tuple[SlotId | Group, ...], list[Booking]]] = {}
    alike: dict[object, list[Page]] = {}
    seen: set[int] = set()
    for view in views:
        if view.asks not in targeted:
            known = (catalog.groups.get(ask) if isinstance(ask, str) else _slot(catalog, ask) for ask in view.asks)
            asks = tuple(ask for ask in known if ask is not None)
            slots = _slots(Page(asks))
            here = [
                {one.line_item.id: one for slot in slots if slot in each.slots for one in each.bookings[slot].all}
                for each in both
            ]
            bookings = [one for each in ({**everywhere, **here[0]}, *here[1:]) for one in each.values() if one.target]
            targeted[view.asks] = asks, bookings
            seen.update(slots)
        asks, bookings = targeted[view.asks]
        if asks:
            admitted = tuple(
                (one.target.admits(view.context), one.target.prefers(view.context)) for one in bookings if one.target
            )
            alike.setdefault((asks, admitted, tells & view.context.facts), []).append(
                Page(asks, context=view.context, held=None if NO_READER in view.context.facts else {})
            )
    pages = [found[0] for found in alike.values()] + [
        Page((SlotId(slot),), held={}) for slot in catalog.slots if slot not in seen
    ]
    return pages, [len(found) for found in alike.values()] + [1] * (len(pages) - len(alike))


def _slot(catalog: Catalog, ask: int) -> SlotId | None:
    return SlotId(ask) if ask in catalog.slots else None


def _slots(page: Page) -> list[int]:
    return [
        slot
        for ask in page.asks
        for slot in ([int(one.slot) for one in ask.slots] if isinstance(ask, Group) else [int(ask)])
    ]


def _fit(pages: Sequence[Page], numbers: Sequence[int], wanted: Mapping[int, float]) -> list[float]:
    """Weights with which the pages ask for each slot as often as *wanted*: proportional fitting, slot by slot."""
    asked = [_slots(page) for page in pages]
    weights = [float(n) for n in numbers]
    by_slot: dict[int, list[int]] = {}
    for number, slots in enumerate(asked):
        for slot in slots:
            by_slot.setdefault(slot, []).append(number)
    for _ in range(_FITS):
        for slot, places in by_slot.items():
            total = sum(weights[place] for place in places)
            factor = wanted.get(slot, 0.0) / total if total else 0.0
            for place in places:
                weights[place] *= factor
    return weights


class _Loads:
    """How often each shape of page asks, step by step. A frequent one is decided in every step, for exactly what it
    asks then. The seldom ones share what they ask in a step, and those take turns that have waited for most.
    """

    def __init__(self, asked: Asked, outlook: Outlook, steps: Sequence[float], n: int) -> None:
        alike: dict[object, list[int]] = {}
        for at, page in enumerate(asked.pages):
            if asked.weights[at] > 0:
                alike.setdefault(page.asks, []).append(at)
        self.shapes = [
            _Shape([asked.pages[at] for at in places], [asked.weights[at] for at in places])
            for places in alike.values()
        ]
        self._outlook = outlook
        slots = sorted({slot for shape in self.shapes for slot in shape.slots})
        self._weeks = {slot: sum(outlook.weeks.get(slot, ())) for slot in slots}
        self._parts = {id(shape): _parts(shape, slots) for shape in self.shapes}
        whole = self._load(self.shapes, steps[0], steps[-1])
        self._each = max(1.0, sum(whole) / n)
        least = self._each / 2 * (len(steps) - 1)
        self._frequent = [shape for shape, load in zip(self.shapes, whole, strict=True) if load >= least]
        self._seldom = [shape for shape, load in zip(self.shapes, whole, strict=True) if load < least]
        self._gathered = [0.0] * len(self._seldom)
        self._waiting = 0.0

    def _load(self, shapes: Sequence[_Shape], now: float, until: float) -> list[float]:
        parts = [
            (self._outlook.expect((slot,), (), now, until) or 0.0) / week if week else 0.0
            for slot, week in self._weeks.items()
        ]
        of = self._parts
        return [shape.weight * sum(of[id(shape)](parts)) / len(shape.slots) for shape in shapes]

    def of(self, now: float, until: float) -> Iterator[tuple[_Shape, float]]:
        """What to decide between two instants, and of how many pages each is one."""
        for shape, load in zip(self._frequent, self._load(self._frequent, now, until), strict=True):
            n = max(1, round(load / self._each))
            for _ in range(n if load else 0):
                yield shape, load / n
        if not self._seldom:
            return
        loads = self._load(self._seldom, now, until)
        self._waiting += sum(loads)
        gathered = self._gathered = list(map(add, self._gathered, loads))
        if n := min(len(self._seldom), round(self._waiting / self._each)):
            each, self._waiting = self._waiting / n, 0.0
            for at in nlargest(n, range(len(gathered)), key=gathered.__getitem__):
                gathered[at] -= each
                yield self._seldom[at], each


def _parts(shape: _Shape, slots: Sequence[int]) -> Callable[[Sequence[float]], tuple[float, ...]]:
    """Takes what belongs to the slots of *shape* out of a list with an entry for each of *slots*."""
    places = [bisect_left(slots, slot) for slot in shape.slots]
    return itemgetter(*places) if len(places) > 1 else lambda parts: (parts[places[0]],)


def _plan(runs: Iterable[_Run], week: Week, outlook: Outlook, now: float, until: float, days: Days) -> None:
    """The shares of the step from *now* to *until*, by the rule that serving goes by. What is paced by the clock, where
    a curve is missing, takes what falls due until its end.
    """
    day = days.locate(now)[0]
    today = days.start(day), days.start(day + 1)
    minute = week.minute(now)
    for run in runs:
        if run.goal is None:
            continue
        if run.day != day:
            run.close_day()
            if run.day != -1:
                run.today = 0.0
                run.served = 0.0 if run.goal.daily else run.served
            run.day = day
        run.share = 0.0
        if not is_live(run.item, now) or is_paused(run.pauses, now):
            continue
        run.open = run.open or not run.spans or holds(run.spans, minute)
        if run.left() < run.rate / 2:
            continue
        begins, ends = pacing.span(run.item, today)
        reach = min(1.0, max(0.001, (run.took + _PRIOR) / (run.asked + _PRIOR)))
        supply = pacing.supply_of(outlook, run.slots, run.spans, run.gaps, begins, ends, now, reach)
        by_clock = supply.left is None and not pacing.is_greedy(run.item, ends, now)
        if by_clock:
            supply = pacing.supply_of(outlook, run.slots, run.spans, run.gaps, begins, ends, until, reach)
        counted = run.today if run.goal.daily else run.counted
        progress = Progress(int(counted), int(run.served))
        plan = pacing.plan(run.item, ends, progress, supply, now, scheduled=False)
        run.share, run.room = plan.share, plan.left if by_clock else inf


def _is_out_of_reach(run: _Run, outlook: Outlook, now: float, ends: float) -> bool:
    """Whether all the requests still to come are too few; or a day, not the first, has missed its goal."""
    if run.goal is None or run.goal.daily:
        return any(run.days[1:])
    last = last_instant(run.item)
    left = outlook.expect(run.slots, run.spans, now, ends if last is None else min(ends, last), run.gaps)
    return left is not None and run.counted + left * run.rate < run.goal.n * (1 - SURE)


def _show(
    catalog: Catalog,
    runs: Mapping[str, _Run],
    shape: _Shape,
    turn: tuple[Page, int],
    paced: Sequence[tuple[_Run, int]],
    weight: float,
    now: float,
) -> None:
    """Decide a page that stands for *weight* of them, and again for what its winners with a goal leave of that.

    *paced* are the line items with a goal that may show there, and in how many of the slots.
    """
    page, number = turn
    draws = {name: number * apart for name, apart in shape.draws}
    shares, chunks = {}, {}
    for run, times in paced:
        if not run.share or run.goal is None:
            continue
        name = run.item.id
        if run.item.share is None:
            if not run.spans or holds(run.spans, catalog.week.minute(now)):
                run.asked += run.share * weight * times
            chunks[name] = min(weight, max(run.share * weight, run.goal.n / run.rate / _PARTS))
            shares[name] = min(1.0, run.share * weight / chunks[name])
        else:
            chunks[name] = weight
            shares[name] = run.share
    left = weight
    for time in range(_AGAIN):
        pace = Pace(shares if time < _AGAIN - 1 else {})
        winners = [one.ad.line_item.id for one in decide(catalog, now, page, draws, pace) if isinstance(one, Filled)]
        won = {name for name in winners if name in chunks}
        part = left
        for name in won:
            wanted = min(max(0.0, runs[name].left()) / runs[name].rate, max(0.0, runs[name].room))
            part = min(part, wanted / winners.count(name), chunks[name])
        for name in winners:
            _count(runs[name], part, now)
        left -= part
        if left <= 1e-9 * weight:
            break
        for name in won:
            chunks[name] -= part
            if chunks[name] <= 1e-9 * weight or runs[name].left() <= 0 or runs[name].room <= 0:
                shares[name] = 0.0


def _count(run: _Run, part: float, now: float) -> None:
    run.counted += part * run.rate
    run.served += part
    if run.goal is not None:
        run.today += part * run.rate
        run.took += part
        run.room -= part
        if run.reached_at is None and run.left() < run.rate / 2:
            run.reached_at = now


def _fade(runs: Iterable[_Run], length: float) -> None:
    kept = 0.5 ** (length / _HALF_LIFE_S)
    for run in runs:
        run.asked *= kept
        run.took *= kept


def _tell(run: _Run, before: Before, ends: float, days: Days) -> Forecast:
    last = last_instant(run.item)
    over = last is not None and last <= ends
    if run.goal is None:
        return Forecast(run.item.id, before.counted, run.counted, None, None, over, 0.0, capped=run.capped)
    if run.goal.daily:
        if over or days.start(run.day + 1) <= ends:
            run.close_day()
        daily = Daily(len(run.days), run.days.count(0.0), not run.days or not run.days[0])
        name, n = run.item.id, run.goal.n
        return Forecast(name, before.counted, run.counted, n, None, over, sum(run.days), daily, run.capped)
    short = max(0.0, run.goal.n - run.counted) if over else 0.0
    short = short if short >= 1 else 0.0
    name, n = run.item.id, run.goal.n
    return Forecast(name, before.counted, run.counted, n, run.reached_at, over, short, capped=run.capped)
