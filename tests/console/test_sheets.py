"""Line items as a spreadsheet: a round trip changes nothing, no cell runs, and every problem is named by its cell."""

import csv
import io
import re
import zipfile
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from adserver.console import sheet_files
from adserver.console.sheets import BadSheet, Sheet, changed, read_sheet, write_csv, write_xlsx
from adserver.console.targeting_words import parse_targeting, say_targeting
from adserver.documents import TABLES, Document
from adserver.fields import parse_name
from adserver.model import (
    Cap,
    Goal,
    LineItem,
    Measure,
    OnShortfall,
    Pacing,
    PageRule,
    Priority,
    Rotation,
    SlotId,
    Targeting,
    Terms,
)
from adserver.publish import difference
from tests import make

ZONE = "Europe/Amsterdam"
Write = Callable[[Document, str], bytes]
WRITERS: dict[str, Write] = {"sheet.xlsx": write_xlsx, "sheet.csv": write_csv}
BOTH = pytest.mark.parametrize("name", WRITERS)


def booked(**fields: Any) -> Document:
    return make.document(make.line_item("sale", **{"creatives": ("loaf",), "name": "Spring sale", **fields}))


def sheet_of(*rows: list[Any], name: str = "sheet.csv", head: str = "") -> bytes:
    """A sheet as a person types it; *head* are its columns, those of an export where there is none."""
    titles = head.split(", ") if head else list(written(booked())[0])
    if name.endswith(".csv"):
        out = io.StringIO(newline="")
        csv.writer(out).writerows([titles, *rows])
        return out.getvalue().encode()
    book = openpyxl.Workbook()
    for row in [titles, *rows]:
        book.active.append(row)
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def written(document: Document) -> list[list[str]]:
    return list(csv.reader(io.StringIO(write_csv(document, ZONE).decode("utf-8-sig"), newline="")))


def edited(document: Document, name: str = "sheet.csv", /, **cells: Any) -> Sheet:
    """An export with the first row's cells of these columns (`_` for a blank) exchanged, read again."""
    data = WRITERS[name](document, ZONE)
    titles = {"share": "Share %"} | {title.lower().replace(" ", "_"): title for title in written(document)[0]}
    if name.endswith(".xlsx"):
        book = openpyxl.load_workbook(io.BytesIO(data))
        page = book["Line items"]
        for key, value in cells.items():
            page.cell(2, written(document)[0].index(titles[key]) + 1).value = value
        out = io.BytesIO()
        book.save(out)
        return read_sheet(out.getvalue(), name, document, ZONE)
    rows = written(document)
    for key, value in cells.items():
        rows[1][rows[0].index(titles[key])] = value
    return read_sheet(sheet_of(*rows[1:]), name, document, ZONE)


def told(sheet: Sheet) -> list[str]:
    return [str(problem) for problem in sheet.problems]


def is_unchanged(document: Document, sheet: Sheet) -> bool:
    return (sheet.puts, sheet.removes, sheet.problems) == ({}, {}, []) and not difference(
        document, changed(document, sheet)
    )


# Round trips


def is_name(text: str) -> bool:
    try:
        return parse_name(text) == text
    except ValueError:
        return False


NASTY = [
    *(
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "＝1+1",
        "＠x",
        "'=1",
        "''=1",
        "'t Hoekje",
        "a;=1",
        "a,'=b",
    ),
    *('"><script>alert(1)</script>', "_x0041_", "_x005F_x0041_", "#N/A", "#REF!", "TRUE", "007", "1e5", "2026-03-01"),
    *("yes", "\ufffex", "sale", "spring", "a, b; c", "Größe ☃ 🍞", "spring-2", "%", ";=;=", "'"),
]
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20).map(str.strip),
).filter(is_name)
WORDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
CHANGES = [
    make.instant(f"{day}T{hour:02}:{minute:02}:00+00:00")
    for day in ("2026-03-29", "2026-10-25", "2026-11-01", "2026-04-05", "2012-12-31")
    for hour in range(24)
    for minute in (0, 15, 30, 59)
]
INSTANTS = st.one_of(
    st.sampled_from(CHANGES),
    st.integers(0, 253_370_000_000).map(float),
    st.floats(0, 253_370_000_000),
    st.floats(0, 1),
)
VALUES = st.one_of(NAMES.map(str.lower).filter(is_name).filter(lambda text: len(text) <= 100), WORDS)
MANY = st.lists(VALUES, min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def some_terms(draw: st.DrawFn) -> Terms:
    kinds = draw(st.sets(st.sampled_from(["section", "tag", "keys", "lang", "country", "device", "url"]), min_size=1))
    fixed: dict[str, Any] = {
        "lang": ("de", "de-at"),
        "country": ("nl",),
        "device": ("mobile", "tablet"),
        "url": ("/sport/", 'https://x.example/a,b;c="d"'),
    }
    values: dict[str, Any] = {kind: fixed[kind] if kind in fixed else draw(MANY) for kind in kinds - {"keys"}}
    if "keys" in kinds:
        values["keys"] = draw(st.dictionaries(WORDS, MANY, min_size=1, max_size=2))
    return Terms(**values)


SOME = st.none() | some_terms()
TARGETINGS = st.builds(Targeting, any=SOME, all=SOME, none=SOME, prefer=SOME)
CAPS = st.builds(Cap, st.integers(1, 9999), st.sampled_from([60, 5400, 3600, 86_400, 604_800, 30 * 86_400]))
NUMBERS = st.one_of(st.floats(0, 1e6), st.integers(0, 1_000_000).map(float))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    advertisers = [
        make.advertiser(one, name=draw(NAMES)) for one in draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    ]
    campaigns = [
        make.campaign(one, name=draw(NAMES), advertiser=draw(st.sampled_from(advertisers)).id)
        for one in draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    ]
    creatives = [make.creative(one) for one in draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))]
    slots = [make.slot(one) for one in draw(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=4, unique=True))]
    items = []
    for one in draw(st.lists(WORDS, max_size=4, unique=True)):
        items.append(
            LineItem(
                id=one,
                name=draw(NAMES),
                campaign=draw(st.sampled_from(campaigns)).id,
                priority=draw(st.sampled_from(Priority)),
                slots=tuple(draw(st.permutations([slot.id for slot in slots]))),
                creatives=tuple(draw(st.permutations([creative.id for creative in creatives]))),
                starts=draw(st.none() | INSTANTS),
                ends=draw(st.none() | INSTANTS),
                share=draw(st.none() | st.floats(0, 100, exclude_min=True)),
                weight=draw(NUMBERS),
                rotation=draw(st.sampled_from(Rotation)),
                hours=draw(st.sampled_from([(), ("mon-fri 06:00-22:00",), ("sat 00:00-24:00", "sun 23:00-02:00")])),
                targeting=draw(st.none() | TARGETINGS),
                page=draw(st.sampled_from(PageRule)),
                goal=draw(st.none() | st.builds(Goal, st.integers(1, 10**12), st.sampled_from(Measure), st.booleans())),
                pacing=draw(st.sampled_from(Pacing)),
                on_shortfall=draw(st.sampled_from(OnShortfall)),
                frequency=tuple(draw(st.lists(CAPS, max_size=2, unique=True))),
            )
        )
    return Document(
        site=make.site(),
        slots=tuple(slots),
        advertisers=tuple(advertisers),
        campaigns=tuple(campaigns),
        creatives=tuple(creatives),
        line_items=tuple(items),
    )


ZONES = st.sampled_from(
    [ZONE, "UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia"]
)


@BOTH
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(document=documents(), zone=ZONES)
def test_a_round_trip_changes_nothing(name: str, document: Document, zone: str) -> None:
    """
    Whatever is booked: with all fields, names that look like anything else, instants that come twice or between two
    seconds. Writing and reading again finds no change and no problem.
    """
    data = WRITERS[name](document, zone)

    sheet = read_sheet(data, name, document, zone)

    assert told(sheet) == []
    assert is_unchanged(document, sheet)


@given(TARGETINGS)
@example(Targeting())
def test_targeting_in_words_reads_back_the_same(targeting: Targeting) -> None:
    """
    Each clause, kind and key with its values, whatever is in them.
    """
    raw = parse_targeting(say_targeting(targeting))

    assert TABLES["line_item"].fields["targeting"].parse(raw) == targeting


def test_a_sheet_says_what_a_person_would() -> None:
    """
    Names, not ids, where a name leads to one thing only; newsroom time; words for choices; yes for yes.
    """
    document = booked(
        starts=make.instant("2026-03-01T09:00:00+01:00"),
        ends=make.instant("2026-10-25T02:30:00+01:00"),
        goal=Goal(1000, Measure.CLICKS, daily=True),
        slots=(SlotId(889990), SlotId(889991)),
        targeting=Targeting(
            any=Terms(section=("sport", "city life"), keys={"team": ("ajax",)}), none=Terms(country=("nl",))
        ),
        frequency=(Cap(3, 86_400),),
    )
    titles, row = written(document)
    assert dict(zip(titles, row, strict=True)) == {
        "Id": "sale",
        "Name": "Spring sale",
        "Advertiser": "Acme",
        "Campaign": "spring",
        "Priority": "standard",
        "Slots": "889990, 889991",
        "Creatives": "loaf",
        "Starts": "2026-03-01 09:00",
        "Ends": "2026-10-25 02:30:00+01:00",
        "Share %": "",
        "Weight": "1",
        "Goal": "1000",
        "Goal counts": "clicks",
        "Per day": "yes",
        "Pacing": "even",
        "On shortfall": "stop",
        "Rotation": "even",
        "Hours": "",
        "Targeting": 'any section = sport, "city life" key:team = ajax; none country = nl',
        "Page": "roadblock any",
        "Frequency": "3 per day",
        "Remove": "",
    }


def test_dates_are_dates_in_a_workbook() -> None:
    """
    A date cell, so that a spreadsheet sorts and moves it; and text where the clock alone does not tell.
    """
    document = booked(starts=make.instant("2026-03-01T09:00:00+01:00"), ends=make.instant("2026-10-25T02:30:00+01:00"))
    page = openpyxl.load_workbook(io.BytesIO(write_xlsx(document, ZONE)))["Line items"]

    assert page["H2"].value == datetime.fromisoformat("2026-03-01T09:00")
    assert page["H2"].number_format == "yyyy-mm-dd hh:mm"
    assert page["I2"].value == "2026-10-25 02:30:00+01:00"


def test_what_is_too_long_for_a_cell_is_left_as_it_is() -> None:
    """
    Excel cuts a cell after 32,767 characters; such a list is not written, and reading leaves it alone.
    """
    names = tuple(f"creative-{n:055}" for n in range(600))
    document = booked(creatives=names)
    for name, write in WRITERS.items():
        assert is_unchanged(document, read_sheet(write(document, ZONE), name, document, ZONE))
    assert "left as it is" in written(document)[1][6]


# Formulas

RUNS = re.compile(r"\s*[=+\-@＝＋－＠\t\r\n]")


@given(st.text(st.sampled_from("=+-@'\t ,;\"a1＝＠\r\n"), max_size=8))
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    """
    Neither a cell nor what another separator would make a cell begins with what makes a formula; and it reads back.
    """
    guarded = sheet_files.guard(text)

    assert not RUNS.match(guarded)
    assert not any(RUNS.match(part) for part in re.split("[,;]", guarded)[1:])
    assert sheet_files.unguard(guarded) == text


@pytest.mark.parametrize("text", NASTY)
def test_no_cell_of_a_workbook_is_a_formula(text: str) -> None:
    """
    A name that looks like a formula is text by its type; one that begins like a formula says so in its style as well.
    """
    data = write_xlsx(booked(name=text), ZONE)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        page = archive.read("xl/worksheets/sheet1.xml").decode()
        styles = archive.read("xl/styles.xml").decode()
    assert "<f>" not in page
    cell = re.search(r'<c r="B2"([^>]*)>', page)
    assert cell
    assert 't="inlineStr"' in cell[1]
    if RUNS.match(text):
        style = re.search(r's="(\d+)"', cell[1])
        assert style
        assert 'quotePrefix="1"' in re.findall(r"<xf [^>]*>", styles.split("<cellXfs")[1])[int(style[1])]


def test_an_apostrophe_of_ones_own_stays() -> None:
    """
    A name that begins with an apostrophe is no formula; typed into a CSV it is kept.
    """
    assert edited(booked(), name="'t Hoekje").puts["line_items"][0].name == "'t Hoekje"
    assert edited(booked(), name="'=1+1").puts["line_items"][0].name == "=1+1"


# What an edit changes


@BOTH
def test_an_edit_is_a_difference_before_anything_happens(name: str) -> None:
    """
    What was edited is put, and nothing else; the document that it came from stays as it is.
    """
    other = make.line_item("other", creatives=("loaf",))
    document = make.document(make.line_item("sale", creatives=("loaf",)), other)

    sheet = edited(document, name, name="Summer sale", ends="2027-06-30 18:00", weight=2.5)

    assert told(sheet) == []
    [item] = sheet.puts["line_items"]
    assert difference(document, changed(document, sheet)) == [
        'changes line item \'sale\': name from "sale" to "Summer sale"',
        "changes line item 'sale': ends from nothing to 2027-06-30T18:00:00+02:00",
        "changes line item 'sale': weight from 1.0 to 2.5",
    ]
    assert item == structs.replace(document.line_items[0], name="Summer sale", ends=item.ends, weight=2.5)


def test_a_row_without_an_id_is_a_new_booking() -> None:
    """
    Its id is made from its name and is not taken; fields that it does not name have their defaults.
    """
    document = booked()
    head = "Name, Campaign, Priority, Slots, Creatives"
    row = ["Sale!", "spring", "Standard", "889990", "loaf"]

    sheet = read_sheet(sheet_of(row, row, head=head), "new.csv", document, ZONE)

    assert told(sheet) == []
    assert [(item.id, item.name) for item in sheet.puts["line_items"]] == [("sale-2", "Sale!"), ("sale-3", "Sale!")]
    assert sheet.puts["line_items"][0].page is PageRule.ONE
    assert difference(document, changed(document, sheet)) == [
        "adds line item 'sale-2'",
        "adds line item 'sale-3'",
    ]


def test_removing_needs_a_yes() -> None:
    """
    A row that is missing removes nothing; one with "yes" under Remove does.
    """
    document = make.document(make.line_item("sale"), make.line_item("other"))
    titles, first, second = written(document)

    assert is_unchanged(document, read_sheet(sheet_of(first), "sheet.csv", document, ZONE))
    sheet = read_sheet(sheet_of([*first[:-1], "Yes"], second), "sheet.csv", document, ZONE)
    assert (sheet.puts, sheet.removes) == ({}, {"line_items": ["sale"]})
    assert difference(document, changed(document, sheet)) == ["removes line item 'sale'"]
    assert titles[-1] == "Remove"


def test_a_missing_column_changes_nothing_and_an_empty_cell_does() -> None:
    """
    Without the column Ends an end stays; with an empty cell there it goes.
    """
    document = booked(ends=2e9, goal=Goal(5, Measure.CLICKS), pacing=Pacing.ASAP)

    assert is_unchanged(document, read_sheet(sheet_of(["sale"], head="Id"), "a.csv", document, ZONE))
    sheet = read_sheet(sheet_of(["sale", "", ""], head="Id, Ends, Pacing"), "a.csv", document, ZONE)
    assert sheet.puts["line_items"] == [structs.replace(document.line_items[0], ends=None, pacing=Pacing.EVEN)]
    goal = read_sheet(sheet_of(["sale", "70.000"], head="Id, Goal"), "a.csv", document, ZONE)
    assert goal.puts["line_items"][0].goal == Goal(70_000, Measure.CLICKS)


def test_campaigns_are_found_by_id_or_name() -> None:
    """
    A name that two campaigns have is settled by the advertiser, else it is a problem; an id always leads to its own.
    """
    document = booked()
    document = structs.replace(
        document,
        advertisers=(*document.advertisers, make.advertiser("bakery", name="Bakery")),
        campaigns=(
            *document.campaigns,
            make.campaign("s1", name="Summer"),
            make.campaign("s2", name="Summer", advertiser="bakery"),
            make.campaign("s3", name="Autumn"),
        ),
    )
    assert edited(document, campaign="Summer").puts["line_items"][0].campaign == "s1"  # Acme's, as the row says
    assert edited(document, campaign="s3", advertiser="acme").puts["line_items"][0].campaign == "s3"
    assert told(edited(document, campaign="Summer", advertiser="")) == [
        "row 2, Campaign (cell D2): names 'Summer', and several campaigns have that name; write the id: 's1', 's2'"
    ]
    assert told(edited(document, campaign="Atumn")) == [
        "row 2, Campaign (cell D2): names campaign 'Atumn', which does not exist; did you mean 'Autumn'?"
    ]
    assert told(edited(document, advertiser="Bakery")) == [
        "row 2, Advertiser (cell C2): is 'Bakery', and the campaign is of 'Acme'"
    ]


# Problems


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"ends": "2027-06-31"}, "Ends (cell I2): 31 June does not exist; expected a date such as 2027-06-30 18:00"),
    ({"ends": "31 June 2027"}, "Ends (cell I2): 31 June does not exist; expected a date such as 2027-06-30 18:00"),
    ({"ends": "31 Juno 2027"}, "Ends (cell I2): is '31 Juno 2027'; expected a date such as 2027-06-30 18:00"),
    ({"ends": "31.6.2027 18:00"}, "Ends (cell I2): 31 June does not exist; expected a date such as 2027-06-30 18:00"),
    (
        {"ends": "2027-02-29"},
        "Ends (cell I2): 29 February 2027 does not exist; expected a date such as 2027-06-30 18:00",
    ),
    (
        {"starts": "3/4/2027"},
        "Starts (cell H2): is '3/4/2027', which may be 3 April or 4 March; write 2027-04-03 or 2027-03-04",
    ),
    ({"starts": "2026-03-29 02:30"}, "Starts (cell H2): is 2026-03-29 02:30, which the clocks skip that night in "),
    ({"starts": "2026-10-25 02:30"}, "write 2026-10-25 02:30+02:00 or 2026-10-25 02:30+01:00"),
    ({"starts": "next week"}, "Starts (cell H2): is 'next week'; expected a date such as 2027-06-30 18:00"),
    ({"starts": "2027-06-30 25:00"}, "Starts (cell H2): says 25:00, which is no time"),
    ({"starts": "2027-13-01"}, "Starts (cell H2): has no month 13"),
    ({"starts": "12-12-0027"}, "Starts (cell H2): is in the year 27; expected one from 1970 to 9998"),
    (
        {"starts": "2027-07-01", "ends": "2027-06-30"},
        "Ends (cell I2): ends before it starts, so it would never show; exchange or correct the two dates",
    ),
    (
        {"priority": "standrad"},
        "Priority (cell E2): is 'standrad'; expected one of 'sponsorship', 'standard', 'bulk', 'house'; did",
    ),
    ({"slots": "889990, 889991"}, "Slots (cell F2): names slot 889991, which does not exist; did you mean '889990'?"),
    ({"slots": "top"}, "Slots (cell F2): is 'top'; expected a whole number above 0, such as 889990"),
    ({"slots": ""}, "Slots (cell F2): is empty; it is required"),
    ({"creatives": "loav"}, "Creatives (cell G2): names creative 'loav', which does not exist; did you mean 'loaf'?"),
    ({"share": "1,500"}, "Share % (cell J2): is '1,500', which may be read in two ways"),
    ({"share": "101 %"}, "Share % (cell J2): is 101.0; expected a percentage above 0 and at most 100"),
    ({"share": "nan"}, "Share % (cell J2): is 'nan'; expected a percentage"),
    ({"weight": "-1"}, "Weight (cell K2): is '-1'; expected a number from 0 to 1,000,000"),
    ({"goal": "many", "goal_counts": "clicks"}, "Goal (cell L2): is 'many'; expected a whole number"),
    ({"goal": "5"}, "Goal counts (cell M2): is empty; expected impressions, viewables or clicks"),
    ({"goal_counts": "clicks"}, "Goal (cell L2): is empty; expected how many, or nothing in the two columns after it"),
    ({"goal": "5", "goal_counts": "likes"}, "Goal counts (cell M2): is {'likes': 5}; expected"),
    ({"per_day": "perhaps"}, "Per day (cell N2): is 'perhaps'; expected yes, or nothing"),
    ({"hours": "weekends"}, "Hours (cell R2): is 'weekends'; expected days and times such as"),
    ({"targeting": "any planet = mars"}, "Targeting (cell S2): names 'planet'; expected one of section, tag"),
    ({"targeting": "section = mars"}, "Targeting (cell S2): has 'section' where one of any, all, none, prefer belongs"),
    ({"frequency": "often"}, "Frequency (cell U2): is 'often'; expected a cap such as '3 per day' or '1 per 6 hours'"),
    ({"remove": "maybe"}, "Remove (cell V2): is 'maybe'; expected yes, or nothing"),
    ({"id": "Sale 1"}, "Id (cell A2): is 'Sale 1'; expected a lowercase word"),
    ({"name": ""}, "Name (cell B2): is empty; it is required"),
    ({"priority": "sponsorship"}, "Share % (cell J2): is missing; a sponsorship is sold as a percentage"),
    ({"pacing": "asap"}, "Pacing (cell O2): spreads a goal, and there is none"),
]


@BOTH
@pytest.mark.parametrize(("cells", "sentence"), PROBLEMS)
def test_every_problem_is_named_by_its_cell(name: str, cells: dict[str, Any], sentence: str) -> None:
    """
    Row, column and cell, what is wrong, and what was expected; and then nothing of the sheet may be taken over.
    """
    found = told(edited(booked(), name, **cells))

    assert any(one.startswith("row 2, ") and sentence in one for one in found), found


def test_all_problems_are_told_at_once() -> None:
    """
    In the order of the rows, with the good rows between them.
    """
    document = booked()
    good = written(document)[1]
    twice, nobody, odd = ([*good] for _ in range(3))
    nobody[0], nobody[-1] = "nobody", "yes"
    odd[0], odd[4], odd[8] = "odd", "?", "?"

    sheet = read_sheet(sheet_of(good, [], twice, nobody, odd), "sheet.csv", document, ZONE)

    assert [one.split(":")[0] for one in told(sheet)] == [
        "row 4, Id (cell A4)",
        "row 5, Remove (cell V5)",
        "row 6, Priority (cell E6)",
        "row 6, Ends (cell I6)",
    ]
    assert told(sheet)[0].endswith("is 'sale', as in row 2; keep one of the two rows")


def test_columns_that_do_not_exist_are_told() -> None:
    """
    A heading that is none, twice or missing is named by its cell, with the one that was meant.
    """
    document = booked()
    assert told(read_sheet(sheet_of(["sale"], head="Id, Prioritty, Price, Id"), "a.csv", document, ZONE)) == [
        "row 1, Prioritty (cell B1): no such column; did you mean 'Priority'?",
        f"row 1, Price (cell C1): no such column; expected some of {', '.join(written(document)[0])}",
        "row 1, Id (cell D1): this column is there twice; take one out",
    ]
    assert told(read_sheet(b"Id,,Name\nsale,x,Sale\n", "a.csv", document, ZONE)) == [
        "row 2, ? (cell B2): stands in a column without a heading; give it one or take it out"
    ]
    with pytest.raises(BadSheet, match="has no heading row"):
        read_sheet(b"Priority\nstandard\n", "a.csv", document, ZONE)
    assert told(read_sheet(sheet_of(["New"], head="Name"), "a.csv", document, ZONE))[0] == (
        "row 2: is a new booking, and the sheet has no column 'Priority'; add it"
    )


def test_what_only_shows_together_is_told_too() -> None:
    """
    Two sponsorships that promise more than there is: no cell is wrong, the sheet is.
    """
    document = make.document(make.sponsorship("one", 60), make.sponsorship("two", 40))

    [said] = told(edited(document, share="70"))
    assert said.startswith("Slot 889990 Slot 889990: Its sponsorships “one”, “two” run together and promise 110 %; ")


DATES = {
    "2027-06-30 18:00": "2027-06-30T18:00:00+02:00",
    "2027-06-30T18:00:00Z": "2027-06-30T18:00:00+00:00",
    "2027-6-30 9:05:07": "2027-06-30T09:05:07+02:00",
    "2026-10-25 02:30+01:00": "2026-10-25T02:30:00+01:00",
    "2027-06-30": "2027-06-30T00:00:00+02:00",
    "30.6.2027": "2027-06-30T00:00:00+02:00",
    "1.6.2027 18:00": "2027-06-01T18:00:00+02:00",
    "30/6/2027 18:00": "2027-06-30T18:00:00+02:00",
    "6/30/2027": "2027-06-30T00:00:00+02:00",
    "30-06-2027 18:00": "2027-06-30T18:00:00+02:00",
    "5/5/2027": "2027-05-05T00:00:00+02:00",
    "30 June 2027 18:00": "2027-06-30T18:00:00+02:00",
    "30. Jun 2027": "2027-06-30T00:00:00+02:00",
    "Wed 30 Jun 2027 18:00": "2027-06-30T18:00:00+02:00",
    "46568.75": "2027-06-30T18:00:00+02:00",
    "46568,75": "2027-06-30T18:00:00+02:00",
}


@pytest.mark.parametrize("text", DATES)
def test_dates_are_read_as_people_and_programs_write_them(text: str) -> None:
    """
    ISO, day and month where only one reading is possible, as the console shows them, and spreadsheets' day numbers.
    """
    [item] = edited(booked(), ends=text).puts["line_items"]

    assert item.ends == make.instant(DATES[text])


def test_cells_of_a_workbook_are_read_as_what_they_are() -> None:
    """
    Dates as dates or bare day numbers (from 1900 or 1904), shares as per cent, slots as numbers, yes as TRUE.
    """
    document = make.document(make.sponsorship("sale", 50.0, creatives=("loaf",)))
    at = make.instant("2027-06-30T18:00:00+02:00")
    for value in (datetime.fromisoformat("2027-06-30T18:00"), 46568.75):
        assert edited(document, "sheet.xlsx", ends=value).puts["line_items"][0].ends == at
    assert edited(document, "sheet.xlsx", slots=889990.0, name=7, remove=False).puts["line_items"][0].name == "7"

    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(document, ZONE)))
    book.epoch = datetime.fromisoformat("1904-01-01")
    page = book["Line items"]
    page["I2"].value = 46568.75 - 1462
    page["J2"].value, page["J2"].number_format = 0.125, "0.0%"
    out = io.BytesIO()
    book.save(out)
    [item] = read_sheet(out.getvalue(), "a.xlsx", document, ZONE).puts["line_items"]
    assert (item.ends, item.share) == (at, 12.5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1252", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_is_read_as_programs_export_it(encoding: str, separator: str) -> None:
    """
    With commas, semicolons or tabs; in UTF-8, Windows-1252 or UTF-16.
    """
    text = separator.join(["Id", '"Name"', "Weight"]) + "\r\n" + separator.join(["sale", '"Größe, „x“"', '"1,5"'])
    data = (b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding)

    [item] = read_sheet(data, "export.csv", booked(), ZONE).puts["line_items"]

    assert (item.name, item.weight) == ("Größe, „x“", 1.5)
    assert read_sheet(b"sep=" + separator.encode() + b"\r\n" + text.encode(), "a.csv", booked(), ZONE).puts


# Files that are none


def test_a_workbook_saved_by_another_program_reads_the_same() -> None:
    """
    Opened and saved again, with shared texts, other styles and formatted empty rows: no change.
    """
    document = booked(name="=1+1 _x005F_ & ￾", ends=2e9)
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(booked(ends=2e9), ZONE)))
    page = book["Line items"]
    page["B2"].value, page["B2"].data_type = "=1+1", "s"
    for row in range(3, 3000):
        page.row_dimensions[row].height = 15
    out = io.BytesIO()
    book.save(out)
    found = read_sheet(out.getvalue(), "a.xlsx", booked(name="=1+1", ends=2e9), ZONE)

    assert is_unchanged(booked(name="=1+1", ends=2e9), found)
    assert is_unchanged(document, read_sheet(write_xlsx(document, ZONE), "a.xlsx", document, ZONE))


def rezipped(change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None) -> bytes:
    """A good workbook, each part changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(write_xlsx(booked(), ZONE))) as good, zipfile.ZipFile(out, "w", 8) as bad:
        for name in good.namelist():
            bad.writestr(name, change(name, good.read(name)))
        for name, data in (extra or {}).items():
            bad.writestr(name, data)
    return out.getvalue()


def in_sheet(old: bytes, new: bytes) -> bytes:
    return rezipped(lambda name, part: part.replace(old, new, 1) if name.endswith("sheet1.xml") else part)


ENTITY = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><worksheet'
LOL = (
    b'<!DOCTYPE x [<!ENTITY a "lol">'
    + b"".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">'.encode() for n in range(9))
    + b"]><worksheet"
)
ENOUGH = b"<row>" + b'<c t="inlineStr"><is><t>x</t></is></c>' * 2000 + b"</row>"
FILES = {
    "an old Excel file (.xls), or one with a password": ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99)),
    "a workbook with macros": ("a.xlsm", rezipped(lambda _, part: part)),
    "workbook with macros; save": ("a.xlsx", rezipped(lambda _, part: part, {"xl/vbaProject.bin": b"x"})),
    "macros; save it": (
        "a.xlsx",
        rezipped(lambda _, part: part.replace(b"spreadsheetml.sheet.main", b"sheet.macroEnabled.main")),
    ),
    "an OpenDocument file": ("a.ods", rezipped(lambda _, part: part, {"content.xml": b"<x/>"})),
    "a ZIP file or another kind": ("a.xlsx", b"PK\x05\x06" + bytes(18)),
    "a PDF": ("a.csv", b"%PDF-1.7"),
    "a web page": ("a.xls", b"<html><table><tr><td>Id</td></tr></table></html>"),
    "an image": ("a.csv", b"\x89PNG\r\n\x1a\n"),
    "no text": ("a.csv", b"Id,Name\n\0\0\n"),
    "is empty": ("a.csv", b"\r\n \r\n"),
    "is damaged": ("a.xlsx", write_xlsx(booked(), ZONE)[:-40]),
    "5 MB": ("a.csv", b"x" * (sheet_files.MOST_BYTES + 1)),
    "defines entities": ("a.xlsx", in_sheet(b"<worksheet", ENTITY)),
    "entities, which no": ("a.xlsx", in_sheet(b"<worksheet", LOL)),
    "no workbook as a": ("a.xlsx", in_sheet(b"<worksheet", b'<?xml version="1.0" encoding="cp037"?><worksheet')),
    "unpacks to more than 64 MB, as a zip bomb": (
        "a.xlsx",
        rezipped(lambda _, part: part, {"xl/x.xml": bytes(70_000_000)}),
    ),
    "rows of thousands of cells": ("a.xlsx", in_sheet(b"</sheetData>", ENOUGH + b"</sheetData>")),
    "more than 20,000 rows": ("a.csv", b"Id\n" + b"x\n" * 20_001),
    "more than 20,000 rows below": (
        "a.xlsx",
        in_sheet(b"</sheetData>", b'<row r="90000"><c r="A90000"><v>1</v></c></row></sheetData>'),
    ),
    "more than 60 columns": ("a.csv", b"Id" + b"," * 70 + b"x\n"),
    "cannot be read as a workbook": ("a.xlsx", in_sheet(b"</sheetData>", b"<row></sheetData>")),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_sheets_are_refused_in_words(what: str) -> None:
    """
    Macros, old formats, entities, bombs and other things: what it is, and what to do.
    """
    name, data = FILES[what]

    with pytest.raises(BadSheet) as raised:
        read_sheet(data, name, booked(), ZONE)

    assert what in str(raised.value)
    assert str(raised.value).startswith(f"'{name}' ")


def test_a_zip_that_lies_about_its_sizes_is_refused() -> None:
    """
    The directory says a part unpacks to some bytes; no more than that is ever unpacked, and then it is damaged.
    """
    data = rezipped(lambda name, part: part + b" " * 5_000_000 if name.endswith("styles.xml") else part)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("xl/styles.xml").file_size
    lying = data.replace(size.to_bytes(4, "little"), (size - 4_999_000).to_bytes(4, "little"))

    with pytest.raises(BadSheet, match=r"damaged|zip bomb"):
        read_sheet(lying, "a.xlsx", booked(), ZONE)


def test_the_parser_below_opens_no_file_either() -> None:
    """
    Even a workbook that came past the check for entities would not have them resolved.
    """
    from openpyxl.xml.functions import fromstring, iterparse  # type: ignore[import-untyped]

    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><x>&e;</x>'
    for parse in (fromstring, lambda data: list(iterparse(io.BytesIO(data)))):
        with pytest.raises(SyntaxError, match="undefined entity"):
            parse(entity)


def test_thousands_of_line_items_come_and_go() -> None:
    """
    A large catalog is written and read back, by both formats, without a change.
    """
    items = tuple(
        make.line_item(f"item-{n}", name=f"Booking {n}", creatives=("loaf",), starts=1.8e9 + 60 * n, ends=1.9e9)
        for n in range(3_000)
    )
    document = make.document(*items)
    for name, write in WRITERS.items():
        assert is_unchanged(document, read_sheet(write(document, ZONE), name, document, ZONE))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sheet_or_refused(data: bytes) -> None:
    """
    Nothing else is ever raised.
    """
    for name in ("a.csv", "a.xlsx"):
        try:
            read_sheet(data, name, booked(), ZONE)
        except BadSheet:
            continue


def test_an_instant_in_the_newsroom_and_back() -> None:
    """
    Around every change of the clocks, quarter by quarter, what is written is read as the same instant.
    """
    from adserver.console.sheet_times import instant_cell, parse_cell

    for zone in (ZONE, "Australia/Lord_Howe", "America/New_York", "Africa/Monrovia"):
        for at in (*CHANGES, 0.0, 0.1, 1e9 + 1e-7, 253_370_700_000.5, 63_593_070.0):
            cell = instant_cell(at, zone)
            assert parse_cell(cell, zone, datetime.fromisoformat("1899-12-30")) == at, (cell, zone, at)
            if isinstance(cell, datetime):
                assert cell.replace(tzinfo=ZoneInfo(zone)).timestamp() == at
