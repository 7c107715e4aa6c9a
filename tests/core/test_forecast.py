"""Forecasts: a sample of pages answers for all of them; goals, changes and remedies are replayed, not estimated."""

import pytest

from adserver import forecast
from adserver.catalog import Catalog
from adserver.forecast import Before, Forecast, View, replay
from adserver.hours import Week
from adserver.model import Goal, LineItem, Measure, Pacing, PageRule, Priority, SlotId, Targeting, Terms
from adserver.simulate import shape
from adserver.targeting import UNKNOWN, know
from adserver.traffic import STEPS, WEEK_STEPS, Outlook
from adserver.whatif import World, ask, change
from tests.make import NOON, catalog, creative, document, line_item, slot, sponsorship

TOP, SIDE = SlotId(889977), SlotId(889978)
DAY = 86_400.0
MONDAY = NOON - 12 * 3600
SPORT = Targeting(any=Terms(section=("sport",)))
VIEWS = [View((int(TOP), int(SIDE)), know(section="sport"))] * 2 + [View((int(TOP),), UNKNOWN)] * 6


def outlook(per_day: float, *slots: int) -> Outlook:
    week = [per_day / STEPS * shape(20_514 + step // STEPS, step % STEPS) for step in range(WEEK_STEPS)]
    return Outlook(dict.fromkeys(slots or (int(TOP),), week), Week("Europe/Amsterdam"))


def run(of: Catalog, days: float = 3, per_day: float = 1000, **options: object) -> dict[str, Forecast]:
    given = {"decisions": 40_000, **options}
    slots = tuple(int(one) for one in of.slots)
    found = replay(of, outlook(per_day, *slots), VIEWS, {}, MONDAY, MONDAY + days * DAY, **given)  # type: ignore[arg-type]
    return {one.line_item: one for one in found}


def booked(name: str, n: int, days: float = 3, **fields: object) -> LineItem:
    goal = Goal(n, Measure.IMPRESSIONS)
    return line_item(name, **{"slots": (TOP,), "goal": goal, "starts": MONDAY, "ends": MONDAY + days * DAY, **fields})


def busy() -> Catalog:
    """Every way a booking can be limited, side by side."""
    return catalog(
        sponsorship("bank", 30, slots=(TOP,)),
        sponsorship("club", 40, slots=(SIDE,), targeting=SPORT),
        booked("large", 900),
        booked("small", 15),
        booked("soon", 200, pacing=Pacing.ASAP),
        line_item("mornings", slots=(TOP,), hours=("mon-sun 06:00-10:00",)),
        line_item("both", slots=(TOP, SIDE), creatives=("a", "b"), page=PageRule.ROADBLOCK_ALL, priority=Priority.BULK),
        line_item("house", slots=(TOP, SIDE), creatives=("c", "d"), priority=Priority.HOUSE),
    )


def test_a_sample_answers_like_a_full_replay() -> None:
    """
    A hundredth of the decisions is within 2 % for whatever has a hundredth of the traffic.
    """
    full, sampled = run(busy(), per_day=20_000, decisions=10**9), run(busy(), per_day=20_000, decisions=1_500)
    whole = sum(one.counted for one in full.values())
    for name, one in full.items():
        near = max(0.02 * one.counted, 0.01 * 0.02 * whole)
        assert sampled[name].counted == pytest.approx(one.counted, abs=near), name


def test_goals_are_met_where_they_can_be() -> None:
    """
    Exactly, also of fifteen; the time is told; what asks for more than there is falls short by the difference.
    """
    found = run(busy())
    assert found["large"].counted == pytest.approx(900, abs=5)
    assert found["small"].counted == pytest.approx(15, abs=1)
    soon = found["soon"]
    assert soon.counted == pytest.approx(200, abs=1)
    assert soon.reached_at
    assert soon.reached_at < MONDAY + DAY
    much = run(catalog(sponsorship("bank", 30, slots=(TOP,)), booked("much", 5_000)))["much"]
    assert much.counted == pytest.approx(0.7 * 3000, rel=0.1)
    assert much.short == pytest.approx(5_000 - much.counted)
    assert (much.over, much.reached_at) == (True, None)


def test_what_was_delivered_before_counts() -> None:
    """
    Only the rest is delivered; a day's goal begins anew at midnight.
    """
    of = catalog(booked("most", 900), line_item("daily", slots=(TOP,), goal=Goal(100, Measure.IMPRESSIONS, daily=True)))
    before = {"most": Before(800, 800, 0), "daily": Before(700, 700, 100)}
    found = replay(of, outlook(1000), VIEWS, before, MONDAY, MONDAY + 3 * DAY)
    counted = {one.line_item: one.counted for one in found}
    assert counted["most"] == pytest.approx(900, abs=2)
    assert counted["daily"] == pytest.approx(700 + 2 * 100, abs=5)


def test_snippets_that_never_render_are_not_delivered() -> None:
    """
    With nine in ten rendered a goal takes more snippets, and what is not paced counts less.
    """
    of = catalog(booked("large", 900), line_item("rest", slots=(TOP,)))
    found = run(of, rate=0.9)
    assert found["large"].counted == pytest.approx(900, abs=5)
    assert found["rest"].counted == pytest.approx((sum(one.counted for one in run(of).values()) - 1000) * 0.9, rel=0.03)


def test_each_slot_gets_the_requests_of_its_curve() -> None:
    """
    Whatever pages were sampled; slots that no sampled page asks for have pages of their own.
    """
    of = catalog(
        line_item("top", slots=(TOP,)), line_item("side", slots=(SIDE,)), line_item("alone", slots=(SlotId(5),))
    )
    weeks = {slot: outlook(n).weeks[int(TOP)] for slot, n in ((int(TOP), 2000), (int(SIDE), 700), (5, 900))}
    found = replay(of, Outlook(weeks, Week("Europe/Amsterdam")), VIEWS, {}, MONDAY, MONDAY + 7 * DAY)
    for one, week in zip(found, weeks.values(), strict=True):
        assert one.counted == pytest.approx(sum(week), rel=0.005)


def world(days: float = 3, per_day: float = 1000) -> World:
    return World(outlook(per_day, int(TOP), int(SIDE)), VIEWS, {}, MONDAY, MONDAY + days * DAY)


def test_remedies_are_told_only_where_they_work() -> None:
    """
    A longer flight, a slot more, a higher priority: each is tried, and what does not help is not told.
    """
    short = booked("short", 2_500, priority=Priority.BULK, creatives=("one", "two"), page=PageRule.ROADBLOCK_ANY)
    rival = booked("rival", 1_500)
    made = document(short, rival, slots=[slot(TOP), slot(SIDE)])
    heard: list[float] = []
    answer = ask(world(), made, None, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1)
    assert f"slot {SIDE} added" in answer.remedies["short"]
    assert "priority standard" not in answer.remedies["short"]
    hopeless = document(booked("hopeless", 500_000), slots=[slot(TOP), slot(SIDE)])
    assert ask(world(), hopeless, None, lambda _: None).remedies == {"hopeless": []}


def test_a_change_says_whom_it_hurts() -> None:
    """
    A new sponsorship of half the slot takes half of what the others had.
    """
    before = document(line_item("old", slots=(TOP,)), slots=[slot(SIDE)])
    after = document(line_item("old", slots=(TOP,)), sponsorship("new", 50, slots=(TOP,)), slots=[slot(SIDE)])
    answer = ask(world(), before, after, lambda _: None)
    [hurt] = answer.hurts
    assert hurt.line_item == "old"
    assert hurt.having == pytest.approx(hurt.without / 2, rel=0.02)


def test_changes_are_put_in_place_by_id() -> None:
    """
    What has the id of an entry replaces it, other entries are added, and every problem is named.
    """
    from adserver.config_files import rows_of

    made = document(line_item("old", slots=(TOP,)), creatives=[creative("old-loaf", image="x.png", image_size=(1, 1))])
    new = {
        "id": "old",
        "name": "New",
        "campaign": "spring",
        "priority": "bulk",
        "slots": [TOP],
        "creatives": ["old-loaf"],
    }
    found, problems = change(made, rows_of(made), {"line_item": [new]}, "change.toml")
    assert problems == []
    assert [one.priority for one in found.line_items] == [Priority.BULK]
    _, problems = change(made, rows_of(made), {"line_item": [{**new, "id": "b", "slots": [1]}], "oops": {}}, "c.toml")
    assert [str(one) for one in problems] == [
        "c.toml: there is no table [[oops]] to change",
        "c.toml: line item 'b': names slot 1, which does not exist",
    ]
    assert forecast.DECISIONS >= 10_000
