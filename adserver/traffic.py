"""Traffic curves: how many requests a slot gets in each five minutes of a week, learned from the weeks before.

What is expected is the median of the last four days of the same name, step by step, so that one odd day changes
nothing; days of other names stand in until there is one. It is corrected by the hour and by the day that just went by:
more readers than usual now will be more readers than usual in an hour, and a little so tomorrow.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import inf
from statistics import median

from adserver.hours import DAY, WEEK, Spans, Week, holds
from adserver.pauses import Gaps, outside

STEP_S = 300
STEPS = DAY * 60 // STEP_S
"""Of a day. A day of 25 hours counts its last hour into its last step."""
WEEK_STEPS = WEEK * 60 // STEP_S
KEPT_DAYS = 35
_SAME = 4
_NEAR_S = 3600.0
_NEAR = 0.25, 4.0
_FAR = 0.5, 2.0
_FEW = 20
"""So many requests must be expected, or counted, before one is held against the other."""
_BITS = 5

Counts = Sequence[int]
"""Requests in each step of one day."""


def step_of(seconds: float) -> int:
    """The step that holds an instant so many seconds after its day's midnight."""
    return min(STEPS - 1, max(0, int(seconds // STEP_S)))


def coarse(n: int) -> int:
    """*n* to five binary digits, 3 % at most beside it: what a curve that is kept needs, and half the room."""
    extra = max(0, n.bit_length() - _BITS)
    return (n + (1 << extra >> 1)) >> extra << extra


def week_of(days: Mapping[int, Counts]) -> list[float]:
    """The requests to expect in each step of a week, from Monday 00:00, after whole *days* (numbered as in `days`)."""
    found: list[float] = []
    newest = sorted(days, reverse=True)
    for weekday in range(7):
        same = [day for day in newest if _weekday(day) == weekday][:_SAME] or newest[: 7 * _SAME]
        found += [float(median(steps)) for steps in zip(*(days[day] for day in same), strict=True)] or [0.0] * STEPS
    return found


def _weekday(day: int) -> int:
    return (day + 3) % 7  # 1970-01-01 was a Thursday


class Outlook:
    """The requests slots can expect from a moment on. *weeks* is `week_of` by slot, or a guess for *young* ones."""

    def __init__(
        self,
        weeks: Mapping[int, Sequence[float]],
        clock: Week,
        young: frozenset[int] = frozenset(),
    ) -> None:
        self.weeks = weeks
        self.clock = clock
        self.young = young
        self._near: Mapping[int, float] = {}
        self._far: Mapping[int, float] = {}
        self._near_until = -inf
        self._sums: dict[tuple[tuple[int, ...], Spans], list[list[float]]] = {}
        self._wholes: dict[tuple[tuple[int, ...], Spans, float, float, Gaps], float] = {}

    def again(self, clock: Week) -> "Outlook":
        """The same for who only asks: what it works out is its own."""
        found = Outlook(self.weeks, clock, self.young)
        found._near, found._far, found._near_until = self._near, self._far, self._near_until
        return found

    def correct(self, near: Mapping[int, float], far: Mapping[int, float], now: float) -> None:
        """Correct each slot by its last hour, until an hour from *now*, and by its last day: 1 is as usual."""
        self._near, self._far, self._near_until = near, far, now + _NEAR_S

    def expect(self, slots: tuple[int, ...], spans: Spans, now: float, ends: float, gaps: Gaps = ()) -> float | None:
        """How many requests *slots* get from *now* on while *spans* are open and outside *gaps*; None when a curve is
        missing.

        A change of the clocks in between moves the hours by one: it is not looked at.
        """
        sums = self._sums_of(slots, spans)
        if sums is None:
            return None
        if not gaps:
            return self._expect(slots, sums, now, ends) if now < ends else 0.0
        return sum(self._expect(slots, sums, a, b) for a, b in outside(gaps, now, ends))

    def _expect(self, slots: tuple[int, ...], sums: list[list[float]], now: float, ends: float) -> float:
        at, steps = self._at(now), (ends - now) / STEP_S
        soon = max(0.0, min(ends, self._near_until) - now) / STEP_S
        total = 0.0
        for slot, sum_ in zip(slots, sums, strict=True):
            far, near = self._far.get(slot, 1.0), self._near.get(slot, 1.0)
            total += far * _between(sum_, at, steps)
            if soon and near != far:
                total += (near - far) * _between(sum_, at, soon)
        return total

    def passed(
        self, slots: tuple[int, ...], spans: Spans, begins: float, ends: float, now: float, gaps: Gaps = ()
    ) -> float | None:
        """Which part of the traffic between two instants, outside *gaps*, usually comes before *now*; None when nothing
        is known.
        """
        sums = self._sums_of(slots, spans)
        if sums is None:
            return None
        whole = self._wholes.get((slots, spans, begins, ends, gaps))
        if whole is None:
            whole = self._wholes[slots, spans, begins, ends, gaps] = self._usual(sums, begins, ends, gaps)
        if not whole:
            return None
        return min(1.0, max(0.0, 1 - self._usual(sums, now, ends, gaps) / whole))

    def _usual(self, sums: list[list[float]], begins: float, ends: float, gaps: Gaps) -> float:
        """The traffic of some slots between two instants, outside *gaps*, uncorrected."""
        return sum(
            _between(sum_, self._at(a), (b - a) / STEP_S) for a, b in outside(gaps, begins, ends) for sum_ in sums
        )

    def _sums_of(self, slots: tuple[int, ...], spans: Spans) -> list[list[float]] | None:
        found = self._sums.get((slots, spans))
        if found is None and all(slot in self.weeks for slot in slots):
            found = self._sums[slots, spans] = [self._sum(slot, spans) for slot in slots]
        return found

    def at(self, slot: int, now: float) -> float:
        """Requests expected in the step around *now*, uncorrected."""
        return self.weeks[slot][int(self._at(now)) % WEEK_STEPS]

    def _at(self, instant: float) -> float:
        """The place in the week, in steps."""
        return (self.clock.minute(instant) * 60 + instant % 60) / STEP_S

    def _sum(self, slot: int, spans: Spans) -> list[float]:
        week = self.weeks[slot]
        minutes = STEP_S // 60
        if spans:
            week = [n if holds(spans, step * minutes) else 0.0 for step, n in enumerate(week)]
        return [0.0, *accumulate(week)]


def _between(sums: Sequence[float], at: float, steps: float) -> float:
    """What a week's running *sums* grow by in so many *steps* from the place *at*, week after week."""
    weeks, rest = divmod(at + steps, WEEK_STEPS)
    return weeks * sums[-1] + _upto(sums, rest) - _upto(sums, at)


def _upto(sums: Sequence[float], at: float) -> float:
    whole = min(int(at), WEEK_STEPS - 1)
    return sums[whole] + (sums[whole + 1] - sums[whole]) * (at - whole)


def compare(counted: Sequence[float], usual: Sequence[float]) -> tuple[float, float]:
    """How many times as much as usual the last hour and the last day had, step by step until now; 1 where few came.

    Of the day it is the median of its hours: an hour that nobody foresaw says nothing of tomorrow.
    """
    hour = 3600 // STEP_S
    begins = range(len(counted) % hour, len(counted), hour)
    ratios = [_ratio(sum(counted[at : at + hour]), sum(usual[at : at + hour])) for at in begins]
    if not ratios:
        return 1.0, 1.0
    return _within(_NEAR, ratios[-1]), _within(_FAR, median(ratios[-24:]))


def _ratio(counted: float, expected: float) -> float:
    return counted / expected if max(counted, expected) >= _FEW and expected > 0 else 1.0


def _within(bounds: tuple[float, float], ratio: float) -> float:
    return min(bounds[1], max(bounds[0], ratio))


def flat(per_second: float) -> list[float]:
    """A curve for a slot of which nothing but its present rate is known."""
    return [per_second * STEP_S] * WEEK_STEPS
