"""What reports say of counts: sums by ad and day, rates and how sure they are, goals against their plan, charts.

Rules: all of it is a function of its arguments. Figures are net, as in `report`; what was taken off and what is suspect
stands beside them. A rate is never shown without its interval, and no creative is called better than another before
their intervals lie apart.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from adserver import pacing
from adserver.events import SUSPECT, Type
from adserver.hours import spans_of
from adserver.model import LineItem, OnShortfall, Pacing
from adserver.pauses import Gaps, length_outside
from adserver.report import EVENT_FIGURES, FIGURE_OF, FIGURES, name_of_ad, parse_count, viewable_of
from adserver.traffic import Outlook

KINDS = {"slot": "Slots", "line_item": "Bookings", "advertiser": "Advertisers", "creative": "Creatives"}
"""What can be reported on, and what people call many of it."""
FEW = 100
"""Below so many impressions a rate says nothing."""
_Z = 1.959964
_PLAIN: dict[str, Type] = {str(int(one)): one for one in Type if one is not Type.UNFILLED}
_NUMBER = {figure: int(type_) for type_, figure in FIGURE_OF.items()}


# Sums


class Sum(Struct, gc=False, array_like=True):
    """The figures of one thing. *apart* is what is suspect or was taken off, by `impressions:bot`; mostly None."""

    requests: int = 0
    served: int = 0
    impressions: int = 0
    viewables: int = 0
    clicks: int = 0
    apart: dict[str, int] | None = None
    loads: int = 0
    measured: int = 0

    def add(self, other: "Sum") -> None:
        self.requests += other.requests
        self.served += other.served
        self.impressions += other.impressions
        self.viewables += other.viewables
        self.clicks += other.clicks
        self.loads += other.loads
        self.measured += other.measured
        if other.apart:
            self.apart = self.apart or {}
            for name, n in other.apart.items():
                self.apart[name] = self.apart.get(name, 0) + n

    def count(self, type_: Type, reason: str | None, n: int) -> None:
        """Take in *n* of a count, as `report` does."""
        if type_ is Type.IMPRESSION and reason is None:
            self.impressions += n
        elif type_ is Type.SERVED:
            self.requests += n
            self.served += n
        elif type_ is Type.VIEWABLE and reason is None:
            self.viewables += n
        elif type_ is Type.UNFILLED:
            self.requests += n
        elif type_ is Type.LOAD:
            self.loads += n
        else:
            figure = FIGURE_OF[type_]
            if reason:
                self.apart = self.apart or {}
                self.apart[f"{figure}:{reason}"] = self.apart.get(f"{figure}:{reason}", 0) + n
            if reason in (None, SUSPECT):
                setattr(self, figure, getattr(self, figure) + n)

    def suspect(self, figure: str) -> int:
        return (self.apart or {}).get(f"{figure}:{SUSPECT}", 0)

    def invalid(self, figure: str) -> dict[str, int]:
        """What was taken off *figure*, by reason."""
        pairs = ((name.split(":"), n) for name, n in (self.apart or {}).items())
        return {reason: n for (of, reason), n in pairs if of == figure and reason != SUSPECT}

    def gross(self, figure: str) -> int:
        return int(getattr(self, figure)) + sum(self.invalid(figure).values())

    @property
    def reasons(self) -> list[str]:
        """Why anything was taken off, in order."""
        return sorted({reason for figure in EVENT_FIGURES for reason in self.invalid(figure)})

    def __bool__(self) -> bool:
        return bool(self.apart) or any(getattr(self, figure) for figure in FIGURES)


def add_all(sums: Iterable[Sum | None]) -> Sum:
    whole = Sum()
    for one in sums:
        if one is not None:
            whole.add(one)
    return whole


class Day(Struct, frozen=True):
    """One day's sums by the name of the ad, where what no ad answered is under `slot//`; and by hour and slot.

    *final* is whether nothing can change in it any more.
    """

    number: int
    by_ad: dict[str, Sum]
    hours: dict[int, dict[str, Sum]]
    final: bool

    @property
    def total(self) -> Sum:
        return add_all(one for slots in self.hours.values() for one in slots.values())

    def of_slot(self, slot: str | None) -> dict[int, Sum]:
        """Its hours, of one slot or of all."""
        if slot is None:
            return {hour: add_all(slots.values()) for hour, slots in self.hours.items()}
        return {hour: slots[slot] for hour, slots in self.hours.items() if slot in slots}


def add_up(number: int, counts: Mapping[str, int], names: Mapping[str, str], *, final: bool) -> Day:
    """A day out of its count fields. *names* are those of ads by key. Most fields are like many before them, and these
    are not parsed anew: a large day has half a million.
    """
    by_ad: dict[str, Sum] = {}
    hours: dict[int, dict[str, Sum]] = {}
    clocks: dict[str, dict[str, Sum]] = {}
    subjects: dict[str, tuple[str, Sum]] = {}
    type_: Type
    reason: str | None
    for field, n in counts.items():
        kind, _, rest = field.partition(":")
        clock, _, subject = rest.partition(":")
        known, hour = subjects.get(subject), clocks.get(clock)
        if known is not None and hour is not None and kind in _PLAIN:
            type_, reason = _PLAIN[kind], None
        elif (count := parse_count(field)) is None:
            continue
        else:
            type_, reason = count.type, count.reason
            hour = clocks[clock] = hours.setdefault(count.hour, {})
            if type_ is Type.UNFILLED:
                known = count.subject, by_ad.setdefault(f"{count.subject}//", Sum())
            else:
                name = name_of_ad(count.subject, names)
                known = subjects[count.subject] = name.partition("/")[0], by_ad.setdefault(name, Sum())
        slot, one = known
        one.count(type_, reason, n)
        in_hour = hour.get(slot)
        if in_hour is None:
            in_hour = hour[slot] = Sum()
        in_hour.count(type_, reason, n)
    return Day(number, by_ad, hours, final)


def join(*parts: Day) -> Day:
    """One day of several *parts*: of other hours each."""
    hours: dict[int, dict[str, Sum]] = {}
    for part in parts:
        for hour, slots in part.hours.items():
            into = hours.setdefault(hour, {})
            for slot, one in slots.items():
                into[slot] = add_all((into.get(slot), one))
    return Day(parts[0].number, add_days(parts), hours, parts[0].final)


def fields_of(day: Day, keys: Mapping[str, str]) -> list[str]:
    """The count fields that may hold what ads had in each hour of *day*. *keys* are the ads' by name."""
    found = []
    for name, key in keys.items():
        one = day.by_ad.get(name)
        if one is None:
            continue
        kinds = [f"{kind}:{{}}:{key}" for kind in _PLAIN]
        kinds += [f"{_NUMBER[of]}:{{}}:{key}:{reason}" for of, reason in (each.split(":") for each in one.apart or ())]
        found += [kind.format(hour) for hour in day.hours for kind in kinds]
    return found


class Ads:
    """Which ads there are, by slot, line item and creative. Grows with what it is shown."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[str, str, str]] = {}
        self._of: dict[str, dict[str, list[str]]] = {"slot": {}, "line_item": {}, "creative": {}}

    def learn(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._parts:
                continue
            slot, line_item, creative = name.split("/")
            self._parts[name] = slot, line_item, creative
            for by, value in (("slot", slot), ("line_item", line_item), ("creative", creative)):
                if value:
                    self._of[by].setdefault(value, []).append(name)

    def of(self, by: str, value: str) -> list[str]:
        """The ads of one slot, line item or creative."""
        return self._of[by].get(value, [])

    def group(self, sums: Mapping[str, Sum], by: str, owners: Mapping[str, str]) -> dict[str, Sum]:
        """*sums* of ads added up by slot, line item, creative or advertiser. *owners* are advertisers by line item."""
        place = ("slot", "line_item", "creative").index("line_item" if by == "advertiser" else by)
        found: dict[str, Sum] = {}
        for name, one in sums.items():
            value = self._parts[name][place]
            if by == "advertiser":
                value = owners.get(value, "")
            if value:
                into = found.get(value)
                if into is None:
                    into = found[value] = Sum()
                into.add(one)
        return found


def restrict(sums: Mapping[str, Sum], ads: Iterable[str]) -> dict[str, Sum]:
    return {name: sums[name] for name in ads if name in sums}


def add_days(days: Iterable[Day], onto: Mapping[str, Sum] | None = None) -> dict[str, Sum]:
    """The sums by ad of several days, and of what they come *onto*, which stays as it is."""
    found = dict(onto or {})
    mine: set[str] = set()
    for day in days:
        for name, one in day.by_ad.items():
            if name not in mine:
                mine.add(name)
                found[name] = add_all((found.get(name),))
            found[name].add(one)
    return found


# Rates


class Rate(Struct, frozen=True):
    """So many *hits* *of* so many, and between which bounds the true rate lies, 19 times in 20."""

    hits: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else 0.0

    @property
    def is_early(self) -> bool:
        return self.of < FEW

    @property
    def short(self) -> str:
        return _percent(self.value, self._digits) if self.of else "–"

    @property
    def words(self) -> str:
        """`0.42 % to 0.61 %`, each number on one line with its sign."""
        if not self.of:
            return "nothing yet"
        return f"{_percent(self.low, self._digits)} to {_percent(self.high, self._digits)}"

    @property
    def _digits(self) -> int:
        return 2 if self.high < 0.1 else 1


def rate(hits: int, of: int) -> Rate:
    """Wilson's score interval: it is right for few and for rare, too. More *hits* than chances count as all of them:
    a page whose impression was lost still sends its click.
    """
    if of <= 0:
        return Rate(0, 0, 0.0, 1.0)
    hits = min(hits, of)
    p, z2 = hits / of, _Z * _Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return Rate(hits, of, 0.0 if hits == 0 else max(0.0, middle - half), 1.0 if hits == of else min(1.0, middle + half))


def click_rate(one: Sum) -> Rate:
    return rate(one.clicks, one.impressions)


def viewability(one: Sum) -> Rate:
    return rate(one.viewables, viewable_of(one.measured, one.viewables))


def _percent(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"


class Verdict(Struct, frozen=True):
    """Which of several creatives is the *best*, once that can be said; *sentence* says so, or why not."""

    best: str | None
    sentence: str


def judge(rates: Mapping[str, Rate]) -> Verdict | None:
    """Compare click rates; None where there are no two to compare."""
    seen = {name: one for name, one in rates.items() if one.of}
    if len(seen) < 2:
        return None
    best = max(seen, key=lambda name: (seen[name].low, seen[name].value))
    others = [one for name, one in seen.items() if name != best]
    if any(one.is_early for one in seen.values()):
        least = min(one.of for one in seen.values())
        return Verdict(None, f"Too early to tell which is clicked more: one has had only {spaced(least)} impressions.")
    if seen[best].low > max(one.high for one in others):
        return Verdict(best, "is clicked more than every other, beyond chance.")
    return Verdict(None, "Too early to tell which is clicked more: their ranges still overlap.")


# Goals


class Standing(Struct, frozen=True):
    """How a goal does. *due* is where it should be by now, None where nothing says; *tone* is good, warn, bad or ""."""

    done: int
    goal: int
    due: float | None
    word: str
    tone: str
    sentence: str

    @property
    def part(self) -> float:
        return min(1.0, self.done / self.goal)


def passed(
    line_item: LineItem, outlook: Outlook | None, now: float, day: tuple[float, float], gaps: Gaps = ()
) -> float | None:
    """Which part of a goal's traffic has gone by, by the curves the newsroom paces with, else by time alone.

    None for a goal without a beginning or an end. *day* is the newsroom's present day; in *gaps* it is paused.
    """
    begins, ends = pacing.span(line_item, day)
    if begins == -math.inf or ends == math.inf:
        return None
    if now <= begins or now >= ends:
        return float(now >= ends)
    slots = tuple(map(int, line_item.slots))
    found = outlook.passed(slots, spans_of(line_item.hours), begins, ends, now, gaps) if outlook else None
    if found is not None:
        return found
    whole = length_outside(gaps, begins, ends)
    return length_outside(gaps, begins, now) / whole if whole else 1.0


def standing(line_item: LineItem, done: int, passed: float | None, now: float) -> Standing | None:
    """Where *line_item* stands with its goal; None when it has none. *done* is net, in the goal's measure and time."""
    goal = line_item.goal
    if goal is None:
        return None
    unit = pacing.WORDS[goal.of] + (" today" if goal.daily else "")
    said = f"{spaced(done)} of {spaced(goal.n)} {unit}"

    def found(due: float | None, word: str, tone: str, rest: str) -> Standing:
        return Standing(done, goal.n, due, word, tone, f"{said}; {rest}" if rest else f"{said}.")

    if done >= goal.n:
        return found(None, "reached", "good", "the goal is reached.")
    if line_item.starts is not None and now < line_item.starts:
        return found(None, "to come", "", "it has not begun.")
    if line_item.ends is not None and now >= line_item.ends:
        if line_item.on_shortfall is OnShortfall.RUN_ON:
            return found(goal.n, "runs on", "warn", "its dates are over, and it goes on until the goal is reached.")
        return found(goal.n, "missed", "bad", "its dates are over.")
    if passed is None:
        return found(None, "open", "", "it has no dates, so nothing is due yet.")
    due = pacing.due(line_item, passed)
    slack = max(1.0, 0.05 * due, 2 * math.sqrt(due))
    rest = f"{spaced(due)} are due by now."
    if done < due - slack:
        return found(due, "behind", "bad", rest)
    if done > due + slack:
        word = "as fast as it can" if line_item.pacing is Pacing.ASAP else "ahead"
        return found(due, word, "good", rest)
    return found(due, "on time", "good", rest)


# Charts


class Point(Struct, frozen=True):
    """One day or hour: a *short* name for the axis, a *long* one for the table, an ISO one for files, and its sums."""

    short: str
    long: str
    iso: str
    sum: Sum


class Bar(Struct, frozen=True):
    """A bar of impressions, the lower part of which was viewable."""

    x: float
    width: float
    top: float
    height: float
    seen_top: float
    seen_height: float


class Chart(Struct, frozen=True):
    """A drawing of *width* by *height*; *ticks* are heights and marks on the left, *marks* places and marks below."""

    width: int
    height: int
    left: float
    bottom: float
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]


_TOP, _FOOT, _RIGHT = 12.0, 24.0, 6.0
_EVERY = (1, 2, 3, 6, 7, 12, 14, 24, 30, 61, 91, 122, 183)


def draw(points: Sequence[Point], width: int, height: int) -> Chart:
    most = max((one.sum.impressions for one in points), default=0)
    heights = round_marks(most, max(2, height // 55))
    labels = [spaced(n) for n in heights]
    left = 10.0 + 6.6 * max(map(len, labels))
    bottom = height - _FOOT
    per = (bottom - _TOP) / heights[-1]
    step = (width - left - _RIGHT) / max(1, len(points))
    gap = min(4.0, 0.25 * step)
    bars = []
    for place, point in enumerate(points):
        full = point.sum.impressions * per
        seen = min(point.sum.viewables, point.sum.impressions) * per
        bar = (left + place * step + gap / 2, step - gap, bottom - full, full, bottom - seen, seen)
        bars.append(Bar(*(round(one, 2) for one in bar)))
    wanted = max(2, int((width - left) // 76))
    every = next((n for n in _EVERY if len(points) <= n * wanted), len(points))
    marks = [(round(left + (place + 0.5) * step, 2), points[place].short) for place in range(0, len(points), every)]
    ticks = [(round(bottom - n * per, 2), label) for n, label in zip(heights, labels, strict=True)]
    return Chart(width, height, left, bottom, tuple(bars), tuple(ticks), tuple(marks))


def round_marks(most: int, wanted: int) -> list[int]:
    """Round numbers from 0 to *most* or a little above, about *wanted* of them: 0, 20, 40, 60."""
    rough = max(1.0, most / wanted)
    power = 10 ** math.floor(math.log10(rough))
    step = int(next(power * n for n in (1, 2, 5, 10) if power * n >= rough))
    return list(range(0, max(1, math.ceil(most / step)) * step + 1, step))


def say_points(points: Sequence[Point], what: Callable[[Sum], int], name: str, each: str) -> str:
    """The chart in one sentence, for who does not see it."""
    numbers = [what(one.sum) for one in points]
    if not sum(numbers):
        return f"No {name} from {points[0].long} to {points[-1].long}." if points else f"No {name}."
    top = numbers.index(max(numbers))
    return (
        f"{name.capitalize()} {each}, from {points[0].long} to {points[-1].long}: {spaced(sum(numbers))} in all, "
        f"most on {points[top].long} with {spaced(numbers[top])}."
    )


def spaced(n: float) -> str:
    """`12 400`: thousands apart, by a blank that does not break the line."""
    return f"{n:,.0f}"
