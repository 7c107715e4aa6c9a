"""Raw tables into the booking document: every problem at once, each said in full."""

import tomllib
from typing import Any

import pytest

from adserver.documents import TABLES, Entry, read_tables
from adserver.errors import ConfigError, Problem
from adserver.model import Counts, Kind, Pause, Priority, Rotation, Site, WhenEmpty
from tests.make import entries, instant, problems

GOOD: dict[str, Any] = tomllib.loads("""
[site]
name = "The Courier"
time_zone = "Europe/Amsterdam"
home_url = "https://courier.example/"

[[slot]]
id = 889990
name = "End of article"
size = "300x250"
label = "Partner"
when_empty = "passback"
passback = "<p>Ask another</p>"
counts = "viewable"
lazy = false
refresh_s = 30

[[slot]]
id = 889991
name = "Middle of article"
sizes = ["336x280", "300x250"]

[[group]]
id = "sidebar"
name = "Sidebar"
slots = [{slot = 889990, weight = 2}, {slot = 889991}]

[[placement]]
id = "rail"
name = "Rail"
group = "sidebar"

[[advertiser]]
id = "bakery"
name = "Bakery"
categories = ["food"]
contact = "desk@bakery.example"

[[campaign]]
id = "spring"
name = "Spring"
advertiser = "bakery"

[[line_item]]
id = "spring-sale"
name = "Spring sale"
campaign = "spring"
priority = "sponsorship"
share = 60
slots = [889990, 889991]
creatives = ["loaf", "vote"]
starts = 2026-03-01T00:00:00+01:00
ends = 2026-04-01T00:00:00+02:00
rotation = "weighted"

[[creative]]
id = "loaf"
advertiser = "bakery"
kind = "text"
title = "Fresh bread"
click_url = "https://bakery.example/"
weight = 3

[[creative]]
id = "vote"
advertiser = "bakery"
kind = "html"
size = "300x250"
html = "<p>Vote for bread</p>"
[creative.political]
sponsor = "Bread Party"
controlled_by = "Bread Holding"
paid_by = "Friends of Bread"
election = "Council 2026"
targeted = false
notice_url = "https://party.example/notice"

[[pause]]
id = "flour-recall"
category = "food"
starts = 2026-03-10T14:00:00+01:00
ends = 2026-03-11T08:00:00+01:00
reason = "Flour is being recalled"
by = "ann"
""")


def changed(table: str, **fields: Any) -> dict[str, Any]:
    """The good tables, with fields of the first entry of *table* replaced; None takes one out."""
    first, *others = GOOD[table]
    raw = {name: value for name, value in {**first, **fields}.items() if value is not None}
    return {**GOOD, table: [raw, *others]}


def told(table: str, **fields: Any) -> list[str]:
    return list(map(str, problems(changed(table, **fields))))


def test_good_tables_are_read_whole() -> None:
    """
    A configuration without a problem becomes the document it describes.
    """
    document, known, wrong = read_tables(entries(GOOD))
    assert wrong == problems(GOOD) == []
    assert document.site == Site(name="The Courier", time_zone="Europe/Amsterdam", home_url="https://courier.example/")
    first, second = document.slots
    assert (first.sizes, first.label, first.when_empty) == (((300, 250),), "Partner", WhenEmpty.PASSBACK)
    assert (first.counts, first.lazy, first.refresh_s) == (Counts.VIEWABLE, False, 30)
    assert (second.sizes, second.label, second.lazy) == (((336, 280), (300, 250)), "Advertisement", True)
    assert [(one.slot, one.weight) for one in document.groups[0].slots] == [(889990, 2.0), (889991, 1.0)]
    (booking,) = document.line_items
    assert (booking.priority, booking.share, booking.rotation) == (Priority.SPONSORSHIP, 60.0, Rotation.WEIGHTED)
    assert booking.starts == instant("2026-02-28T23:00:00+00:00")
    loaf, vote = document.creatives
    assert (loaf.kind, loaf.weight, loaf.size) == (Kind.TEXT, 3.0, None)
    assert vote.political
    assert vote.political.election == "Council 2026"
    assert document.pauses == (
        Pause(
            id="flour-recall", category="food", reason="Flour is being recalled", by="ann",
            starts=instant("2026-03-10T13:00:00+00:00"), ends=instant("2026-03-11T07:00:00+00:00"),
        ),
    )  # fmt: skip
    assert known.where("line_item", "spring-sale") == "config/spring.toml: line item 'spring-sale'"


def test_every_problem_is_told_at_once() -> None:
    """
    One reading finds what is wrong everywhere, and each sentence says where, what, and what was expected.
    """
    tables: dict[str, Any] = {
        "slot": [{"id": "889990", "name": "", "sizes": ["wide"], "colour": "red"}],
        "line_item": [{"id": "Spring", "priority": "standart", "starts": "tomorrow", "weight": -1}],
        "creative": [5],
        "advertiser": [{"id": "bakery", "name": "Ba\u200bkery"}],
    }
    said = [str(problem) for problem in read_tables(entries(tables))[2]]
    slot, booking = "config/spring.toml: slot '889990': field", "config/spring.toml: line item 'Spring': field"
    word = "expected a lowercase word of letters, digits, '-' and '_' (at most 64), such as 'spring-sale'"
    priorities = "'sponsorship', 'standard', 'bulk', 'house'"
    bakery = "config/spring.toml: advertiser 'bakery': field"
    assert said == [
        f"{slot} 'id' is '889990'; expected a whole number above 0, such as 889990",
        f"{slot} 'name' is empty; expected a name",
        f"{slot} 'sizes' is 'wide'; expected width x height in pixels, such as '300x250'",
        f"{slot} 'colour' does not exist here; expected one of {', '.join(TABLES['slot'].fields)}",
        f"{booking} 'id' is 'Spring'; {word}",
        f"{booking} 'priority' is 'standart'; expected one of {priorities}; did you mean 'standard'?",
        f"{booking} 'starts' is 'tomorrow'; expected a date and time with an offset, such as 2026-03-01T00:00:00+01:00",
        f"{booking} 'weight' is -1; expected a number from 0 to 1,000,000",
        f"{booking} 'name' is missing; it is required",
        f"{booking} 'campaign' is missing; it is required",
        f"{booking} 'slots' is missing; it is required",
        f"{booking} 'creatives' is missing; it is required",
        "config/spring.toml: a [[creative]]: field '' is 5; expected a table of fields",
        rf"{bakery} 'name' 'Ba\u200bkery' holds invisible characters; type the name again",
    ]


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        ("slot", {"wehn_empty": "keep"}, "field 'wehn_empty' does not exist here; did you mean 'when_empty'?"),
        ("slot", {"sizes": [], "size": None}, "field 'sizes' is []; expected a list of at least 1"),
        ("slot", {"size": None, "sizes": ["1x1", "1x1"]}, "field 'sizes' names something twice"),
        ("slot", {"label": ""}, "field 'label' is empty; expected a name"),
        ("slot", {"lazy": 1}, "field 'lazy' is 1; expected true or false"),
        ("slot", {"refresh_s": 5}, "field 'refresh_s' is 5; expected whole seconds from 30 to 86400"),
        ("slot", {"id": True}, "a [[slot]]: field 'id' is True; expected a whole number"),
        ("group", {"slots": [{"weight": 1}]}, "field 'slots' slot is missing; it is required"),
        ("group", {"slots": [7]}, "field 'slots'  is 7; expected a table of fields"),
        ("line_item", {"slots": 889990}, "field 'slots' is 889990; expected a list of at least 1"),
        ("line_item", {"slots": [889990, 889990]}, "field 'slots' names something twice: [889990, 889990]"),
        ("line_item", {"creatives": ["loaf", "loaf"]}, "field 'creatives' names something twice"),
        ("line_item", {"priority": ["house"]}, "field 'priority' is ['house']; expected one of"),
        ("line_item", {"priority": 1e308}, "field 'priority' is 1e+308; expected one of"),
        ("line_item", {"share": 101}, "field 'share' is 101; expected a percentage"),
        ("creative", {"click_url": "javascript:1"}, "is not a web address; expected it to start with https://"),
        ("pause", {"category": "Air Lines"}, "field 'category' is 'Air Lines'; expected a lowercase word"),
        ("pause", {"section": ""}, "field 'section' is empty; expected a name"),
        ("pause", {"until": 5}, "field 'until' does not exist here; expected one of id, line_item, advertiser"),
        ("pause", {"starts": None}, "field 'starts' is missing; it is required"),
        ("pause", {"ends": None}, "field 'ends' is missing; it is required"),
        ("pause", {"reason": 5}, "field 'reason' is 5; expected text in quotes"),
        ("creative", {"image": ""}, "field 'image' is ''; expected the path of an image"),
        ("creative", {"image": "x" * 300}, "expected the path of an image"),
    ],
)
def test_a_bad_field_is_named_with_what_was_expected(table: str, fields: dict[str, Any], said: str) -> None:
    """
    Each sentence names the field, quotes what it holds, and says what belongs there.
    """
    found = told(table, **fields)
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"hours": ["mon 25:00-26:00", "mon-fri", "sun 01:00-01:00", "sat 06:00-08:00", 5]},
            [
                "field 'hours' is 'mon 25:00-26:00', which says '25:00'; expected a time from 00:00 to 23:59",
                "field 'hours' is 'mon-fri'; expected days and times",
                "field 'hours' is 'sun 01:00-01:00', which is no time at all",
                "field 'hours' is 5; expected days and times",
            ],
        ),
        ({"slots": [0, 889990, "x", "x"]}, ["field 'slots' is 0; expected", "field 'slots' is 'x'; expected"]),
        ({"frequency": ["often", "3 per day", "4 per year"]}, ["is 'often'; expected", "is '4 per year'; expected"]),
    ],
)
def test_every_bad_entry_of_a_list_is_told(fields: dict[str, Any], said: list[str]) -> None:
    """
    Each in its own words and once, not the first alone.
    """
    row = {**GOOD["line_item"][0], **fields}
    found = read_tables(entries({**GOOD, "line_item": [row]}))[2]
    assert len(found) == len(said)
    for problem, words in zip(found, said, strict=True):
        assert words in str(problem)


def test_every_bad_entry_of_targeting_is_told() -> None:
    """
    A table within a table is told in one sentence, and leaves nothing of it out.
    """
    targeting = {"any": {"country": ["nld", "nl", "b"], "keys": {"Team": ["x"], "a": [1, 2]}}}
    row = {**GOOD["line_item"][0], "targeting": targeting}
    [found] = map(str, read_tables(entries({**GOOD, "line_item": [row]}))[2])
    for words in ("country is 'nld'", "country is 'b'", "keys 'Team' is 'Team'", "keys 'a' is 1;", "'a' is 2;"):
        assert words in found


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1, 1e308, True])
@pytest.mark.parametrize("table", ["line_item", "creative", "group"])
def test_a_weight_beyond_measure_is_refused_everywhere(table: str, weight: float) -> None:
    """
    nan, inf, -1, 1e308 and true are no weights: not of a line item, not of a creative, not of a group's slot.
    """
    fields: dict[str, Any] = {"slots": [{"slot": 889990, "weight": weight}]} if table == "group" else {"weight": weight}
    (found,) = told(table, **fields)
    assert f"{weight!r}; expected a number from 0 to 1,000,000" in found


def test_political_facts_are_given_whole() -> None:
    """
    A political creative says every fact or none.
    """
    facts = dict(GOOD["creative"][1]["political"], notice_url="party", targeted="no")
    del facts["paid_by"]
    tables = {**GOOD, "creative": [GOOD["creative"][0], {**GOOD["creative"][1], "political": facts}]}
    (found,) = map(str, problems(tables))
    assert found == (
        "config/spring.toml: creative 'vote': field 'political' targeted is 'no'; expected true or false; "
        "notice_url 'party' is not a web address; expected it to start with https://; "
        "paid_by is missing; it is required"
    )


def test_an_id_taken_twice_is_told_with_its_first_file() -> None:
    """
    Two entries of a table with one id are a problem, and both files are named; the same id in two tables is none.
    """
    twice = [*entries(GOOD), Entry("config/more.toml", "campaign", GOOD["campaign"][0])]
    assert read_tables(twice)[2] == [
        Problem(
            "config/more.toml: campaign 'spring'",
            "the id is taken already, in config/spring.toml; give one of the two another id",
        )
    ]


def test_there_is_one_site() -> None:
    """
    A second [site] table is told, wherever it is.
    """
    found = read_tables([*entries(GOOD), Entry("config/more.toml", "site", {})])[2]
    assert [str(one) for one in found] == ["config/more.toml: [site]: there is already a [site] table; keep one"]


def test_one_slip_is_told_once() -> None:
    """
    An entry with a problem still has its id, so that no place that names it is called wrong too.
    """
    (found,) = told("campaign", name="")
    assert found == "config/spring.toml: campaign 'spring': field 'name' is empty; expected a name"


def test_a_number_too_long_to_spell_is_a_problem_like_another() -> None:
    """
    A whole number of thousands of digits, which Python refuses to print, is refused in words wherever it stands.
    """
    huge = int("f" * 4000, 16)
    for table in ("slot", "group", "placement", "advertiser", "campaign", "line_item", "creative", "pause"):
        for field in TABLES[table].fields:
            assert any(f"field {field!r}" in one for one in told(table, **{field: huge})), (table, field)


def test_an_error_lists_its_problems() -> None:
    """
    The error that stops a publish says every problem, one a line.
    """
    found = [Problem("config/a.toml: slot 1", "is wrong"), Problem("config/b.toml", "is empty")]
    error = ConfigError(found)
    assert str(error) == "config/a.toml: slot 1: is wrong\nconfig/b.toml: is empty"
    assert error.problems == found
