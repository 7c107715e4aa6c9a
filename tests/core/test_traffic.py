"""Traffic curves: what weeks of counts say of the hours to come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserver.hours import Week, spans_of
from adserver.traffic import STEP_S, STEPS, WEEK_STEPS, Outlook, coarse, compare, flat, step_of, week_of
from tests.make import instant

MONDAY = 20_521  # 2026-03-09
MIDNIGHT = instant("2026-03-09T00:00:00+00:00")
HOUR = 3600 // STEP_S


def outlook(week: list[float]) -> Outlook:
    return Outlook({1: week}, Week("UTC"))


def test_a_day_is_like_the_last_four_of_its_name() -> None:
    """
    The median of four Mondays: one odd Monday changes nothing, an older one does not count.
    """
    days = {MONDAY - 7 * n: [n] * STEPS for n in (1, 2, 3)} | {MONDAY - 28: [9999] * STEPS, MONDAY - 35: [0] * STEPS}
    assert week_of(days)[:STEPS] == [2.5] * STEPS


def test_a_day_without_history_is_like_the_others() -> None:
    """
    After two days of service, the other five are like these two.
    """
    found = week_of({MONDAY: [10] * STEPS, MONDAY + 1: [20] * STEPS})
    assert found == [10.0] * STEPS + [20.0] * STEPS + [15.0] * STEPS * 5


def test_expectations_add_up_over_any_time() -> None:
    """
    A week is a week whenever it begins; parts of a step count in part; hours of the week that are shut count nothing.
    """
    week = [float(step % 7) for step in range(WEEK_STEPS)]
    out = outlook(week)
    for begins in (MIDNIGHT, MIDNIGHT + 12_345.6, MIDNIGHT - 86_400 * 5):
        assert out.expect((1,), (), begins, begins + 7 * 86_400) == pytest.approx(sum(week))
    assert out.expect((1,), (), MIDNIGHT + 300, MIDNIGHT + 450) == pytest.approx(0.5)
    assert out.expect((1,), spans_of(["tue 00:00-24:00"]), MIDNIGHT, MIDNIGHT + 86_400) == 0
    assert out.expect((1, 2), (), MIDNIGHT, MIDNIGHT + 1) is None


@given(st.floats(0, 30 * 86_400), st.floats(1, 60 * 86_400))
def test_what_has_passed_and_what_is_left_are_the_whole(after: float, length: float) -> None:
    """
    By the curve, not by the clock; never below 0 or above 1.
    """
    week = [1.0 + (step // 12 % 24) for step in range(WEEK_STEPS)]
    out, ends = outlook(week), MIDNIGHT + length
    passed = out.passed((1,), (), MIDNIGHT, ends, min(ends, MIDNIGHT + after))
    left, whole = out.expect((1,), (), min(ends, MIDNIGHT + after), ends), out.expect((1,), (), MIDNIGHT, ends)
    assert passed is not None
    assert left is not None
    assert whole
    assert passed == pytest.approx(1 - left / whole, abs=1e-6)


def test_the_last_hour_corrects_the_next_and_the_day_the_rest() -> None:
    """
    Twice as many readers as usual in the last hour: twice as many in the next; a tenth more all day: for ever.
    """
    out = outlook(flat(1.0))
    out.correct({1: 2.0}, {1: 1.1}, MIDNIGHT)
    assert out.expect((1,), (), MIDNIGHT, MIDNIGHT + 1800) == pytest.approx(3600)
    assert out.expect((1,), (), MIDNIGHT, MIDNIGHT + 7200) == pytest.approx(7200 + 3960)
    assert out.expect((1,), (), MIDNIGHT + 7200, MIDNIGHT + 10_800) == pytest.approx(3960)


def test_an_hour_that_nobody_foresaw_says_nothing_of_tomorrow() -> None:
    """
    A spike of four times is believed for an hour; few requests are no evidence at all.
    """
    usual = [100.0] * STEPS
    spiked = [110.0] * (STEPS - HOUR) + [400.0] * HOUR
    assert compare(spiked, usual) == pytest.approx((4.0, 1.1))
    assert compare([99.0] * STEPS, [0.0] * STEPS) == (1.0, 1.0)
    assert compare([1.0] * HOUR, [0.5] * HOUR) == (1.0, 1.0)
    assert compare([], []) == (1.0, 1.0)
    assert compare([0.0] * STEPS, usual)[0] == 0.25


@given(st.integers(0, 2**32 - 1))
def test_coarse_numbers_are_near(n: int) -> None:
    """
    Small ones are exact; the others within 3 %, of five binary digits.
    """
    assert abs(coarse(n) - n) <= n * 0.032
    assert n >= 32 or coarse(n) == n


def test_a_long_day_keeps_to_its_steps() -> None:
    """
    The 25th hour belongs to the last step.
    """
    assert [step_of(one) for one in (0, 299.9, 300, 86_399, 90_000)] == [0, 0, 1, STEPS - 1, STEPS - 1]
