"""A page is decided as a whole: who may stand beside whom, and roadblocks of all of their slots or none."""

import math
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from msgspec import structs

from adserver.catalog import Ad, Catalog
from adserver.decide import Draws, Filled, Lost, Page, Unfilled, decide, draw_of
from adserver.model import Campaign, Cap, Goal, LineItem, Measure, NoFill, PageRule, Priority, Rotation, SlotId
from adserver.pacing import Pace
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
    slot,
    sponsorship,
)

SLOTS = [SlotId(889977 + n) for n in range(5)]
PAGES = 100_000
CATEGORIES = ["bank", "car", "food"]


def random_catalog(draw: random.Random) -> Catalog:
    """Advertisers with categories, each with some line items of every page rule."""
    advertisers = [
        advertiser(
            f"adv-{n}", several=draw.random() < 0.3, categories=tuple(draw.sample(CATEGORIES, draw.randrange(3)))
        )
        for n in range(5)
    ]
    items, creatives = list[LineItem](), []
    for n in range(9):
        owner = draw.choice(advertisers)
        names = [f"c-{n}-{m}" for m in range(draw.randint(1, 4))]
        creatives += [creative(name, advertiser=owner.id) for name in names]
        priority = draw.choice(list(Priority))
        items.append(
            line_item(
                f"li-{n}",
                campaign=owner.id,
                priority=priority,
                share=10.0 if priority is Priority.SPONSORSHIP else None,
                weight=draw.choice([0.5, 1.0, 3.0]),
                slots=tuple(draw.sample(SLOTS, draw.randint(1, 3))),
                creatives=tuple(names),
                page=draw.choice(list(PageRule)),
                rotation=draw.choice(list(Rotation)),
                goal=Goal(1000, Measure.IMPRESSIONS) if draw.random() < 0.3 else None,
                frequency=(Cap(1, 60),) if draw.random() < 0.2 else (),
            )
        )
    made = document(*items, creatives=creatives)
    campaigns = tuple(Campaign(id=one.id, name=one.id, advertiser=one.id) for one in advertisers)
    return Catalog(structs.replace(made, advertisers=tuple(advertisers), campaigns=campaigns), 1)


def random_pace(made: Catalog, draw: random.Random) -> Pace:
    shares = {one.id: draw.choice([0.0, 0.3, 1.0]) for one in made.goals}
    return Pace(shares, reached=frozenset(one for one, share in shares.items() if not share and draw.random() < 0.5))


def random_held(made: Catalog, draw: random.Random) -> Mapping[str, str] | None:
    return None if draw.random() < 0.3 else {name: "seen" for name in made.caps if draw.random() < 0.3}


def keeps_the_rules(made: Catalog, page: Page, ads: list[Ad]) -> None:
    owners = {one.id: made.advertisers[one.advertiser] for one in made.campaigns.values()}
    items = {ad.line_item.id: ad.line_item for ad in ads}
    times = Counter(ad.line_item.id for ad in ads)
    assert len({ad.creative.id for ad in ads}) == len(ads)
    categories = [name for item in items.values() for name in owners[item.campaign].categories]
    assert len(set(categories)) == len(categories), "two line items of one category"
    buyers = Counter(owners[item.campaign].id for item in items.values())
    assert all(n == 1 or made.advertisers[name].several for name, n in buyers.items()), "an advertiser twice"
    for item in items.values():
        match item.page:
            case PageRule.ONE:
                assert times[item.id] == 1
            case PageRule.ROADBLOCK_ALL:
                assert {ad.slot.id for ad in ads if ad.line_item is item} == set(item.slots) <= set(page.asks)


def test_every_page_keeps_the_rules() -> None:
    """
    Of 100,000 random pages none shows two line items of one category, an advertiser twice that did not ask for it, a
    line item in two slots that is sold one, or a part of a roadblock; and roadblocks do show.
    """
    draw = random.Random(7)
    blocks = 0
    for turn in range(PAGES // 100):
        made = random_catalog(draw)
        for n in range(100):
            page = Page(tuple(draw.sample(SLOTS, draw.randint(1, 5))), held=random_held(made, draw))
            decisions = decide(made, NOON, page, draws(turn * 100 + n), random_pace(made, draw))
            ads = [one.ad for one in decisions if isinstance(one, Filled)]
            keeps_the_rules(made, page, ads)
            blocks += any(ad.line_item.page is PageRule.ROADBLOCK_ALL and len(ad.line_item.slots) > 1 for ad in ads)
    assert blocks > PAGES / 100


@pytest.mark.parametrize("rotation", Rotation)
def test_a_roadblock_has_its_share_of_pages_and_its_creatives_take_turns(rotation: Rotation) -> None:
    """
    60 % of 10,000 pages, give or take 3, for it; what is left is its neighbours' in their own shares.
    """
    block = sponsorship(
        "block", 60, slots=(SLOTS[0], SLOTS[1]), creatives=("a", "b", "c", "d"), page=PageRule.ROADBLOCK_ALL,
        rotation=rotation,
    )  # fmt: skip
    made = catalog(
        block, sponsorship("one", 30, slots=(SLOTS[0],)), sponsorship("other", 40, slots=(SLOTS[1],)),
        line_item("rest", slots=(SLOTS[0],)),
    )  # fmt: skip
    counts: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for n in range(10_000):
        numbers: dict[int | str, int] = {SLOTS[0]: n, SLOTS[1]: 7 * n + 3}
        for one in decide(made, NOON, Page((SLOTS[1], SLOTS[0])), numbers):
            if isinstance(one, Filled):
                counts[one.ad.line_item.id] += 1
                shown[one.ad.creative.id] += 1
    exact = {"block": 12_000, "one": 3000, "other": 4000, "rest": 1000}
    assert all(abs(counts[name] - n) <= 6 for name, n in exact.items()), counts
    near = (
        4 * math.sqrt(12_000 * 3 / 16) if rotation is Rotation.SEQUENCE else 30
    )  # a sequence goes by the slot's views
    assert all(abs(shown[name] - 3000) <= near for name in "abcd"), shown


def test_two_roadblocks_with_a_slot_in_common_have_their_shares() -> None:
    """
    Each has its half of the pages, whichever of its slots stands first and however the two are called.
    """
    for names in (("block-a", "block-b"), ("block-b", "block-a")):
        made = catalog(
            sponsorship(names[0], 50, slots=(SLOTS[0], SLOTS[1]), creatives=("a", "b"), page=PageRule.ROADBLOCK_ALL),
            sponsorship(names[1], 50, slots=(SLOTS[2], SLOTS[1]), creatives=("c", "d"), page=PageRule.ROADBLOCK_ALL),
        )
        counts: Counter[str] = Counter()
        for view in range(1000):
            numbers: Draws = {one: draw_of(one, view) for one in SLOTS[:3]}
            for one in decide(made, NOON, Page(tuple(SLOTS[:3])), numbers):
                counts[one.ad.line_item.id if isinstance(one, Filled) else "-"] += 1
        assert all(abs(counts[name] - 1000) <= 6 for name in names), counts


def test_a_page_of_many_empty_groups_is_decided_in_time() -> None:
    """
    A page is decided anew for a group whose slot stays empty, but not for each of thousands of slots.
    """
    slots = [slot(n) for n in range(1, 2001)]
    groups = [group(*range(20 * n + 1, 20 * n + 21), id=f"g-{n}") for n in range(100)]
    blocked = [line_item(f"l-{n}", slots=(SlotId(n),), page=PageRule.ROADBLOCK_ALL) for n in range(1, 2001)]
    made = catalog(*blocked, slots=slots, groups=groups)
    calls = 0

    class Asked(dict[int | str, int]):
        def __missing__(self, name: int | str) -> int:
            nonlocal calls
            calls += 1
            return 0

    decide(made, NOON, Page(tuple(groups)), Asked())
    assert calls < 20_000


def test_a_roadblock_with_too_few_creatives_shows_nowhere() -> None:
    """
    No creative is shown twice on a page, so a roadblock of two slots with one creative leaves both to others.
    """
    block = line_item("block", slots=(SLOTS[0], SLOTS[1]), page=PageRule.ROADBLOCK_ALL)
    made = catalog(block, line_item("rest", slots=(SLOTS[0], SLOTS[1]), creatives=("x", "y"), priority=Priority.BULK))
    found = decide(made, NOON, Page((SLOTS[0], SLOTS[1])), draws())
    assert [one.ad.line_item.id if isinstance(one, Filled) else one.reason for one in found] == ["rest", "rest"]


def test_a_roadblock_of_one_slot_is_a_booking_like_any_other() -> None:
    """
    All of its slots is one; it shares its slot by weight, also on a page of that slot alone.
    """
    made = catalog(line_item("block", page=PageRule.ROADBLOCK_ALL), line_item("other"))
    counts: Counter[str] = Counter()
    for n in range(1000):
        [one] = decide(made, NOON, Page((SLOT,)), draws(n))
        assert isinstance(one, Filled)
        counts[one.ad.line_item.id] += 1
    assert counts == {"block": 500, "other": 500}


def test_a_house_ad_does_not_block_a_sponsorship_behind_a_group() -> None:
    """
    A group whose slot stays empty is answered by another of its slots, and what is sold there comes before a house ad
    of the same category elsewhere on the page, as if the page had asked for that slot.
    """
    sold = sponsorship("sold", 100.0, slots=(SlotId(3),), creatives=("a",))
    house = line_item("house", priority=Priority.HOUSE, slots=(SlotId(1),), creatives=("b",), campaign="own")
    late = line_item("late", slots=(SlotId(2),), starts=NOON + 60)
    found = document(sold, house, late, groups=[group(2, (3, 0.0), id="rail")])
    owners = [advertiser(name, categories=("bank",)) for name in ("acme", "own")]
    campaigns = (campaign(), campaign("own", advertiser="own"))
    creatives = tuple(structs.replace(one, advertiser="own") if one.id == "b" else one for one in found.creatives)
    of = Catalog(structs.replace(found, advertisers=tuple(owners), campaigns=campaigns, creatives=creatives), 1)
    page = Page((SlotId(1), of.groups["rail"]))
    trace: list[Lost] = []
    decisions = decide(of, NOON, page, draws(), trace=trace)
    shown = [one.ad.line_item.id if isinstance(one, Filled) else one.reason.value for one in decisions]
    assert shown == ["page-rule", "sold"]
    assert {lost.line_item.id for lost in trace} == {"house", "late"}
    assert decide(of, NOON, page, draws()) == decisions


def test_a_roadblock_that_a_cap_keeps_away_says_so() -> None:
    """
    Two ads at once are kept by it from a reader who may see one more; where the page lacks one of its slots, that is
    told instead.
    """
    block = line_item("block", slots=SLOTS[:2], creatives=("a", "b"), page=PageRule.ROADBLOCK_ALL,
                      frequency=(Cap(3, 86_400),))  # fmt: skip
    made = catalog(block)
    for left, told in ((3, []), (2, []), (1, ["frequency", "frequency"])):
        trace: list[Lost] = []
        page = Page(tuple(SLOTS[:2]), held={}, left={"line_item:block": left})
        decisions = decide(made, NOON, page, draws(), trace=trace)
        assert [one.reason.value for one in decisions if isinstance(one, Unfilled)] == told
        assert [one.step.value for one in trace] == told
        assert {one.reason for one in trace} == (
            {"it shows 2 times at once, which is more often than this reader may still see it"} if told else set()
        )
    alone = Page((SLOTS[0],), held={}, left={"line_item:block": 1})
    assert decide(made, NOON, alone, draws()) == [Unfilled(SLOTS[0], NoFill.PAGE_RULE)]


def test_a_group_leaves_a_slot_to_the_page_that_asks_for_it() -> None:
    """
    A slot that is on the page anyway does not answer for the group as well.
    """
    item = line_item("one", slots=(SlotId(2),))
    of = catalog(item, groups=[group(1, (2, 0.0), id="rail")])
    page = Page((of.groups["rail"], SlotId(2)))
    first, second = decide(of, NOON, page, draws())
    assert isinstance(first, Unfilled)
    assert first.slot == 1
    assert isinstance(second, Filled)
