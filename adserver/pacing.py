"""Spreading a goal over its time: how much of its chances a line item takes now, so that it ends at its goal.

A large goal takes a part of every draw: `clamp(lead * remaining / expected chances, 0, 1)`, where the chances are those
that the traffic curve still promises (see `traffic`) and that come to this line item at all. The lead grows from 1 to
1.04 towards the end: what is late can be caught up as long as much is to come, and what has ended cannot. A small goal
is scheduled instead: the k-th of n is due when the curve has passed (k - 1/2) / n, and takes the first chance from then
on.

Whatever the pace, no worker serves more than its part of half of what is left before it has heard of the others (see
`allow`): a goal is overshot by what a few seconds hide near its very end, and by nothing when the store is away.
"""

from collections.abc import Iterable, Mapping
from math import ceil, floor, frexp, inf, ldexp
from random import Random

from msgspec import Struct

from adserver.hours import Spans
from adserver.model import Goal, LineItem, Measure, Pacing
from adserver.pauses import Gaps, length_outside
from adserver.traffic import Outlook

LEAD = 1.02
"""How much faster than even what is scheduled, or foretold roughly, comes."""
_LEAD_AT_END = 0.04
SMALL = 1_000
"""Goals up to this size are scheduled; larger ones, too, once no more than a tenth of it is left."""
TURN_S = 5.0
"""How often the last few of a goal become another worker's. Half of it is longer than a count takes to reach all."""
_AHEAD = 1.25
"""What `frontloaded` delivers in the first half of a flight, compared with even."""
_FLOOR = 0.25
_TRIES = 2_000
_SURE, _FEW = 4.0, 20
"""So many times the click rate there was is the most that is thought of; every snippet's impression may come."""
CLICKS_COLD_S = 60.0
"""Readers click soon or never: how long all of them may, where it is not known how late they do."""
USUAL: Mapping[Measure, float] = {Measure.IMPRESSIONS: 1.0, Measure.VIEWABLES: 0.5, Measure.CLICKS: 0.002}
"""How many events a snippet is taken to bring where nothing has been counted yet."""
_SNIPPETS, _EVENTS = 100, 2
"""What is usual weighs as much as so many snippets, or as those that usually bring so many events: one early click in
fifty snippets is no rate of 2 %."""
WORDS = {Measure.IMPRESSIONS: "impressions", Measure.VIEWABLES: "viewable impressions", Measure.CLICKS: "clicks"}


TOOK_NOTHING = "its goal was reached, or nothing of it was due then: a receipt does not keep which"
ITS_PART = "it has served what it may until more is counted"


class Pace(Struct, frozen=True):
    """What bookings with a goal may take now.

    *shares* are parts of the draw, 0 to 1, by line item: 0, or no entry, is nothing. *reasons* are why, for people.
    *creatives* are the weights that creatives have earned, by line item, where their rotation is optimised. *reached*
    are the line items that have their goal: a share of 0 alone may as well mean that nothing is due, that what was
    served waits to be counted, or that nothing is known. A receipt keeps shares alone, and names nobody as reached.
    """

    shares: Mapping[str, float] = {}
    reasons: Mapping[str, str] = {}
    creatives: Mapping[str, Mapping[str, float]] = {}
    reached: frozenset[str] = frozenset()

    def why(self, line_item: LineItem) -> str:
        """Why it does not take this view, as the rest of a sentence about the line item."""
        reason, share = self.reasons.get(line_item.id), self.shares.get(line_item.id)
        if reason is not None:
            return reason
        if share is None:
            return "what it has delivered is not known yet"
        return f"it took {_percent(share)} of its chances" if share else TOOK_NOTHING


class Figures(Struct):
    """Counts of one creative in a line item, or of all of them."""

    served: int = 0
    impressions: int = 0
    viewables: int = 0
    clicks: int = 0

    def add(self, other: "Figures") -> None:
        self.served += other.served
        self.impressions += other.impressions
        self.viewables += other.viewables
        self.clicks += other.clicks

    def of(self, measure: Measure) -> int:
        match measure:
            case Measure.IMPRESSIONS:
                return self.impressions
            case Measure.VIEWABLES:
                return self.viewables
            case Measure.CLICKS:
                return self.clicks


def usual(figures: Iterable[Figures]) -> dict[Measure, float]:
    """How many events of each measure a snippet brings, by what was counted of many line items."""
    total = Figures()
    for one in figures:
        total.add(one)
    return {measure: likely(total.of(measure), total.served, rate) for measure, rate in USUAL.items()}


def likely(counted: int, served: int, usual: float) -> float:
    """How many events a snippet of a line item brings, where *usual* is what one brings elsewhere: what is expected,
    and not from above as `Progress.rate`.
    """
    weight = max(_SNIPPETS, _EVENTS / usual)
    return min(1.0, (counted + weight * usual) / (served + weight))


class Progress(Struct, frozen=True):
    """What a line item has delivered within its goal's time. *counted* is net, in the goal's measure.

    *coming* is how much of what is served and not counted may still be, and *due* how many snippets' events should have
    come by now, of those that come at all; None: all of them (see `lateness`).
    """

    counted: int = 0
    served: int = 0
    coming: float = 0.0
    due: float | None = None

    def rate(self) -> float:
        """How much of what is served comes to count, from above: 1 while nothing is known."""
        return min(1.0, (self.counted + 1) / ((self.served if self.due is None else self.due) + 1))

    def expected(self) -> float:
        """What will be counted of all that is served by now."""
        return self.counted + self.coming


class Supply(Struct, frozen=True):
    """The traffic of a goal's time: *left* are the chances expected from now on, None where nothing is known.

    *passed* is which part of all the time's traffic has gone by, 0 to 1.
    """

    passed: float
    left: float | None = None


class Plan(Struct, frozen=True):
    """*share* of the draws from now on, and at most *left* snippets until the goal; *behind* when it cannot be met,
    *reached* when it is.
    """

    share: float
    left: float
    reason: str
    behind: bool = False
    reached: bool = False


def span(line_item: LineItem, day: tuple[float, float]) -> tuple[float, float]:
    """When the goal's time begins and ends; infinity where nothing bounds it. *day* is the newsroom's present day."""
    begins = -inf if line_item.starts is None else line_item.starts
    ends = inf if line_item.ends is None else line_item.ends
    if line_item.goal and line_item.goal.daily:
        return max(begins, day[0]), min(ends, day[1])
    return begins, ends


def supply_of(
    outlook: Outlook | None,
    slots: tuple[int, ...],
    spans: Spans,
    gaps: Gaps,
    begins: float,
    ends: float,
    now: float,
    reach: float,
) -> Supply:
    """The supply of a goal's time from *begins* to *ends*, of requests of which the part *reach* comes to the line item
    (0 to 1). Where a curve is missing, as much has passed as of the time.
    """
    if begins == -inf or ends == inf or now >= ends:
        return Supply(1.0)
    if outlook is not None:
        passed = outlook.passed(slots, spans, begins, ends, now, gaps)
        left = outlook.expect(slots, spans, now, ends, gaps)
        if passed is not None and left is not None:
            return Supply(passed, left * reach)
    runs_s = length_outside(gaps, begins, ends)
    return Supply(length_outside(gaps, begins, now) / runs_s if runs_s else 1.0)


def is_greedy(line_item: LineItem, ends: float, now: float) -> bool:
    """Whether it takes all it can get, and spreads nothing over its goal's time, which is over at *ends*."""
    return line_item.pacing is Pacing.ASAP or now >= ends or line_item.share is not None


def plan(
    line_item: LineItem, ends: float, progress: Progress, supply: Supply, now: float, *, scheduled: bool = True
) -> Plan:
    """How much of its chances *line_item*, which has a goal, takes from *now* on. Its goal's time is over at *ends*.

    Not *scheduled*, small goals take parts of every draw as well: for those who look hours ahead at a time.
    """
    goal = line_item.goal
    assert goal is not None
    rate, expected = progress.rate(), progress.expected()
    to_serve = (goal.n - expected) / rate
    sure = surest(goal.of, progress.counted, progress.served)
    room = min(to_serve, (goal.n - progress.counted - progress.coming) / sure)
    done = f"{progress.counted:,} of {goal.n:,} {WORDS[goal.of]}"
    if progress.counted >= goal.n:
        return Plan(0.0, 0.0, _reached(goal), reached=True)
    if room < 1:
        return Plan(0.0, 0.0, f"it waits for the last it has served to be counted: {done}")
    if is_greedy(line_item, ends, now):
        return Plan(1.0, room, f"it takes all it can get: {done} so far")
    if supply.left is None or (scheduled and (goal.n <= SMALL or to_serve <= SMALL / 10)):
        owed = due(line_item, supply.passed) + 0.5 - expected
        if owed < 1:
            return Plan(0.0, 0.0, f"it is on its plan: {done}")
        behind = supply.left is not None and to_serve > supply.left
        return Plan(1.0, min(room, owed / rate), f"its next is due: {done} so far", behind)
    wanted = to_serve / max(supply.left, 1e-9)
    share = min(1.0, _lead(supply.passed) * _hurry(line_item.pacing, supply.passed) * wanted)
    return Plan(share, room, f"it takes {_percent(share)} of its chances: {done} so far", wanted > 1)


def _lead(passed: float) -> float:
    """How many times what is even is asked for. A lead at first is paid back by the end: a goal of 85 % would begin at
    93 % of the requests and end at 80.
    """
    return 1 + _LEAD_AT_END * passed**3


def coarse(share: float) -> float:
    """*share* to 0.4 % of itself: traffic strays more, and a receipt need not tell of each second's change."""
    part, exponent = frexp(share)
    return ldexp(round(part * 256), exponent - 8)


def surest(of: Measure, counted: int, served: int) -> float:
    """The most events that a snippet is thought to bring."""
    return 1.0 if of is not Measure.CLICKS else min(1.0, _SURE * (counted + 1) / (served + _FEW))


def due(line_item: LineItem, passed: float) -> float:
    """How much of its goal is to be counted by the time that so much of its traffic has *passed*, 0 to 1."""
    assert line_item.goal is not None
    return line_item.goal.n * _front(line_item.pacing, 1 - (1 - passed) ** LEAD)


def project(
    line_item: LineItem, ends: float, progress: Progress, before: Supply, after: Supply, now: float
) -> Progress:
    """What will be delivered by a later instant: *before* is the supply *now*, *after* the one then.

    What is even leaves as much of the goal as is left of the traffic; what takes all it can get takes all that comes.
    """
    goal = line_item.goal
    assert goal is not None
    left = max(0.0, goal.n - progress.counted)
    passed = 1.0 if before.passed >= 1 else min(1.0, (after.passed - before.passed) / (1 - before.passed))
    came = left  # nothing is known of the traffic: as fast as possible is at once
    if before.left is not None and after.left is not None:
        came = (before.left - after.left) * progress.rate()
    wanted = came if is_greedy(line_item, ends, now) else left * (1 - (1 - passed) ** LEAD)
    n = int(min(left, wanted, came))
    return Progress(progress.counted + n, progress.served + int(n / progress.rate()))


def _reached(goal: Goal) -> str:
    return f"today's {goal.n:,} are used up" if goal.daily else f"its goal of {goal.n:,} {WORDS[goal.of]} is reached"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.1 else f"{share * 100:.2g} %"


def _front(pacing: Pacing, passed: float) -> float:
    """Which part of the goal is due when *passed* of the traffic has gone by."""
    if pacing is not Pacing.FRONTLOADED:
        return passed
    return _AHEAD * passed if passed <= 0.5 else _AHEAD / 2 + (2 - _AHEAD) * (passed - 0.5)


def _hurry(pacing: Pacing, passed: float) -> float:
    """How many times as much as even makes the deliveries follow `_front`; in the second half what is left is even."""
    if pacing is not Pacing.FRONTLOADED or passed >= 0.5:
        return 1.0
    return _AHEAD * (1 - passed) / (1 - _AHEAD * passed)


def allow(left: float, unseen: int, workers: int, rank: int, now: float) -> int:
    """How many more snippets a worker may serve of a line item before it has heard what the others did.

    *left* is what it believes is left; *unseen*, how many of its own that leaves out. All the workers together may
    hide half of what is left, so that it holds although each has heard of the others a little late. What cannot be
    divided goes to one of them after the other, with a pause between two turns in which the last one's is heard of.
    """
    if left < 1:
        return 0
    half, (turn, second) = ceil(left / 2), divmod(now, TURN_S)
    mine = half // workers
    if workers == 1 or second >= TURN_S / 2:
        mine += (rank + floor(turn)) % workers < half % workers
    return max(0, mine - unseen)


def earn(seen: Mapping[str, tuple[int, int]], seed: str) -> dict[str, float]:
    """Weights of creatives by what readers made of them: *seen* is clicks and impressions by creative.

    Thompson sampling with a Beta(1, 1) prior: a creative's weight is how probably it is the best. A quarter is shared
    by all alike, so that none is judged for ever by a bad start. The same *seed* gives every worker the same.
    """
    dice = Random(seed)  # noqa: S311 - an estimate, not a secret
    wins = dict.fromkeys(seen, 0)
    for _ in range(_TRIES):
        rates = {name: dice.betavariate(1 + clicks, 1 + max(0, n - clicks)) for name, (clicks, n) in seen.items()}
        wins[max(rates, key=lambda name: rates[name])] += 1
    return {name: _FLOOR / len(seen) + (1 - _FLOOR) * n / _TRIES for name, n in wins.items()}
