"""Goals: what a line item takes of its chances, what a worker may serve unheard, what creatives earn."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver import pacing
from adserver.catalog import Catalog
from adserver.days import Days
from adserver.decide import Filled, Lost, Page, Step, decide
from adserver.model import (
    Cap,
    Goal,
    LineItem,
    Measure,
    NoFill,
    OnShortfall,
    Pacing,
    PageRule,
    Priority,
    Rotation,
    SlotId,
)
from adserver.pacing import Figures, Pace, Plan, Progress, Supply, allow, coarse, earn, plan
from adserver.planner import Heard, Planner
from adserver.traffic import Outlook, flat
from tests.make import NOON, SLOT, catalog, draws, line_item, problems, sponsorship

ENDS = NOON + 30 * 86_400
GOAL = Goal(20, Measure.IMPRESSIONS)
LARGE, SMALL = 100_000, 20
NEXT = SlotId(SLOT + 1)


def booked(n: int = LARGE, of: Measure = Measure.IMPRESSIONS, **fields: object) -> LineItem:
    return line_item("march", goal=Goal(n, of), starts=NOON, ends=ENDS, **fields)


def planned(line_item: LineItem, delivered: int, supply: Supply, now: float = NOON + 3600) -> Plan:
    return plan(line_item, ENDS, Progress(delivered, delivered), supply, now)


# Plans


@pytest.mark.parametrize(
    ("passed", "left", "chances", "share"),
    [
        (0.0, 85_000, 100_000, 0.85),
        (0.5, 40_000, 100_000, 0.402),
        (0.5, 85_000, 100_000, 0.85425),
        (1.0, 40_000, 100_000, 0.416),
        (0.5, 200_000, 5, 1),
    ],
)
def test_a_large_goal_takes_its_part_of_the_chances_left(
    passed: float, left: int, chances: float, share: float
) -> None:
    """
    Remaining against forecast: even at first, a little more towards the end, never more than everything.
    """
    assert planned(booked(1_000_000), 1_000_000 - left, Supply(passed, chances)).share == pytest.approx(share)


def test_a_goal_that_the_traffic_is_too_small_for_is_told() -> None:
    """
    More remaining than chances expected is the early warning.
    """
    assert planned(booked(), 0, Supply(0.1, 90_000)).behind
    assert not planned(booked(), 0, Supply(0.1, 110_000)).behind


@pytest.mark.parametrize("passed", [0.0, 0.1, 0.25, 0.5, 0.75, 0.99])
def test_a_small_goal_is_scheduled(passed: float) -> None:
    """
    Of twenty, as many are due as have their turn by the curve; then nothing until the next.
    """
    due = next(n for n in range(SMALL + 1) if not planned(booked(SMALL), n, Supply(passed, 1000.0)).share)
    assert abs(due - SMALL * passed) <= 1
    assert planned(booked(SMALL), SMALL - 1, Supply(0.999, 1.0)).share == 1


def test_frontloaded_is_a_quarter_ahead_in_its_first_half() -> None:
    """
    Followed step by step, half way 62.5 % are delivered, at the end everything; never more than 25 % ahead of even.
    """
    for pacing_, half in ((Pacing.EVEN, 0.5), (Pacing.FRONTLOADED, 0.625)):
        delivered, chances = 0.0, 200_000
        for step in range(1000):
            passed = step / 1000
            supply = Supply(passed, chances * (1 - passed))
            delivered += planned(booked(pacing=pacing_), int(delivered), supply).share * 200
            assert delivered <= LARGE * (passed + 0.001) * 1.25 * 1.03
            if step == 499:
                assert delivered == pytest.approx(half * LARGE, rel=0.02)
        assert delivered == pytest.approx(LARGE, rel=0.002)


def test_as_fast_as_possible_takes_everything() -> None:
    """
    asap has all its chances, and so has what runs on after its flight.
    """
    assert planned(booked(pacing=Pacing.ASAP), 0, Supply(0.0, 1e9)).share == 1
    assert planned(booked(on_shortfall=OnShortfall.RUN_ON), 99_000, Supply(1.0), now=ENDS + 5).share == 1


def test_what_is_reached_takes_nothing_more() -> None:
    """
    At its goal the share is 0 and says why; served and not yet counted is waited for.
    """
    done = planned(booked(), LARGE, Supply(0.5, 1e6))
    assert (done.share, done.left, done.reason) == (0, 0, "its goal of 100,000 impressions is reached")
    assert done.reached
    waits = plan(booked(SMALL), ENDS, Progress(10, 20, 10), Supply(1.0, 1.0), ENDS - 1)
    assert (waits.share, waits.left) == (0, 0)
    assert "it waits for the last it has served to be counted: 10 of 20" in waits.reason
    assert not waits.reached
    assert not planned(booked(SMALL), 11, Supply(0.5, 1000.0)).reached


def test_in_flight_may_all_come() -> None:
    """
    Of thirty none was ever counted: once they are given up thirty more may leave, not thirty times as many.
    """
    goal = booked(30, pacing=Pacing.ASAP)
    assert plan(goal, ENDS, Progress(0, 31, 31, 0.0), Supply(0.5), NOON).left == 0
    assert plan(goal, ENDS, Progress(0, 31), Supply(0.5), NOON).left == 30
    assert plan(goal, ENDS, Progress(5, 36, 10, 6.0), Supply(0.5), NOON).left == 15


def test_a_goal_of_clicks_serves_as_many_as_clicks_take() -> None:
    """
    With one click in a hundred snippets 50 clicks to go are 5,000 snippets; a quarter at once, should readers change.
    """
    found = plan(booked(100, of=Measure.CLICKS, pacing=Pacing.ASAP), ENDS, Progress(50, 5_000), Supply(0.5), NOON)
    assert 1_000 < found.left < 5_000


# What one worker may serve alone


@settings(max_examples=300)
@given(st.floats(1, 5_000), st.integers(1, 8), st.integers(0, 2**32))
def test_the_workers_together_never_hide_more_than_half_of_what_is_left(left: float, workers: int, second: int) -> None:
    """
    Each spends all that it may: together at most half, and while something is left somebody may go on.
    """
    allowed = [allow(left, 0, workers, place, float(second)) for place in range(workers)]
    assert sum(allowed) <= left / 2 + 1
    turn = second // pacing.TURN_S * pacing.TURN_S + pacing.TURN_S * 0.8
    assert sum(allow(left, 0, workers, place, turn) for place in range(workers)) >= 1
    assert [allow(left, n, workers, 0, float(second)) for n in (allowed[0], allowed[0] + 5)] == [0, 0]


def test_the_last_one_is_every_workers_turn_by_turn() -> None:
    """
    What cannot be divided goes round.
    """
    turns = [tuple(allow(1, 0, 4, place, now) for place in range(4)) for now in range(20)]
    assert len({one for one in turns if any(one)}) == 4
    assert max(map(sum, turns)) == 1
    assert not any(turns[0] + turns[1] + turns[5] + turns[6])


# The draw


def shares(made: Catalog, pace: Pace, n: int) -> Counter[str]:
    answers = (decide(made, NOON, Page((SLOT,)), draws(view), pace)[0] for view in range(n))
    return Counter(one.ad.line_item.id if isinstance(one, Filled) else one.reason.value for one in answers)


def goal(name: str, **fields: object) -> LineItem:
    return line_item(name, goal=Goal(1000, Measure.IMPRESSIONS), pacing=Pacing.ASAP, **fields)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_each_gets_exactly_what_its_pace_asks_for(parts: list[float]) -> None:
    """
    Side by side, within 3 in 2,000; where they ask for more than there is, each gets less alike.
    """
    names = [f"g-{n}" for n in range(len(parts))]
    made = catalog(*(goal(name) for name in names), line_item("rest"))
    counts = shares(made, Pace(dict(zip(names, parts, strict=True))), 2000)
    scale = max(1.0, sum(parts))
    assert all(abs(counts[name] - 2000 * part / scale) <= 3 for name, part in zip(names, parts, strict=True))
    assert abs(counts["rest"] - 2000 * max(0.0, 1 - sum(parts))) <= 3


def test_a_sponsorship_ends_at_its_goal() -> None:
    """
    With its goal reached its share is unsold, and the others have it.
    """
    made = catalog(sponsorship("half", 50, goal=Goal(10, Measure.IMPRESSIONS)), line_item("rest"))
    assert abs(shares(made, Pace({"half": 1.0}), 100)["half"] - 50) <= 3
    assert shares(made, Pace({"half": 0.0}), 100) == {"rest": 100}


def test_a_roadblock_with_a_goal_has_its_part_of_the_pages() -> None:
    """
    It takes all of its slots together or none, as often as its pace asks for.
    """
    block = goal("block", slots=(SLOT, NEXT), page=PageRule.ROADBLOCK_ALL, creatives=("a", "b"))
    made = catalog(block, line_item("rest", slots=(SLOT, NEXT), creatives=("c", "d")))
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1000):
        found = decide(made, NOON, Page((SLOT, NEXT)), draws(n), Pace({"block": 0.25}))
        counts[tuple(one.ad.line_item.id for one in found if isinstance(one, Filled))] += 1
    assert counts.keys() == {("block", "block"), ("rest", "rest")}
    assert abs(counts["block", "block"] - 250) <= 3


def test_nothing_known_is_nothing_taken() -> None:
    """
    A goal whose count nobody has told is not served: it could be over.
    """
    trace: list[Lost] = []
    [found] = decide(catalog(goal("g")), NOON, Page((SLOT,)), draws(), trace=trace)
    assert not isinstance(found, Filled)
    assert found.reason is NoFill.PACING
    assert [(one.step, one.reason) for one in trace] == [(Step.PACING, "what it has delivered is not known yet")]


def test_a_goal_is_said_to_be_reached_where_every_booking_has_reached_its_own() -> None:
    """
    Beside a share that this view fell outside of, or a goal on its plan, one that is reached does not speak for all.
    """
    met = Pace({"g": 0.0, "on-plan": 0.0}, {}, {}, frozenset({"g"}))
    low = line_item("on-plan", goal=Goal(20, Measure.IMPRESSIONS), priority=Priority.BULK)
    high = line_item("on-plan", goal=Goal(20, Measure.IMPRESSIONS), priority=Priority.SPONSORSHIP, share=10.0)
    for made, reason in (
        (catalog(goal("g")), NoFill.GOAL),
        (catalog(goal("g"), low), NoFill.PACING),
        (catalog(goal("g"), goal("on-plan")), NoFill.PACING),
        (catalog(goal("g"), high), NoFill.PACING),
        (catalog(goal("g"), sponsorship("bank", 1)), NoFill.PACING),
        (catalog(goal("on-plan"), line_item("g", goal=GOAL, priority=Priority.BULK)), NoFill.PACING),
    ):
        [found] = decide(made, NOON, Page((SLOT,)), draws(1), met)
        assert not isinstance(found, Filled)
        assert found.reason is reason


def test_a_planner_says_which_goals_are_reached() -> None:
    """
    Of three goals of 20 one has its 20, one is on its plan, one waits for the last it served to be counted; of the one
    that is due the worker has served its part, and says so until it hears more.
    """
    names = {"met": (20, 20), "on-plan": (11, 11), "waits": (10, 20), "due": (5, 5)}
    made = catalog(*(line_item(name, goal=GOAL, starts=NOON, ends=ENDS) for name in names))
    found = {name: Figures(served, counted) for name, (counted, served) in names.items()}
    planner, at, days = Planner({}), (NOON + ENDS) / 2, Days("UTC")
    planner.follow(made)
    planner.plan(Heard({**found, "waits": Figures(0, 0)}, {}, {}), None, at - 1, days)
    planner.plan(Heard(found, {}, {}), None, at, days)
    pace = planner.pace
    assert pace.reached == {"met"}
    assert [name for name, share in pace.shares.items() if share] == ["due"]
    while pace.shares["due"]:
        planner.note("due")
    assert pace.why(made.document.line_items[3]) == "it has served what it may until more is counted"
    later = planner.project(Heard(found, {}, {}), None, at, ENDS - 60, days)
    assert later.reached == {"met"}


@given(st.floats(0, 1))
def test_a_share_is_told_coarsely_and_stays_what_it_is(share: float) -> None:
    """
    Within 0.4 % of itself, from nothing to everything: so few change in a second that receipts need not tell them.
    """
    told = coarse(share)
    assert abs(told - share) <= 0.004 * share + 1e-300
    assert 0 <= told <= 1
    assert coarse(told) == told


def test_most_shares_are_the_same_a_second_later() -> None:
    """
    Of a goal's flight the planner changes its share some hundred times and not each second.
    """
    made = catalog(booked())
    planner, outlook = Planner({}), Outlook({int(SLOT): flat(1.0)}, made.week)
    planner.follow(made)
    shares = set()
    for second in range(0, 86_400, 60):
        planner.plan(Heard({"march": Figures(second // 60, second // 60)}, {}, {}), outlook, NOON + second, Days("UTC"))
        shares.add(planner.pace.shares["march"])
    assert len(shares) < 30


# Optimised rotation


def test_the_better_creative_earns_more_and_none_is_forgotten() -> None:
    """
    After 10,000 impressions 2 % beats 1 %; the worst keeps its part of the quarter; nobody knows yet is alike.
    """
    found = earn({"a": (200, 10_000), "b": (100, 10_000), "c": (99, 10_000)}, "seed")
    assert sum(found.values()) == pytest.approx(1)
    assert found["a"] > 0.8
    assert min(found.values()) >= 0.25 / 3
    even = earn({"a": (0, 0), "b": (0, 0)}, "seed")
    assert even["a"] == pytest.approx(0.5, abs=0.05)
    assert earn({"a": (3, 90), "b": (5, 95)}, "x") == earn({"a": (3, 90), "b": (5, 95)}, "x")


def test_optimised_shows_what_was_earned() -> None:
    """
    The weights of the pace, within 3; evenly while there are none.
    """
    made = catalog(line_item("both", creatives=("a", "b"), rotation=Rotation.OPTIMISED))
    for pace, of_a in ((Pace(creatives={"both": {"a": 0.8, "b": 0.2}}), 800), (Pace(), 500)):
        found = [decide(made, NOON, Page((SLOT,)), draws(n), pace)[0] for n in range(1000)]
        count = sum(isinstance(one, Filled) and one.ad.creative.id == "a" for one in found)
        assert abs(count - of_a) <= 3


# In files


def tables(**fields: object) -> dict[str, object]:
    own = {"id": "a", "name": "A", "campaign": "c", "priority": "standard", "slots": [1], "creatives": ["x"]}
    return {
        "slot": {"id": 1, "name": "S", "size": "300x250"},
        "advertiser": {"id": "v", "name": "V"},
        "campaign": {"id": "c", "name": "C", "advertiser": "v"},
        "creative": {"id": "x", "advertiser": "v", "kind": "text", "title": "X", "click_url": "https://v.example/"},
        "line_item": {**own, **fields},
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"goal": 5}, "expected such as { impressions = 100_000 }"),
        ({"goal": {"views": 5}}, "one of impressions, viewables, clicks"),
        ({"goal": {"clicks": 0}}, "expected a whole number from 1"),
        ({"goal": {"clicks": 5, "per": "week"}}, "expected 'flight' or 'day'"),
        ({"goal": {"clicks": 5}}, "field 'ends' is missing; a goal is spread over a flight"),
        ({"goal": {"clicks": 5}, "pacing": "asap", "weight": 2}, "field 'weight' has no use beside 'goal'"),
        ({"pacing": "asap"}, "field 'pacing' spreads a goal, and there is none"),
        ({"on_shortfall": "run_on"}, "goes on until a goal is reached; add 'goal'"),
        ({"goal": {"clicks": 5, "per": "day"}, "on_shortfall": "run_on"}, "is for a whole flight's goal"),
        ({"frequency": ["3 a day"]}, "expected a cap such as '3 per day'"),
        ({"frequency": ["1 per 40 days"]}, "looks back 31 days at most"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], said: str) -> None:
    """
    Each with what was expected.
    """
    assert any(said in str(problem) for problem in problems(tables(**fields))), problems(tables(**fields))


def test_a_goal_and_its_caps_are_read() -> None:
    """
    A daily goal needs no dates; caps are counts within so many seconds.
    """
    from adserver.documents import read_tables
    from tests.make import entries

    given = tables(goal={"viewables": 3000, "per": "day"}, frequency=["3 per day", "1 per 6 hours"])
    assert problems(given) == []
    [found] = read_tables(entries(given))[0].line_items
    assert found.goal == Goal(3000, Measure.VIEWABLES, daily=True)
    assert found.frequency == (Cap(3, 86_400), Cap(1, 21_600))


def test_spans_of_goals() -> None:
    """
    A daily goal's time is today, where its flight begins or ends there.
    """
    daily = line_item(goal=Goal(5, Measure.CLICKS, daily=True), starts=NOON, ends=NOON + 3600)
    assert pacing.span(daily, (NOON - 60, NOON + 86_400)) == (NOON, NOON + 3600)
    assert pacing.span(booked(), (0, 1)) == (NOON, ENDS)


# What will be


def test_what_is_even_leaves_as_much_as_the_traffic() -> None:
    """
    Half of the traffic later half is left, a little less by its lead; what takes all takes all that comes.
    """
    progress = Progress(20_000, 20_000)
    half = pacing.project(booked(), ENDS, progress, Supply(0.2, 200_000.0), Supply(0.6, 100_000.0), NOON)
    assert half.counted == pytest.approx(60_000, rel=0.02)
    fast = booked(pacing=Pacing.ASAP)
    assert pacing.project(fast, ENDS, progress, Supply(0.2, 50_000.0), Supply(0.6, 20_000.0), NOON).counted == 50_000
    assert pacing.project(fast, ENDS, progress, Supply(0.2), Supply(0.6), NOON).counted == LARGE
    few = pacing.project(booked(), ENDS, progress, Supply(0.2, 9_000.0), Supply(1.0, 0.0), NOON)
    assert few.counted == 29_000


def test_no_time_later_is_now() -> None:
    """
    Projected by nothing, the plan is the same.
    """
    supply = Supply(0.3, 140_000.0)
    progress = Progress(20_000, 20_000)
    same = pacing.project(booked(), ENDS, progress, supply, supply, NOON)
    assert plan(booked(), ENDS, same, supply, NOON) == plan(booked(), ENDS, progress, supply, NOON)
