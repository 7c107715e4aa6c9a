"""The catalog: an index that never changes, and a check that finds every problem between entries."""

import time
from itertools import permutations
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from adserver.catalog import Bookings, Catalog, ad_key
from adserver.checks import _most_filled, check
from adserver.documents import Document, Known, read_tables
from adserver.errors import Problem
from adserver.model import Cap, Kind, PageRule, Placement, Priority, Slot, SlotId, Targeting, Terms, WhenEmpty
from tests.make import (
    NOON,
    SLOT,
    advertiser,
    campaign,
    catalog,
    creative,
    document,
    entries,
    group,
    line_item,
    problems,
    site,
    slot,
    sponsorship,
)

DAY = 86_400.0


def told(of: Document) -> list[str]:
    """What `check` says of a document that names everything it has."""
    return list(map(str, check(of, known(of))))


def known(of: Document) -> Known:
    tables = {
        "slot": of.slots,
        "group": of.groups,
        "placement": of.placements,
        "advertiser": of.advertisers,
        "campaign": of.campaigns,
        "line_item": of.line_items,
        "creative": of.creatives,
        "pause": of.pauses,
    }
    return Known({(table, row.id): "config/a.toml" for table, rows in tables.items() for row in rows})  # type: ignore[attr-defined]


# The index


def test_an_ad_has_the_same_key_everywhere() -> None:
    """
    An ad's key is made of its three names alone: another catalog, version or machine gives it the same.
    """
    one = catalog(line_item("spring-sale"), version=1)
    other = catalog(line_item("autumn-sale"), line_item("spring-sale"), version=2)
    assert one.by_key.keys() < other.by_key.keys()
    (ad,) = one.by_key.values()
    assert ad.name == "889990/spring-sale/spring-sale-loaf"
    assert ad.key == ad_key(ad.name) == bytes.fromhex("d0c842f194354b")
    assert len(ad.key) == 7


def test_only_creatives_that_fit_are_ads() -> None:
    """
    A creative with a size is an ad in slots of that size; words fit everywhere; a weight of 0 is no ad.
    """
    wide, square = slot(1, sizes=((728, 90),)), slot(2, sizes=((300, 250), (336, 280)))
    shown = [creative("square"), creative("words", Kind.TEXT), creative("paused", Kind.TEXT, weight=0.0)]
    names = tuple(one.id for one in shown)
    made = catalog(line_item(slots=(SlotId(1), SlotId(2)), creatives=names), slots=[wide, square], creatives=shown)
    assert {ad.name for ad in made.by_key.values()} == {
        "1/spring-sale/words",
        "2/spring-sale/square",
        "2/spring-sale/words",
    }


def test_every_slot_has_bookings_if_only_none() -> None:
    """
    A slot nobody booked is known all the same.
    """
    made = catalog(slots=[slot(1), slot(2)])
    assert [made.bookings[one].all for one in (1, 2)] == [(), ()]
    assert made.next_change(SlotId(1), NOON) == inf
    assert repr(made) == "<Catalog version 7, 2 slots, 0 line items>"


def live(bookings: Bookings, now: float) -> list[str]:
    return [booking.line_item.id for tier in bookings.at(now).tiers if tier for booking in tier.bookings]


def test_a_flight_holds_its_first_instant_and_not_its_last() -> None:
    """
    A line item is live from the very instant it starts until just before it ends; two that meet never overlap.
    """
    made = catalog(line_item("march", starts=NOON, ends=NOON + DAY), line_item("april", starts=NOON + DAY))
    bookings = made.bookings[SLOT]
    assert live(bookings, NOON - 0.001) == []
    assert live(bookings, NOON) == ["march"]
    assert live(bookings, NOON + DAY - 0.001) == ["march"]
    assert live(bookings, NOON + DAY) == ["april"]
    assert live(bookings, NOON + 1000 * DAY) == ["april"]


def test_who_is_live_does_not_depend_on_what_was_asked_before() -> None:
    """
    What a catalog remembers is a function of its content: asked in any order it says the same.
    """
    flights = [line_item(f"li-{n}", starts=NOON + n * 7, ends=NOON + n * 7 + 20) for n in range(12)]
    asked = [NOON + step * 37 % 120 - 10 for step in range(240)]
    one = catalog(*flights).bookings[SLOT]
    for now in asked:
        assert live(one, now) == live(catalog(*flights).bookings[SLOT], now)


def test_the_next_change_is_the_next_flight_edge() -> None:
    """
    Until some flight of the slot starts or ends nothing else can show in it.
    """
    made = catalog(line_item("a", ends=NOON + DAY), line_item("b", starts=NOON + 2 * DAY, ends=NOON + 3 * DAY))
    assert made.next_change(SLOT, NOON) == NOON + DAY
    assert made.next_change(SLOT, NOON + DAY) == NOON + 2 * DAY
    assert made.next_change(SLOT, NOON + 3 * DAY) == inf


def test_tiers_stand_in_order_of_priority() -> None:
    """
    Sponsorships come before standard, bulk and house, in whatever order they were written.
    """
    written = [line_item(one.value, priority=one) for one in reversed(Priority)]
    assert live(catalog(*written).bookings[SLOT], NOON) == ["sponsorship", "standard", "bulk", "house"]


# The check


def test_a_good_document_has_no_problem() -> None:
    """
    A document that is whole is told so by silence.
    """
    assert told(document(line_item(), sponsorship("sponsor", 60), groups=[group(SLOT, 889991)])) == []


def test_names_that_lead_nowhere_are_told_with_the_nearest() -> None:
    """
    Every reference to something that is not there is listed, with what was probably meant.
    """
    found = problems(
        {
            "slot": [{"id": 889990, "name": "Home", "size": "300x250"}],
            "group": [{"id": "sidebar", "name": "Sidebar", "slots": [{"slot": 889999}]}],
            "placement": [
                {"id": "rail", "name": "Rail", "slot": 889909},
                {"id": "foot", "name": "Foot", "group": "sidebarr"},
            ],
            "advertiser": [{"id": "bakery", "name": "Bakery"}],
            "campaign": [{"id": "spring", "name": "Spring", "advertiser": "bakary"}],
            "line_item": [
                {
                    "id": "spring-sale",
                    "name": "Spring",
                    "campaign": "sprnig",
                    "priority": "house",
                    "slots": [889909],
                    "creatives": ["laof", "zzz"],
                }
            ],
            "creative": [
                {"id": "loaf", "advertiser": "x", "kind": "text", "title": "Bread", "click_url": "https://a.example"}
            ],
        }
    )
    at = "config/spring.toml: "
    assert list(map(str, found)) == [
        f"{at}group 'sidebar': names slot 889999, which does not exist; did you mean '889990'?",
        f"{at}placement 'rail': names slot 889909, which does not exist; did you mean '889990'?",
        f"{at}placement 'foot': names group 'sidebarr', which does not exist; did you mean 'sidebar'?",
        f"{at}campaign 'spring': names advertiser 'bakary', which does not exist; did you mean 'bakery'?",
        f"{at}creative 'loaf': names advertiser 'x', which does not exist",
        f"{at}line item 'spring-sale': names campaign 'sprnig', which does not exist; did you mean 'spring'?",
        f"{at}line item 'spring-sale': names slot 889909, which does not exist; did you mean '889990'?",
        f"{at}line item 'spring-sale': names creative 'laof', which does not exist; did you mean 'loaf'?",
        f"{at}line item 'spring-sale': names creative 'zzz', which does not exist",
    ]


MARCH, APRIL, MAY = NOON, NOON + 30 * DAY, NOON + 60 * DAY


@pytest.mark.parametrize(
    ("first", "second", "sold_out"),
    [
        ({"share": 60.0}, {"share": 40.0}, False),
        ({"share": 60.0}, {"share": 41.0}, True),
        ({"share": 100.0}, {"share": 0.5, "starts": MAY}, True),
        ({"share": 60.0, "starts": MARCH, "ends": MAY}, {"share": 60.0, "starts": APRIL}, True),
        ({"share": 60.0, "ends": APRIL}, {"share": 60.0, "starts": APRIL}, False),
        ({"share": 60.0, "ends": APRIL + 1}, {"share": 60.0, "starts": APRIL}, True),
        ({"share": 60.0}, {"share": 60.0, "slots": (SlotId(889991),)}, False),
    ],
)
def test_shares_that_run_together_may_not_pass_100(
    first: dict[str, Any], second: dict[str, Any], sold_out: bool
) -> None:
    """
    At no instant, not even where two flights overlap only in part, may the sponsorships of a slot promise over 100 %.
    """
    found = told(document(sponsorship("one", **first), sponsorship("two", **second)))
    assert bool(found) is sold_out
    if sold_out:
        total = first["share"] + second["share"]
        assert found == [
            (
                f"config/a.toml: slot 889990: its sponsorships 'one', 'two' run together and promise {total:g} %; "
                "at most 100 % can be sold"
            )
        ]


def test_a_hundred_shares_of_1_percent_are_100() -> None:
    """
    Shares are added up without being thrown by the last digit.
    """
    thirds = [sponsorship(f"third-{n}", 100 / 3) for n in range(3)]
    assert told(document(*thirds)) == []
    assert told(document(*(sponsorship(f"one-{n}", 0.1) for n in range(1000)))) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"starts": APRIL, "ends": MARCH}, "ends before it starts, so it would never show"),
        ({"starts": APRIL, "ends": APRIL}, "ends before it starts, so it would never show"),
        ({"priority": Priority.SPONSORSHIP}, "field 'share' is missing; a sponsorship is sold as a percentage"),
        ({"share": 50.0}, "field 'share' belongs to priority 'sponsorship'; use 'weight' here"),
        ({"creatives": ("wide",)}, "has no creative (of weight above 0) that fits slot 889990 (300x250); add one"),
        ({"creatives": ("paused",)}, "has no creative (of weight above 0) that fits slot 889990 (300x250); add one"),
        ({"creatives": ("loaf", "wide")}, "creative 'wide' (728x90) fits none of its slots; take it out"),
        (
            {"targeting": Targeting(all=Terms(device=("mobile", "desktop")))},
            (
                "targeting 'all' asks for device desktop and device mobile, and no page is both, so it would never "
                "show; take one of them out"
            ),
        ),
        ({"creatives": ("theirs",)}, "shows creative 'theirs' of advertiser 'rival', and its campaign is of 'acme'"),
    ],
)
def test_a_line_item_that_cannot_run_is_told(fields: dict[str, Any], said: str) -> None:
    """
    A booking that would never show, or not as it was meant, does not go live.
    """
    all_creatives = [
        creative("loaf"),
        creative("wide", size=(728, 90)),
        creative("paused", weight=0.0),
        creative("theirs", advertiser="rival"),
    ]
    found = told(document(line_item(**{"creatives": ("loaf",), **fields}), creatives=all_creatives))
    assert any(one.startswith(f"config/a.toml: line item 'spring-sale': {said}") for one in found), found


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Kind.IMAGE, {"image": None}, "field 'image' is missing; a creative of kind 'image' needs it"),
        (Kind.IMAGE, {"alt": ""}, "field 'alt' is missing; a creative of kind 'image' needs it"),
        (Kind.IMAGE, {"click_url": None}, "field 'click_url' is missing; a creative of kind 'image' needs it"),
        (Kind.IMAGE, {"title": "Bread"}, "field 'title' has no use in kind 'image'; take it out"),
        (Kind.TEXT, {"title": ""}, "field 'title' is missing; a creative of kind 'text' needs it"),
        (Kind.TEXT, {"size": (300, 250)}, "field 'size' has no use in kind 'text'; take it out"),
        (Kind.NATIVE, {"image": "a.png"}, "field 'alt' is missing; an image needs words for readers who cannot see"),
        (Kind.HTML, {"size": None}, "field 'size' is missing; a creative of kind 'html' needs it"),
        (Kind.HTML, {"click_url": None}, "its html uses {click_url}, and the field 'click_url' is missing"),
        (Kind.TAG, {}, "third-party tags are switched off; allow them with 'tags = true' in [site]"),
    ],
)
def test_a_creative_has_what_its_kind_needs(kind: Kind, fields: dict[str, Any], said: str) -> None:
    """
    What a kind of creative needs is there, and nothing is there that would be silently ignored.
    """
    found = told(document(creatives=[creative("loaf", kind, **fields)]))
    assert len(found) == 1
    assert found[0].startswith(f"config/a.toml: creative 'loaf': {said}")


LARGE, WIDE, TWO = slot(1), slot(2, sizes=((728, 90),)), slot(3, sizes=((300, 250), (728, 90)))
BANNERS = {
    "a": creative("a"),
    "b": creative("b"),
    "w": creative("w", size=(728, 90)),
    "text": creative("text", Kind.TEXT),
    "paused": creative("paused", weight=0.0),
}


@pytest.mark.parametrize(
    ("slots", "creatives", "filled"),
    [
        ([LARGE, TWO], "a", 1),
        ([LARGE, TWO], "a paused", 1),
        ([LARGE, WIDE, TWO], "a w", 2),
        ([slot(1), slot(4), WIDE], "a w text", None),
        ([slot(1), slot(4), slot(5)], "a b w", 2),
        ([LARGE, TWO], "a b", None),
        ([TWO, LARGE], "a w", None),
        ([TWO, LARGE, WIDE], "text a w", None),
        ([WIDE, LARGE, TWO], "w a text", None),
        ([LARGE], "a", None),
    ],
)
def test_a_roadblock_has_a_creative_for_each_of_its_slots(
    slots: list[Slot], creatives: str, filled: int | None
) -> None:
    """
    Different ones that fit, however they are divided; else it could never show, and that is told.
    """
    names = creatives.split()
    ids = tuple(one.id for one in slots)
    for page in PageRule:
        block = line_item(slots=ids, creatives=tuple(names), page=page)
        said = told(document(block, slots=slots, creatives=[BANNERS[name] for name in names]))
        if page is PageRule.ROADBLOCK_ALL and filled is not None:
            assert any(f"its creatives fill {filled} of {len(slots)} slots at most" in one for one in said)
        else:
            assert not [one for one in said if "roadblock" in one]


@pytest.mark.parametrize("whose", ["line_item", "campaign", "advertiser"])
def test_a_roadblock_fits_under_its_caps(whose: str) -> None:
    """
    Its ads are seen at once, so a cap on fewer, its own or its owners', would keep it away for ever: that is told.
    """
    owner = "" if whose == "line_item" else f" of its {whose}"
    expected = (
        "config/a.toml: line item 'spring-sale': page = 'roadblock_all' shows 2 ads at once, and frequency '1 per day'"
        f"{owner} allows fewer, so it would never show; allow 2 or more, or use page = 'roadblock_any'"
    )
    for caps, allows in (((Cap(2, 3600), Cap(9, 86_400)), True), ((Cap(9, 3600), Cap(1, 86_400)), False)):
        own, of_campaign, of_advertiser = (
            caps if one == whose else () for one in ("line_item", "campaign", "advertiser")
        )
        for page in PageRule:
            block = line_item(slots=(SLOT, SlotId(5)), creatives=("a", "b"), page=page, frequency=own)
            made = structs.replace(
                document(block),
                campaigns=(campaign(frequency=of_campaign),),
                advertisers=(advertiser(frequency=of_advertiser),),
            )
            assert told(made) == ([] if allows or page is not PageRule.ROADBLOCK_ALL else [expected])


@settings(max_examples=200)
@given(st.lists(st.sets(st.sampled_from("abcde")).map(sorted), max_size=5))
def test_the_most_slots_are_filled_that_can_be(choices: list[list[str]]) -> None:
    """
    As many as in the best of all ways to hand the creatives out.
    """
    ways = (sum(name in fit for name, fit in zip(way, choices, strict=False)) for way in permutations("abcde"))
    assert _most_filled(choices) == max(ways)


def test_tags_run_where_the_site_allows_them() -> None:
    """
    A newsroom that switched third-party tags on may book them.
    """
    allowed = replace(document(creatives=[creative(kind=Kind.TAG)]), site=site(tags=True))
    assert told(allowed) == []


def test_groups_placements_and_slots_must_be_able_to_answer() -> None:
    """
    A group needs a weight above 0 and no slot twice, a placement exactly one target, a passback its markup.
    """
    made = document(groups=[group((1, 0.0), (2, 0.0), id="still"), group((1, 1.0), (1, 2.0), id="twice")])
    both = Placement(id="both", name="Both", slot=SlotId(1), group="still")
    neither = Placement(id="neither", name="Neither")
    slots = (*made.slots, slot(3, when_empty=WhenEmpty.PASSBACK), slot(4, passback="<p>x</p>"))
    assert told(replace(made, slots=slots, placements=(both, neither))) == [
        "config/a.toml: slot 3: when_empty = 'passback' and the field 'passback' go together; give both or neither",
        "config/a.toml: slot 4: when_empty = 'passback' and the field 'passback' go together; give both or neither",
        "config/a.toml: group 'still': every weight is 0, so no slot would ever be chosen; give one a weight above 0",
        "config/a.toml: group 'twice': names a slot twice; give it once, with the sum of the weights",
        "config/a.toml: placement 'both': expected exactly one of the fields 'slot' and 'group'",
        "config/a.toml: placement 'neither': expected exactly one of the fields 'slot' and 'group'",
    ]


def test_nothing_can_go_round_in_circles() -> None:
    """
    A group holds slots and a placement names a slot or a group, so no chain of names ever comes back to its start.
    """
    found = problems(
        {
            "slot": [{"id": 1, "name": "One", "size": "1x1"}],
            "group": [{"id": "ring", "name": "Ring", "slots": [{"slot": "ring"}, {"group": "ring"}]}],
            "placement": [
                {"id": "ring", "name": "Ring", "group": "ring"},
                {"id": "loop", "name": "Loop", "slot": "loop"},
            ],
        }
    )
    said = "\n".join(map(str, found))
    assert "group 'ring': field 'slots' slot is 'ring'; expected a whole number" in said
    assert "placement 'loop': field 'slot' is 'loop'; expected a whole number" in said


def test_problems_of_several_kinds_are_told_together() -> None:
    """
    One wrong weight, one wrong date and one oversold slot are three sentences of one answer.
    """
    row = {"name": "x", "campaign": "spring", "priority": "sponsorship", "slots": [1], "creatives": ["loaf"]}
    found = problems(
        {
            "slot": [{"id": 1, "name": "One", "size": "1x1"}],
            "advertiser": [{"id": "bakery", "name": "Bakery"}],
            "campaign": [{"id": "spring", "name": "Spring", "advertiser": "bakery"}],
            "line_item": [
                {**row, "id": "a", "share": 70},
                {**row, "id": "b", "share": 70},
                {**row, "id": "c", "share": float("nan")},
                {**row, "id": "c", "share": 1},
            ],
            "creative": [
                {"id": "loaf", "advertiser": "bakery", "kind": "text", "title": "x", "click_url": "javascript:x"}
            ],
        }
    )
    said = "\n".join(map(str, found))
    assert len(found) == 4
    for part in ("'c': field 'share' is nan", "'c': the id is taken", "field 'click_url'", "promise 141 %"):
        assert part in said


def test_ten_thousand_line_items_of_one_id_are_told_soon() -> None:
    """
    A file that repeats one booking ten thousand times is refused in seconds, with a sentence for each repeat.
    """
    row = {
        "id": "spring-sale",
        "name": "x",
        "campaign": "spring",
        "priority": "sponsorship",
        "share": 60,
        "slots": [1, 2, 3],
        "creatives": ["loaf"],
    }
    tables = {
        "slot": [{"id": n, "name": "One", "size": "1x1"} for n in (1, 2, 3)],
        "advertiser": [{"id": "bakery", "name": "Bakery"}],
        "campaign": [{"id": "spring", "name": "Spring", "advertiser": "bakery"}],
        "line_item": [row] * 10_000,
        "creative": [
            {"id": "loaf", "advertiser": "bakery", "kind": "text", "title": "x", "click_url": "https://a.example"}
        ],
    }
    began = time.process_time()
    found = problems(tables)
    assert time.process_time() - began < 5
    assert sum("the id is taken already" in one.what for one in found) == 9_999
    assert len(set(found)) == 1 + 3  # the repeats read alike, and each slot is oversold


def test_a_lost_file_of_creatives_is_told_soon() -> None:
    """
    When thousands of line items name creatives that are gone, each is told; the search for what was meant is bounded.
    """
    rows = [
        {"id": f"li-{n}", "name": "x", "campaign": "c", "priority": "house", "slots": [1], "creatives": [f"gone-{n}"]}
        for n in range(4_000)
    ]
    others = [
        {"id": f"here-{n}", "advertiser": "a", "kind": "text", "title": "x", "click_url": "https://a.example"}
        for n in range(4_000)
    ]
    raw = entries({"line_item": rows, "creative": others})
    began = time.process_time()
    made, names, _ = read_tables(raw)
    found = check(made, names)
    assert time.process_time() - began < 8
    assert sum("which does not exist" in one.what for one in found) == 4_000 * 3 + 4_000


def test_every_ad_has_a_key_of_its_own() -> None:
    """
    Each creative of each line item in each of its slots is counted apart.
    """
    booked = [line_item(name, slots=(SlotId(1), SlotId(2)), creatives=("loaf", "roll")) for name in ("a", "b")]
    made = document(*booked)
    assert told(made) == []
    names = {f"{at}/{name}/{shown}" for at in (1, 2) for name in ("a", "b") for shown in ("loaf", "roll")}
    assert Catalog(made, 1).by_key.keys() == set(map(ad_key, names))


def test_a_problem_reads_where_and_what() -> None:
    """
    A problem is one line: where it is, a colon, and what is wrong.
    """
    found = check(replace(document(line_item()), campaigns=()), Known({("slot", SLOT): "config/a.toml"}))
    assert Problem("line item 'spring-sale'", "names campaign 'spring', which does not exist") in found
