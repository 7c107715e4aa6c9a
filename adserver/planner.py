"""One worker's plan of its goals: what each may take until more is heard, from what is known of deliveries and traffic.

A function of what it is told: it reads no clock and no store, so that serving and simulating plan alike.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

import msgspec

from adserver import lateness, pacing
from adserver.catalog import Catalog, is_live
from adserver.days import Days
from adserver.hours import Spans, holds, spans_of
from adserver.lateness import Trail
from adserver.model import LineItem, Measure, Pause, Priority
from adserver.pacing import Figures, Pace, Progress, Supply
from adserver.pauses import Gaps, gaps_of, is_paused
from adserver.traffic import Outlook

_HALF_LIFE_S = 3600.0
_PRIOR = 20.0
_AT_ONCE = 50
"""Goals planned in one step, of some milliseconds."""

Chances = dict[str, tuple[float, float]]
"""By line item: how often it was served, and how many draws its shares asked for, both fading over hours."""


class Heard(msgspec.Struct, frozen=True):
    """What a worker knows: all deliveries by line item and today's, and what the other workers say of their chances.

    *seen* is how much of what this worker served by line item the deliveries hold already. *place* is this worker's
    among all the *workers*. *recent* is what was served in the last hour or two. *ages* are how many events came in
    each age class, by measure and slot (see `lateness`).
    """

    whole: Mapping[str, Figures]
    today: Mapping[str, Figures]
    seen: Mapping[str, int]
    workers: int = 1
    place: int = 0
    others: tuple[Chances, ...] = ()
    recent: Mapping[str, int] = {}
    ages: Mapping[tuple[Measure, int], Sequence[int]] = {}


class _Goal(msgspec.Struct, frozen=True):
    """A line item with a goal, made ready. *sponsored* is the part of its slots that sponsorships have; it is paused in
    *gaps*.
    """

    line_item: LineItem
    slots: tuple[int, ...]
    spans: Spans
    sponsored: float
    pauses: tuple[Pause, ...]
    gaps: Gaps

    def runs(self, now: float) -> bool:
        return is_live(self.line_item, now) and not is_paused(self.pauses, now)


class Planner:
    """`pace` is for `decide`; `note` is told of every snippet served of a line item that has a goal.

    *requests* is the last draw of each slot, which says how often it was asked for.
    """

    def __init__(self, requests: Mapping[int | str, int]) -> None:
        self.pace = Pace({}, {}, {})
        self.changes = 0
        """How often the pace has changed."""
        self.behind: frozenset[str] = frozenset()
        """The line items whose goals the traffic expected is too small for."""
        self.served: dict[str, int] = {}
        self._requests = requests
        self._catalog: Catalog | None = None
        self._goals: tuple[_Goal, ...] = ()
        self._shares: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._allowed: dict[str, int] = {}
        self._trails: dict[str, Trail] = {}
        self._asked = dict(requests)
        self._counted: dict[str, int] = {}
        self._chances: Chances = {}
        self._observed = -inf

    def __repr__(self) -> str:
        return f"<Planner of {len(self._goals)} goals>"

    @property
    def slots(self) -> frozenset[int]:
        """The slots of all goals."""
        return frozenset(slot for goal in self._goals for slot in goal.slots)

    def follow(self, catalog: Catalog) -> None:
        """Plan the goals of *catalog* from now on."""
        if catalog is not self._catalog:
            self._catalog = catalog
            shares: dict[int, float] = {}
            self._goals = tuple(_ready(catalog, one, shares) for one in catalog.goals)
            known = {goal.line_item.id for goal in self._goals}
            self._chances = {name: found for name, found in self._chances.items() if name in known}
            self._trails = {name: trail for name, trail in self._trails.items() if name in known}

    def note(self, line_item: str) -> None:
        """A snippet leaves; the last one allowed ends its share until more is heard."""
        self.served[line_item] = self.served.get(line_item, 0) + 1
        left = self._allowed.get(line_item, 0) - 1
        self._allowed[line_item] = left
        if left <= 0:
            self._shares[line_item], self._reasons[line_item] = 0.0, pacing.ITS_PART
            self.changes += 1

    def observe(self, now: float) -> Chances:
        """What became of the shares asked for since the last time, and before; for the other workers, too."""
        fades = 0.5 ** (max(0.0, now - self._observed) / _HALF_LIFE_S)
        self._observed = now
        asked, self._asked = self._asked, dict(self._requests)
        minute = self._catalog.week.minute(now) if self._catalog else 0
        for goal in self._goals:
            line_item = goal.line_item
            share, n = self.pace.shares.get(line_item.id, 0.0), self.served.get(line_item.id, 0)
            if share and (not goal.spans or holds(goal.spans, minute)):
                came = sum(self._asked.get(slot, -1) - asked.get(slot, -1) for slot in line_item.slots)
                served, wanted = self._chances.get(line_item.id, (0.0, 0.0))
                took = n - self._counted.get(line_item.id, 0)
                self._chances[line_item.id] = served * fades + took, wanted * fades + share * came
            self._counted[line_item.id] = n
        return self._chances

    def plan(self, heard: Heard | None, outlook: Outlook | None, now: float, days: Days) -> None:
        """Plan every goal. While nothing is heard at all, not even from before, goals take nothing."""
        for _ in self.planning(heard, outlook, now, days):
            pass

    def planning(self, heard: Heard | None, outlook: Outlook | None, now: float, days: Days) -> Iterator[None]:
        """The same in steps of some milliseconds, between which ads may be decided: by the pace of before, until all
        goals are planned.
        """
        catalog = self._catalog
        self.changes += 1
        if heard is None or self._catalog is None:
            self._shares, self._reasons = {}, {}
            self.pace = Pace(self._shares, self._reasons, {})
            return
        today, _ = days.locate(now)
        day = days.start(today), days.start(today + 1)
        shares: dict[str, float] = {}
        reasons: dict[str, str] = {}
        behind, reached = set(), set()
        for number, goal in enumerate(self._goals, 1):
            if number % _AT_ONCE == 0:
                yield
                if self._catalog is not catalog:
                    return
            line_item = goal.line_item
            if not goal.runs(now):
                continue
            if line_item.id not in heard.whole:  # it is new, and what it delivered before is still being read
                shares[line_item.id] = 0.0
                continue
            plan = self._plan(goal, heard, outlook, now, day)
            unseen = self.served.get(line_item.id, 0) - heard.seen.get(line_item.id, 0)
            allowed = pacing.allow(plan.left, unseen, heard.workers, heard.place, now)
            self._allowed[line_item.id] = allowed
            shares[line_item.id] = pacing.coarse(plan.share) if allowed else 0.0
            reasons[line_item.id] = plan.reason if allowed or not plan.share else pacing.ITS_PART
            if plan.behind:
                behind.add(line_item.id)
            if plan.reached:
                reached.add(line_item.id)
        for name in [name for name, share in shares.items() if share and self._allowed.get(name, 0) <= 0]:
            shares[name], reasons[name] = 0.0, pacing.ITS_PART  # it was served meanwhile
        self.changes += 1
        self._shares, self._reasons, self.behind = shares, reasons, frozenset(behind)
        self.pace = Pace(shares, reasons, self.pace.creatives, frozenset(reached))

    def project(self, heard: Heard, outlook: Outlook | None, now: float, at: float, days: Days) -> Pace:
        """The pace that will be kept *at* a later instant, if the traffic is as expected and nothing is published."""
        today, day_at = days.locate(now)[0], days.locate(at)[0]
        day = days.start(today), days.start(today + 1)
        later = days.start(day_at), days.start(day_at + 1)
        shares, reasons, reached = {}, {}, set()
        for goal in self._goals:
            line_item = goal.line_item
            assert line_item.goal is not None
            if not goal.runs(at):
                continue
            progress = Progress()
            if not line_item.goal.daily or day_at == today:
                found = (heard.today if line_item.goal.daily else heard.whole).get(line_item.id, Figures())
                progress = Progress(found.of(line_item.goal.of), found.served)
            begins, ends = pacing.span(line_item, later if line_item.goal.daily else day)
            since = max(now, begins)
            before = self._supply(goal, heard, outlook, begins, ends, since)
            after = self._supply(goal, heard, outlook, begins, ends, max(since, at))
            ahead = pacing.project(line_item, ends, progress, before, after, since)
            plan = pacing.plan(line_item, ends, ahead, after, at)
            shares[line_item.id] = plan.share if plan.left >= 1 else 0.0
            reasons[line_item.id] = plan.reason
            if plan.reached:
                reached.add(line_item.id)
        return Pace(shares, reasons, self.pace.creatives, frozenset(reached))

    def take(self, weights: Mapping[str, Mapping[str, float]]) -> None:
        """Have creatives shown by these weights, by line item, from now on."""
        self.changes += 1
        self.pace = Pace(self.pace.shares, self.pace.reasons, weights, self.pace.reached)

    def _plan(
        self, goal: _Goal, heard: Heard, outlook: Outlook | None, now: float, day: tuple[float, float]
    ) -> pacing.Plan:
        line_item = goal.line_item
        assert line_item.goal is not None
        measure, name = line_item.goal.of, line_item.id
        found = (heard.today if line_item.goal.daily else heard.whole).get(name, Figures())
        trail = self._trails.setdefault(name, Trail())
        trail.note(now, heard.whole.get(name, found).served, heard.recent.get(name, 0))
        cohorts = trail.cohorts(now, day[0] if line_item.goal.daily else -inf)
        cold_s = pacing.CLICKS_COLD_S if measure is Measure.CLICKS else lateness.COLD_S
        late = lateness.learn((heard.ages.get((measure, slot), ()) for slot in goal.slots), cold_s)
        most = pacing.surest(measure, found.of(measure), found.served)
        coming, due = lateness.await_late(cohorts, late, found.of(measure), found.served, most)
        progress = Progress(found.of(measure), found.served, coming, due)
        begins, ends = pacing.span(line_item, day)
        return pacing.plan(line_item, ends, progress, self._supply(goal, heard, outlook, begins, ends, now), now)

    def _supply(
        self, goal: _Goal, heard: Heard, outlook: Outlook | None, begins: float, ends: float, now: float
    ) -> Supply:
        reach = self._reach(goal, heard.others)
        return pacing.supply_of(outlook, goal.slots, goal.spans, goal.gaps, begins, ends, now, reach)

    def _reach(self, goal: _Goal, others: Iterable[Chances]) -> float:
        """Which part of its slots' requests come to a line item: not those that others have, nor other pages."""
        found = [one for chances in (self._chances, *others) if (one := chances.get(goal.line_item.id))]
        served, asked = sum(one[0] for one in found), sum(one[1] for one in found)
        return min(1.0, max(0.001, (served + _PRIOR * (1 - goal.sponsored)) / (asked + _PRIOR)))


def _ready(catalog: Catalog, line_item: LineItem, shares: dict[int, float]) -> _Goal:
    """*shares* is what sponsorships have of each slot, in percent, as far as it was added up."""
    slots, spans = tuple(map(int, line_item.slots)), spans_of(line_item.hours)
    pauses = catalog.pauses.get(line_item.id, ())
    return _Goal(line_item, slots, spans, _sponsored(catalog, line_item, shares), pauses, gaps_of(pauses))


def _sponsored(catalog: Catalog, line_item: LineItem, shares: dict[int, float]) -> float:
    """The part of its slots that sponsorships have, 0 to 1."""
    if line_item.priority is Priority.SPONSORSHIP:
        return 0.0
    for slot in line_item.slots:
        if slot not in shares:
            shares[slot] = sum(one.line_item.share or 0.0 for one in catalog.bookings[slot].all)
    return min(0.95, sum(shares[slot] for slot in line_item.slots) / 100 / len(line_item.slots))


def weigh(
    line_items: Iterable[LineItem], creatives: Mapping[str, Mapping[str, Figures]], hour: int
) -> dict[str, dict[str, float]]:
    """What the creatives of *line_items* have earned by what readers made of them until *hour*."""
    found = {}
    for line_item in line_items:
        of = creatives.get(line_item.id, {})
        seen = {name: of.get(name, Figures()) for name in line_item.creatives}
        tried = {name: (one.clicks, one.impressions) for name, one in seen.items()}
        found[line_item.id] = pacing.earn(tried, f"{line_item.id} {hour}")
    return found
