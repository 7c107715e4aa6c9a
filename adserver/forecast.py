"""What line items will deliver: the recorded traffic asked again, hour by hour, through the real deciding and pacing.

The pages are a sample of those that asked lately, weighted so that each slot gets the requests its curve promises; each
page decided stands for as many as its weight. A winner takes no more of that weight than is left of its goal, or a
fiftieth of a small one, and the page is decided again without it for the rest: so a sample of thousands answers for
millions, and for goals of twenty.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, inf

from msgspec import Struct

from adserver import pacing
from adserver.catalog import Catalog, is_live, last_instant
from adserver.days import Days
from adserver.decide import Filled, Page, decide, spread
from adserver.hours import holds, spans_of
from adserver.model import Group, LineItem, SlotId
from adserver.pacing import Pace, Progress, Supply
from adserver.targeting import Context
from adserver.traffic import Outlook

STEP_S = 3600.0
DECISIONS = 60_000
"""Pages decided in one replay; its error is a few tenths of a percent, see the tests."""
_FITS = 30
_PARTS = 50
_AGAIN = 6
_HALF_LIFE_STEPS = 6.0
_PRIOR = 20.0


class View(Struct, frozen=True):
    """A page that asked: slots by id and groups by name, and what it said of itself."""

    asks: tuple[int | str, ...]
    context: Context


class Before(Struct, frozen=True):
    """What a line item had delivered when the forecast begins: *counted* in its goal's measure."""

    counted: int = 0
    served: int = 0
    counted_today: int = 0


class Forecast(Struct, frozen=True):
    """One line item's future. *counted* is what it will have delivered in its goal's measure, or of impressions where
    it has none, by the end of the forecast; *reached_at* when its goal is reached (None: not within the forecast).

    *over* is whether its time ends within the forecast, and *short* by how much it then misses its goal.
    """

    line_item: str
    before: int
    counted: float
    goal: int | None
    reached_at: float | None
    over: bool
    short: float


class _Run:
    """One line item while it is replayed."""

    __slots__ = (
        "asked", "counted", "day", "goal", "item", "rate", "reached_at", "share", "slots", "spans", "today", "took",
    )  # fmt: skip

    def __init__(self, item: LineItem, before: Before, rate: float) -> None:
        self.item = item
        self.goal = item.goal
        self.slots = tuple(map(int, item.slots))
        self.spans = spans_of(item.hours)
        self.rate = rate
        self.counted = float(before.counted)
        self.today = float(before.counted_today)
        self.day = -1
        self.share = 0.0
        self.asked, self.took = 0.0, 0.0
        self.reached_at: float | None = None

    def left(self) -> float:
        """What its goal still wants, in its measure."""
        if self.goal is None:
            return inf
        return self.goal.n - (self.today if self.goal.daily else self.counted)


def replay(
    catalog: Catalog,
    outlook: Outlook,
    views: Sequence[View],
    before: Mapping[str, Before],
    begins: float,
    ends: float,
    *,
    decisions: int = DECISIONS,
    rate: float = 1.0,
    told: Callable[[float], None] = lambda _: None,
) -> list[Forecast]:
    """What each line item delivers between two instants. *rate* is how much of what is served comes to count."""
    days = Days(catalog.document.site.time_zone)
    runs = {
        item.id: _Run(item, found := before.get(item.id, Before()), _rate(found, rate))
        for item in catalog.document.line_items
    }
    pages, numbers = _pages(catalog, views)
    weights = _fit(pages, numbers, {slot: sum(week) for slot, week in outlook.weeks.items()})
    steps = max(1, ceil((ends - begins) / STEP_S))
    loads = _Loads(pages, weights, outlook, begins, ends, max(1, decisions))
    for step in range(steps):
        now = begins + step * STEP_S
        length = min(STEP_S, ends - now)
        _plan(runs, outlook, now, days)
        for page, weight, number in loads.of(now, length):
            _show(catalog, runs, page, weight, now + length / 2, number)
        _fade(runs)
        told((step + 1) / steps)
    return [_tell(run, before.get(name, Before()), ends) for name, run in runs.items()]


def _rate(before: Before, usual: float) -> float:
    return min(1.0, (before.counted + 100 * usual) / (before.served + 100))


def _pages(catalog: Catalog, views: Sequence[View]) -> tuple[list[Page], list[int]]:
    """The pages that can be asked of *catalog*, and of how many views each is one: those that no booking tells apart
    are one page. Each slot that none asks for has one of its own.
    """
    targets = {
        id(one.target): one.target for bookings in catalog.bookings.values() for one in bookings.all if one.target
    }
    alike: dict[object, list[Page]] = {}
    seen: set[int] = set()
    for view in views:
        known = (catalog.groups.get(ask) if isinstance(ask, str) else _slot(catalog, ask) for ask in view.asks)
        if asks := tuple(ask for ask in known if ask is not None):
            admitted = tuple((one.admits(view.context), one.prefers(view.context)) for one in targets.values())
            found = alike.setdefault((view.asks, admitted), [])
            found.append(Page(asks, context=view.context, held={}))
            seen.update(_slots(found[0]))
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
    """How often each page asks, step by step. A page is decided when enough of it has gathered, so that over the days
    each has its exact weight, whatever the number of decisions.
    """

    def __init__(
        self, pages: Sequence[Page], weights: Sequence[float], outlook: Outlook, begins: float, ends: float, n: int
    ) -> None:
        self._pages = [(page, weight, _slots(page)) for page, weight in zip(pages, weights, strict=True)]
        self._outlook = outlook
        self._weeks = {slot: sum(week) for slot, week in outlook.weeks.items()}
        self._gathered = [spread(number + 1) for number in range(len(pages))]
        self._numbers = [17 * number for number in range(len(pages))]
        self._whole = sum(self._step(begins, ends - begins)) / n

    def _step(self, now: float, length: float) -> list[float]:
        parts = {
            slot: (self._outlook.expect((slot,), (), now, now + length) or 0.0) / week if week else 0.0
            for slot, week in self._weeks.items()
        }
        return [weight * sum(parts.get(slot, 0.0) for slot in slots) / len(slots) for _, weight, slots in self._pages]

    def of(self, now: float, length: float) -> Iterator[tuple[Page, float, int]]:
        """The pages to decide in the step from *now* on, of how many each is one, and which draw of its own it is:
        each kind of page has its exact part of every share.
        """
        whole = max(1.0, self._whole)
        for place, weight in enumerate(self._step(now, length)):
            self._gathered[place] += weight / whole
            while self._gathered[place] >= 1:
                self._gathered[place] -= 1
                self._numbers[place] += 1
                yield self._pages[place][0], whole, self._numbers[place]


def _plan(runs: Mapping[str, _Run], outlook: Outlook, now: float, days: Days) -> None:
    """The shares of the step that begins *now*, by the rule that serving goes by."""
    day = days.locate(now)[0]
    today = days.start(day), days.start(day + 1)
    for run in runs.values():
        if run.goal is None:
            continue
        if run.day != day:
            run.today = run.today if run.day == -1 else 0.0
            run.day = day
        run.share = 0.0
        if not is_live(run.item, now) or run.left() < run.rate / 2:
            continue
        begins, ends = pacing.span(run.item, today)
        supply = Supply(1.0)
        if begins > -inf and ends < inf and now < ends:
            passed = outlook.passed(run.slots, run.spans, begins, ends, now)
            left = outlook.expect(run.slots, run.spans, now, ends)
            if passed is not None and left is not None:
                reach = (run.took + _PRIOR) / (run.asked + _PRIOR)
                supply = Supply(passed, left * min(1.0, max(0.001, reach)))
        counted = run.today if run.goal.daily else run.counted
        progress = Progress(int(counted), int(counted / run.rate))
        run.share = pacing.plan(run.item, ends, progress, supply, now, scheduled=False).share


def _show(catalog: Catalog, runs: Mapping[str, _Run], page: Page, weight: float, now: float, number: int) -> None:
    """Decide a page that stands for *weight* of them, and again for what its winners with a goal leave of that."""
    slots = _slots(page)
    names: list[int | str] = [*(ask.id for ask in page.asks if isinstance(ask, Group)), *slots]
    draws = {name: number * (2 * place + 1) for place, name in enumerate(names)}  # apart from each other
    shares, chunks = {}, {}
    minute = catalog.week.minute(now)
    for name, run in runs.items():
        if run.goal is None:
            continue
        chunks[name] = weight
        if run.share and run.item.share is None and (times := sum(slot in run.slots for slot in slots)):
            if not run.spans or holds(run.spans, minute):
                run.asked += run.share * weight * times
            chunks[name] = min(weight, max(run.share * weight, run.goal.n / _PARTS))
            shares[name] = min(1.0, run.share * weight / chunks[name])
        else:
            shares[name] = run.share
    left = weight
    for turn in range(_AGAIN):
        pace = Pace(shares if turn < _AGAIN - 1 else {})
        winners = [one.ad.line_item.id for one in decide(catalog, now, page, draws, pace) if isinstance(one, Filled)]
        paced = {name for name in winners if name in chunks}
        part = left
        for name in paced:
            wanted = max(0.0, runs[name].left()) / runs[name].rate / winners.count(name)
            part = min(part, wanted, chunks[name])
        for name in winners:
            _count(runs[name], part, now)
        left -= part
        if left <= 1e-9 * weight:
            break
        for name in paced:
            chunks[name] -= part
            if chunks[name] <= 1e-9 * weight or runs[name].left() <= 0:
                shares[name] = 0.0


def _count(run: _Run, part: float, now: float) -> None:
    run.counted += part * run.rate
    if run.goal is not None:
        run.today += part * run.rate
        run.took += part
        if run.reached_at is None and run.left() < run.rate / 2:
            run.reached_at = now


def _fade(runs: Mapping[str, _Run]) -> None:
    for run in runs.values():
        run.asked *= 0.5 ** (1 / _HALF_LIFE_STEPS)
        run.took *= 0.5 ** (1 / _HALF_LIFE_STEPS)


def _tell(run: _Run, before: Before, ends: float) -> Forecast:
    goal = run.goal.n if run.goal and not run.goal.daily else None
    last = last_instant(run.item)
    over = last is not None and last <= ends
    short = max(0.0, goal - run.counted) if goal is not None and over else 0.0
    reached = run.reached_at if goal is not None else None
    return Forecast(run.item.id, before.counted, run.counted, goal, reached, over, short if short >= 1 else 0.0)
