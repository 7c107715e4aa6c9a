"""Hours of the week, by the wall clock of a newsroom that changes it twice a year."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from adserver.catalog import Catalog
from adserver.decide import Filled, Page, decide
from adserver.documents import Document
from adserver.hours import DAY, WEEK, Spans, Week, edges, holds, merge, parse_window, spans_of
from adserver.model import Site
from tests.make import SLOT, document, draws, line_item

MON, TUE, SAT, SUN = 0, DAY, 5 * DAY, 6 * DAY


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("mon 06:00-22:00", ((MON + 360, MON + 1320),)),
        ("mon-tue 06:00-07:30", ((MON + 360, MON + 450), (TUE + 360, TUE + 450))),
        ("sun 02:00-03:00", ((SUN + 120, SUN + 180),)),
        ("mon-sun 00:00-24:00", ((0, WEEK),)),
        ("sat-mon 23:00-24:00", ((MON + 1380, TUE), (SAT + 1380, SUN), (SUN + 1380, WEEK))),
        ("mon 22:00-02:00", ((MON + 1320, TUE + 120),)),
        ("sun 22:00-02:00", ((0, 120), (SUN + 1320, WEEK))),
        ("sun 22:00-00:00", ((SUN + 1320, WEEK),)),
    ],
)
def test_a_window_is_the_minutes_it_names(text: str, spans: Spans) -> None:
    """
    Days, spans of days over the weekend, and windows that end in the next day or the next week.
    """
    assert parse_window(text) == spans


@pytest.mark.parametrize(
    "text",
    [
        "", "mon", "06:00-22:00", "mon 6:00-22:00", "mon 06:00", "montag 06:00-22:00", "mon-fry 06:00-22:00",
        "mon 24:00-01:00", "mon 06:60-07:00", "mon 06:00-24:01", "mon 06:00-06:00", "mon,tue 06:00-07:00",
        "mon 06:00-22:00 ", "mon 25:00-26:00",
    ],
)  # fmt: skip
def test_what_is_no_window_is_refused(text: str) -> None:
    """
    Anything else gets a sentence with an example of how it is written, or what is wrong with the time.
    """
    with pytest.raises(ValueError, match=r"expected|no time at all"):
        parse_window(text)


spans_lists = st.lists(
    st.tuples(st.integers(0, WEEK - 1), st.integers(1, DAY)).map(lambda one: (one[0], min(WEEK, one[0] + one[1])))
)


@given(spans_lists, st.integers(0, WEEK - 1))
def test_merged_spans_hold_the_same_minutes(pieces: list[tuple[int, int]], minute: int) -> None:
    """
    Merging loses no minute and adds none; what is left is in order and does not touch.
    """
    spans = merge(pieces)
    assert holds(spans, minute) == any(begin <= minute < end for begin, end in pieces)
    assert all(one[1] < other[0] for one, other in pairwise(spans))


def shows(zone: str, hours: str, now: float) -> bool:
    """Whether a booking with these hours answers at *now*, asked of the decision itself."""
    made = _made(zone, hours)
    return isinstance(decide(made, now, Page((SLOT,)), draws())[0], Filled)


_catalogs: dict[tuple[str, str], Catalog] = {}


def _made(zone: str, hours: str) -> Catalog:
    if (zone, hours) not in _catalogs:
        booked: Document = document(line_item(hours=(hours,)))
        _catalogs[zone, hours] = Catalog(structs.replace(booked, site=Site(time_zone=zone)), 1)
    return _catalogs[zone, hours]


WINDOWS = ["mon-fri 06:00-22:00", "sun 02:00-03:00", "sat 23:45-00:10", "wed 12:01-12:02"]
# Where clocks change, in both directions, on which Sunday and at what instant (UTC).
CHANGES = [
    ("Europe/Amsterdam", "2026-03-29T01:00", 0),  # 02:00 becomes 03:00
    ("Europe/Amsterdam", "2026-10-25T01:00", 120),  # 03:00 becomes 02:00
    ("America/New_York", "2026-03-08T07:00", 0),  # 02:00 becomes 03:00
    ("America/New_York", "2026-11-01T06:00", 60),  # 02:00 becomes 01:00: 02:00 comes once
    ("Australia/Lord_Howe", "2026-10-03T15:30", 30),  # 02:00 becomes 02:30
    ("Australia/Lord_Howe", "2026-04-04T15:00", 60),  # 02:00 becomes 01:30: 02:00 comes once
]


@pytest.mark.parametrize(("zone", "change", "minutes"), CHANGES)
def test_an_hour_that_is_skipped_or_comes_twice(zone: str, change: str, minutes: int) -> None:
    """
    A booking of Sundays 02:00-03:00 shows in each minute whose wall clock says so, on the day of the change as well.
    """
    middle = datetime.fromisoformat(change).replace(tzinfo=UTC)
    shown = [
        at
        for at in (middle + timedelta(minutes=n) for n in range(-360, 360))
        if shows(zone, "sun 02:00-03:00", at.timestamp())
    ]
    assert len(shown) == minutes
    assert all(at.astimezone(ZoneInfo(zone)).strftime("%a %H") == "Sun 02" for at in shown)


@pytest.mark.parametrize(("zone", "change", "_"), CHANGES)
def test_a_booking_across_the_change(zone: str, change: str, _: int) -> None:
    """
    Sat 20:00 to Sun 08:00 is as long as the night is, and begins and ends when the wall clock says so.
    """
    middle = datetime.fromisoformat(change).replace(tzinfo=UTC)
    tz = ZoneInfo(zone)
    local = middle.astimezone(tz)
    for n in range(-14 * 60, 14 * 60, 5):
        at = middle + timedelta(minutes=n)
        wall = at.astimezone(tz)
        expected = (wall.weekday() == 5 and wall.hour >= 20) or (wall.weekday() == 6 and wall.hour < 8)
        assert shows(zone, "sat 20:00-08:00", at.timestamp()) == expected, (wall, local)


@settings(max_examples=200)
@given(
    st.sampled_from(["Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    st.integers(1_767_225_600, 1_798_761_600),
    st.lists(st.sampled_from(WINDOWS), unique=True),
)
def test_who_is_live_holds_until_it_says(zone: str, now: int, windows: list[str]) -> None:
    """
    Between an instant and the next possible change nothing changes, so that caches and answers may rely on it.
    """
    spans = spans_of(windows)
    week = Week(zone)
    until = week.until(now, edges([spans]))
    assert now < until <= now + 900
    open_ = holds(spans, week.minute(now))
    assert all(holds(spans, week.minute(at)) == open_ for at in range(now, int(until), 7))
