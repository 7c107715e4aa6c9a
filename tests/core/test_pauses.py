"""Pauses: what is held back shows nowhere while it is, comes back by itself, and leaves everything else as it was."""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from adserver.catalog import Catalog, is_live
from adserver.days import Days
from adserver.decide import Decision, Draws, Filled, Lost, Page, Step, Unfilled, decide
from adserver.documents import Document
from adserver.explain import explain
from adserver.model import Goal, LineItem, Measure, NoFill, Pause, Priority, SlotId, Targeting, Terms
from adserver.pacing import Figures
from adserver.pauses import gaps_of, length_outside, outside
from adserver.planner import Heard, Planner
from adserver.targeting import UNKNOWN, Context, know
from adserver.traffic import Outlook, flat
from tests.core.test_decide import catalogs, moments, numbers, pages
from tests.make import (
    NOON,
    SLOT,
    advertiser,
    campaign,
    catalog,
    document,
    draws,
    line_item,
    pause,
    paused,
    problems,
    sponsorship,
)

HOUR = 3600.0
PAGE = Page((SLOT,))
SPORT = Page((SLOT,), context=know(section="Sport"))


def owned(made: Document) -> Catalog:
    """Line items of two airlines and a bakery, by their campaigns: `sky`, `cloud` and `bakery`."""
    airline = [advertiser(one, categories=("airline",)) for one in ("sky", "cloud")]
    everybody = (*airline, advertiser("bakery", categories=("food",)))
    return Catalog(
        structs.replace(
            made,
            advertisers=(advertiser(), *everybody),
            campaigns=tuple(campaign(one.id, advertiser=one.id) for one in everybody),
        ),
        1,
    )


THREE = owned(document(*(line_item(f"{one}-spring", campaign=one) for one in ("sky", "cloud", "bakery"))))


def answers(made: Catalog, now: float = NOON, page: Page = PAGE) -> set[str]:
    """Who answers in some of a hundred views."""
    found = [decide(made, now, page, draws(n))[0] for n in range(100)]
    return {one.ad.line_item.id if isinstance(one, Filled) else f"nothing: {one.reason.value}" for one in found}


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ({"line_item": "sky-spring"}, {"cloud-spring", "bakery-spring"}),
        ({"advertiser": "cloud"}, {"sky-spring", "bakery-spring"}),
        ({"category": "airline"}, {"bakery-spring"}),
        ({"category": "nobody"}, {"sky-spring", "cloud-spring", "bakery-spring"}),
    ],
)
def test_what_is_paused_stops_and_comes_back_by_itself(target: dict[str, str], shown: set[str]) -> None:
    """
    A line item, an advertiser's, a category's: from the pause's first instant on, until its last, which is not in it.
    """
    made = paused(THREE, pause(**target))
    everybody = {"sky-spring", "cloud-spring", "bakery-spring"}
    for now, who in ((NOON - 0.001, everybody), (NOON, shown), (NOON + HOUR - 0.001, shown), (NOON + HOUR, everybody)):
        assert answers(made, now) == who, now - NOON


def test_a_section_is_paused_where_a_page_says_it_is_one() -> None:
    """
    On its pages only house ads are left, in whatever letters it is written; elsewhere, and on pages that say no
    section, everything is as before.
    """
    sold, house = line_item("sold"), line_item("house", priority=Priority.HOUSE)
    made = paused(catalog(sold, house), pause(section="sport"))
    assert answers(made, page=SPORT) == {"house"}
    assert answers(made, NOON + HOUR, SPORT) == {"sold"}
    for context in (UNKNOWN, know(section="sports"), know(tags=["sport"], url="https://example.org/sport/1")):
        assert answers(made, page=Page((SLOT,), context=context)) == {"sold"}
    assert answers(paused(catalog(sold), pause(section="sport")), page=SPORT) == {"nothing: paused"}


def test_a_house_ad_is_paused_by_its_own_name() -> None:
    """
    A pause of a line item, its advertiser or a category holds back house ads, too.
    """
    made = owned(document(line_item("words", campaign="sky", priority=Priority.HOUSE)))
    for target in ({"line_item": "words"}, {"advertiser": "sky"}, {"category": "airline"}):
        assert answers(paused(made, pause(**target))) == {"nothing: paused"}


@pytest.mark.parametrize(
    ("items", "target", "reason"),
    [
        ([line_item("a"), line_item("b", ends=NOON)], {"line_item": "a"}, NoFill.PAUSED),
        ([line_item("a", ends=NOON)], {"line_item": "a"}, NoFill.NOT_LIVE),
        ([line_item("a", hours=("tue 06:00-22:00",))], {"line_item": "a"}, NoFill.PAUSED),
        ([line_item("a"), line_item("b", hours=("tue 06:00-22:00",))], {"line_item": "a"}, NoFill.OUTSIDE_HOURS),
        (
            [line_item("a"), line_item("b", targeting=Targeting(any=Terms(section=("news",))))],
            {"line_item": "a"},
            NoFill.NOT_TARGETED,
        ),
        ([line_item("a"), sponsorship("b", 1)], {"line_item": "a"}, NoFill.OUTSIDE_SHARE),
        ([line_item("a")], {"section": "sport"}, NoFill.PAUSED),
        ([line_item("a", ends=NOON)], {"section": "sport"}, NoFill.NOT_LIVE),
        ([line_item("a", hours=("tue 06:00-22:00",))], {"section": "sport"}, NoFill.PAUSED),
        (
            [line_item("a"), line_item("h", priority=Priority.HOUSE, hours=("tue 06:00-22:00",))],
            {"section": "sport"},
            NoFill.OUTSIDE_HOURS,
        ),
        (
            [
                line_item("a"),
                line_item("h", priority=Priority.HOUSE, targeting=Targeting(any=Terms(section=("news",)))),
            ],
            {"section": "sport"},
            NoFill.NOT_TARGETED,
        ),
    ],
)
def test_an_empty_slot_names_the_last_step_that_anybody_came_to(
    items: list[LineItem], target: dict[str, str], reason: NoFill
) -> None:
    """
    `paused` is said when all whose flight is on are paused; where one of them is not, what stopped that one.
    """
    made = paused(catalog(*items), pause(**target))
    assert decide(made, NOON, SPORT, draws(1)) == [Unfilled(SLOT, reason)]


def test_pauses_are_changes_of_a_slot() -> None:
    """
    Caches hold an answer until a pause begins or ends, as they do until a flight does; other slots are not troubled.
    """
    other = SlotId(SLOT + 1)
    made = paused(
        catalog(line_item(), line_item("beside", slots=(other,), ends=NOON + 9 * HOUR)),
        pause(starts=NOON + 1, ends=NOON + 3),
        pause("later", advertiser="acme", starts=NOON + 2, ends=NOON + 5),
        pause("sport", section="sport", starts=NOON + 4, ends=NOON + 8),
    )
    changes = [NOON]
    while (change := made.next_change(SLOT, changes[-1])) < inf:
        changes.append(change)
    assert [at - NOON for at in changes] == [0, 1, 2, 3, 4, 5, 8]
    assert made.next_change(other, NOON) == NOON + 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "it is paused until Monday 14:00"),
        ({"ends": NOON + 4 * 86_400, "reason": "air crash"}, "it is paused until Friday 13:00 (air crash)"),
        ({"ends": NOON + 7 * 86_400, "reason": "air crash"}, "it is paused until 9 March 2026 (air crash)"),
        ({"advertiser": "sky"}, "it is paused until Monday 14:00 (advertiser sky)"),
        ({"category": "airline", "reason": "crash"}, "it is paused until Monday 14:00 (category airline: crash)"),
        ({"section": "sport"}, "it is paused until Monday 14:00 (section sport)"),
    ],
)
def test_a_pause_is_said_with_its_end_and_its_reason(fields: dict[str, Any], said: str) -> None:
    """
    In the newsroom's time: the day of the week and the clock within a week, the date from then on.
    """
    made = paused(owned(document(line_item(campaign="sky"))), pause(**fields))
    trace: list[Lost] = []
    decide(made, NOON, SPORT, draws(), trace=trace)
    assert [(one.step, one.reason) for one in trace] == [(Step.PAUSED, said)]


def test_of_several_pauses_the_last_to_end_is_said() -> None:
    """
    Until then it does not come back; one that has ended or not begun is not spoken of.
    """
    made = paused(
        THREE,
        pause(line_item="sky-spring", reason="short"),
        pause("b", advertiser="sky", ends=NOON + 2 * HOUR, reason="long"),
        pause("c", category="airline", starts=NOON + HOUR, ends=NOON + 3 * HOUR, reason="later"),
        pause("d", category="airline", starts=NOON - HOUR, ends=NOON, reason="over"),
    )
    [told] = explain(made, NOON, PAGE, draws())
    reasons = {one.line_item: one.reason for one in told.candidates}
    assert reasons["sky-spring"] == "it is paused until Monday 15:00 (advertiser sky: long)"


# The check


def told(**fields: object) -> list[str]:
    """What is wrong with a pause of these fields from Tuesday to Wednesday, of the booking `spring` or of `skyways`."""
    begins, ends = (datetime.fromisoformat(f"2026-03-{day}T08:00:00+01:00") for day in (10, 11))
    booked = {"id": "spring", "name": "Spring", "campaign": "sky", "priority": "house", "slots": [1]}
    text = {"id": "wing", "advertiser": "skyways", "kind": "text", "title": "Fly", "click_url": "https://sky.example/"}
    tables: Mapping[str, Any] = {
        "slot": {"id": 1, "name": "Top", "size": "300x250"},
        "advertiser": {"id": "skyways", "name": "SkyWays"},
        "campaign": {"id": "sky", "name": "Sky", "advertiser": "skyways"},
        "line_item": {**booked, "creatives": ["wing"]},
        "creative": text,
        "pause": {"id": "crash", "starts": begins, "ends": ends, **fields},
    }
    return list(map(str, problems(tables)))


ONE_OF = "expected exactly one of the fields 'line_item', 'advertiser', 'category' and 'section'"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"line_item": "spring"}, []),
        ({"advertiser": "skyways"}, []),
        ({"category": "nobody-yet"}, []),
        ({"section": "Air Travel"}, []),
        ({}, [ONE_OF]),
        ({"category": "airline", "section": "travel"}, [ONE_OF]),
        ({"line_item": "sprnig"}, ["names line item 'sprnig', which does not exist; did you mean 'spring'?"]),
        ({"advertiser": "skyway"}, ["names advertiser 'skyway', which does not exist; did you mean 'skyways'?"]),
        (
            {"section": "sport", "ends": datetime.fromisoformat("2026-03-10T08:00:00+01:00")},
            ["ends before it starts, so it would pause nothing; exchange or correct the two dates"],
        ),
    ],
)
def test_a_pause_that_cannot_be_meant_is_told(fields: dict[str, Any], said: list[str]) -> None:
    """
    It names one thing, which exists (a category may come to), and ends after it starts.
    """
    assert told(**fields) == [f"config/spring.toml: pause 'crash': {one}" for one in said]


# Laws

WINDOWS = [(-HOUR, HOUR), (-HOUR, 0.0), (0.0, 60.0), (-60.0, 30.0), (30.0, 90.0), (120.0, HOUR)]
TARGETS = [
    {"line_item": "li-0"},
    {"line_item": "li-1"},
    {"advertiser": "sky"},
    {"category": "airline"},
    {"category": "food"},
    {"category": "nobody"},
    {"section": "sport"},
    {"section": "NEWS"},
]


@st.composite
def bookings(draw: st.DrawFn) -> Catalog:
    """Those of `test_decide`, of three advertisers."""
    made = draw(catalogs()).document
    campaigns = st.sampled_from(["sky", "cloud", "bakery"])
    items = tuple(structs.replace(one, campaign=draw(campaigns)) for one in made.line_items)
    return owned(structs.replace(made, line_items=items))


@st.composite
def some_pauses(draw: st.DrawFn) -> list[Pause]:
    found = draw(st.lists(st.tuples(st.sampled_from(WINDOWS), st.sampled_from(TARGETS)), max_size=4))
    return [
        pause(f"p-{n}", starts=NOON + begins, ends=NOON + ends, **target)
        for n, ((begins, ends), target) in enumerate(found)
    ]


def holds_back(one: Pause, made: Catalog, line_item: LineItem, context: Context) -> bool:
    """Whether it is this line item that is paused on such a page, said once more and differently."""
    owner = made.advertisers[made.campaigns[line_item.campaign].advertiser]
    if one.section:
        return f"section={one.section.lower()}" in context.facts and line_item.priority is not Priority.HOUSE
    return one.line_item == line_item.id or one.advertiser == owner.id or one.category in owner.categories


def is_held(made: Catalog, line_item: LineItem, now: float, context: Context) -> bool:
    return any(
        one.starts <= now < one.ends and holds_back(one, made, line_item, context) for one in made.document.pauses
    )


def winners(decisions: list[Decision]) -> list[str | None]:
    return [one.ad.name if isinstance(one, Filled) else None for one in decisions]


@settings(max_examples=100)
@given(bookings(), some_pauses(), moments, pages(), numbers)
def test_what_is_paused_is_as_if_it_were_not_booked(
    plain: Catalog, pauses: list[Pause], now: float, page: Page, numbered: Draws
) -> None:
    """
    No paused line item is shown; all the others show exactly where they would if the paused ones were not there.
    """
    made = paused(plain, *pauses)
    left = [one for one in made.document.line_items if not is_held(made, one, now, page.context)]
    without = Catalog(structs.replace(plain.document, line_items=tuple(left)), 1)
    decisions = decide(made, now, page, numbered)
    assert winners(decisions) == winners(decide(without, now, page, numbered))
    for one in decisions:
        if isinstance(one, Filled):
            assert not is_held(made, one.ad.line_item, now, page.context)
        elif one.slot in made.slots:
            live = [each.line_item for each in made.bookings[one.slot].all if is_live(each.line_item, now)]
            all_held = all(is_held(made, each, now, page.context) for each in live)
            assert (one.reason is NoFill.PAUSED) == (bool(live) and all_held)


@settings(max_examples=100)
@given(bookings(), some_pauses(), moments, pages(), numbers)
def test_pauses_of_other_times_change_nothing(
    plain: Catalog, pauses: list[Pause], now: float, page: Page, numbered: Draws
) -> None:
    """
    A catalog with pauses that have ended or not begun decides, and explains, exactly as one without any.
    """
    others = [one for one in pauses if not one.starts <= now < one.ends]
    told, told_without = list[Lost](), list[Lost]()
    found = decide(paused(plain, *others), now, page, numbered, trace=told)
    expected = decide(plain, now, page, numbered, trace=told_without)
    assert (found, told) == (expected, told_without)


@settings(max_examples=100)
@given(bookings(), some_pauses(), moments, pages(), numbers)
def test_explain_says_what_is_decided(
    plain: Catalog, pauses: list[Pause], now: float, page: Page, numbered: Draws
) -> None:
    """
    Its winner is the one that is served; whoever is live and paused is said to be paused, and nobody else.
    """
    made = paused(plain, *pauses)
    trace: list[Lost] = []
    decisions = decide(made, now, page, numbered, trace=trace)
    for told, served in zip(explain(made, now, page, numbered), decisions, strict=True):
        assert told.line_item == (served.ad.line_item.id if isinstance(served, Filled) else None)
    for one in trace:
        held = is_live(one.line_item, now) and is_held(made, one.line_item, now, page.context)
        assert (one.step is Step.PAUSED) == held, one


@settings(max_examples=100)
@given(bookings(), some_pauses(), moments, pages(), numbers, st.floats(0, 0.999))
def test_until_the_next_change_nothing_changes(
    plain: Catalog, pauses: list[Pause], now: float, page: Page, numbered: Draws, part: float
) -> None:
    """
    Whatever was asked before, an answer holds until the instant at which the slots say that they may change.
    """
    made = paused(plain, *pauses)
    until = min((made.next_change(SlotId(slot), now) for slot in made.slots), default=inf)
    later = now + part * (min(until, now + HOUR) - now)
    first = decide(made, now, page, numbered)
    assert first == decide(made, later, page, numbered)
    decide(made, until if until < inf else now, page, numbered)
    assert first == decide(made, now, page, numbered) == decide(paused(plain, *pauses), later, page, numbered)


# Goals

DAY = 24 * HOUR
FLIGHT = line_item("flight", goal=Goal(3_000, Measure.IMPRESSIONS), starts=NOON, ends=NOON + 3 * DAY)
DAY_TWO = pause(line_item="flight", starts=NOON + DAY, ends=NOON + 2 * DAY)


def paces(before: Catalog, since: Catalog) -> tuple[list[float], float]:
    """The goal's share of each five minutes of its flight, and what it delivers; *since* is live from day two on."""
    planner, days = Planner({}), Days("Europe/Amsterdam")
    outlook = Outlook({int(SLOT): flat(3_000 / DAY)}, before.week)
    shares, delivered = [], 0.0
    for step in range(3 * 288):
        now = NOON + step * 300
        planner.follow(since if step >= 288 else before)
        figures = {"flight": Figures(int(delivered), int(delivered))}
        planner.plan(Heard(figures, figures, {}), outlook, now, days)
        shares.append(planner.pace.shares.get("flight", 0.0))
        delivered += shares[-1] * 3_000 / 288
    return shares, delivered


@pytest.mark.parametrize("planned", [True, False], ids=["known before", "on the spot"])
def test_a_goal_takes_nothing_while_it_is_paused_and_catches_up_evenly(planned: bool) -> None:
    """
    What a day's pause leaves out is spread over the time that is left, and over all of it where it is known before.
    """
    plain, made = catalog(FLIGHT), paused(catalog(FLIGHT), DAY_TWO)
    shares, delivered = paces(made if planned else plain, made)
    assert not any(shares[288:576])
    for day, share in ((shares[:288], 1 / 2 if planned else 1 / 3), (shares[576:-50], 1 / 2 if planned else 2 / 3)):
        assert max(day) - min(day) < 0.03
        assert day == pytest.approx([share] * len(day), abs=0.03)
    assert delivered == pytest.approx(3_000, rel=0.005)


def test_a_small_goal_is_scheduled_around_a_pause() -> None:
    """
    Half of the time that is not paused is half of its schedule; by the clock alone as well.
    """
    small = structs.replace(FLIGHT, goal=Goal(20, Measure.IMPRESSIONS))
    made = paused(catalog(small), DAY_TWO)
    for outlook in (None, Outlook({int(SLOT): flat(3_000 / DAY)}, made.week)):
        for n, due in ((9, True), (11, False)):
            planner = Planner({})
            planner.follow(made)
            heard = Heard({"flight": Figures(n, n)}, {}, {})
            planner.plan(heard, outlook, NOON + 2 * DAY, Days("Europe/Amsterdam"))
            assert (planner.pace.shares["flight"] > 0) == due, (outlook, n)


def test_a_preview_knows_what_a_pause_leaves_out() -> None:
    """
    Projected into a pause a goal takes nothing; beyond it, as much as the traffic that is not paused leaves.
    """
    made = paused(catalog(FLIGHT), DAY_TWO)
    outlook = Outlook({int(SLOT): flat(3_000 / DAY)}, made.week)
    planner, days = Planner({}), Days("Europe/Amsterdam")
    planner.follow(made)
    heard = Heard({"flight": Figures()}, {}, {})
    assert planner.project(heard, outlook, NOON, NOON + 1.5 * DAY, days).shares == {}
    after = planner.project(heard, outlook, NOON, NOON + 2 * DAY, days)
    assert after.shares["flight"] == pytest.approx(0.5, abs=0.02)


def test_a_goal_that_is_paused_to_its_end_is_no_trouble() -> None:
    """
    With no time left that is not paused it is not live, and nothing is divided by it.
    """
    made = paused(catalog(FLIGHT), structs.replace(DAY_TWO, starts=NOON - 1, ends=NOON + 9 * DAY))
    planner, days = Planner({}), Days("Europe/Amsterdam")
    planner.follow(made)
    for outlook in (None, Outlook({int(SLOT): flat(1.0)}, made.week)):
        planner.plan(Heard({}, {}, {}), outlook, NOON + DAY, days)
        assert planner.pace.shares == {}


# Time that is not paused

instants = st.integers(0, 40).map(float)


@settings(max_examples=300)
@given(st.lists(st.tuples(instants, instants).filter(lambda pair: pair[0] < pair[1]), max_size=5), instants, instants)
def test_what_is_outside_of_pauses_is_every_other_second(
    windows: list[tuple[float, float]], begins: float, ends: float
) -> None:
    """
    Overlapping or touching, before, around or after: each second of a stretch is paused or outside, once.
    """
    pauses = [pause(starts=a, ends=b) for a, b in windows]
    found = outside(gaps_of(pauses), begins, ends)
    running = [n for n in range(int(begins), int(ends)) if not any(a <= n < b for a, b in windows)]
    assert [n for a, b in found for n in range(int(a), int(b))] == running
    assert length_outside(gaps_of(pauses), begins, ends) == len(running)
