"""When a day closes and what may be deleted, as tables of facts."""

import pytest

from adserver.days import Days
from adserver.retention import (
    Due,
    Held,
    Open,
    Producer,
    Rules,
    closes_at,
    is_kept,
    is_overdue,
    judge,
    last_to_close,
    may_go,
)
from tests.make import instant

DAYS = Days("Europe/Amsterdam")
RULES = Rules()
DAY = DAYS.locate(instant("2026-03-10T12:00:00+01:00"))[0]
CLOSES = instant("2026-03-12T00:00:00+01:00")
BEFORE, AFTER = CLOSES - 1, CLOSES + 1
H = 3600.0


def producer(**facts: object) -> Producer:
    return Producer(**{"host": "h", "volume": "v", "boot": CLOSES - 50 * H, **facts})  # type: ignore[arg-type]


def test_a_day_closes_its_tokens_lifetime_and_some_hours_after_its_end() -> None:
    """
    Four hours for the last token and twenty more: a whole day later.
    """
    assert closes_at(DAYS, DAY, RULES) == CLOSES
    assert last_to_close(DAYS, BEFORE, RULES) == DAY - 1
    assert last_to_close(DAYS, CLOSES, RULES) == DAY


@pytest.mark.parametrize(
    ("now", "facts", "expected"),
    [
        (BEFORE, {"at": BEFORE, "ends": {DAY: 7}}, Open([])),
        (AFTER, {"at": AFTER, "ends": {DAY: 7}}, Due({"p": 7}, [])),
        (AFTER, {"at": AFTER, "ends": {DAY - 1: 7}}, Due({}, [])),
        (AFTER, {"at": BEFORE, "ends": {DAY: 7}}, Open(["p"])),
        (AFTER, {}, Open(["p"])),
        (AFTER, {"closed": 9, "at": CLOSES - 30 * H, "ends": {DAY: 7}}, Due({"p": 7}, [])),
        (AFTER, {"boot": AFTER}, Due({}, [])),
        (AFTER, {"lost": True}, Due({}, [])),
        (CLOSES + 72 * H - 1, {}, Open(["p"])),
        (CLOSES + 72 * H, {"ends": {DAY: 7}}, Due({}, ["p"])),
    ],
    ids=[
        "not over",
        "told after",
        "told after, without it",
        "told too early",
        "silent",
        "drained and gone",
        "booted later",
        "given up before",
        "still awaited",
        "given up",
    ],
)
def test_a_day_waits_for_whoever_may_hold_records_of_it(now: float, facts: dict[str, object], expected: object) -> None:
    """
    Whoever has spoken since the day closed, has drained or was born later is not waited for; a silent one three days.
    """
    assert judge(DAY, DAYS, now, {"p": producer(**facts)}, RULES) == expected


NOW = CLOSES + 100 * H


@pytest.mark.parametrize(
    ("ends", "archived", "newest", "whole", "goes"),
    [
        ({DAY: 9}, {DAY: 9}, NOW - 48 * H, True, True),
        ({DAY: 9}, {DAY: 12}, NOW - 48 * H, True, True),
        ({DAY: 9}, {DAY: 8}, NOW - 48 * H, True, False),
        ({DAY: 9}, {}, NOW - 48 * H, True, False),
        ({DAY: 9, DAY + 1: 11}, {DAY: 9}, NOW - 48 * H, True, False),
        ({DAY: 9, DAY + 1: 11}, {DAY: 9, DAY + 1: 11}, NOW - 48 * H, True, True),
        ({DAY: 9}, {DAY: 9}, NOW - 48 * H + 1, True, False),
        ({DAY: 9}, {DAY: 9}, NOW - 48 * H, False, False),
    ],
)
def test_a_segment_goes_when_all_of_it_is_archived_and_two_days_old(
    ends: dict[int, int], archived: dict[int, int], newest: float, whole: bool, goes: bool
) -> None:
    """
    Not with one record of an open day, one that the archive does not hold, one that could not be read, or too soon.
    """
    assert may_go(Held(1, max(ends.values()), ends, newest, whole), archived, NOW, RULES) is goes


def test_what_turns_up_after_thirty_days_is_overdue() -> None:
    assert not is_overdue(NOW - 30 * 86400, NOW, RULES)
    assert is_overdue(NOW - 30 * 86400 - 1, NOW, RULES)


def test_totals_are_kept_400_days() -> None:
    """
    Counted from the end of the day.
    """
    end = DAYS.start(DAY + 1)
    assert is_kept(DAY, DAYS, end + 400 * 86400 - 1, RULES)
    assert not is_kept(DAY, DAYS, end + 400 * 86400, RULES)
