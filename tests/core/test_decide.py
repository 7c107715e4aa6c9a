"""Which ad answers: priorities, shares, weights, whole pages, and why each candidate lost."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from adserver.catalog import Catalog, is_live
from adserver.decide import SHOWS, Decision, Draws, Filled, Lost, Page, Step, Unfilled, decide, draw_of, spread, view_of
from adserver.model import (
    Cap,
    Format,
    Goal,
    Group,
    Kind,
    LineItem,
    Measure,
    NoFill,
    PageRule,
    Priority,
    Rotation,
    SlotId,
    Targeting,
    Terms,
)
from adserver.pacing import Pace
from adserver.targeting import UNKNOWN, Context, know, withhold
from tests.make import (
    NOON,
    SLOT,
    advertiser,
    campaign,
    catalog,
    creative,
    document,
    draws,
    group,
    line_item,
    pause,
    paused,
    slot,
    sponsorship,
)

PAGE = Page((SLOT,))
SPORT = Targeting(any=Terms(section=("sport",)))
ONE, TWO, THREE = SlotId(889991), SlotId(889992), SlotId(889993)
PICKS = 10_000


def outcome(decision: Decision) -> str:
    """The line item that answers, or the reason none does."""
    return decision.ad.line_item.id if isinstance(decision, Filled) else decision.reason.value


def outcomes(made: Catalog, page: Page = PAGE, n: int = 0, now: float = NOON) -> list[str]:
    return [outcome(one) for one in decide(made, now, page, draws(n))]


def creatives_of(decisions: list[Decision]) -> list[str]:
    return [one.ad.creative.id for one in decisions if isinstance(one, Filled)]


def tallied(made: Catalog, picks: int = PICKS, page: Page = PAGE) -> Counter[str]:
    return Counter(one for n in range(picks) for one in outcomes(made, page, n))


def near(counts: Counter[str], exact: dict[str, float], within: float = 3) -> bool:
    return counts.keys() <= exact.keys() and all(abs(counts[name] - n) <= within for name, n in exact.items())


# Shares and weights


def test_shares_are_kept_within_3_of_exact() -> None:
    """
    After 10,000 requests, sponsorships of 60, 30 and 10 % have 6,000, 3,000 and 1,000 of them, give or take 3.
    """
    counts = tallied(catalog(sponsorship("big", 60), sponsorship("mid", 30), sponsorship("small", 10)))
    assert near(counts, {"big": 6000, "mid": 3000, "small": 1000})


def test_shares_are_kept_all_along_and_from_any_draw() -> None:
    """
    Not only the end is right: at every hundredth request, from wherever the counter stands, each has its share.
    """
    made = catalog(sponsorship("big", 60), sponsorship("mid", 30), sponsorship("small", 10))
    for start in (0, 1_234_567, 2**40):
        counts: Counter[str] = Counter()
        for n in range(2000):
            counts.update(outcomes(made, n=start + n))
            if n % 100 == 99:
                so_far = n + 1
                assert near(counts, {"big": so_far * 0.6, "mid": so_far * 0.3, "small": so_far * 0.1}, 4)


def test_weights_are_kept_within_3_of_exact() -> None:
    """
    Line items of weights 5, 3 and 2 share their slot accordingly; a weight of 0 is never chosen.
    """
    weights = {"five": 5.0, "none": 0.0, "three": 3.0, "two": 2.0}
    counts = tallied(catalog(*(line_item(name, weight=weight) for name, weight in weights.items())))
    assert near(counts, {"five": 5000, "three": 3000, "two": 2000})


@pytest.mark.parametrize(
    ("rotation", "exact"),
    [
        (Rotation.EVEN, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
        (Rotation.WEIGHTED, {"a": 0.6, "b": 0.3, "c": 0.1}),
    ],
)
@pytest.mark.parametrize("booking", [line_item("b"), sponsorship("b", 60), line_item("b", weight=1.5)])
def test_creatives_share_their_line_item(booking: Any, rotation: Rotation, exact: dict[str, float]) -> None:
    """
    Within a line item the creatives have their shares too: what is left over of a draw is again evenly spread.
    """
    shown = [creative("a", weight=6.0), creative("b", weight=3.0), creative("c", weight=1.0)]
    booked = line_item(
        "main",
        priority=booking.priority,
        share=booking.share,
        weight=booking.weight,
        creatives=("a", "b", "c"),
        rotation=rotation,
    )
    made = catalog(booked, line_item("other"), creatives=shown)
    counts: Counter[str] = Counter()
    for n in range(PICKS):
        (decision,) = decide(made, NOON, PAGE, draws(n))
        if outcome(decision) == "main":
            counts.update(creatives_of([decision]))
    share = booking.share / 100 if booking.share else booking.weight / (booking.weight + 1)
    assert abs(counts.total() - PICKS * share) <= 3
    assert near(counts, {name: PICKS * share * part for name, part in exact.items()}, within=6)


def test_a_sequence_shows_creatives_in_their_order() -> None:
    """
    A booking that has its slot to itself shows its creatives one after another.
    """
    made = catalog(line_item(creatives=("a", "b", "c"), rotation=Rotation.SEQUENCE))
    found = [creatives_of(decide(made, NOON, PAGE, {SLOT: draw_of(SLOT, view)}))[0] for view in range(99)]
    assert found == list("abc" * 33)


def test_a_sequence_that_shares_its_slot_is_even_as_chance_is() -> None:
    """
    It goes by the slot's views, of which others have some: its creatives are as even as a lottery would be.
    """
    made = catalog(line_item("main", creatives=("a", "b", "c"), rotation=Rotation.SEQUENCE), line_item("other"))
    counts: Counter[str] = Counter()
    for view in range(PICKS):
        counts.update(creatives_of(decide(made, NOON, PAGE, {SLOT: draw_of(SLOT, view)})))
    assert abs(counts.pop("other-loaf") - PICKS / 2) <= 3
    assert near(counts, dict.fromkeys("abc", PICKS / 6), within=4 * math.sqrt(PICKS / 2 * 2 / 9))


@given(st.integers(1, 2**31), st.integers(0, 2**53))
def test_each_view_of_a_slot_takes_a_draw_of_its_own(slot: int, view: int) -> None:
    """
    Each eight views take just the eight draws that are due, and which view took a draw can be told.
    """
    first = view & ~7
    taken = [draw_of(slot, one) for one in range(first, first + 8)]
    assert sorted(taken) == list(range(first, first + 8))
    assert [view_of(slot, draw) for draw in taken] == list(range(first, first + 8))


def test_slots_of_the_same_pages_do_not_draw_alike() -> None:
    """
    Of two slots that are always asked together, each half of one meets each half of the other.
    """
    for one, other in pairwise(range(889_977, 889_995)):
        both = Counter((spread(draw_of(one, view)) < 0.5, spread(draw_of(other, view)) < 0.5) for view in range(PICKS))
        assert all(abs(n - PICKS / 4) < PICKS / 40 for n in both.values()), (one, other, both)


def test_two_halves_beside_two_halves_all_show() -> None:
    """
    A bank and a car dealer have half of a slot each, two others of the same trades half of the next one on the page:
    whom the company keeps away gives way to the other, and each has its half.
    """
    trades = {"bank-a": "bank", "car-a": "car", "bank-b": "bank", "car-b": "car"}
    booked = document(
        *(sponsorship(name, 50, campaign=name, slots=(TWO if name[-1] == "b" else ONE,)) for name in trades)
    )
    owners = tuple(advertiser(name, categories=(trade,)) for name, trade in trades.items())
    campaigns = tuple(campaign(name, advertiser=name) for name in trades)
    made = Catalog(structs.replace(booked, advertisers=(*booked.advertisers, *owners), campaigns=campaigns), 7)
    counts: Counter[str] = Counter()
    for view in range(PICKS):
        numbers: Draws = {one: draw_of(one, view) for one in (ONE, TWO)}
        counts.update(outcome(one) for one in decide(made, NOON, Page((ONE, TWO)), numbers))
    assert near(counts, {"bank-a": PICKS / 2, "car-a": PICKS / 2, "bank-b": PICKS / 2, "car-b": PICKS / 2}, within=250)


@given(st.integers(0, 2**53))
def test_a_draw_lies_between_0_and_1(n: int) -> None:
    """
    The golden-ratio sequence never reaches 1, however long it runs.
    """
    assert 0 <= spread(n) < 1


# Priorities


def test_a_higher_priority_answers_first() -> None:
    """
    Standard comes before bulk and bulk before house; each is asked only when no higher one answers.
    """
    booked = {priority.value: line_item(priority.value, priority=priority) for priority in list(Priority)[1:]}
    while booked:
        assert outcomes(catalog(*reversed(booked.values()))) == [next(iter(booked))]
        booked.pop(next(iter(booked)))


def test_what_a_sponsorship_leaves_is_shared_by_the_others() -> None:
    """
    Beside a sponsorship of 40 %, two standard bookings share the other 60 evenly: the draw that fell outside is used
    again, and is again evenly spread.
    """
    made = catalog(sponsorship("sponsor", 40), line_item("one"), line_item("two", weight=2.0))
    assert near(tallied(made), {"sponsor": 4000, "one": 2000, "two": 4000}, within=5)


def test_an_unsold_share_falls_through_to_a_house_ad_or_to_none() -> None:
    """
    Outside the shares sold a house ad shows; without one the slot stays empty, and says it was outside the share.
    """
    house = line_item("house", priority=Priority.HOUSE)
    assert near(tallied(catalog(sponsorship("sponsor", 25), house)), {"sponsor": 2500, "house": 7500})
    assert near(tallied(catalog(sponsorship("sponsor", 25))), {"sponsor": 2500, "outside-share": 7500})


def test_a_sponsor_who_cannot_show_gives_way_to_the_next_priority() -> None:
    """
    Where the chosen sponsor's creative cannot be shown, its share goes to the next priority, not to another sponsor.
    """
    mail = Page((SLOT,), Format.EMAIL)
    made = catalog(
        sponsorship("tag", 50, creatives=("tag",)),
        sponsorship("picture", 50),
        line_item("one"),
        line_item("two"),
        creatives=[creative("tag", Kind.TAG)],
    )
    assert near(tallied(made, page=mail), {"picture": 5000, "one": 2500, "two": 2500}, within=5)


# Flights


def test_first_instant_in_and_last_out() -> None:
    """
    A flight shows from its first instant until just before its last.
    """
    made = catalog(line_item(starts=NOON, ends=NOON + 60))
    found = [outcomes(made, now=now)[0] for now in (NOON - 0.001, NOON, NOON + 59.999, NOON + 60)]
    assert found == ["not-live", "spring-sale", "spring-sale", "not-live"]


# Pages


def test_a_page_is_answered_in_its_own_order() -> None:
    """
    Decisions stand in the order of the asks, though higher priorities are decided first.
    """
    made = catalog(line_item("one", slots=(ONE,)), sponsorship("two", 100, slots=(TWO,)))
    assert outcomes(made, Page((ONE, SLOT, TWO, SlotId(5)))) == ["one", "unknown-slot", "two", "unknown-slot"]


def test_a_page_is_decided_highest_priority_first() -> None:
    """
    Where two line items would show the same creative, the sponsorship gets it, though its slot comes later.
    """
    made = catalog(
        line_item("standard", slots=(ONE,), creatives=("loaf", "roll")),
        sponsorship("sponsor", 100, slots=(TWO,), creatives=("loaf",)),
    )
    for n in range(20):
        decisions = decide(made, NOON, Page((ONE, TWO)), draws(n))
        assert list(map(outcome, decisions)) == ["standard", "sponsor"]
        assert creatives_of(decisions) == ["roll", "loaf"]


def test_no_creative_shows_twice_on_a_page() -> None:
    """
    A line item with two creatives fills two of three slots; the third stays empty and says why.
    """
    made = catalog(line_item(slots=(ONE, TWO, THREE), creatives=("loaf", "roll")))
    decisions = decide(made, NOON, Page((ONE, TWO, THREE)), draws())
    assert sorted(creatives_of(decisions)) == ["loaf", "roll"]
    assert decisions[2] == Unfilled(THREE, NoFill.DUPLICATE_CREATIVE)


@pytest.mark.parametrize("rotation", [Rotation.WEIGHTED, Rotation.EVEN])
def test_where_a_creative_is_on_the_page_already_the_others_keep_their_shares(rotation: Rotation) -> None:
    """
    The second of two slots shows, of the two creatives left, each in proportion to its weight.
    """
    weights = {"a": 5.0, "b": 3.0, "c": 2.0} if rotation is Rotation.WEIGHTED else dict.fromkeys("abc", 1.0)
    shown = [creative(name, weight=weight) for name, weight in weights.items()]
    made = catalog(line_item(slots=(ONE, TWO), creatives=tuple("abc"), rotation=rotation), creatives=shown)
    pairs: Counter[str] = Counter()
    for n in range(PICKS):
        pairs["".join(creatives_of(decide(made, NOON, Page((ONE, TWO)), draws(n))))] += 1
    total = sum(weights.values())
    exact = {
        first + then: PICKS * weights[first] / total * weights[then] / (total - weights[first])
        for first in "abc"
        for then in "abc"
        if first != then
    }
    assert near(pairs, exact, within=6)


def test_when_its_creatives_are_taken_another_line_item_answers() -> None:
    """
    A chosen line item that has nothing left to show makes room for the others of its priority, then for the next.
    """
    made = catalog(
        line_item("heavy", weight=100.0, slots=(ONE, TWO, THREE)),
        line_item("light", weight=1.0, slots=(TWO, THREE)),
        line_item("house", priority=Priority.HOUSE, slots=(ONE, TWO, THREE)),
    )
    for n in range(50):
        assert sorted(outcomes(made, Page((ONE, TWO, THREE)), n)) == ["heavy", "house", "light"]


def test_a_slot_asked_for_twice_shows_two_different_ads() -> None:
    """
    Two shortcodes of one slot on a page are two asks.
    """
    made = catalog(line_item(creatives=("loaf", "roll")))
    assert sorted(creatives_of(decide(made, NOON, Page((SLOT, SLOT)), draws()))) == ["loaf", "roll"]


# Groups


def test_a_group_chooses_its_slot_by_weight() -> None:
    """
    A group's slots answer in proportion to their weights, each with its own bookings.
    """
    members = group((ONE, 6.0), (TWO, 3.0), (THREE, 1.0))
    made = catalog(*(line_item(f"in-{one}", slots=(one,)) for one in (ONE, TWO, THREE)), groups=[members])
    counts = tallied(made, page=Page((members,)))
    assert near(counts, {f"in-{ONE}": 6000, f"in-{TWO}": 3000, f"in-{THREE}": 1000})


def test_a_group_falls_back_on_its_other_slots() -> None:
    """
    Where the chosen slot stays empty, the next of the group's slots that does not is the one that answers.
    """
    members = group((ONE, 1000.0), (TWO, 1.0), (THREE, 1.0))
    made = catalog(line_item("late", slots=(ONE,), starts=NOON + 1), line_item("on", slots=(THREE,)), groups=[members])
    (decision,) = decide(made, NOON, Page((members,)), draws())
    assert isinstance(decision, Filled)
    assert (decision.ad.slot.id, decision.ad.line_item.id) == (THREE, "on")


def test_an_empty_group_answers_for_its_first_choice() -> None:
    """
    A group none of whose slots can answer gives the reason of the slot it chose.
    """
    members = group((ONE, 1000.0), (TWO, 1.0))
    made = catalog(line_item("late", slots=(ONE,), starts=NOON + 1), groups=[members])
    assert decide(made, NOON, Page((members,)), draws()) == [Unfilled(ONE, NoFill.NOT_LIVE)]


def test_a_group_never_starts_at_a_slot_of_weight_0() -> None:
    """
    A slot of weight 0 is only a fallback, at either end of the list.
    """
    members = group((ONE, 0.0), (TWO, 1.0), (THREE, 0.0))
    made = catalog(*(line_item(f"in-{one}", slots=(one,)) for one in (ONE, TWO, THREE)), groups=[members])
    assert tallied(made, 1000, Page((members,))) == {f"in-{TWO}": 1000}


# Formats and reasons


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("kind", Kind)
def test_a_format_shows_the_kinds_it_can_carry(form: Format, kind: Kind) -> None:
    """
    Mail and AMP carry pictures and words, a native page also sanitised HTML, and only a web page third-party tags.
    """
    shown = {
        Format.EMAIL: "image text native",
        Format.AMP: "image text native",
        Format.NATIVE: "image text native html",
    }
    fits = kind.value in shown.get(form, "image text native html tag").split()
    made = catalog(line_item(creatives=("it",)), creatives=[creative("it", kind)])
    assert outcomes(made, Page((SLOT,), form)) == ["spring-sale" if fits else "format"]


def test_another_creative_stands_in_for_one_of_the_wrong_kind() -> None:
    """
    In a mail, a line item with a tag and a picture shows the picture.
    """
    made = catalog(line_item(creatives=("tag", "loaf")), creatives=[creative("tag", Kind.TAG)])
    for n in range(20):
        assert creatives_of(decide(made, NOON, Page((SLOT,), Format.EMAIL), draws(n))) == ["loaf"]


GOAL = Goal(1000, Measure.IMPRESSIONS)
REASONS = {
    NoFill.UNKNOWN_SLOT: (catalog(), PAGE),
    NoFill.NO_BOOKING: (catalog(slots=[slot()]), PAGE),
    NoFill.NOT_LIVE: (catalog(line_item(ends=NOON)), PAGE),
    NoFill.OUTSIDE_SHARE: (catalog(sponsorship("sponsor", 1)), PAGE),
    NoFill.DUPLICATE_CREATIVE: (catalog(line_item()), Page((SLOT, SLOT))),
    NoFill.FORMAT: (
        catalog(line_item(creatives=("tag",)), creatives=[creative("tag", Kind.TAG)]),
        Page((SLOT,), Format.AMP),
    ),
    NoFill.OUTSIDE_HOURS: (catalog(line_item(hours=("tue 06:00-22:00",))), PAGE),
    NoFill.PAGE_RULE: (
        catalog(line_item(slots=(SLOT, ONE), page=PageRule.ONE, creatives=("a", "b"))),
        Page((ONE, SLOT)),
    ),
    NoFill.NOT_TARGETED: (catalog(line_item(targeting=SPORT)), PAGE),
    NoFill.GOAL: (catalog(line_item("met", goal=GOAL)), PAGE),
    NoFill.PACING: (catalog(line_item("slow", goal=GOAL)), PAGE),
    NoFill.FREQUENCY: (catalog(line_item(frequency=(Cap(1, 60),))), PAGE),
    NoFill.PAUSED: (paused(catalog(line_item()), pause()), PAGE),
    NoFill.CONSENT: (
        catalog(line_item(creatives=("tag",)), creatives=[creative("tag", Kind.TAG)]),
        Page((SLOT,), context=withhold(UNKNOWN)),
    ),
    NoFill.WEIGHT: (catalog(line_item(weight=0.0)), PAGE),
}


@pytest.mark.parametrize("reason", NoFill)
def test_every_no_fill_has_a_way_to_happen(reason: NoFill) -> None:
    """
    Each reason on the closed list is given to somebody.
    """
    made, page = REASONS[reason]
    assert decide(made, NOON, page, draws(1), Pace({"slow": 0.01}, reached=frozenset({"met"})))[-1] == Unfilled(
        SLOT, reason
    )


def test_all_weights_0_leave_the_slot_empty() -> None:
    """
    Bookings of weight 0 never show, whether there is one or several, and hurt nobody.
    """
    assert outcomes(catalog(line_item("a", weight=0.0))) == ["weight"]
    assert outcomes(catalog(line_item("a", weight=0.0), line_item("b", weight=0.0))) == ["weight"]
    assert outcomes(catalog(line_item("a", weight=0.0), line_item("b", ends=NOON))) == ["weight"]
    sport = line_item("b", targeting=SPORT)
    assert outcomes(catalog(line_item("a", weight=0.0), sport)) == ["weight"]
    assert tallied(catalog(line_item("a"), line_item("b", weight=0.0)), 100) == {"a": 100}


# Laws

SLOTS = [SlotId(889977 + n) for n in range(5)]
CREATIVES = [f"c-{n}" for n in range(5)]


TERMS = [Terms(section=("sport",)), Terms(tag=("a", "b")), Terms(url=("/live/",), device=("mobile",)), None]
CONTEXTS = [
    UNKNOWN,
    know(section="sport", tags=["a"]),
    know(tags=["a", "b"], url="https://example.org/live/1"),
    know(section="news", device="mobile"),
]


@st.composite
def targetings(draw: st.DrawFn, prefer: bool) -> Targeting | None:
    terms = st.sampled_from(TERMS)
    if draw(st.booleans()):
        return None
    return Targeting(any=draw(terms), all=draw(terms), none=draw(terms), prefer=draw(terms) if prefer else None)


def admits(targeting: Targeting | None, context: Context) -> bool:
    """What targeting means, said once more and differently."""

    def hits(terms: Terms) -> list[bool]:
        facts = [
            f"{kind}={value}" in context.facts
            for kind in ("section", "tag", "device")
            for value in getattr(terms, kind)
        ]
        return facts + [context.path.startswith(value) for value in terms.url]

    if targeting is None:
        return True
    if targeting.none and any(hits(targeting.none)):
        return False
    if targeting.all and not all(hits(targeting.all)):
        return False
    return targeting.any is None or any(hits(targeting.any))


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    booked = []
    for n in range(draw(st.integers(0, 7))):
        priority = draw(st.sampled_from(Priority))
        starts = draw(st.sampled_from([None, NOON - 60, NOON, NOON + 60]))
        booked.append(
            line_item(
                f"li-{n}",
                priority=priority,
                share=draw(st.sampled_from([5.0, 10.0, 14.0])) if priority is Priority.SPONSORSHIP else None,
                weight=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
                slots=tuple(draw(st.lists(st.sampled_from(SLOTS), min_size=1, unique=True))),
                creatives=tuple(draw(st.lists(st.sampled_from(CREATIVES), min_size=1, max_size=3, unique=True))),
                starts=starts,
                ends=draw(st.sampled_from([None, (starts or NOON) + 60])),
                rotation=draw(st.sampled_from(Rotation)),
                hours=draw(st.sampled_from([(), ("mon 13:00-14:00",), ("mon 12:00-13:00", "sun 09:00-10:00")])),
                page=draw(st.sampled_from(PageRule)),
                targeting=draw(targetings(prefer=priority is not Priority.SPONSORSHIP)),
            )
        )
    shown = [
        creative(name, draw(st.sampled_from(Kind)), weight=draw(st.sampled_from([0.0, 1.0, 2.0]))) for name in CREATIVES
    ]
    return catalog(*booked, slots=[slot(one) for one in SLOTS], creatives=shown)


@st.composite
def pages(draw: st.DrawFn) -> Page:
    """Distinct slots in any order; the last ones may be asked for as a group."""
    slots = draw(st.permutations(SLOTS))[: draw(st.integers(0, 5))]
    cut = draw(st.integers(0, len(slots)))
    weights = st.sampled_from([0.0, 1.0, 2.0])
    asks: list[SlotId | Group] = list(slots[:cut])
    if slots[cut:]:
        pairs = [(one, draw(weights)) for one in slots[cut:-1]]
        asks.insert(draw(st.integers(0, cut)), group(*pairs, (slots[-1], 1.0)))
    if draw(st.booleans()):
        asks.append(SlotId(5))
    return Page(tuple(asks), draw(st.sampled_from(Format)), draw(st.sampled_from(CONTEXTS)))


NAMES: list[int | str] = [*SLOTS, "sidebar"]
numbers = st.fixed_dictionaries({name: st.integers(0, 10**6) for name in NAMES})
moments = st.sampled_from([NOON - 61, NOON - 60, NOON, NOON + 59, NOON + 60, NOON + 121])


def asked(page: Page, at: int) -> set[int]:
    ask = page.asks[at]
    return {member.slot for member in ask.slots} if isinstance(ask, Group) else {ask}


def may_join(line_item: LineItem, decisions: list[Decision]) -> bool:
    """Whether page rules leave it to the draws; who shows in all of its slots or in none is seen in test_page_rules."""
    shown = [one.ad.line_item for one in decisions if isinstance(one, Filled)]
    return line_item.page is PageRule.ROADBLOCK_ANY or (line_item.page is PageRule.ONE and line_item not in shown)


@settings(max_examples=120)
@given(catalogs(), moments, pages(), numbers)
def test_an_answer_keeps_every_promise(made: Catalog, now: float, page: Page, numbered: Draws) -> None:
    """
    Whoever answers was asked for, is live, suits the format, and no creative is on the page twice; where nobody
    answers, everybody who could have shown is on the page already or lost to the shares sold.
    """
    decisions = decide(made, now, page, numbered)
    assert len(decisions) == len(page.asks)
    used = creatives_of(decisions)
    assert len(set(used)) == len(used)
    for at, decision in enumerate(decisions):
        if isinstance(decision, Unfilled):
            assert decision.slot in asked(page, at)
            assert (decision.reason is NoFill.UNKNOWN_SLOT) == (decision.slot not in made.slots)
        else:
            ad = decision.ad
            assert ad.slot.id in asked(page, at)
            assert made.by_key[ad.key] is ad
            assert is_live(ad.line_item, now)
            assert not ad.line_item.hours or ("mon 13:00-14:00" in ad.line_item.hours) == (now >= NOON)
            assert admits(ad.line_item.targeting, page.context)
            assert ad.creative.kind in SHOWS[page.format]
            assert ad.creative.weight
            assert ad.line_item.weight or ad.line_item.priority is Priority.SPONSORSHIP
        slot_id = decision.ad.slot.id if isinstance(decision, Filled) else decision.slot
        winner = decision.ad.line_item.priority if isinstance(decision, Filled) else None
        for tier, priority in zip(
            made.bookings[slot_id].at(now).on(page.context).tiers if slot_id in made.slots else (),
            Priority,
            strict=False,
        ):
            if priority is winner:
                break
            for booking in tier.bookings if tier else ():
                left = [one for one in booking.ads if one.creative.kind in SHOWS[page.format]]
                could = priority is not Priority.SPONSORSHIP and booking.line_item.weight
                could = could and may_join(booking.line_item, decisions)
                assert not could or all(one.creative.id in used for one in left)


@settings(max_examples=100)
@given(catalogs(), moments, pages(), numbers)
def test_the_same_question_has_the_same_answer(made: Catalog, now: float, page: Page, numbered: Draws) -> None:
    """
    Asked again, of a catalog made anew, after other questions, or with a trace, the answer is the same.
    """
    first = decide(made, now, page, numbered)
    decide(made, now + 1, Page(tuple(reversed(page.asks))), numbered)
    again = decide(made, now, page, dict(numbered), trace=[])
    anew = decide(Catalog(made.document, made.version), now, page, numbered)
    assert first == again == anew


@settings(max_examples=120)
@given(catalogs(), moments, pages(), numbers)
def test_every_candidate_wins_or_is_told_why_not(made: Catalog, now: float, page: Page, numbered: Draws) -> None:
    """
    Of each slot that was tried, every booking either answers or has exactly one step and reason it lost by. Of a
    group, the slots after the one that answers were not tried.
    """
    trace: list[Lost] = []
    decisions = decide(made, now, page, numbered, trace=trace)
    lost = Counter((one.slot, one.line_item.id) for one in trace)
    assert all(one.reason for one in trace)
    assert set(lost.values()) <= {1}
    for at, decision in enumerate(decisions):
        winner = decision.ad if isinstance(decision, Filled) else None
        for slot_id in asked(page, at) & made.slots.keys():
            candidates = {booking.line_item.id for booking in made.bookings[slot_id].all}
            told = {name for slot_name, name in lost if slot_name == slot_id}
            answers = winner is not None and winner.slot.id == slot_id
            if answers:
                assert winner is not None
                assert told == candidates - {winner.line_item.id}
            elif told or winner is None or not isinstance(page.asks[at], Group):
                assert told == candidates
    assert {one.slot for one in trace} <= {name for at in range(len(decisions)) for name in asked(page, at)}


def test_a_slot_asked_twice_is_traced_place_by_place() -> None:
    """
    Why a booking did not win the second place is not told of the first, which it has.
    """
    made = catalog(line_item("a", page=PageRule.ONE), line_item("b", priority=Priority.HOUSE))
    trace: list[Lost] = []
    assert [one.ad.line_item.id for one in decide(made, NOON, Page((SLOT, SLOT)), draws(), trace=trace)
            if isinstance(one, Filled)] == ["a", "b"]  # fmt: skip
    assert sorted((one.place, one.line_item.id, one.step) for one in trace) == [
        (0, "b", Step.PRIORITY),
        (1, "a", Step.PAGE_RULE),
    ]


@settings(max_examples=120)
@given(catalogs(), moments, pages(), numbers)
def test_a_reason_is_true(made: Catalog, now: float, page: Page, numbered: Draws) -> None:
    """
    Who is said to be off is off, who is said to be outranked was, and who is said to have weight 0 has.
    """
    trace: list[Lost] = []
    decisions = decide(made, now, page, numbered, trace=trace)
    winners = {one.ad.slot.id: one.ad.line_item for one in decisions if isinstance(one, Filled)}
    order = list(Priority)
    for one in trace:
        booked = one.line_item
        winner = winners.get(one.slot)
        assert (one.step is Step.LIVE_WINDOW) == (not is_live(booked, now))
        assert one.step is not Step.TARGETING or not admits(booked.targeting, page.context)
        assert one.step is not Step.HOURS or one.reason == f"it runs {', '.join(booked.hours)} only"
        match one.step:
            case Step.LIVE_WINDOW:
                ended = booked.ends is not None and booked.ends <= now
                assert one.reason == ("its flight has ended" if ended else "its flight has not started")
            case Step.PRIORITY:
                assert winner
                assert order.index(winner.priority) < order.index(booked.priority)
                assert one.reason == f"a {winner.priority.value} booking comes first"
            case Step.SHARE:
                assert booked.priority is Priority.SPONSORSHIP
            case Step.WEIGHT:
                assert booked.priority is not Priority.SPONSORSHIP
                assert (one.reason == "its weight is 0") == (booked.weight == 0)
                assert not booked.weight or (winner and winner.priority is booked.priority)
            case Step.CREATIVE:
                ads = next(each.ads for each in made.bookings[one.slot].all if each.line_item is booked)
                suits = [ad for ad in ads if ad.creative.kind in SHOWS[page.format]]
                assert ("format" in one.reason) == (not suits)
                assert all(ad.creative.id in creatives_of(decisions) for ad in suits)
