"""Bookings laid out over days, what is free of each, and a slot's form."""

from datetime import date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from msgspec import structs

from adserver.console.calendar import _say
from adserver.console.slots import breaks, parse
from adserver.console.weeks import (
    MOST_LINES,
    Free,
    Rows,
    Takes,
    Window,
    alike,
    find_slots,
    lay_out,
    look_at,
    takes_by,
)
from adserver.documents import Document
from adserver.hours import Week
from adserver.model import Counts, Goal, LineItem, Measure, Priority, Slot, SlotId, WhenEmpty
from adserver.pacing import Figures
from adserver.traffic import Outlook, flat
from tests import make

ZONE = "Europe/Amsterdam"
HERE = ZoneInfo(ZONE)
MONDAY = date(2026, 11, 23)
DAY = 86_400.0


def at(day: int, hour: int = 0, month: int = 11) -> float:
    return datetime(2026, month, day, hour, tzinfo=HERE).timestamp()


NOW = at(25, 10)


def window(weeks: int = 1, first: date = MONDAY) -> Window:
    return look_at(first, weeks, ZONE, NOW)


def booking(name: str, starts: float | None, ends: float | None, **other: object) -> LineItem:
    return make.line_item(id=name, name=name, starts=starts, ends=ends, **other)


def unknown(line_item: LineItem, slot: int, begins: float, ends: float) -> float | None:
    return None


def rows_of(*line_items: LineItem, weeks: int = 1, takes: Takes = unknown) -> Rows:
    document = make.document(*line_items)
    [row] = lay_out(document.slots, document, window(weeks), takes, {})
    return row


def bars(row: Rows) -> list[list[tuple[str, int, int]]]:
    """Each line's bookings, with the first day and the number of days of each."""
    found = []
    for line in row.lines:
        place, named = 0, []
        for cell in line:
            if cell.bar:
                named.append((cell.bar.line_item.id, place, cell.span))
            place += cell.span
        assert place == 7 * (place // 7), "a line is as long as the weeks are"
        found.append(named)
    return found


# Days


def test_weeks_begin_on_mondays_and_know_today() -> None:
    """
    Whatever day is asked for, whole weeks of the newsroom's days are shown; today is one of them, or none.
    """
    seen = look_at(date(2026, 11, 26), 4, ZONE, NOW)
    assert (seen.days[0], len(seen.days), seen.today) == (MONDAY, 28, 2)
    assert seen.edges[0] == at(23)
    assert window(first=date(2026, 12, 7)).today is None


def test_days_are_as_long_as_the_clocks_make_them() -> None:
    """
    The Sunday on which the clocks go back has 25 hours, and what starts on Monday starts on Monday.
    """
    seen = look_at(date(2026, 10, 19), 2, ZONE, NOW)
    lengths = [(ends - begins) / 3600 for begins, ends in pairwise(seen.edges)]
    assert lengths == [24] * 6 + [25] + [24] * 7
    assert seen.columns(booking("a", at(26, 0, 10), at(27, 0, 10))) == (7, 8)


# Bars


def test_a_bar_goes_from_the_day_it_starts_to_the_day_it_ends() -> None:
    """
    A flight covers each day it meets: one that ends at midnight does not meet the day that begins then.
    """
    row = rows_of(
        booking("day", at(24), at(25)),
        booking("hours", at(26, 9), at(26, 18)),
        booking("over-night", at(27, 22), at(28, 2)),
    )
    assert bars(row) == [[("day", 1, 1), ("hours", 3, 1), ("over-night", 4, 2)]]


def test_what_is_outside_is_left_out_and_what_goes_on_is_marked() -> None:
    """
    A flight that ends as the first day begins, or starts as the last one ends, is not there; one that goes on says so.
    """
    row = rows_of(
        booking("before", at(1), at(23)),
        booking("after", at(30), None),
        booking("through", at(1), at(30, 1)),
        booking("open", None, None),
    )
    found = {cell.bar.line_item.id: cell.bar for line in row.lines for cell in line if cell.bar}
    assert {name: (bar.earlier, bar.later) for name, bar in found.items()} == {
        "through": (True, True),
        "open": (True, True),
    }
    exact = rows_of(booking("week", at(23), at(30)))
    [bar] = [cell.bar for line in exact.lines for cell in line if cell.bar]
    assert (bar.span, bar.earlier, bar.later) == (7, False, False)


def test_bookings_that_meet_have_lines_of_their_own() -> None:
    """
    The higher priority comes first; a later booking takes the first line with room; no two bars of a line meet.
    """
    row = rows_of(
        booking("late", at(26), at(28)),
        booking("early", at(23), at(25)),
        booking("long", at(24), at(27)),
        booking("sponsor", at(25), at(26), priority=Priority.SPONSORSHIP, share=50.0),
        booking("house", None, None, priority=Priority.HOUSE),
    )
    assert bars(row) == [
        [("early", 0, 2), ("sponsor", 2, 1), ("late", 3, 2)],
        [("long", 1, 3)],
        [("house", 0, 7)],
    ]


def test_no_more_lines_than_fit_are_drawn_and_the_rest_is_counted() -> None:
    """
    A slot with hundreds of bookings at once stays readable: the most important are drawn, the others counted.
    """
    row = rows_of(*(booking(f"b-{n:02}", None, None) for n in range(MOST_LINES + 5)))
    assert len(row.lines) == MOST_LINES
    assert row.more == 5


def test_drafted_and_removed_bookings_are_marked() -> None:
    """
    What a draft changes is marked so; what it takes away is still shown, as taken away, and sells nothing.
    """
    gone = booking("gone", None, None, priority=Priority.SPONSORSHIP, share=70.0)
    document = make.document(booking("new", None, None))
    [row] = lay_out(document.slots, document, window(), unknown, {"new": "draft"}, "", [gone])
    marks = {cell.bar.line_item.id: cell.bar.mark for line in row.lines for cell in line if cell.bar}
    assert marks == {"new": "draft", "gone": "removed"}
    assert row.free[-1] == Free(6, 1, 100)


def test_gaps_are_told_week_by_week() -> None:
    """
    Days without a booking are one cell of a line, cut at Mondays only, so that weeks can be seen and not too much read.
    """
    row = rows_of(booking("a", at(28), at(29)), weeks=2)
    assert [(cell.span, bool(cell.bar)) for cell in row.lines[0]] == [(5, False), (1, True), (1, False), (7, False)]


# What is free


def percents(row: Rows) -> list[int | None]:
    return [one.percent for one in row.free]


def sponsor(name: str, share: float, starts: float | None, ends: float | None, **other: object) -> LineItem:
    return booking(name, starts, ends, priority=Priority.SPONSORSHIP, share=share, **other)


def test_free_is_what_sponsorships_leave() -> None:
    """
    Each day says what is unsold of a hundred per cent; days gone by say nothing, and weighted bookings sell nothing.
    """
    row = rows_of(
        sponsor("a", 60, at(26), at(28)),
        sponsor("b", 40, at(27), at(28)),
        booking("rest", None, None),
    )
    assert percents(row) == [None, None, 100, 40, 0, 100, 100]
    assert [_say(one) for one in row.free[2:]] == ["free", "40\u202f%", "full", "free", "free"]


def test_a_day_is_sold_by_the_most_that_is_sold_at_once() -> None:
    """
    Two that follow each other on one day, or share it by hours of the week, do not add up; two that meet do.
    """
    row = rows_of(
        sponsor("until-noon", 60, at(26), at(26, 12)),
        sponsor("from-noon", 30, at(26, 12), at(27)),
        sponsor("mornings", 50, at(27), at(28), hours=("mon-sun 06:00-12:00",)),
        sponsor("evenings", 50, at(27), at(28), hours=("mon-sun 18:00-23:00",)),
        sponsor("noon", 20, at(27), at(28), hours=("mon-sun 11:00-13:00",)),
    )
    assert percents(row)[3:5] == [40, 30]


def test_goals_take_the_part_of_the_traffic_that_they_need() -> None:
    """
    A goal takes what is left of it, of the requests that are expected until its end in all its slots; a daily one
    takes its number of each day's.
    """
    slot = make.SLOT
    outlook = Outlook({slot: flat(10_000 / DAY)}, Week(ZONE))
    takes = takes_by(outlook, {"flight": Figures(impressions=20_000, served=20_000)}, NOW)
    left_days = (at(30) - NOW) / DAY
    flight = booking("flight", at(23), at(30), goal=Goal(20_000 + int(2_000 * left_days), Measure.IMPRESSIONS))
    assert percents(rows_of(flight, takes=takes))[3:] == [80, 80, 80, 80]

    daily = booking("daily", at(27), None, goal=Goal(5_000, Measure.IMPRESSIONS, daily=True))
    assert percents(rows_of(flight, daily, takes=takes))[3:] == [80, 30, 30, 30]
    assert percents(rows_of(sponsor("a", 60, None, None), flight, takes=takes))[3:] == [20, 20, 20, 20]


def test_a_goal_for_some_hours_takes_of_these_hours() -> None:
    """
    What only runs in the morning takes its part of the morning's traffic, and nothing of days it does not run on.
    """
    slot = make.SLOT
    outlook = Outlook({slot: flat(10_000 / DAY)}, Week(ZONE))
    mornings = booking("m", at(26), at(30), goal=Goal(5_000, Measure.IMPRESSIONS), hours=("thu-fri 00:00-12:00",))
    assert percents(rows_of(mornings, takes=takes_by(outlook, {}, NOW)))[3:] == [75, 75, 100, 100]


def test_what_is_not_known_is_said_to_be_at_most() -> None:
    """
    Where no traffic is known, or a goal has no end, what is left is told as the most that can be.
    """
    goal = Goal(1_000, Measure.IMPRESSIONS)
    row = rows_of(booking("goal", at(23), at(30), goal=goal), sponsor("a", 25, None, None))
    assert {_say(one) for one in row.free[2:]} == {"≤75\u202f%"}
    alone = rows_of(booking("goal", at(23), at(30), goal=goal))
    assert {_say(one) for one in alone.free[2:]} == {"part"}
    full = rows_of(booking("goal", at(23), at(30), goal=goal), sponsor("a", 100, None, None))
    assert {_say(one) for one in full.free[2:]} == {"full"}
    slot = make.SLOT
    outlook = Outlook({slot: flat(1.0)}, Week(ZONE))
    clicks = booking("clicks", at(23), at(30), goal=Goal(100, Measure.CLICKS))
    assert {one.sure for one in rows_of(clicks, takes=takes_by(outlook, {}, NOW)).free[2:]} == {False}
    some = {"clicks": Figures(served=10_000, clicks=50)}
    assert {one.sure for one in rows_of(clicks, takes=takes_by(outlook, some, NOW)).free[2:]} == {True}


def test_days_alike_are_told_together_within_a_week() -> None:
    """
    Over a quarter, days of one week with the same left are one cell; each week begins one of its own.
    """
    row = rows_of(sponsor("a", 60, at(27), None), weeks=2)
    assert [(one.at, one.span, one.percent) for one in alike(row.free)] == [
        (0, 2, None), (2, 2, 100), (4, 3, 40), (7, 7, 40),
    ]  # fmt: skip


# Looking for a slot


def test_slots_are_found_by_number_name_and_who_shows_in_them_then() -> None:
    """
    A word finds the slots that are called so and those in which such an advertiser or booking shows in these weeks.
    """
    document = make.document(
        booking("bikes", at(24), at(25), slots=(SlotId(2),)),
        booking("over", at(1), at(2), slots=(SlotId(3),)),
        slots=[make.slot(n, name=name) for n, name in enumerate(("Top", "Rail", "Foot"), 1)],
    )
    for text, ids in [
        ("", [1, 2, 3]),
        ("top", [1]),
        ("3", [3]),
        ("ACM", [2]),
        ("bikes", [2]),
        ("over", []),
        ("x", []),
    ]:
        assert [one.id for one in find_slots(document, window(), text)] == ids, text


# A slot's form

FORM = {
    "id": "889995", "name": "Under the photo", "sizes": "300 × 250, 320x100", "label": "Advertisement",
    "when_empty": "collapse", "passback": "", "lazy": "1", "refresh_s": "",
}  # fmt: skip


def test_a_slot_is_read_from_its_form() -> None:
    """
    Sizes may be written as people write them; what the form does not ask about stays as it was.
    """
    made, wrong = parse(FORM, None, Document())
    assert wrong == {}
    assert made == Slot(id=SlotId(889995), name="Under the photo", sizes=((300, 250), (320, 100)))

    before = make.slot(counts=Counts.VIEWABLE)
    changed = {**FORM, "when_empty": "passback", "passback": "<b>other</b>", "lazy": "", "refresh_s": "60"}
    made, wrong = parse(changed, before, make.document(slots=[before]))
    assert wrong == {}
    assert made is not None
    assert (made.id, made.counts, made.when_empty) == (make.SLOT, Counts.VIEWABLE, WhenEmpty.PASSBACK)
    assert (made.passback, made.lazy, made.refresh_s) == ("<b>other</b>", False, 60)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("id", "889990", "taken by another slot"),
        ("id", "new", "no whole number"),
        ("id", "", "no whole number"),
        ("id", "0", "whole number above 0"),
        ("name", "", "Say what it is called"),
        ("sizes", "", "at least one size"),
        ("sizes", "wide", "width x height"),
        ("refresh_s", "5", "from 30 to 86400"),
        ("refresh_s", "soon", "no whole number"),
        ("when_empty", "passback", "other ad server's markup"),
        ("when_empty", "vanish", "take one of the list"),
    ],
)
def test_what_is_wrong_with_a_slot_is_told_at_its_field(field: str, value: str, told: str) -> None:
    """
    Each problem belongs to the input it can be mended in, in words.
    """
    made, wrong = parse({**FORM, field: value}, None, make.document(slots=[make.slot()]))
    assert made is None
    [(place, sentence)] = wrong.items()
    assert place == ("passback" if value == "passback" else field)
    assert told in sentence


def test_a_size_that_bookings_need_is_not_taken_away() -> None:
    """
    A slot whose bookings would have nothing left that fits it is refused, and one of them is named.
    """
    slot = make.slot(sizes=((300, 250), (320, 100)))
    document = make.document(booking("spring", None, None), slots=[slot])
    assert breaks(structs.replace(slot, sizes=((300, 250),)), document) == {}
    told = breaks(structs.replace(slot, sizes=((320, 100),)), document)
    assert "“spring”" in told["sizes"]
    assert "fits slot" in told["sizes"]
