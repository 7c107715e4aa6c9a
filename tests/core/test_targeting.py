"""Which pages a booking is for, and why not the others."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.decide import Filled, Lost, Page, Step, decide
from adserver.fields import parse_url_beginning
from adserver.model import LineItem, NoFill, Targeting, Terms
from adserver.targeting import UNKNOWN, Context, Target, know, why_never
from tests.make import NOON, SLOT, catalog, draws, line_item, problems

BUSINESS = know(section="Business", tags=["banks", "rates"], lang="de-AT", url="https://example.org/business/rates?x=1")


def targeted(**terms: Terms) -> Target:
    return Target(Targeting(**terms))


@pytest.mark.parametrize(
    ("terms", "admitted"),
    [
        ({"any": Terms(section=("business", "markets"))}, True),
        ({"any": Terms(section=("sport",), tag=("banks",))}, True),
        ({"any": Terms(section=("sport",))}, False),
        ({"all": Terms(section=("business",), tag=("banks", "rates"))}, True),
        ({"all": Terms(section=("business",), tag=("banks", "gold"))}, False),
        ({"none": Terms(tag=("banks",))}, False),
        ({"none": Terms(tag=("gold",))}, True),
        ({"any": Terms(lang=("de",))}, True),
        ({"any": Terms(lang=("de-at",))}, True),
        ({"any": Terms(lang=("de-ch",))}, False),
        ({"any": Terms(url=("/business/",))}, True),
        ({"any": Terms(url=("https://example.org/business",))}, True),
        ({"any": Terms(url=("/sport/", "/Business/"))}, True),
        ({"any": Terms(url=("/sport/",))}, False),
        ({"any": Terms(country=("nl",))}, False),
        ({"none": Terms(country=("nl",), device=("mobile",))}, True),
        ({"any": Terms(keys={"team": ("ajax",)})}, False),
        ({"prefer": Terms(section=("sport",))}, True),
    ],
)
def test_a_page_is_admitted_or_not(terms: dict[str, Terms], admitted: bool) -> None:
    """
    Any, all and none over everything that is known; what is unknown satisfies nobody and offends nobody.
    """
    assert targeted(**terms).admits(BUSINESS) is admitted


NEVER = [
    (
        {"all": Terms(section=("business", "sport"))},
        "'all' asks for section business and section sport, and no page is",
    ),
    ({"all": Terms(lang=("de", "de-at"))}, None),
    ({"all": Terms(tag=("a", "b"), keys={"team": ("ajax", "psv")})}, None),
    ({"all": Terms(lang=("de-at",)), "none": Terms(lang=("de",))}, "'all' asks for lang de-at, which 'none' avoids"),
    ({"any": Terms(tag=("a",)), "none": Terms(tag=("A",))}, "'any' asks for tag a, all of which 'none' rules out"),
    ({"any": Terms(tag=("a", "b")), "none": Terms(tag=("a",))}, None),
    ({"any": Terms(url=("/live/nl/",)), "none": Terms(url=("/live/",))}, "'any' asks for url /live/nl/, all of which"),
    ({"any": Terms(url=("/live/",)), "all": Terms(url=("https://a.example/",))}, None),
    (
        {"any": Terms(country=("nl",), tag=("a",)), "all": Terms(country=("be",)), "none": Terms(tag=("a",))},
        "'any' asks for country nl or tag a, all of which 'all' or 'none' rules out",
    ),
]


@pytest.mark.parametrize(("terms", "said"), NEVER)
def test_what_no_page_can_be_is_told(terms: dict[str, Terms], said: str | None) -> None:
    """
    A page has one section, language, country, device and address, and what is avoided is not asked for.
    """
    why = why_never(Targeting(**terms))
    assert why is None if said is None else why is not None and why.startswith(said)


WHOLE = [
    know(section=section, tags=tags, lang=lang, url=url)
    for section in ("", "a", "b")
    for tags in ([], ["x"], ["y"], ["x", "y"])
    for lang in ("", "de", "de-at", "fr")
    for url in ("", "/a/", "/a/b/", "/c/")
]
"""Every page of a small world."""


@st.composite
def some_terms(draw: st.DrawFn) -> Terms:
    def few(*values: str) -> tuple[str, ...]:
        return tuple(draw(st.lists(st.sampled_from(values), max_size=2, unique=True)))

    return Terms(
        section=few("a", "b"), tag=few("x", "y"), lang=few("de", "de-at", "fr"), url=few("/a/", "/a/b/", "/c/")
    )


@settings(max_examples=500)
@given(st.fixed_dictionaries({name: st.none() | some_terms() for name in ("any", "all", "none")}))
def test_what_is_told_of_as_never_admits_no_page_and_all_else_some(terms: dict[str, Terms | None]) -> None:
    """
    Compared with every page there is.
    """
    targeting = Targeting(**terms)
    assert any(map(Target(targeting).admits, WHOLE)) == (why_never(targeting) is None)


GOLDEN = [
    ({"any": Terms(section=("sport",))}, "it is for pages with section sport, and this one has none of these"),
    (
        {"any": Terms(section=("sport",), tag=("gold",), keys={"team": ("ajax",)})},
        "it is for pages with team ajax, section sport or tag gold, and this one has none of these",
    ),
    (
        {"all": Terms(section=("business",), tag=("gold",))},
        "it is for pages with section business and tag gold; this one lacks tag gold",
    ),
    (
        {"none": Terms(tag=("banks", "accident", "rates"), url=("/business/",))},
        "it avoids pages with tag banks, tag rates or url /business/",
    ),
]


@pytest.mark.parametrize(("terms", "sentence"), GOLDEN)
def test_why_not_is_said_in_a_sentence(terms: dict[str, Terms], sentence: str) -> None:
    """
    A sales person reads which word of the booking the page does not match.
    """
    made = catalog(line_item(targeting=Targeting(**terms)))
    trace: list[Lost] = []
    decide(made, NOON, Page((SLOT,), context=BUSINESS), draws(), trace=trace)
    assert [(one.step, one.reason) for one in trace] == [(Step.TARGETING, sentence)]


def picks(made: Any, context: Context, n: int = 1000) -> Counter[str]:
    found: Counter[str] = Counter()
    for at in range(n):
        [one] = decide(made, NOON, Page((SLOT,), context=context), draws(at))
        found[one.ad.line_item.id if isinstance(one, Filled) else one.reason.value] += 1
    return found


def test_a_preferred_page_gets_three_times_the_weight() -> None:
    """
    Who prefers a page takes turns with the others there at three times its weight, and at its own elsewhere.
    """
    prefers = line_item("bank", targeting=Targeting(prefer=Terms(section=("business",))))
    made = catalog(prefers, line_item("bakery"))
    assert picks(made, BUSINESS) == {"bank": 750, "bakery": 250}
    assert picks(made, UNKNOWN) == {"bank": 500, "bakery": 500}


def test_who_is_for_other_pages_leaves_the_slot_to_lower_priorities() -> None:
    """
    A sponsor's share of other pages goes to whoever comes next there, and a slot of nobody's page says why.
    """
    sport = Targeting(any=Terms(section=("sport",)))
    made = catalog(
        line_item("club", targeting=sport), line_item("bank", targeting=Targeting(none=Terms(tag=("gold",))))
    )
    assert picks(made, know(section="sport", tags=["gold"])) == {"club": 1000}
    assert picks(made, BUSINESS) == {"bank": 1000}
    assert picks(catalog(line_item(targeting=sport)), UNKNOWN) == {NoFill.NOT_TARGETED.value: 1000}


def test_more_pages_than_are_remembered_are_all_right() -> None:
    """
    What is remembered of pages is bounded, and forgetting changes no answer.
    """
    items: list[LineItem] = [line_item(f"li-{n}", targeting=Targeting(any=Terms(tag=(f"t{n}",)))) for n in range(3)]
    made = catalog(*items)
    for n in range(2000):
        context = know(tags=[f"t{n % 3}", f"other-{n}"])
        [one] = decide(made, NOON, Page((SLOT,), context=context), draws(n))
        assert isinstance(one, Filled)
        assert one.ad.line_item.id == f"li-{n % 3}"
    assert len(made.bookings[SLOT].at(NOON)._narrowed) <= 256


ROW = {
    "id": "spring-sale", "name": "x", "campaign": "spring", "priority": "standard", "slots": [1], "creatives": ["loaf"],
}  # fmt: skip
TABLES = {
    "slot": [{"id": 1, "name": "One", "size": "1x1"}],
    "advertiser": [{"id": "bakery", "name": "Bakery"}],
    "campaign": [{"id": "spring", "name": "Spring", "advertiser": "bakery"}],
    "creative": [
        {"id": "loaf", "advertiser": "bakery", "kind": "text", "title": "x", "click_url": "https://a.example"}
    ],
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"targeting": {"any": {"sektion": ["a"]}}}, "sektion does not exist here; did you mean 'section'?"),
        ({"targeting": {"some": {"section": ["a"]}}}, "some does not exist here"),
        ({"targeting": {"any": {}}}, "any names nothing; expected some of section, tag"),
        ({"targeting": {"any": {"section": "a"}}}, "section is 'a'; expected a list of at least 1"),
        ({"targeting": {"any": {"device": ["phone"]}}}, "device is 'phone'; expected one of 'desktop'"),
        ({"targeting": {"any": {"country": ["Holland"]}}}, "expected a country of two letters"),
        ({"targeting": {"any": {"lang": ["German!"]}}}, "expected a language, such as 'de'"),
        ({"targeting": {"any": {"url": ["sport"]}}}, "expected the beginning of an address, such as '/sport/'"),
        ({"targeting": {"any": {"keys": {"Team": ["a"]}}}}, "expected a lowercase word"),
        ({"targeting": {"any": {"tag": ["x" * 101]}}}, "has 101 characters; at most 100"),
        ({"hours": ["always"]}, "expected days and times such as 'mon-fri 06:00-22:00'"),
        ({"hours": "mon 06:00-22:00"}, "expected a list of at least 1"),
        (
            {"priority": "sponsorship", "share": 10, "targeting": {"prefer": {"tag": ["a"]}}},
            "'prefer' raises a weight, and a sponsorship has a share",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    """
    Each slip is told with the field it is in and what was expected.
    """
    found = problems({**TABLES, "line_item": [{**ROW, **fields}]})
    assert any(said in str(one) for one in found), found


def test_sponsors_whose_hours_never_meet_may_each_have_the_slot() -> None:
    """
    Mornings and evenings can be sold whole to two sponsors; where their hours meet, more than 100 % is refused.
    """
    sponsor = {**ROW, "priority": "sponsorship", "share": 100}
    mornings = {**sponsor, "id": "a", "hours": ["mon-sun 06:00-12:00"]}
    evenings = {**sponsor, "id": "b", "hours": ["mon-sun 18:00-23:00"]}
    late = {**sponsor, "id": "c", "hours": ["fri 22:00-02:00"]}
    assert problems({**TABLES, "line_item": [mornings, evenings]}) == []
    [one] = problems({**TABLES, "line_item": [mornings, evenings, late]})
    assert "its sponsorships 'b', 'c' run together and promise 200 %" in str(one)


def test_a_query_that_may_name_a_reader_is_not_kept() -> None:
    """
    Nor a fragment; a booking for one is refused.
    """
    found = know(url="https://example.org/Sport/?reader=ann#x")
    assert (found.path, found.address) == ("/sport/", "https://example.org/sport/")
    with pytest.raises(ValueError, match="may name a reader"):
        parse_url_beginning("/sport/?page=2")
