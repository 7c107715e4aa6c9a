"""Hours of the week in the newsroom's own time zone: when a booking may show, through daylight-saving changes.

A window is written `mon-fri 06:00-22:00`: a day or a span of days, and wall-clock times; `24:00` is the end of a day,
and a window that ends before it begins goes on into the next day. What the wall clock says decides: an hour that a
change of the clocks skips shows nothing, and one that comes twice shows twice.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from math import floor
from typing import TypeVar
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY
"""In minutes."""
QUARTER_S = 900
"""Clocks change on quarters of an hour only: within one, what the wall clock says grows by what passes."""

_WINDOW = re.compile(
    r"(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? +(?P<from>[0-9]{2}:[0-9]{2})-(?P<until>[0-9]{2}:[0-9]{2})", re.ASCII
)

_Point = TypeVar("_Point", int, float)

Spans = tuple[tuple[int, int], ...]
"""Minutes of the week, from Monday 00:00: begin and end of each, in order, none touching the next."""


def parse_window(text: str) -> Spans:
    """The minutes of the week that *text* names. Raises ValueError with the rest of a sentence about it."""
    match = _WINDOW.fullmatch(text)
    if not match or match["first"] not in DAYS or (match["last"] or "mon") not in DAYS:
        raise ValueError(f"is {text!r:.60}; expected days and times such as 'mon-fri 06:00-22:00' or 'sun 02:00-03:00'")
    first, last = DAYS.index(match["first"]), DAYS.index(match["last"] or match["first"])
    begin, end = _minute(text, match["from"], 0), _minute(text, match["until"], DAY)
    if begin == end:
        raise ValueError(f"is {text!r}, which is no time at all; a whole day is '00:00-24:00'")
    length = end - begin if end > begin else end + DAY - begin
    return merge(
        piece
        for day in range(first, last + 1 if last >= first else last + 8)
        for piece in _wrap(day % 7 * DAY + begin, length)
    )


def _minute(window: str, text: str, longest: int) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    at = hour * 60 + minute
    if minute > 59 or at > (longest or DAY - 1):
        raise ValueError(
            f"is {window!r}, which says {text!r}; expected a time from 00:00 to {'24:00' if longest else '23:59'}"
        )
    return at


def _wrap(begin: int, length: int) -> Iterable[tuple[int, int]]:
    end = begin + length
    yield begin, min(end, WEEK)
    if end > WEEK:
        yield 0, end - WEEK


def merge(spans: Iterable[tuple[_Point, _Point]]) -> tuple[tuple[_Point, _Point], ...]:
    """The same minutes (or other points of time), each once."""
    found: list[tuple[_Point, _Point]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return tuple(found)


def spans_of(windows: Iterable[str]) -> Spans:
    return merge(span for window in windows for span in parse_window(window))


def holds(spans: Spans, minute: int) -> bool:
    """Whether *minute* of the week is in one of *spans*."""
    at = bisect_right(spans, (minute, WEEK)) - 1
    return at >= 0 and minute < spans[at][1]


def edges(spans: Iterable[Spans]) -> list[int]:
    """The minutes at which something begins or ends, in order, and the end of the week."""
    return sorted({edge for each in spans for span in each for edge in span} | {WEEK})


class Week:
    """The wall clock of one time zone, as minutes of the week."""

    def __init__(self, zone: str) -> None:
        self._tz = ZoneInfo(zone)

    def minute(self, now: float) -> int:
        """The minute of the week that the wall clock shows at *now* (Unix seconds)."""
        wall = datetime.fromtimestamp(floor(now), self._tz)
        return wall.weekday() * DAY + wall.hour * 60 + wall.minute

    def say(self, at: float, now: float) -> str:
        """*at* for people: `Friday 18:00` within a week of *now*, and the date from then on."""
        local = datetime.fromtimestamp(at, self._tz)
        if at - now < 7 * 86400:
            return f"{local:%A %H:%M}"
        return f"{local.day} {local:%B %Y}"

    def until(self, now: float, edges: list[int]) -> float:
        """The next Unix second at which the wall clock may reach one of *edges*, in a quarter of an hour at most."""
        minute = self.minute(now)
        edge = edges[bisect_right(edges, minute)]
        minute_begins = floor(now) // 60 * 60  # zones differ by whole minutes since 1972
        return float(min(minute_begins + (edge - minute) * 60, floor(now) // QUARTER_S * QUARTER_S + QUARTER_S))
