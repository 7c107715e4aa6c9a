"""How late events come after their snippet was served, and so how many of what is served may still come.

A box far down a page is rendered minutes after it was served, or never; who reserves too little for it overshoots a
goal, who reserves for ever never reaches it. How late events come is learned slot by slot from their tokens, which know
the minute they were minted in: an age is read up to a minute too old, which reserves a little longer. While a slot has
shown too little to tell, everything served within ten minutes may come.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

EDGES_S = (60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 14_460.0)
"""Where the age classes end; the last when no token is good any more."""
ENOUGH = 30
"""So many events tell how late the others come."""
COLD_S = 600.0
"""How long everything may come where nothing is known yet."""
_SURELY = 0.995
_THINNER = 4.0
"""Cohorts are remembered to a quarter of their age."""


def classify(age_s: float) -> int:
    """The age class of an event."""
    return min(bisect_right(EDGES_S, age_s), len(EDGES_S) - 1)


class Lateness(Struct, frozen=True):
    """*come* is which part of all events has come by the end of each age class; nothing while too little is known.

    Then all may come until *cold_s* after it was served.
    """

    come: tuple[float, ...] = ()
    cold_s: float = COLD_S

    def by(self, age_s: float) -> float:
        """Which part of what comes at all has come by that age, 0 to 1."""
        if not self.come:
            return 0.0 if age_s < self.cold_s else 1.0
        at = bisect_left(EDGES_S, age_s)
        if at >= len(EDGES_S):
            return 1.0
        low = EDGES_S[at - 1] if at else 0.0
        before = self.come[at - 1] if at else 0.0
        return before + (self.come[at] - before) * max(0.0, age_s - low) / (EDGES_S[at] - low)

    def surely_by(self, age_s: float) -> float:
        """The same from below: within an age class nobody knows whether its events come at its beginning or end."""
        if not self.come:
            return self.by(age_s)
        at = bisect_right(EDGES_S, age_s)
        return 1.0 if at >= len(EDGES_S) else self.come[at - 1] if at else 0.0


def learn(counts: Iterable[Sequence[int]], cold_s: float = COLD_S) -> Lateness:
    """The lateness of slots together, each given as how many events it had by age class."""
    total = [0] * len(EDGES_S)
    for one in counts:
        for at, n in enumerate(one):
            total[at] += n
    n = sum(total)
    if n < ENOUGH:
        return Lateness((), cold_s)
    come, so_far = [], 0
    for each in total:
        so_far += each
        come.append(so_far / n)
    return Lateness(tuple(come))


class Trail:
    """When a line item was served how often, as far back as tokens are good: exactly of late, roughly before."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []  # how many had been served by then, oldest first

    def note(self, now: float, served: int, recent: int) -> None:
        """By *now* it has been served so often. At first sight *recent* of them may have been served just now."""
        marks = self._marks
        if not marks or served < marks[-1][1]:
            self._marks = [(now, max(0, served - recent)), (now, served)]
        elif served > marks[-1][1]:
            marks.append((now, served))
            if len(marks) > 8:
                self._marks = _thin(marks, now)

    def cohorts(self, now: float, since: float) -> list[tuple[float, int]]:
        """Age in seconds and number of what was served after *since*, the youngest first."""
        found = []
        for (before, then), (at, served) in zip(reversed(self._marks[:-1]), reversed(self._marks[1:]), strict=True):
            if at < since or now - at > EDGES_S[-1]:
                break
            # served between the two instants; taken for the later one, so for younger than it is
            found.append((now - at, served - then))
            if before < since:
                break
        return found


def _thin(marks: list[tuple[float, int]], now: float) -> list[tuple[float, int]]:
    """Leave out marks that lie closer together than a quarter of their age."""
    kept = [marks[-1]]
    for number in range(len(marks) - 2, -1, -1):
        at = marks[number][0]
        if number == 0 or len(kept) == 1 or kept[-1][0] - marks[number - 1][0] > (now - at) / _THINNER:
            kept.append(marks[number])
            if now - at > EDGES_S[-1]:
                break
    return kept[::-1]


def await_late(
    cohorts: Iterable[tuple[float, int]], lateness: Lateness, counted: int, served: int, most: float = 1.0
) -> tuple[float, float]:
    """How many events of what is *served* may still come, and how many snippets' events should have come by now.

    *counted* are the events that came. Those not counted are taken for the youngest, which are likeliest to come; the
    older a snippet without its event is, the likelier it never will: by Bayes' rule, from how late events come and how
    many come at all, which is never thought to be more than *most*.
    """
    cohorts = list(cohorts)
    due = served - sum(n * (1.0 - lateness.surely_by(age)) for age, n in cohorts)
    rate = min(most, _SURELY, (counted + 10) / (max(0.0, due) + 10)) if lateness.come else most
    left, coming = served - counted, 0.0
    for age, n in cohorts:
        if left <= 0:
            break
        some = min(n, left)
        left -= some
        if (come := lateness.by(age)) < 1.0:
            coming += some * rate * (1.0 - come) / (1.0 - rate * come)
    return coming, max(0.0, due)
