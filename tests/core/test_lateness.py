"""Impressions that come late: reserved for, learned, and given up in the end."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserver import lateness
from adserver.days import Days
from adserver.lateness import EDGES_S, Lateness, Trail, await_late, classify, learn
from adserver.model import Goal, Measure, Pacing
from adserver.pacing import Figures
from adserver.planner import Heard, Planner
from tests import make

NOON = make.NOON


def deliver(goal: int, pacing: Pacing, late_s: float, per_s: float, hours: float, rendered: float = 1.0) -> int:
    """What is counted in the end of one goal, each impression *late_s* after its snippet, by one worker."""
    ends = NOON + hours * 3600
    line_item = make.line_item(goal=Goal(goal, Measure.IMPRESSIONS), pacing=pacing, starts=NOON, ends=ends)
    planner = Planner({})
    planner.follow(make.catalog(line_item))
    slot, name = int(line_item.slots[0]), line_item.id
    ages = [0] * len(EDGES_S)
    coming: list[tuple[float, float]] = []
    figures, draw, missed, carry, now = Figures(), 0.0, 0.0, 0.0, NOON
    days = Days("UTC")
    while now < ends:
        while coming and coming[0][0] <= now:
            at, served = heapq.heappop(coming)
            figures.impressions += 1
            ages[classify(at - served // 60 * 60)] += 1
        seen = {name: planner.served.get(name, 0)}
        known = {name: Figures(figures.served, figures.impressions)}
        heard = Heard(known, known, seen, ages={(Measure.IMPRESSIONS, slot): ages})
        planner.plan(heard, None, now, days)
        carry += per_s
        while carry >= 1:
            carry -= 1
            draw = (draw + 0.6180339887498949) % 1.0
            if draw < planner.pace.shares.get(name, 0.0):
                planner.note(name)
                figures.served += 1
                missed += 1 - rendered
                if missed >= 1:
                    missed -= 1
                else:
                    heapq.heappush(coming, (now + late_s, now))
        now += 1.0
    return figures.impressions + len(coming)


@pytest.mark.parametrize("late_s", [0.0, 20.0, 45.0, 90.0, 300.0])
@pytest.mark.parametrize(
    ("goal", "pacing", "per_s"),
    [(20, Pacing.ASAP, 2.0), (20, Pacing.EVEN, 2.0), (500, Pacing.ASAP, 25.0), (20_000, Pacing.ASAP, 50.0)],
)
def test_a_goal_is_not_overshot_by_what_comes_late(goal: int, pacing: Pacing, late_s: float, per_s: float) -> None:
    """
    However late impressions come, from the first one on, no more than half a per cent or five too many are counted; and
    the goal is reached.
    """
    delivered = deliver(goal, pacing, late_s, per_s, hours=3)
    assert goal - 1 <= delivered <= goal + max(5, goal * 0.005)


@pytest.mark.parametrize("rendered", [0.5, 0.9])
@pytest.mark.parametrize("late_s", [1.0, 60.0])
def test_what_is_never_rendered_is_given_up(rendered: float, late_s: float) -> None:
    """
    Where half of the snippets are never seen the goal is reached all the same, and not overshot.
    """
    delivered = deliver(500, Pacing.ASAP, late_s, 5.0, hours=3, rendered=rendered)
    assert 499 <= delivered <= 505


def test_too_little_tells_nothing() -> None:
    """
    Before thirty events everything may come for ten minutes, and nothing after.
    """
    cold = learn([[29, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert (cold.by(599.0), cold.by(600.0)) == (0.0, 1.0)
    assert await_late([(30.0, 10)], cold, 4, 10) == (6.0, 0.0)
    assert await_late([(700.0, 10)], cold, 4, 10) == (0.0, 10.0)


def test_how_late_events_come_is_learned() -> None:
    """
    Where half of the events come within a minute and the other half within two, that is what is said of any age.
    """
    known = learn([[50, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 50, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert [known.by(age) for age in (0.0, 30.0, 60.0, 90.0, 120.0, 99_999.0)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@given(
    st.lists(st.tuples(st.floats(0, 20_000), st.integers(0, 500)), max_size=20),
    st.lists(st.integers(0, 100), min_size=10, max_size=10),
    st.floats(0, 1),
)
def test_no_more_can_come_than_was_served(cohorts: list[tuple[float, int]], ages: list[int], part: float) -> None:
    """
    What may come is at least nothing and at most what is not counted; what is due, at most what was served.
    """
    served = sum(n for _, n in cohorts)
    counted = int(served * part)
    coming, due = await_late(sorted(cohorts), learn([ages]), counted, served)
    assert -1e-6 <= coming <= served - counted + 1e-6
    assert -1e-6 <= due <= served + 1e-6


def test_a_trail_knows_of_late_exactly_and_of_before_roughly() -> None:
    """
    After an hour of one snippet a second a trail holds some dozens of marks, and all of what was served.
    """
    trail = Trail()
    for second in range(3_601):
        trail.note(NOON + second, second, 0)
    cohorts = trail.cohorts(NOON + 3_600, 0.0)
    assert sum(n for _, n in cohorts) == 3_600
    assert len(cohorts) < 60
    assert sum(n for age, n in cohorts if age < 10) in range(8, 16)


def test_what_was_served_before_the_worker_began() -> None:
    """
    At first sight what the last hour served may still come, what is older not; a store that lost counts begins anew.
    """
    trail = Trail()
    trail.note(NOON, 1_000, 40)
    assert trail.cohorts(NOON, 0.0) == [(0.0, 40)]
    trail.note(NOON + 1, 10, 5)
    assert trail.cohorts(NOON + 1, 0.0) == [(0.0, 5)]


def test_a_day_begins_without_yesterdays() -> None:
    """
    Of a goal per day only what was served since midnight is waited for.
    """
    trail = Trail()
    trail.note(NOON - 120, 0, 0)
    trail.note(NOON - 60, 100, 0)
    trail.note(NOON + 60, 130, 0)
    assert trail.cohorts(NOON + 60, NOON) == [(0.0, 30)]


def test_age_classes_hold_every_age() -> None:
    """
    The last class also takes what comes at the very end of a token's time, and clocks that went back the first.
    """
    assert [classify(age) for age in (-5.0, 0.0, 59.9, 60.0, 1e9)] == [0, 0, 0, 1, len(EDGES_S) - 1]
    assert lateness.Lateness() == Lateness((), 600.0)
