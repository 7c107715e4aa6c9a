"""Days of made-up traffic through the real deciding and planning: do goals end where they should, and how evenly?

The traffic has quiet nights, weekdays unlike weekends, 10 % of noise and one hour that nobody foresaw with four times
as many readers. Half of the impressions come at once, the others seconds or minutes later, some never. Several workers
hear of each other's deliveries a second late. The same traffic is then paced by two
rules that ad servers are known for, so that the difference is seen: by the clock alone, and as fast as possible.
"""

import heapq
from collections.abc import Callable, Sequence
from math import cos, exp, inf, pi, sqrt
from random import Random

from msgspec import Struct

from adserver.catalog import Catalog
from adserver.days import Days
from adserver.decide import Filled, Page, decide, draw_of
from adserver.documents import Document
from adserver.hours import Week
from adserver.lateness import EDGES_S, classify
from adserver.model import (
    Advertiser,
    Campaign,
    Creative,
    Goal,
    Kind,
    LineItem,
    Measure,
    Pacing,
    Priority,
    Site,
    Slot,
    SlotId,
)
from adserver.pacing import Figures, Pace
from adserver.planner import Chances, Heard, Planner
from adserver.traffic import STEP_S, STEPS, Outlook, compare, week_of

RULES = ("even", "clock", "asap")
SPIKE = 4.0
_NOISE = 0.1
_RENDERED = 0.95
_START_DAY = 20_521  # 2026-03-09, a Monday
_WEEKS_BEFORE = 4
_SPLIT = (60, 30, 10)
_SPLIT_SLOT = SlotId(1)


class Settings(Struct, frozen=True):
    """*per_day* are the requests of an average day, of each slot; *sold* are goals as parts of the supply."""

    days: int = 2
    per_day: int = 100_000
    workers: int = 4
    seed: int = 1
    sold: tuple[float, ...] = (0.4, 0.85)
    small: int = 20


class Outcome(Struct, frozen=True):
    """How one goal ended. *unevenness* is the standard deviation of its hourly share of the requests, each hour with
    the weight of its requests.
    """

    rule: str
    sold: float | None
    goal: int
    delivered: int
    unevenness: float
    longest_gap_h: float

    @property
    def reached(self) -> float:
        return self.delivered / self.goal


def shape(day: int, step: int) -> float:
    """A step's traffic against the average: quiet at four in the morning, busy in the evening, less at weekends."""
    hour = step * 24 / STEPS
    daily = 1 - 0.75 * cos(2 * pi * (hour - 4) / 24) + 0.25 * cos(4 * pi * (hour - 20) / 24)
    return max(0.02, daily) * (0.75 if (day + 3) % 7 >= 5 else 1.1)


def count(settings: Settings, day: int, step: int, noise: Random) -> int:
    mean = settings.per_day / STEPS * shape(day, step) * exp(noise.gauss(0, _NOISE))
    return max(0, round(noise.gauss(mean, sqrt(mean))))


def simulate(settings: Settings, rule: str, told: Callable[[float], None] = lambda _: None) -> list[Outcome]:
    """How each goal ends under *rule*. *told* hears how much is done, 0 to 1."""
    dice = Random(settings.seed)  # noqa: S311 - traffic, not secrets
    days = Days("UTC")
    before = range(_START_DAY - 7 * _WEEKS_BEFORE, _START_DAY)
    past = {day: [count(settings, day, step, dice) for step in range(STEPS)] for day in before}
    flight = range(_START_DAY, _START_DAY + settings.days)
    traffic = [[count(settings, day, step, dice) for step in range(STEPS)] for day in flight]
    spike_day, spike_hour = settings.days // 2, 14
    for step in range(spike_hour * 12, spike_hour * 12 + 12):
        traffic[spike_day][step] = round(traffic[spike_day][step] * SPIKE)
    supply = sum(map(sum, traffic))
    goals = [*(round(sold * supply) for sold in settings.sold), settings.small]
    catalog = _catalog(days, flight, goals, rule)
    week = week_of(past)
    outlook = Outlook(dict.fromkeys(catalog.slots, week), Week("UTC"))
    run = _Run(settings, catalog, rule, outlook, days, dice)
    for number, day in enumerate(flight):
        for step, n in enumerate(traffic[number]):
            run.go(days.start(day) + step * STEP_S, n)
            told((number * STEPS + step + 1) / (settings.days * STEPS))
    return [run.outcome(line_item, sold) for line_item, sold in zip(catalog.goals, [*settings.sold, None], strict=True)]


class _Run:
    """One rule's days, second by second."""

    def __init__(
        self, settings: Settings, catalog: Catalog, rule: str, outlook: Outlook, days: Days, dice: Random
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._rule = rule
        self._outlook = outlook
        self._days = days
        self._dice = dice
        self._pages = [Page((SlotId(slot),)) for slot in catalog.slots]
        self._draws: list[dict[int | str, int]] = [{} for _ in range(settings.workers)]
        self._planners = [Planner(draws) for draws in self._draws]
        for planner in self._planners:
            planner.follow(catalog)
        self._figures = {one.id: Figures() for one in catalog.goals}
        self._hours: dict[str, list[int]] = {one.id: [] for one in catalog.goals}
        self._requests: list[int] = []
        self._counts: list[float] = []
        self._usual: list[float] = []
        self._last = {one.id: days.start(_START_DAY) for one in catalog.goals}
        self._gaps = {one.id: 0.0 for one in catalog.goals}
        self._stale: tuple[dict[str, Figures], list[dict[str, int]]] = ({}, [{} for _ in self._planners])
        self._coming: list[tuple[float, int, str, int, float]] = []
        self._ages = {(Measure.IMPRESSIONS, int(slot)): [0] * len(EDGES_S) for slot in catalog.slots}
        self._slot = {one.id: int(one.slots[0]) for one in catalog.goals}
        self._late = Random(settings.seed + 1)  # noqa: S311

    def go(self, start: float, n: int) -> None:
        """Five minutes with *n* requests of each slot."""
        near, far = compare(self._counts[-STEPS:], self._usual[-STEPS:])
        slots = self._catalog.slots
        self._outlook.correct(dict.fromkeys(slots, near), dict.fromkeys(slots, far), start)
        self._counts.append(n)
        self._usual.append(self._outlook.at(next(iter(self._catalog.slots)), start))
        if start % 3600 == 0:
            self._requests.append(0)
            for hours in self._hours.values():
                hours.append(0)
        self._requests[-1] += n
        each, over = divmod(n, STEP_S)
        extra = set(self._dice.sample(range(STEP_S), over))
        for second in range(STEP_S):
            if n := each + (second in extra):
                self._plan(start + second)
            for _ in range(n):
                self._serve(start + second)

    def _plan(self, now: float) -> None:
        """Every worker plans by what was true a second ago."""
        self._arrive(now)
        whole, seen = self._stale
        self._stale = (
            {name: Figures(one.served, one.impressions) for name, one in self._figures.items()},
            [dict(planner.served) for planner in self._planners],
        )
        said: list[Chances] = [dict(planner.observe(now)) for planner in self._planners]
        for place, planner in enumerate(self._planners):
            others = tuple(said[:place] + said[place + 1 :])
            heard = Heard(whole, whole, seen[place], len(self._planners), place, others, ages=self._ages)
            planner.plan(heard, self._outlook, now, self._days)

    def _serve(self, now: float) -> None:
        for page in self._pages:
            place = self._dice.randrange(len(self._planners))
            draws, planner, [slot] = self._draws[place], self._planners[place], page.asks
            assert isinstance(slot, int)
            draws[slot] = draws.get(slot, -1) + 1  # alone on its page, a slot needs no order of its own
            pace = planner.pace if self._rule != "clock" else self._by_clock(now)
            [decision] = decide(self._catalog, now, page, draws, pace)
            if isinstance(decision, Filled) and decision.ad.line_item.goal:
                self._count(decision.ad.line_item.id, planner, now)

    def _by_clock(self, now: float) -> Pace:
        """The rule to compare with: serve while less is delivered than the part of the flight that has passed."""
        shares = {}
        for line_item in self._catalog.goals:
            assert line_item.starts is not None and line_item.ends is not None and line_item.goal  # noqa: PT018
            due = line_item.goal.n * (now - line_item.starts) / (line_item.ends - line_item.starts)
            delivered = self._stale[0].get(line_item.id, Figures()).impressions
            shares[line_item.id] = 1.0 if delivered < due else 0.0
        return Pace(shares)

    def _count(self, name: str, planner: Planner, now: float) -> None:
        planner.note(name)
        figures = self._figures[name]
        figures.served += 1
        if self._dice.random() < _RENDERED:
            entry = now + self._lag(), len(self._coming), name, len(self._hours[name]) - 1, now
            heapq.heappush(self._coming, entry)
            self._gaps[name] = max(self._gaps[name], now - self._last[name])
            self._last[name] = now

    def _lag(self) -> float:
        """Seconds until an impression comes: at once at the top of a page, minutes later further down."""
        kind = self._late.random()
        return 1.0 if kind < 0.5 else self._late.expovariate(1 / (20.0 if kind < 0.8 else 120.0))

    def _arrive(self, now: float) -> None:
        """Count the impressions that have come by *now*, each in the hour its snippet was served."""
        while self._coming and self._coming[0][0] <= now:
            at, _, name, hour, served = heapq.heappop(self._coming)
            self._figures[name].impressions += 1
            self._hours[name][hour] += 1
            self._ages[Measure.IMPRESSIONS, self._slot[name]][classify(at - served // 60 * 60)] += 1

    def outcome(self, line_item: LineItem, sold: float | None) -> Outcome:
        assert line_item.goal is not None
        self._arrive(inf)
        name = line_item.id
        hours = [(n / of, of) for n, of in zip(self._hours[name], self._requests, strict=True) if of]
        mean = sum(self._hours[name]) / sum(self._requests)
        deviation = sqrt(sum(of * (share - mean) ** 2 for share, of in hours) / sum(self._requests))
        delivered = self._figures[name].impressions
        return Outcome(self._rule, sold, line_item.goal.n, delivered, deviation, self._gaps[name] / 3600)


def split(picks: int, workers: int, seed: int) -> list[int]:
    """How far from exact each of three sponsorships of 60, 30 and 10 % is after *picks* spread over *workers*."""
    dice = Random(seed)  # noqa: S311
    catalog = _sponsorships()
    views = [-1] * workers
    counts = dict.fromkeys(_SPLIT, 0)
    page = Page((_SPLIT_SLOT,))
    for _ in range(picks):
        worker = dice.randrange(workers)
        views[worker] += 1
        [decision] = decide(catalog, 0.0, page, {_SPLIT_SLOT: draw_of(_SPLIT_SLOT, views[worker])})
        assert isinstance(decision, Filled)
        counts[int(decision.ad.line_item.share or 0)] += 1
    return [n - picks * share // 100 for share, n in counts.items()]


def _creative(name: str) -> Creative:
    return Creative(id=name, advertiser="a", kind=Kind.TEXT, title=name, click_url="https://a.example/")


def _document(slots: Sequence[SlotId], line_items: Sequence[LineItem]) -> Document:
    return Document(
        site=Site(time_zone="UTC"),
        slots=tuple(Slot(id=slot, name=str(slot), sizes=((300, 250),)) for slot in slots),
        advertisers=(Advertiser(id="a", name="A"),),
        campaigns=(Campaign(id="c", name="C", advertiser="a"),),
        line_items=tuple(line_items),
        creatives=tuple(_creative(one.id) for one in line_items),
    )


def _catalog(days: Days, flight: range, goals: Sequence[int], rule: str) -> Catalog:
    """A slot and a line item for each goal."""
    slots = [SlotId(number + 1) for number in range(len(goals))]
    line_items = [
        LineItem(
            id=f"goal-{slot}",
            name=f"goal {slot}",
            campaign="c",
            priority=Priority.STANDARD,
            slots=(slot,),
            creatives=(f"goal-{slot}",),
            starts=days.start(flight[0]),
            ends=days.start(flight[-1] + 1),
            goal=Goal(n, Measure.IMPRESSIONS),
            pacing=Pacing.ASAP if rule == "asap" else Pacing.EVEN,
        )
        for slot, n in zip(slots, goals, strict=True)
    ]
    return Catalog(_document(slots, line_items), 1)


def _sponsorships() -> Catalog:
    line_items = [
        LineItem(
            id=f"share-{share}",
            name=f"{share} %",
            campaign="c",
            priority=Priority.SPONSORSHIP,
            slots=(_SPLIT_SLOT,),
            creatives=(f"share-{share}",),
            share=float(share),
        )
        for share in _SPLIT
    ]
    return Catalog(_document([_SPLIT_SLOT], line_items), 1)
