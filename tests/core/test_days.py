"""The newsroom's days, also where clocks change."""

from datetime import UTC, date, datetime, timedelta
from math import floor
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.days import Days
from tests.make import instant

CHANGES = [
    ("Europe/Amsterdam", date(2026, 3, 29), 23),
    ("Europe/Amsterdam", date(2026, 10, 25), 25),
    ("America/New_York", date(2026, 3, 8), 23),
    ("America/New_York", date(2026, 11, 1), 25),
    ("America/Santiago", date(2026, 9, 6), 23),  # midnight itself is skipped
    ("America/Santiago", date(2026, 4, 4), 25),  # the day's last hour comes twice
    ("Asia/Kolkata", date(2026, 3, 29), 24),
]


@pytest.mark.parametrize(("zone", "on", "hours"), CHANGES)
def test_a_day_has_as_many_hours_as_pass(zone: str, on: date, hours: int) -> None:
    """
    A day on which clocks change has 23 or 25 hours, numbered without a gap and without two alike.
    """
    days = Days(zone)
    day = days.number(on)
    start, end = days.start(day), days.start(day + 1)
    assert end - start == hours * 3600
    found = [days.locate(start + 1800 + 3600 * hour) for hour in range(hours)]
    assert found == [(day, hour) for hour in range(hours)]
    assert days.locate(end) == (day + 1, 0)
    assert days.locate(start - 1)[0] == day - 1


@pytest.mark.parametrize(("zone", "on", "hours"), CHANGES)
def test_no_two_hours_of_a_day_read_alike(zone: str, on: date, hours: int) -> None:
    """
    The hour that comes twice is told apart by its offset.
    """
    days = Days(zone)
    assert len({days.describe(days.number(on), hour) for hour in range(hours)}) == hours


def test_an_hour_is_described_with_the_offset_in_force() -> None:
    """
    Before the clocks go back an hour reads +02:00, after it +01:00.
    """
    days = Days("Europe/Amsterdam")
    day = days.number(date(2026, 10, 25))
    assert days.describe(day, 2) == "2026-10-25T02:00+02:00"
    assert days.describe(day, 3) == "2026-10-25T02:00+01:00"


@settings(max_examples=100)
@given(
    zone=st.sampled_from(["Europe/Amsterdam", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    at=st.floats(min_value=instant("2024-01-01T00:00:00Z"), max_value=instant("2040-01-01T00:00:00Z")),
)
def test_a_day_is_the_one_on_the_wall(zone: str, at: float) -> None:
    """
    The day of an instant is its date in the newsroom's zone, and the instant lies within it.
    """
    days = Days(zone)
    day, hour = days.locate(at)
    assert days.date(day) == datetime.fromtimestamp(floor(at), ZoneInfo(zone)).date()
    assert days.start(day) <= at < days.start(day + 1)
    assert 0 <= hour <= 24
    assert hour == days.hour_of(day, at)


def test_a_question_does_not_depend_on_the_one_before() -> None:
    """
    Asked in any order, a calendar that remembers gives the answers of one that does not.
    """
    days = Days("Europe/Amsterdam")
    noon = datetime(2026, 10, 25, 12, tzinfo=UTC)
    asked = [(noon + timedelta(hours=step * 37 % 4800)).timestamp() for step in range(300)]
    assert [days.locate(at) for at in asked] == [Days("Europe/Amsterdam").locate(at) for at in asked]


def test_an_hour_stays_within_its_day() -> None:
    """
    An instant a little outside the day of its token is kept in that day's first or last hour.
    """
    days = Days("UTC")
    assert days.hour_of(100, days.start(100) - 5) == 0
    assert days.hour_of(100, days.start(100) + 30 * 3600) == 24
