"""The wall clock against a clock that nobody can set: a jump holds the day."""

import time

import pytest

from adserver import answering
from adserver.answering import Answering
from adserver.journal import NoJournal
from adserver.metrics import Meter
from adserver.reload import LiveCatalog
from adserver.token import Keys, Mint

DAY_S = 86400.0


class Clock:
    """Both clocks, in seconds; *wall* may be set."""

    def __init__(self) -> None:
        self.wall = 1_767_268_800.0
        self.steady = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "time", lambda: found.wall)
    monkeypatch.setattr(answering, "_steady", lambda: found.steady)
    return found


@pytest.fixture
def one(clock: Clock) -> Answering:
    del clock  # it must run before anybody looks at it
    journal = NoJournal("not needed here")
    live = LiveCatalog(lambda _: None)
    return Answering(live, journal, Mint(Keys({1: b"k" * 32}, 1), journal.issuer), Meter(), "http://localhost")


def day(one: Answering) -> int:
    return one._locate(one.now())[0]


@pytest.mark.parametrize("jump_s", [-3 * DAY_S, 3 * DAY_S])
def test_a_jump_holds_the_day_until_the_clock_is_back(one: Answering, clock: Clock, jump_s: float) -> None:
    """
    What is served after a jump is still counted for the day before it; when the clock is put right, days go on.
    """
    before = day(one)
    clock.wall += jump_s
    clock.passes(10)
    assert (day(one), one.jump_s) == (before, jump_s)

    clock.wall -= jump_s
    clock.passes(DAY_S)
    assert (day(one), one.jump_s) == (before + 1, 0)


def test_a_clock_that_is_nudged_or_a_quiet_night_is_no_jump(one: Answering, clock: Clock) -> None:
    """
    Two minutes of correction are taken as they come, and so is a day without a request.
    """
    before = day(one)
    clock.wall += 119
    assert (day(one), one.jump_s) == (before, 0)
    clock.passes(DAY_S)
    assert (day(one), one.jump_s) == (before + 1, 0)
