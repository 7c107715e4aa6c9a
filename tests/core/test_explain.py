"""Why an ad shows: golden sentences for every reason, and never another winner than the one served."""

import random

import msgspec
import pytest

from adserver.catalog import Catalog
from adserver.decide import Filled, Page, Step, decide
from adserver.explain import NOTHING, Explanation, explain
from adserver.model import (
    Cap,
    Format,
    Goal,
    Kind,
    LineItem,
    Measure,
    NoFill,
    OnShortfall,
    PageRule,
    Pause,
    Priority,
    SlotId,
    Targeting,
    Terms,
)
from adserver.pacing import Pace
from adserver.targeting import UNKNOWN, know, withhold
from tests.core.test_page_rules import CATEGORIES, SLOTS, random_catalog, random_held, random_pace
from tests.make import NOON, SLOT, catalog, creative, draws, line_item, pause, paused, slot, sponsorship

ONE = SlotId(889991)
TOP = [slot(name="Top box"), slot(889991, name="Second box")]
SPORT = Targeting(any=Terms(section=("sport",)))


GOAL = Goal(3_000, Measure.IMPRESSIONS, daily=True)
SAYS = {
    "met": "today's 3,000 are used up",
    "slow": "it takes 1 % of its chances",
    "on-plan": "it is on its plan: 11 of 20 impressions",
    "waits": "it waits for the last it has served to be counted: 10 of 20 impressions",
}
PACE = Pace({"met": 0.0, "slow": 0.01, "on-plan": 0.0, "waits": 0.0}, SAYS, {}, frozenset({"met"}))


def top(*items: LineItem, **more: object) -> Catalog:
    return catalog(*items, slots=TOP, **more)  # type: ignore[arg-type]


def ask(made: Catalog, page: Page | None = None, n: int = 0, now: float = NOON) -> Explanation:
    return explain(made, now, page or Page((SLOT,)), draws(n), PACE)[-1]


EMPTY = {
    NoFill.UNKNOWN_SLOT: (top(), Page((SlotId(5),)), "Nothing shows in slot 5: there is no such slot."),
    NoFill.NO_BOOKING: (top(), Page((SLOT,)), "Nothing shows in *Top box*: nobody has booked it."),
    NoFill.NOT_LIVE: (
        top(line_item(name="Bakery", ends=NOON)),
        Page((SLOT,)),
        "Nothing shows in *Top box*: no booking's flight is on; *Bakery* was passed over: its flight has ended.",
    ),
    NoFill.OUTSIDE_HOURS: (
        top(line_item(name="Bakery", hours=("tue 06:00-10:00",))),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: no booking runs at this hour; *Bakery* was passed over: it runs tue "
            "06:00-10:00 only."
        ),
    ),
    NoFill.NOT_TARGETED: (
        top(line_item(name="Club", targeting=SPORT)),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: no booking is for such a page; *Club* was passed over: it is for pages with "
            "section sport, and this one has none of these."
        ),
    ),
    NoFill.OUTSIDE_SHARE: (
        top(sponsorship("bank", 10, name="Bank")),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: this view fell outside the shares sold, and nothing else may show; *Bank* was "
            "passed over: this draw fell outside the shares sold."
        ),
    ),
    NoFill.DUPLICATE_CREATIVE: (
        top(line_item(name="Bakery", slots=(SLOT, ONE))),
        Page((ONE, SLOT)),
        (
            "Nothing shows in *Top box*: no booking has a creative that is not on this page already; *Bakery* was "
            "passed over: its creatives are on this page already."
        ),
    ),
    NoFill.FORMAT: (
        top(line_item(name="Tags", creatives=("tag",)), creatives=[creative("tag", Kind.TAG)]),
        Page((SLOT,), Format.AMP),
        (
            "Nothing shows in *Top box*: no booking has a creative that suits this format; *Tags* was passed over: its "
            "creatives do not suit this format."
        ),
    ),
    NoFill.GOAL: (
        top(line_item("met", name="City Motors", goal=GOAL)),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: every booking has reached its goal; *City Motors* was passed over: today's "
            "3,000 are used up."
        ),
    ),
    NoFill.PACING: (
        top(line_item("slow", name="City Motors", goal=GOAL)),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: no booking has a plan that asks for this view; *City Motors* was passed over: "
            "it takes 1 % of its chances."
        ),
    ),
    NoFill.FREQUENCY: (
        top(line_item(name="Bakery", frequency=(Cap(3, 86_400),))),
        Page((SLOT,), held={"spring-sale": "this reader has seen it 3 times within a day"}),
        (
            "Nothing shows in *Top box*: every booking has a frequency cap that keeps it from this reader; *Bakery* "
            "was passed over: this reader has seen it 3 times within a day."
        ),
    ),
    NoFill.PAUSED: (
        paused(
            top(line_item(name="SkyWays", ends=NOON + 7 * 86_400)),
            pause(ends=NOON + 4 * 86_400 + 5 * 3600, reason="air crash"),
        ),
        Page((SLOT,)),
        (
            "Nothing shows in *Top box*: every booking whose flight is on is paused; *SkyWays* was passed over: it is "
            "paused until Friday 18:00 (air crash)."
        ),
    ),
    NoFill.CONSENT: (
        top(line_item(name="Tags", creatives=("tag",)), creatives=[creative("tag", Kind.TAG)]),
        Page((SLOT,), context=withhold(UNKNOWN)),
        (
            "Nothing shows in *Top box*: every booking has third-party tags only, and this reader has not consented to "
            "any; *Tags* was passed over: its creatives are third-party tags, and this reader has not consented to any."
        ),
    ),
    NoFill.WEIGHT: (
        top(line_item(name="Bakery", weight=0.0)),
        Page((SLOT,)),
        "Nothing shows in *Top box*: every booking has weight 0; *Bakery* was passed over: its weight is 0.",
    ),
    NoFill.PAGE_RULE: (
        top(line_item(name="Bakery", slots=(SLOT, ONE), creatives=("a", "b"), page=PageRule.ONE)),
        Page((ONE, SLOT)),
        (
            "Nothing shows in *Top box*: what else is on the page, or has to be, keeps every booking away; *Bakery* "
            "was passed over: it is on this page already."
        ),
    ),
}


@pytest.mark.parametrize("reason", NoFill)
def test_an_empty_slot_is_explained_in_a_sentence(reason: NoFill) -> None:
    """
    Each no-fill reason has its golden sentence, which names who was passed over and why.
    """
    made, page, sentence = EMPTY[reason]
    found = ask(made, page, n=1)
    assert (found.filled, found.reason) == (False, reason.value)
    assert found.sentence == sentence
    assert NOTHING.keys() == set(NoFill)


SPENT = line_item("met", name="Spent", goal=GOAL)
CLUB = line_item("club", name="Club", targeting=SPORT)
OVER = line_item("over", name="Over", ends=NOON)
MIXED = [
    (
        [SPENT, CLUB],
        (
            "no booking may show here now; *Spent* was passed over: today's 3,000 are used up; *Club* was passed over: "
            "it is for pages with section sport, and this one has none of these."
        ),
    ),
    (
        [OVER, SPENT],
        (
            "every booking whose flight is on has reached its goal; *Spent* was passed over: today's 3,000 are used "
            "up; *Over* was passed over: its flight has ended."
        ),
    ),
    (
        [SPENT, line_item("slow", name="Slow", goal=GOAL)],
        (
            "no booking has a plan that asks for this view; *Slow* was passed over: it takes 1 % of its chances; "
            "*Spent* was passed over: today's 3,000 are used up."
        ),
    ),
    (
        [sponsorship("met", 60, name="Spent", goal=GOAL)],
        "every booking has reached its goal; *Spent* was passed over: today's 3,000 are used up.",
    ),
    (
        [SPENT, line_item("never", name="Never", weight=0.0)],
        (
            "no booking may show here now; *Spent* was passed over: today's 3,000 are used up; *Never* was passed "
            "over: its weight is 0."
        ),
    ),
]


@pytest.mark.parametrize(("items", "sentence"), MIXED)
def test_what_is_said_of_every_booking_is_true_of_every_booking(items: list[LineItem], sentence: str) -> None:
    """
    Where they have reasons of their own nothing is said of all; what is over is told apart from what is on.
    """
    assert ask(top(*items), n=1).sentence == f"Nothing shows in *Top box*: {sentence}"


def test_a_slot_asked_twice_is_told_place_by_place() -> None:
    """
    Who shows in one of two places of a slot is not passed over there, in the sentence or in the table.
    """
    made = top(
        sponsorship("bank", 100, name="Bank", page=PageRule.ONE, creatives=("a", "b")),
        line_item("house", name="Words", priority=Priority.HOUSE),
    )
    first, second = explain(made, NOON, Page((SLOT, SLOT)), draws(), PACE)
    assert first.sentence == "Showing *Bank* because it holds 100 % of this slot."
    assert [(one.line_item, one.step) for one in first.candidates] == [("bank", None), ("house", "priority")]
    assert second.sentence == (
        "Showing *Words* because it is the only house booking that may show here now; *Bank* was passed over: it is on "
        "this page already."
    )
    assert [(one.line_item, one.step) for one in second.candidates] == [("house", None), ("bank", "page rule")]


RESTING = {
    "on-plan": "it is on its plan: 11 of 20 impressions",
    "waits": "it waits for the last it has served to be counted: 10 of 20 impressions",
    "unheard": "what it has delivered is not known yet",
}


@pytest.mark.parametrize("name", RESTING)
def test_a_goal_that_takes_nothing_now_is_not_told_as_reached(name: str) -> None:
    """
    On its plan, waiting to be counted, and not known yet are three reasons of their own, all of them pacing.
    """
    found = ask(top(line_item(name, name="G", goal=Goal(20, Measure.IMPRESSIONS))))
    assert found.reason == "pacing"
    assert found.sentence == (
        "Nothing shows in *Top box*: no booking has a plan that asks for this view; *G* was passed over: "
        f"{RESTING[name]}."
    )
    assert [(one.step, one.reason) for one in found.candidates] == [("pacing", RESTING[name])]


SHOWN = [
    (
        top(
            sponsorship("bank", 60, name="Bakery spring", ends=NOON + 4 * 86400 + 5 * 3600),
            line_item("car", name="City Motors", priority=Priority.BULK),
        ),
        "Showing *Bakery spring* because it holds 60 % of this slot until Friday 18:00.",
    ),
    (
        top(
            sponsorship("sport", 100, name="Club", targeting=SPORT),
            line_item("bakery", name="Bakery", ends=NOON + 90 * 86400),
        ),
        (
            "Showing *Bakery* because it is the only standard booking that may show here now; *Club* was passed over: "
            "it is for pages with section sport, and this one has none of these."
        ),
    ),
    (
        top(line_item("a", name="Bakery"), line_item("b", name="Butcher"), line_item("c", name="Never", weight=0.0)),
        "Showing *Bakery* because its turn came among 2 standard bookings that share this slot by weight.",
    ),
    (
        top(
            sponsorship("bank", 60, name="Bakery spring", ends=NOON + 4 * 86400 + 5 * 3600),
            sponsorship("met", 40, name="City Motors", goal=GOAL),
        ),
        (
            "Showing *Bakery spring* because it holds 60 % of this slot until Friday 18:00; *City Motors* was passed "
            "over: today's 3,000 are used up."
        ),
    ),
    (
        top(line_item("slow", name="City Motors", goal=GOAL), line_item(name="Bakery", frequency=(Cap(1, 60),))),
        "Showing *City Motors* because it has a goal of 3,000 impressions to reach today.",
    ),
    (
        paused(
            top(sponsorship("bank", 100, name="Bank"), line_item("house", name="Words", priority=Priority.HOUSE)),
            pause(line_item="bank"),
        ),
        (
            "Showing *Words* because it is the only house booking that may show here now; *Bank* was passed over: it "
            "is paused until Monday 14:00."
        ),
    ),
    (
        top(
            sponsorship(
                "slow",
                50,
                name="Bank",
                ends=NOON - 3 * 86400,
                goal=Goal(3_000, Measure.CLICKS),
                on_shortfall=OnShortfall.RUN_ON,
            )
        ),
        "Showing *Bank* because it holds 50 % of this slot until its goal of 3,000 clicks is reached.",
    ),
    (
        top(sponsorship("bank", 50, name="Bank", ends=NOON + 30 * 86400)),
        "Showing *Bank* because it holds 50 % of this slot until 1 April 2026.",
    ),
]


@pytest.mark.parametrize(("made", "sentence"), SHOWN)
def test_a_shown_ad_is_explained_in_a_sentence(made: Catalog, sentence: str) -> None:
    """
    By what the winner shows, until when, and who of its rank or above was passed over.
    """
    assert ask(made).sentence == sentence


def test_the_table_names_everybody_once() -> None:
    """
    The winner first, then the others by priority, each with the step and the reason that removed it.
    """
    made = top(
        line_item("house", name="House", priority=Priority.HOUSE),
        line_item("ended", name="Ended", ends=NOON),
        sponsorship("bank", 40, name="Bank"),
        sponsorship("club", 60, name="Club"),
    )
    found = ask(made)
    assert [(one.line_item, one.step, one.reason) for one in found.candidates] == [
        ("bank", None, "it holds 40 % of this slot"),
        ("club", "share", "this draw belongs to another sponsor's share"),
        ("ended", "live window", "its flight has ended"),
        ("house", "priority", "a sponsorship booking comes first"),
    ]
    assert msgspec.json.decode(msgspec.json.encode(found))["at"] == "2026-03-02T13:00:00+01:00"


def test_every_step_has_a_way_to_be_told() -> None:
    """
    No step of the decision is left out of the table of candidates.
    """
    told = {one.step for made, page, _ in EMPTY.values() for one in ask(made, page, n=1).candidates}
    weights = top(line_item("a"), line_item("b"), line_item("h", priority=Priority.HOUSE))
    told |= {one.step for one in ask(weights).candidates}
    assert told == {None, *(step.value for step in Step)}


def random_pauses(draw: random.Random) -> list[Pause]:
    """None for every other catalog; an hour each, from half an hour ago on or in half an hour."""
    targets = [
        {"line_item": "li-3"},
        {"advertiser": "adv-2"},
        {"category": draw.choice(CATEGORIES)},
        {"section": "sport"},
    ]
    return [
        pause(f"p-{n}", starts=(at := NOON + draw.choice([-1800, 1800])), ends=at + 3600, **draw.choice(targets))
        for n in range(draw.choice([0, draw.randint(1, 3)]))
    ]


def test_the_explained_winner_is_the_served_winner() -> None:
    """
    Over 10,000 random catalogs and pages; everybody booked is in the table once.
    """
    draw = random.Random(11)
    for turn in range(2000):
        made = paused(random_catalog(draw), *random_pauses(draw))
        for n in range(5):
            context = know(section=draw.choice(["", "sport"]))
            choose = draw.choices if turn % 5 == 0 else draw.sample  # some pages ask for a slot twice
            asks = tuple(choose(SLOTS, k=draw.randint(1, 5)))
            page = Page(asks, draw.choice(list(Format)), context, random_held(made, draw))
            number, pace = turn * 5 + n, random_pace(made, draw)
            found = explain(made, NOON, page, draws(number), pace)
            for told, served in zip(found, decide(made, NOON, page, draws(number), pace), strict=True):
                if isinstance(served, Filled):
                    ad = served.ad
                    assert (told.line_item, told.creative, told.reason) == (ad.line_item.id, ad.creative.id, None)
                else:
                    assert (told.line_item, told.creative, told.reason) == (None, None, served.reason.value)
                bookings = made.bookings.get(told.slot)
                booked = sorted(one.line_item.id for one in bookings.all) if bookings else []
                assert sorted(one.line_item for one in told.candidates) == booked
                assert f"*{told.line_item}* was passed over" not in told.sentence
                if "every booking has reached its goal" in told.sentence:
                    assert {one.step for one in told.candidates} == {"goal"}
