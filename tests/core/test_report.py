"""Delivery figures out of counts."""

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.days import Days
from adserver.events import INVALID, REASONS, Type
from adserver.report import DIMENSIONS, EVENT_FIGURES, FIGURE_OF, FIGURES, Row, rows, total, violations

DAYS = Days("Europe/Amsterdam")
DAY = DAYS.number(date(2026, 3, 2))
LOAF, ROLL, GONE = "0b5d1122334455", "a1a2a3a4a5a6a7", "ffffffffffffff"
ADS = {LOAF: "889990/spring-sale/loaf", ROLL: "889991/spring-sale/roll"}


NONE = dict.fromkeys(EVENT_FIGURES, 0)


def figures(row: Row) -> tuple[int, ...]:
    return tuple(getattr(row, name) for name in FIGURES)


COUNTS = {
    DAY: {
        f"1:9:{LOAF}": 10,
        f"1:10:{LOAF}": 5,
        f"1:9:{ROLL}": 4,
        f"3:9:{LOAF}": 8,
        f"3:9:{LOAF}:bot": 3,
        f"3:10:{LOAF}:bot": 1,
        f"4:9:{LOAF}": 6,
        f"5:9:{LOAF}": 2,
        f"5:9:{LOAF}:prefetch": 1,
        f"6:9:{LOAF}": 9,
        f"7:9:{LOAF}": 7,
        "2:9:889990:not-live": 7,
        "2:9:889992:no-booking": 1,
    },
    DAY + 1: {f"1:9:{LOAF}": 100},
}


def test_shows_each_slot_with_its_funnel() -> None:
    """
    A slot's requests are those answered and those not; impressions, those measured, viewables, clicks and loads
    stand beside them.
    """
    found = {row.name: figures(row) for row in rows(COUNTS, ADS, "slot", DAYS)}
    assert found == {889990: (122, 115, 8, 7, 6, 2, 9), 889991: (4, 4, 0, 0, 0, 0, 0), 889992: (1, 0, 0, 0, 0, 0, 0)}


def test_invalid_events_stand_apart() -> None:
    """
    What was filed as invalid is in its own column by reason, and in none of the others.
    """
    first, *others = rows(COUNTS, ADS, "slot", DAYS)
    assert first.invalid == {"bot": 4, "prefetch": 1}
    assert [row.invalid for row in others] == [{}, {}]


def test_a_silent_slot_has_a_row() -> None:
    """
    A slot of the catalog that nothing happened to is in the report by slot, with zeros.
    """
    found = {row.name: row for row in rows(COUNTS, ADS, "slot", DAYS, slots=[889994, 889990])}
    assert found[889994] == Row(name=889994)
    assert list(found) == [889990, 889991, 889992, 889994]
    assert 889994 not in {row.name for row in rows(COUNTS, ADS, "line_item", DAYS, slots=[889994])}


def test_by_line_item_a_no_fill_has_no_name() -> None:
    """
    An unfilled request belongs to no line item; it is kept in a last row without a name.
    """
    found = {row.name: figures(row) for row in rows(COUNTS, ADS, "line_item", DAYS)}
    assert list(found.items()) == [("spring-sale", (119, 119, 8, 7, 6, 2, 9)), (None, (8, 0, 0, 0, 0, 0, 0))]


def test_by_creative_and_day() -> None:
    """
    The same counts are told by creative and by day of the newsroom.
    """
    assert [(row.name, row.served) for row in rows(COUNTS, ADS, "creative", DAYS)] == [
        ("loaf", 115),
        ("roll", 4),
        (None, 0),
    ]
    assert [(row.name, row.served) for row in rows(COUNTS, ADS, "day", DAYS)] == [
        ("2026-03-02", 19),
        ("2026-03-03", 100),
    ]


def test_an_ad_nobody_can_name_keeps_its_counts() -> None:
    """
    Counts of an ad key that no catalog names are shown under the key, and under no slot; none is lost.
    """
    counts = {DAY: {f"1:9:{GONE}": 3, f"3:9:{GONE}": 2, f"1:9:{LOAF}": 1}}
    assert [(row.name, figures(row)) for row in rows(counts, ADS, "slot", DAYS)] == [
        (889990, (1, 1, 0, 0, 0, 0, 0)),
        (None, (3, 3, 2, 0, 0, 0, 0)),
    ]
    for by in ("line_item", "creative"):
        assert {row.name: row.served for row in rows(counts, ADS, by, DAYS)}[GONE] == 3


def test_hours_stand_in_the_order_they_passed() -> None:
    """
    Where clocks go back, the first 02:00 stands before the second.
    """
    day = DAYS.number(date(2026, 10, 25))
    counts = {day: {f"1:{hour}:{LOAF}": hour + 1 for hour in (24, 4, 3, 2, 1)}}
    assert [(row.name, row.served) for row in rows(counts, ADS, "hour", DAYS)] == [
        ("2026-10-25T01:00+02:00", 2),
        ("2026-10-25T02:00+02:00", 3),
        ("2026-10-25T02:00+01:00", 4),
        ("2026-10-25T03:00+01:00", 5),
        ("2026-10-25T23:00+01:00", 25),
    ]


def test_a_row_as_a_table_names_its_dimension() -> None:
    """
    A row as JSON carries the dimension's name, every figure, and the invalid events.
    """
    row = Row(
        name=889990, requests=3, served=2, impressions=2, measured=2, viewables=1, suspect={**NONE, "impressions": 1}
    )
    row.invalid_by_type["impressions"]["bot"] = 1
    row.invalid_by_type["clicks"]["bot"] = 1
    assert row.as_dict("slot") == {
        "slot": 889990,
        "requests": 3,
        "served": 2,
        "impressions": 2,
        "measured": 2,
        "viewables": 1,
        "clicks": 0,
        "loads": 0,
        "invalid": {"bot": 2},
        "invalid_by_type": {"impressions": {"bot": 1}, "measured": {}, "viewables": {}, "clicks": {"bot": 1}},
        "suspect": {"impressions": 1, "measured": 0, "viewables": 0, "clicks": 0},
        "gross": {"impressions": 3, "measured": 2, "viewables": 1, "clicks": 1},
    }


hourly = st.dictionaries(
    st.one_of(
        st.builds("1:{}:{}".format, st.integers(0, 23), st.sampled_from([LOAF, ROLL, GONE])),
        st.builds("2:{}:{}:not-live".format, st.integers(0, 23), st.sampled_from([889990, 889994])),
        st.builds(
            "{:d}:{}:{}{}".format,
            st.sampled_from(list(FIGURE_OF)),
            st.integers(0, 23),
            st.sampled_from([LOAF, ROLL, GONE]),
            st.sampled_from(["", ":bot", ":method"]),
        ),
    ),
    st.integers(0, 1000),
    max_size=12,
)


@settings(max_examples=60)
@given(st.dictionaries(st.integers(DAY, DAY + 3), hourly, max_size=3), st.sampled_from(DIMENSIONS))
def test_the_sum_is_the_same_by_every_dimension(counts: dict[int, dict[str, int]], by: str) -> None:
    """
    However a report is cut, its rows add up to the same total, requests are never fewer than served, and every event
    is in exactly one place.
    """
    found = rows(counts, ADS, by, DAYS)
    assert total(found) == total(rows(counts, ADS, "slot", DAYS))
    assert all(row.requests >= row.served for row in found)
    whole = total(found)
    told = whole.requests + sum(getattr(whole, name) for name in EVENT_FIGURES) + sum(whole.invalid.values())
    assert told == sum(n for fields in counts.values() for n in fields.values())


def test_rows_do_not_share_their_invalid_column() -> None:
    """
    A total is its own row: adding to it leaves the rows it was made of alone.
    """
    one, other = Row(name=1), Row(name=2)
    one.invalid_by_type["clicks"]["bot"] = 1
    whole = total([one, other])
    whole.invalid_by_type["clicks"]["bot"] += 1
    whole.suspect["clicks"] += 1
    assert one.invalid == {"bot": 1}
    assert other == Row(name=2)
    assert whole.name == "total"


def test_suspect_events_are_counted_and_told_apart() -> None:
    """
    An event that looks automated is in the figure like any other, and the report says how many of those there are.
    """
    counts = {DAY: {f"3:9:{LOAF}": 5, f"3:9:{LOAF}:suspect": 2, f"3:9:{LOAF}:rate": 1, f"5:9:{LOAF}:suspect": 4}}
    (row,) = rows(counts, ADS, "slot", DAYS)
    assert figures(row) == (0, 0, 7, 0, 0, 4, 0)
    assert row.suspect == {"impressions": 2, "measured": 0, "viewables": 0, "clicks": 4}
    assert row.invalid == {"rate": 1}
    assert row.gross == {"impressions": 8, "measured": 0, "viewables": 0, "clicks": 4}


def test_a_reason_that_an_older_version_counted_by_its_number_is_the_same_reason() -> None:
    """
    While versions change, an older worker may count a newer one's journal: what it had no name for keeps its sense.
    """
    suspect, rate = INVALID.index("suspect"), INVALID.index("rate")
    counts = {DAY: {f"3:9:{LOAF}:reason-{suspect}": 2, f"3:9:{LOAF}:reason-{rate}": 3, f"3:9:{LOAF}:reason-200": 1}}
    (row,) = rows(counts, ADS, "slot", DAYS)
    assert (row.impressions, row.suspect["impressions"], row.invalid) == (2, 2, {"rate": 3, "reason-200": 1})


filed = st.dictionaries(
    st.tuples(
        st.sampled_from(list(FIGURE_OF)),
        st.integers(0, 24),
        st.sampled_from([LOAF, ROLL, GONE]),
        st.sampled_from([*INVALID, "reason-200"]),
    ),
    st.integers(0, 10**12),
    max_size=40,
)


@settings(max_examples=200)
@given(st.dictionaries(st.integers(DAY, DAY + 2), filed, max_size=3), st.sampled_from(DIMENSIONS))
def test_gross_less_the_reasons_is_net(days: dict[int, dict[tuple[Type, int, str, str], int]], by: str) -> None:
    """
    Of each event, in every row and in the total: all that were genuine, less what each reason took off, are those
    counted; the suspect ones are among them.
    """
    counts = {
        day: {f"{type_:d}:{hour}:{ad}{reason and ':'}{reason}": n for (type_, hour, ad, reason), n in fields.items()}
        for day, fields in days.items()
    }
    found = rows(counts, ADS, by, DAYS)
    for row in (*found, total(found)):
        for figure in EVENT_FIGURES:
            assert row.gross[figure] - sum(row.invalid_by_type[figure].values()) == getattr(row, figure)
            assert 0 <= row.suspect[figure] <= getattr(row, figure)
        assert row.invalid.keys() <= {*REASONS, "reason-200"}
        taken_off = sum(row.gross.values()) - sum(getattr(row, figure) for figure in EVENT_FIGURES)
        assert sum(row.invalid.values()) == taken_off
    every = [(key, n) for fields in days.values() for key, n in fields.items()]
    for type_, figure in FIGURE_OF.items():
        assert total(found).gross[figure] == sum(n for key, n in every if key[0] is type_)
        net = sum(n for key, n in every if key[0] is type_ and key[3] in ("", "suspect"))
        assert getattr(total(found), figure) == net


def test_a_figure_above_the_one_it_comes_from_is_told() -> None:
    """
    Each invariant says in how many rows it does not hold; all of them are named even where they hold.
    """
    rows = [
        Row(name=1, requests=5, served=5, impressions=4, measured=4, viewables=4),
        Row(name=2, requests=5, served=6, impressions=7, measured=0, viewables=4),
        Row(name=3, requests=5, served=4, impressions=3, measured=4, viewables=4),
    ]
    names = ("served-requests", "impressions-served", "measured-impressions", "viewables-impressions")
    assert violations(rows) == dict.fromkeys(names, 1)
    assert violations([]) == dict.fromkeys(names, 0)


def test_a_viewable_rate_is_of_what_was_measured() -> None:
    """
    Impressions that nobody could measure are not held against an ad; a viewable one was measured in any case.
    """
    assert Row(name=1, impressions=100, measured=40, viewables=30).viewable_of == 40
    assert Row(name=1, impressions=100, measured=29, viewables=30).viewable_of == 30
    assert Row(name=1, impressions=100).viewable_of == 0
