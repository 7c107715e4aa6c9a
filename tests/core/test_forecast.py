"""Forecasts: a sample of pages answers for all of them; goals, changes and remedies are replayed, not estimated."""

from collections import Counter
from collections.abc import Callable

import pytest
from msgspec import structs

from adserver import forecast, whatif
from adserver.catalog import Catalog
from adserver.decide import Draws, Filled, Page, decide, draw_of
from adserver.forecast import Before, Forecast, View, gather, replay, replay_asked
from adserver.hours import Week, holds, spans_of
from adserver.model import Cap, Goal, Kind, LineItem, Measure, Pacing, PageRule, Priority, SlotId, Targeting, Terms
from adserver.pacing import USUAL, Figures, usual
from adserver.simulate import shape
from adserver.targeting import NO_READER, UNKNOWN, Context, know, withhold
from adserver.traffic import STEPS, WEEK_STEPS, Outlook
from adserver.whatif import Remedies, World, ask, change
from tests.make import NOON, catalog, creative, document, instant, line_item, pause, paused, slot, sponsorship

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


def test_a_catalog_of_many_goals_is_foretold_like_a_small_one() -> None:
    """
    Longer steps, and flights that begin and end with an hour, are within 2 % for flights of days.
    """
    starts, ends = MONDAY + 0.9 * DAY + 1_000, MONDAY + 4.2 * DAY + 2_000
    of = catalog(
        booked("even", 9_000, slots=(SIDE,), starts=starts, ends=ends),
        booked("much", 10**6, starts=starts, ends=ends),
        line_item("house", slots=(TOP, SIDE), creatives=("c", "d"), priority=Priority.HOUSE),
    )
    fine, coarse = run(of, days=7, per_day=8_000), run(of, days=7, per_day=8_000, many=1)
    for name, one in fine.items():
        assert one.counted == pytest.approx(coarse[name].counted, rel=0.02), name
    assert fine != coarse


def test_a_page_is_foretold_as_it_is_served() -> None:
    """
    Slots of one page draw apart in serving; a booking that shows once on a page gets in a forecast what it gets there.
    """
    of = catalog(
        sponsorship("wide", 40, slots=(TOP, SIDE), creatives=("a", "b")),
        sponsorship("top", 40, slots=(TOP,)),
        sponsorship("side", 30, slots=(SIDE,)),
        line_item("house", slots=(TOP, SIDE), creatives=("c", "d"), priority=Priority.HOUSE),
    )
    served: Counter[str] = Counter()
    views = 5_000
    for view in range(views):
        numbers: Draws = {one: draw_of(one, view) for one in (TOP, SIDE)}
        for one in decide(of, MONDAY, Page((TOP, SIDE)), numbers):
            if isinstance(one, Filled):
                served[one.ad.line_item.id] += 1
    page = View((int(TOP), int(SIDE)), UNKNOWN)
    found = replay(of, outlook(1_000, int(TOP), int(SIDE)), [page], {}, MONDAY, MONDAY + 3 * DAY)
    whole = sum(one.counted for one in found)
    for each in found:
        assert each.counted / whole == pytest.approx(served[each.line_item] / served.total(), abs=0.01), each.line_item


def asked_while(hour: Callable[[float], bool], of: Outlook, begins: float, ends: float) -> float:
    """The requests of `TOP` in the five-minute steps that *hour* holds, by plain addition."""
    instants = (begins + 300 * step for step in range(round((ends - begins) / 300)))
    return sum(of.at(int(TOP), now) for now in instants if hour(now))


@pytest.mark.parametrize("minutes", [0, 5, 25, 35, 55])
@pytest.mark.parametrize("decisions", [500, 20_000])
def test_half_an_hour_gets_half_an_hours_requests(minutes: int, decisions: int) -> None:
    """
    A window that begins or ends within an hour gets what is asked in it, at whatever minute the forecast begins;
    and two bookings that share it have half of it each, however many decisions fall into it.
    """
    window = "mon-sun 10:00-10:30"
    of = catalog(line_item("short", slots=(TOP,), hours=(window,)), line_item("rest", slots=(TOP,), hours=(window,)))
    begins, traffic = MONDAY + minutes * 60, outlook(20_000)
    found = replay(of, traffic, VIEWS, {}, begins, begins + 7 * DAY, decisions=decisions)
    true = asked_while(lambda now: holds(spans_of([window]), of.week.minute(now)), traffic, begins, begins + 7 * DAY)
    assert sum(one.counted for one in found) == pytest.approx(true, rel=0.001)
    assert [one.counted for one in found] == pytest.approx([true / 2] * 2, rel=0.02)


@pytest.mark.parametrize(("first", "last"), [(10, 40), (0, 20), (45, 55), (50, 80)])
def test_a_flight_within_an_hour_gets_what_is_asked_in_it(first: int, last: int) -> None:
    """
    A flight of minutes, with a goal or without, delivers what its minutes bring.
    """
    starts, ends = MONDAY + 10 * 3600 + first * 60, MONDAY + 10 * 3600 + last * 60
    traffic = outlook(20_000)
    true = asked_while(lambda now: starts <= now < ends, traffic, MONDAY, MONDAY + DAY)
    plain = line_item("plain", slots=(TOP,), starts=starts, ends=ends)
    [found] = replay(catalog(plain), traffic, VIEWS, {}, MONDAY + 120, MONDAY + DAY)
    assert found.counted == pytest.approx(true, rel=0.02)
    goal = booked("goal", round(true / 2), starts=starts, ends=ends)
    [found] = replay(catalog(goal), traffic, VIEWS, {}, MONDAY + 120, MONDAY + DAY)
    assert found.counted == pytest.approx(true / 2, rel=0.02)


@pytest.mark.parametrize("day", ["2026-03-29T00:00:00+01:00", "2026-10-25T00:00:00+02:00"])
@pytest.mark.parametrize("window", ["sun 02:00-03:00", "sun 01:30-03:30", "sun 02:30-02:45", "sat-mon 23:30-00:30"])
def test_windows_keep_the_wall_clock_when_it_changes(day: str, window: str) -> None:
    """
    An hour that is skipped delivers nothing, one that comes twice delivers twice.
    """
    begins = instant(day) - DAY + 13 * 60
    of, traffic = catalog(line_item("short", slots=(TOP,), hours=(window,))), outlook(200_000)
    [found] = replay(of, traffic, VIEWS, {}, begins, begins + 3 * DAY)
    spans = spans_of([window])
    minutes = (begins + 60 * minute for minute in range(3 * 24 * 60))
    true = sum(traffic.at(int(TOP), now) / 5 for now in minutes if holds(spans, of.week.minute(now)))
    assert found.counted == pytest.approx(true, rel=0.02)


def test_a_remedy_is_tried_by_a_replay_as_good_as_a_full_one() -> None:
    """
    Its longer steps and fewer decisions are within 2 %, also for what takes all it can get.
    """
    of = catalog(
        sponsorship("bank", 30, slots=(TOP,)),
        booked("much", 10**6),
        booked("bulk", 10**6, priority=Priority.BULK, hours=("mon-sun 09:15-17:45",)),
        booked("even", 4_000, slots=(SIDE,)),
        line_item("house", slots=(TOP, SIDE), creatives=("c", "d"), priority=Priority.HOUSE),
    )
    traffic = outlook(8_000, int(TOP), int(SIDE))
    full = replay(of, traffic, VIEWS, {}, MONDAY, MONDAY + 3 * DAY, decisions=10**9)
    asked = gather(of, VIEWS, traffic).near(of, [TOP])
    quick = replay_asked(
        of, traffic, asked, {}, MONDAY, MONDAY + 3 * DAY, decisions=whatif.DECISIONS // 10, step_h=whatif.STEP_H
    )
    whole = sum(one.counted for one in full)
    for exact, one in zip(full, quick, strict=True):
        near = max(0.02 * exact.counted, 0.01 * 0.02 * whole)
        assert one.counted == pytest.approx(exact.counted, abs=near), one.line_item


def test_a_forecast_is_the_same_each_time() -> None:
    """
    Nothing in it is left to chance.
    """
    assert run(busy()) == run(busy())


def test_a_daily_goal_says_on_how_many_days_it_is_reached() -> None:
    """
    And how much its days miss together; a day that is not over is not judged, nor one without hours of its own.
    """

    def daily(n: int, days: float = 7, begins: float = MONDAY, **fields: object) -> Forecast:
        item = line_item("daily", **{"slots": (TOP,), "goal": Goal(n, Measure.IMPRESSIONS, daily=True), **fields})
        [found] = replay(catalog(item), traffic, VIEWS, {}, begins, begins + days * DAY)
        return found

    traffic = outlook(1000)
    midnight = MONDAY - 3600
    weekday, weekend = (sum(traffic.weeks[int(TOP)][day * STEPS : (day + 1) * STEPS]) for day in (0, 6))
    assert weekday > 900 > weekend
    fine = daily(300, begins=midnight)
    assert (fine.goal, fine.daily, fine.short) == (300, forecast.Daily(7, 7, today=True), 0)
    some = daily(900, begins=midnight)
    assert some.daily == forecast.Daily(7, 5, today=True)
    assert some.short == pytest.approx(2 * (900 - weekend), rel=0.02)
    none = daily(5_000, begins=midnight)
    assert none.daily == forecast.Daily(7, 0, today=False)
    assert none.short == pytest.approx(7 * 5_000 - none.counted)
    late = daily(300, 1.5, begins=midnight + DAY - 600)
    assert late.daily == forecast.Daily(2, 1, today=False)
    assert daily(300, hours=("mon-fri 08:00-18:00",), begins=midnight).daily == forecast.Daily(5, 5, today=True)
    ending = daily(300, begins=midnight, starts=midnight - DAY, ends=midnight + 2.5 * DAY)
    assert ending.daily == forecast.Daily(3, 3, today=True)


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
    found = run(of, usual={**USUAL, Measure.IMPRESSIONS: 0.9})
    assert found["large"].counted == pytest.approx(900, abs=5)
    assert found["rest"].counted == pytest.approx((sum(one.counted for one in run(of).values()) - 1000) * 0.9, rel=0.03)


@pytest.mark.parametrize(("measure", "counted", "rate"), [(Measure.CLICKS, 2, 0.002), (Measure.VIEWABLES, 500, 0.5)])
def test_a_goal_is_foretold_in_its_own_measure(measure: Measure, counted: int, rate: float) -> None:
    """
    Of clicks by the click rate there was, of viewable impressions by theirs: in the replay and in what would help.
    """
    item = booked("mine", 5_000, goal=Goal(5_000, measure), pacing=Pacing.ASAP)
    before = {"mine": Before(counted, 1000)}
    told = usual([Figures(1_000_000, 950_000, 500_000, 2_000)])
    traffic = outlook(1100)
    [found] = replay(catalog(item), traffic, VIEWS, before, MONDAY, MONDAY + 3 * DAY, usual=told)
    assert found.counted - counted == pytest.approx(rate * sum(traffic.weeks[int(TOP)][: 3 * STEPS]), rel=0.05)
    assert found.short == pytest.approx(5_000 - found.counted)
    seen = World(outlook(1100, int(TOP), int(SIDE)), VIEWS, before, MONDAY, MONDAY + 3 * DAY, told)
    remedies = ask(seen, document(item, slots=[slot(SIDE)]), None, lambda _: None).remedies["mine"]
    assert f"slot {SIDE} added" not in remedies.works


def test_clicks_are_expected_as_rarely_as_they_come() -> None:
    """
    Of a booking that nothing was counted of, and where nothing was counted at all; one early click is no rate.
    """
    for told in (usual([Figures(1_000_000, 950_000, 500_000, 2_000)]), usual([])):
        item = booked("new", 400_000, goal=Goal(400_000, Measure.CLICKS))
        for before, most in ((Before(), 0.0025), (Before(1, 50), 0.004)):
            assert 0.0015 < before.rate(item, told) < most
        of = catalog(booked("few", 5, goal=Goal(5, Measure.CLICKS)))
        [found] = replay(of, outlook(20_000), VIEWS, {}, MONDAY, MONDAY + 3 * DAY, usual=told)
        assert found.counted == pytest.approx(5, abs=0.1)
        assert found.reached_at is not None


@pytest.mark.parametrize("daily", [False, True])
def test_a_goal_without_a_curve_is_paced_by_the_clock(daily: bool) -> None:
    """
    As serving does while a slot has shown no traffic yet: half of it by half of its time, and all of it at the end.
    """
    young = SlotId(889979)
    goal = Goal(300, Measure.IMPRESSIONS, daily=True) if daily else Goal(1800, Measure.IMPRESSIONS)
    of, traffic = catalog(booked("new", 0, days=6, slots=(TOP, young), goal=goal)), outlook(4_000)
    counted = [replay(of, traffic, VIEWS, {}, MONDAY, MONDAY + days * DAY)[0].counted for days in (0.5, 3, 5)]
    assert counted[0] < 0.7 * 300
    assert counted[1:] == pytest.approx([3 * 300, 5 * 300], rel=0.03)
    [whole] = replay(of, traffic, VIEWS, {}, MONDAY, MONDAY + 7 * DAY)
    assert daily or whole.counted == pytest.approx(1800, abs=1)


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


def test_a_pause_delivers_nothing_for_as_long() -> None:
    """
    The others go on; a goal has it all back in the time that is left, if there is any.
    """
    plain = catalog(booked("goal", 900), line_item("rest", slots=(TOP,)), line_item("side", slots=(SIDE,)))
    usual = run(plain)
    found = run(paused(plain, pause(line_item="rest", starts=MONDAY + DAY + 600, ends=MONDAY + 2 * DAY + 600)))
    assert found["rest"].counted == pytest.approx(usual["rest"].counted * 2 / 3, rel=0.03)
    assert found["goal"].counted == pytest.approx(900, abs=5)
    assert found["side"].counted == pytest.approx(usual["side"].counted, rel=0.01)
    over = run(paused(plain, pause(line_item="goal", starts=MONDAY + DAY, ends=MONDAY + 2 * DAY)))
    assert over["goal"].counted == pytest.approx(900, abs=5)
    always = run(paused(plain, pause(line_item="goal", starts=MONDAY - 1, ends=MONDAY + 9 * DAY)))
    assert (always["goal"].counted, always["goal"].short) == (0, 900)


def test_third_party_tags_deliver_where_readers_consent() -> None:
    """
    A quarter of the recorded views came with consent: a tag gets those, and what needs none gets the rest as well.
    """
    tag = line_item("tag", slots=(TOP,), creatives=("tag",))
    made = catalog(tag, line_item("own", slots=(TOP,)), creatives=[creative("tag", Kind.TAG), creative("loaf")])
    views = [View((int(TOP),), withhold(UNKNOWN))] * 3 + [View((int(TOP),), UNKNOWN)]
    found = {one.line_item: one for one in replay(made, outlook(1000), views, {}, MONDAY, MONDAY + DAY)}
    assert found["own"].counted == pytest.approx(7 * found["tag"].counted, rel=0.02)
    assert found["tag"].counted > 100


def test_what_is_capped_delivers_where_a_reader_is_named() -> None:
    """
    A quarter of the recorded pages named one: a capped booking gets those at most, and says that it is at most.
    """
    capped = line_item("capped", slots=(TOP,), frequency=(Cap(3, 86_400),))
    made = catalog(capped, line_item("free", slots=(TOP,)))
    nobody = View((int(TOP),), Context(frozenset({NO_READER})))
    views = [nobody] * 3 + [View((int(TOP),), UNKNOWN)]
    found = {one.line_item: one for one in replay(made, outlook(1000), views, {}, MONDAY, MONDAY + DAY)}
    assert found["free"].counted == pytest.approx(7 * found["capped"].counted, rel=0.02)
    assert (found["capped"].capped, found["free"].capped) == (True, False)
    never = {one.line_item: one for one in replay(made, outlook(1000), [nobody], {}, MONDAY, MONDAY + DAY)}
    assert never["capped"].counted == 0


def test_a_paused_section_delivers_on_the_other_pages() -> None:
    """
    A quarter of the pages are of sport: what shows there loses all, what shows everywhere a quarter.
    """
    sport = pause(section="sport", starts=MONDAY - 1, ends=MONDAY + 9 * DAY)
    made = paused(catalog(line_item("top", slots=(TOP,)), line_item("side", slots=(SIDE,))), sport)
    weeks = {int(slot): outlook(n).weeks[int(TOP)] for slot, n in ((TOP, 1000), (SIDE, 250))}
    found = replay(made, Outlook(weeks, Week("Europe/Amsterdam")), VIEWS, {}, MONDAY, MONDAY + 7 * DAY)
    counted = {one.line_item: one.counted for one in found}
    assert counted == {"top": pytest.approx(sum(weeks[int(TOP)]) * 3 / 4, rel=0.02), "side": 0}


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
    assert f"slot {SIDE} added" in answer.remedies["short"].works
    assert "priority standard" not in answer.remedies["short"].works
    hopeless = document(booked("hopeless", 500_000), slots=[slot(TOP), slot(SIDE)])
    assert ask(world(), hopeless, None, lambda _: None).remedies == {"hopeless": Remedies([], [], 5)}


def test_a_remedy_can_be_published() -> None:
    """
    None takes a slot past 100 % sold, and no roadblock gets a slot that it has no creative left for.
    """
    short = booked("short", 2_500, days=2, priority=Priority.SPONSORSHIP, share=60.0, creatives=("a", "b"))
    next_ = sponsorship("next", 60, slots=(TOP,), starts=MONDAY + 3.5 * DAY, ends=MONDAY + 30 * DAY)
    side = sponsorship("side", 60, slots=(SIDE,))
    free = ask(world(), document(short, slots=[slot(TOP), slot(SIDE)]), None, lambda _: None).remedies["short"]
    assert free.works == ["a flight 2 days longer", f"slot {SIDE} added"]
    taken = ask(world(), document(short, next_, side), None, lambda _: None).remedies["short"]
    assert taken.works == []
    block = booked("block", 5_000, page=PageRule.ROADBLOCK_ALL)
    both = document(block, slots=[slot(TOP), slot(SIDE)])
    assert f"slot {SIDE} added" not in ask(world(), both, None, lambda _: None).remedies["block"].works


def test_what_was_wrong_before_stands_in_no_remedys_way() -> None:
    """
    Such as a creative that fits none of its slots, or a slot that is sold twice.
    """
    wide = creative("wide", size=(728, 90), image_size=(728, 90))
    short = booked("short", 2_500, priority=Priority.SPONSORSHIP, share=60.0, creatives=("a", "wide"))
    made = document(short, sponsorship("other", 60, slots=(TOP,)), slots=[slot(SIDE)], creatives=[wide])
    remedies = ask(world(), made, None, lambda _: None, lambda: True).remedies["short"]
    assert f"slot {SIDE} added" in remedies.not_tried


def test_the_shortest_flight_that_works_is_told() -> None:
    """
    Of those that reach the goal, the least of all.
    """
    rival = booked("rival", 3_000, days=30)
    short = booked("short", 4_200, days=4)
    answer = ask(world(5), document(short, rival, slots=[slot(TOP)]), None, lambda _: None)
    [works] = [one for one in answer.remedies["short"].works if "flight" in one]
    assert works == "a flight 1 day longer"


def test_a_daily_goal_is_told_what_helps() -> None:
    """
    A slot more that reaches it on every day; a longer flight would not.
    """
    goal = Goal(1_200, Measure.IMPRESSIONS, daily=True)
    item = line_item(
        "daily", slots=(TOP,), goal=goal, starts=MONDAY - DAY, ends=MONDAY + 90 * DAY, creatives=("a", "b")
    )
    [remedies] = ask(world(), document(item, slots=[slot(TOP), slot(SIDE)]), None, lambda _: None).remedies.values()
    assert remedies.works == [f"slot {SIDE} added"]


def test_every_booking_that_falls_short_has_an_answer() -> None:
    """
    The sixth and seventh, too; what there is no time for is told as not tried.
    """
    items = [booked(f"short-{n}", 700, priority=Priority.BULK) for n in range(7)]
    made = document(*items, slots=[slot(TOP), slot(SIDE)])
    assert len(ask(world(), made, None, lambda _: None).remedies) == 7
    out_of_time = ask(world(), made, None, lambda _: None, lambda: True)
    assert all(not one.works for one in out_of_time.remedies.values())
    assert all("priority standard" in one.not_tried for one in out_of_time.remedies.values())
    left = iter([False] * 10)
    partly = ask(world(), made, None, lambda _: None, lambda: next(left, True))
    assert partly.remedies.keys() == out_of_time.remedies.keys()


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


def test_a_change_that_shows_nothing_hurts_nobody() -> None:
    """
    Whatever pages it is for and whenever it would run: the others deliver exactly what they did.
    """
    nowhere = Targeting(any=Terms(section=("nowhere",)))
    quiet = sponsorship("quiet", 50, slots=(TOP,), targeting=nowhere, hours=("mon-sun 09:10-10:50",))
    never = booked(
        "never", 900, slots=(TOP, SIDE), targeting=Targeting(all=Terms(section=("sport",), tag=("x",))),
        frequency=(Cap(1, 60),), starts=MONDAY + 1000, ends=MONDAY + DAY + 2000,
    )  # fmt: skip
    made = busy().document
    with_them = document(*made.line_items, quiet, never)
    views = [*VIEWS, *(View((int(TOP),), know(section="sport", tags=[str(n)])) for n in range(9))]
    seen = World(outlook(20_000, int(TOP), int(SIDE)), views, {}, MONDAY, MONDAY + 3 * DAY)
    before, after = Catalog(made, 0), Catalog(with_them, 0)

    def of(this: Catalog, other: Catalog) -> dict[str, Forecast]:
        found = replay(this, seen.outlook, views, {}, MONDAY, MONDAY + 3 * DAY, decisions=1_000, beside=other)
        return {one.line_item: one for one in found}

    without, having = of(before, after), of(after, before)
    assert having["quiet"].counted == having["never"].counted == 0
    assert {name: having[name] for name in without} == without
    assert ask(seen, made, with_them, lambda _: None, lambda: True).hurts == []


def test_a_hurt_is_told_when_it_is_more_than_a_forecast_may_be_wrong() -> None:
    """
    What loses 1.5 % is not told, what loses 5 % is; nor is what loses next to nothing of all that is served.
    """
    old, tiny = line_item("old", slots=(TOP,)), sponsorship("tiny", 0.005, slots=(TOP,))
    before = document(old, tiny, slots=[slot(SIDE)])
    for share, hurts in ((1.5, []), (5, ["old"])):
        after = document(old, tiny, sponsorship("new", share, slots=(TOP,)), slots=[slot(SIDE)])
        answer = ask(world(per_day=20_000), before, after, lambda _: None)
        assert [one.line_item for one in answer.hurts] == hurts
    after = document(old, structs.replace(tiny, share=0.001), slots=[slot(SIDE)])
    assert ask(world(per_day=20_000), before, after, lambda _: None).hurts == []


def test_changes_are_put_in_place_by_id() -> None:
    """
    What has the id of an entry replaces it, other entries are added, and every problem is named.
    """
    from adserver.config_files import rows_of

    words = Targeting(any=Terms(keys={"harbour": ("noord",)}))
    old = line_item("old", slots=(TOP,), targeting=words)
    made = document(old, creatives=[creative("old-loaf", image="x.png", image_size=(1, 1))])
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
    untouched, problems = change(made, rows_of(made), {}, "change.toml")
    assert (untouched.line_items, problems) == (made.line_items, [])
    assert forecast.DECISIONS >= 10_000
