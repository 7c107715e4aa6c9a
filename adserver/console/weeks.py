"""Bookings of slots laid out over days: a bar each from start to end, those that meet on lines of their own, and what
of each day nobody has bought.

Everything here is a function of what it is given: the document, the days to look at, and what is known of goals.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from math import inf

from msgspec import Struct

from adserver import hours
from adserver.catalog import PRIORITIES, last_instant
from adserver.days import Days
from adserver.documents import Document
from adserver.hours import Spans
from adserver.model import LineItem, Measure, Slot
from adserver.pacing import Figures, Progress
from adserver.traffic import Outlook

MOST_LINES = 12
"""Lines of bars that one slot gets; what has no room on them is counted and listed on the slot's own page."""
_WEEK = 7
_FEW_CLICKS = 10
"""So many clicks must have come before what a goal of clicks will take is guessed from them."""
_FULL = 0.5
"""Per cent: less than this is nothing that can be sold."""

Takes = Callable[[LineItem, int, float, float], float | None]
"""Which part of a slot's traffic between two instants a line item's goal will take, 0 to 1; None: not known."""


class Window(Struct, frozen=True):
    """Whole weeks of the newsroom's days. *edges* are the Unix seconds at which they begin, and the end of the last.

    *today* is which of the days *now* is in; None where none is.
    """

    days: tuple[date, ...]
    edges: tuple[float, ...]
    now: float
    today: int | None

    def reaches(self, line_item: LineItem) -> bool:
        """Whether its flight meets these days at all."""
        begins, ends = flight(line_item)
        return begins < self.edges[-1] and ends > self.edges[0]

    def columns(self, line_item: LineItem) -> tuple[int, int]:
        """The days its flight meets: the first, and the one after the last."""
        begins, ends = flight(line_item)
        first = 0 if begins <= self.edges[0] else bisect_right(self.edges, begins) - 1
        return first, len(self.days) if ends >= self.edges[-1] else max(first + 1, bisect_left(self.edges, ends))


class Bar(Struct, frozen=True):
    """A booking's part of a line: so many days. *earlier* and *later*: its flight goes on outside the days shown.

    *mark* is `draft` for what somebody's draft adds or changes, `removed` for what it takes away.
    """

    line_item: LineItem
    advertiser: str
    span: int
    earlier: bool
    later: bool
    mark: str
    found: bool


class Cell(Struct, frozen=True):
    """A piece of a line: a bar, or so many days without one."""

    span: int
    bar: Bar | None = None


class Free(Struct, frozen=True):
    """What is unsold from the day *at* on, for *span* days alike. None is a day gone by.

    *percent* is the most that can be; *sure* is False where some goal's part in it is not known. *sold* is whether
    anything with a share or a goal is booked at all.
    """

    at: int
    span: int
    percent: int | None
    sure: bool = True
    sold: bool = False


class Rows(Struct, frozen=True):
    """A slot in the calendar. *more* are bookings that found no line."""

    slot: Slot
    lines: tuple[tuple[Cell, ...], ...]
    free: tuple[Free, ...]
    more: int


def look_at(first: date, weeks: int, zone: str, now: float) -> Window:
    """The *weeks* from the Monday on or before *first*."""
    calendar = Days(zone)
    begins = calendar.number(first) - first.weekday()
    numbers = range(begins, begins + weeks * _WEEK)
    today, _ = calendar.locate(now)
    edges = tuple(calendar.start(number) for number in (*numbers, begins + weeks * _WEEK))
    return Window(tuple(map(calendar.date, numbers)), edges, now, today - begins if today in numbers else None)


def flight(line_item: LineItem) -> tuple[float, float]:
    """When it begins and ends, in Unix seconds; infinity where it is open."""
    ends = last_instant(line_item)
    return -inf if line_item.starts is None else line_item.starts, inf if ends is None else ends


def find_slots(document: Document, window: Window, text: str) -> list[Slot]:
    """The slots of that number or name, and those in which an advertiser or a booking of that name shows then."""
    text = text.lower()
    if not text:
        return list(document.slots)
    names = _names(document)
    theirs = {
        slot
        for one in document.line_items
        if text in f"{names.get(one.campaign, '')} {one.name}".lower() and window.reaches(one)
        for slot in one.slots
    }
    return [one for one in document.slots if one.id in theirs or text in f"{one.id} {one.name}".lower()]


def lay_out(
    slots: Sequence[Slot],
    document: Document,
    window: Window,
    takes: Takes,
    marks: Mapping[str, str],
    text: str = "",
    gone: Sequence[LineItem] = (),
) -> list[Rows]:
    """The rows of *slots*. *marks* says which line items a draft changes, *gone* are those it takes away."""
    names = _names(document)
    booked: dict[int, list[LineItem]] = {slot.id: [] for slot in slots}
    for one in (*document.line_items, *gone):
        if window.reaches(one):
            for id_ in one.slots:
                if id_ in booked:
                    booked[id_].append(one)
    week = hours.Week(document.site.time_zone)
    taken_away = {one.id for one in gone}
    rows = []
    for slot in slots:
        found = sorted(booked[slot.id], key=_order)
        lines, more = _stack(found, window, names, {**marks, **dict.fromkeys(taken_away, "removed")}, text.lower())
        selling = [one for one in found if one.id not in taken_away and (one.share is not None or one.goal)]
        rows.append(Rows(slot, lines, tuple(_frees(slot.id, selling, window, week, takes)), more))
    return rows


def _names(document: Document) -> dict[str, str]:
    """The advertiser's name of each campaign."""
    advertisers = {one.id: one.name for one in document.advertisers}
    return {one.id: advertisers.get(one.advertiser, "") for one in document.campaigns}


def _order(line_item: LineItem) -> tuple[int, float, float, str]:
    begins, ends = flight(line_item)
    return PRIORITIES.index(line_item.priority), begins, -ends, line_item.id


# Bars


def _stack(
    line_items: Iterable[LineItem], window: Window, names: Mapping[str, str], marks: Mapping[str, str], text: str
) -> tuple[tuple[tuple[Cell, ...], ...], int]:
    """Each bar on the first line that has room for it, and how many found none."""
    lines: list[list[tuple[int, Bar]]] = []
    more = 0
    for one in line_items:
        first, last = window.columns(one)
        line = next((line for line in lines if all(last <= at or first >= at + bar.span for at, bar in line)), None)
        if line is None and len(lines) == MOST_LINES:
            more += 1
            continue
        if line is None:
            lines.append(line := [])
        begins, ends = flight(one)
        name = names.get(one.campaign, "")
        found = bool(text) and text in f"{name} {one.name}".lower()
        earlier, later = begins < window.edges[0], ends > window.edges[-1]
        line.append((first, Bar(one, name, last - first, earlier, later, marks.get(one.id, ""), found)))
    return tuple(_cells(sorted(line, key=lambda pair: pair[0]), len(window.days)) for line in lines), more


def _cells(line: Iterable[tuple[int, Bar]], days: int) -> tuple[Cell, ...]:
    cells, at = [], 0
    for first, bar in line:
        cells += [*_gap(at, first), Cell(bar.span, bar)]
        at = first + bar.span
    return (*cells, *_gap(at, days))


def _gap(first: int, last: int) -> list[Cell]:
    """Days without a bar, week by week, so that weeks stay to be seen."""
    cuts = [first, *(at for at in range(first + 1, last) if at % _WEEK == 0), last]
    return [Cell(end - begin) for begin, end in pairwise(cuts) if end > begin]


# What is free


def _frees(slot: int, selling: Sequence[LineItem], window: Window, week: hours.Week, takes: Takes) -> Iterable[Free]:
    spans = {one.id: hours.spans_of(one.hours) for one in selling if one.hours}
    flights = [(*flight(one), one) for one in selling]
    for day in range(len(window.days)):
        begins, ends = window.edges[day : day + 2]
        if ends <= window.now:
            yield Free(day, 1, None)
            continue
        on = [one for first, last, one in flights if first < ends and last > begins]
        left, sure = 100.0 - most_shared(on, spans, begins, ends, week), True
        for one in on:
            if one.share is None:
                part = takes(one, slot, begins, ends)
                left, sure = left - 100 * (part or 0.0), sure and part is not None
        percent = max(0, round(left)) if left >= _FULL else 0
        yield Free(day, 1, percent, sure or percent == 0, bool(on))


def most_shared(
    line_items: Sequence[LineItem], spans: Mapping[str, Spans], begins: float, ends: float, week: hours.Week
) -> float:
    """The most that sponsorships hold together at any time between two instants, in per cent."""
    shared = [one for one in line_items if one.share is not None]
    if len(shared) <= 1:
        return sum(one.share or 0.0 for one in shared)
    instants = {begins, *(one.starts for one in shared if one.starts is not None and begins < one.starts < ends)}
    for one in shared:
        midnight = week.minute(begins)
        for edge, _ in spans.get(one.id, ()):
            if midnight < edge < midnight + hours.DAY:
                instants.add(begins + (edge - midnight) * 60.0)
    return max(_shared_at(shared, spans, at, week) for at in instants)


def _shared_at(shared: Iterable[LineItem], spans: Mapping[str, Spans], at: float, week: hours.Week) -> float:
    return sum(
        one.share or 0.0
        for one in shared
        if flight(one)[0] <= at < flight(one)[1]
        and (one.id not in spans or hours.holds(spans[one.id], week.minute(at)))
    )


def alike(frees: Sequence[Free]) -> list[Free]:
    """The same with days of one week that are alike taken together."""
    found: list[Free] = []
    for one in frees:
        last = found[-1] if found else None
        same = last and (last.percent, last.sure, last.sold) == (one.percent, one.sure, one.sold)
        if last and same and one.at % _WEEK:
            found[-1] = Free(last.at, last.span + 1, one.percent, one.sure, one.sold)
        else:
            found.append(one)
    return found


def takes_by(outlook: Outlook | None, whole: Mapping[str, Figures], now: float) -> Takes:
    """What goals will take, by the traffic that is expected and what was delivered so far."""
    parts: dict[str, float | None] = {}
    spans_of: dict[str, Spans] = {}

    def takes(line_item: LineItem, slot: int, begins: float, ends: float) -> float | None:
        goal = line_item.goal
        if outlook is None or goal is None:
            return None
        if line_item.id not in spans_of:
            spans_of[line_item.id] = hours.spans_of(line_item.hours)
        spans = spans_of[line_item.id]
        first, last = flight(line_item)
        if goal.daily:
            part = _part(outlook, line_item, spans, goal.n, max(begins, first), min(ends, last))
        else:
            if line_item.id not in parts:
                parts[line_item.id] = _left_part(outlook, line_item, spans, whole.get(line_item.id, Figures()), now)
            part = parts[line_item.id]
        if part is None or not spans:
            return part
        open_, all_ = outlook.expect((slot,), spans, begins, ends), outlook.expect((slot,), (), begins, ends)
        return part * open_ / all_ if open_ is not None and all_ else None

    return takes


def _left_part(outlook: Outlook, line_item: LineItem, spans: Spans, done: Figures, now: float) -> float | None:
    goal = line_item.goal
    assert goal
    counted = done.of(goal.of)
    if goal.of is Measure.CLICKS and counted < _FEW_CLICKS:
        return None
    if counted >= goal.n:
        return 0.0
    wanted = (goal.n - counted) / Progress(counted, done.served).rate()
    begins, ends = flight(line_item)
    return _part(outlook, line_item, spans, wanted, max(now, begins), ends)


def _part(
    outlook: Outlook, line_item: LineItem, spans: Spans, wanted: float, begins: float, ends: float
) -> float | None:
    if ends == inf:
        return None
    expected = outlook.expect(tuple(map(int, line_item.slots)), spans, begins, ends)
    return min(1.0, wanted / expected) if expected else None
