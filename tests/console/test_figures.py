"""What reports say of counts: sums, rates and how sure they are, goals against their plan, and charts."""

import csv
import io
import math

import msgspec
import openpyxl  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserver import report
from adserver.catalog import ad_key
from adserver.console.downloads import write_csv, write_xlsx
from adserver.console.figures import (
    FEW,
    Ads,
    Point,
    Sum,
    add_all,
    add_days,
    add_up,
    draw,
    fields_of,
    join,
    judge,
    passed,
    rate,
    round_marks,
    say_points,
    standing,
)
from adserver.days import Days
from adserver.hours import Week
from adserver.model import Goal, LineItem, Measure, OnShortfall, Pacing
from adserver.traffic import WEEK_STEPS, Outlook
from tests.make import SLOT, instant, line_item

DAY = 20_000
NAMES = {ad_key(name).hex(): name for name in ("889990/spring/a", "889990/spring/b", "889991/autumn/a")}
A, B, C = NAMES
COUNTS = {
    f"1:9:{A}": 100, f"3:9:{A}": 90, f"3:9:{A}:bot": 7, f"3:9:{A}:suspect": 2, f"4:9:{A}": 40, f"5:9:{A}": 3,
    f"1:10:{B}": 50, f"3:10:{B}": 50, f"5:10:{B}:staff": 1,
    f"1:23:{C}": 10, f"3:24:{C}": 9, "2:9:889990:pacing": 25, "2:9:889991:not-live": 5,
    "1:9:0123456789abcd": 4, "@0123456789abcdef": 9, "sealed": 1, "F9": 3,
}  # fmt: skip
BEGINS, ENDS = instant("2026-03-02T00:00:00+01:00"), instant("2026-03-12T00:00:00+01:00")


def booked(n: int = 1000, **fields: object) -> LineItem:
    quiet = {"starts": BEGINS, "ends": ENDS, "goal": Goal(n, Measure.IMPRESSIONS)}
    return line_item("spring", **{**quiet, **fields})


def at(part: float) -> float:
    """The instant at which so much of the flight is over."""
    return BEGINS + part * (ENDS - BEGINS)


# Sums


def test_sums_are_those_of_the_report() -> None:
    """
    By slot, line item and creative, a page's figures are the very ones that `adserver report` prints.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    ads = Ads()
    ads.learn(day.by_ad)

    for by in ("slot", "line_item", "creative"):
        found = ads.group(day.by_ad, by, {})
        for row in report.rows({DAY: COUNTS}, NAMES, by, Days("Europe/Amsterdam")):
            if row.name is None:
                continue
            one = found[str(row.name)]
            assert [getattr(one, name) for name in report.FIGURES] == [getattr(row, name) for name in report.FIGURES]
            for figure in report.EVENT_FIGURES:
                assert one.gross(figure) == row.gross[figure]
                assert one.suspect(figure) == row.suspect[figure]
                assert one.invalid(figure) == row.invalid_by_type[figure]


def test_an_advertisers_sum_is_that_of_their_line_items() -> None:
    """
    What belongs to a line item belongs to its advertiser; requests that nobody answered belong to none.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    ads = Ads()
    ads.learn(day.by_ad)
    found = ads.group(day.by_ad, "advertiser", {"spring": "acme", "autumn": "acme"})
    assert {name: (one.requests, one.impressions, one.clicks) for name, one in found.items()} == {"acme": (160, 151, 3)}
    assert ads.of("line_item", "spring") == ["889990/spring/a", "889990/spring/b"]
    assert ads.of("slot", "889991") == ["889991/autumn/a", "889991//"]


def test_hours_and_ads_add_up_to_the_same_day() -> None:
    """
    A day's hours and its ads are two ways of cutting the same figures; what is not a count of ours is in neither.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    assert add_all(day.by_ad.values()) == day.total
    assert (day.total.requests, day.total.served, day.total.impressions) == (194, 164, 151)
    assert sorted(day.hours) == [9, 10, 23, 24]
    assert add_all(day.of_slot(None).values()) == day.total
    slot = add_all(one for name, one in day.by_ad.items() if name.startswith("889990/"))
    assert add_all(day.of_slot("889990").values()) == slot


def test_the_fields_of_an_ad_are_all_of_its_counts() -> None:
    """
    Asking for an ad's hours by the names its counts can have finds every one of them, and none of another's.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    wanted = set(fields_of(day, {"889990/spring/a": A}))
    assert {field for field in COUNTS if A in field} <= wanted
    assert all(A in field for field in wanted)


def test_a_day_joined_of_its_hours_is_the_day() -> None:
    """
    What came before an hour and what came after are the whole day together.
    """
    parts = [{field: n for field, n in COUNTS.items() if (":9:" in field) is early} for early in (True, False)]
    whole = join(*(add_up(DAY, part, NAMES, final=True) for part in parts))
    day = add_up(DAY, COUNTS, NAMES, final=True)
    assert (whole.by_ad, whole.hours) == (day.by_ad, day.hours)


def test_a_days_sums_are_kept_as_they_are() -> None:
    """
    A day that is written down and read back is the same day.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(day), type=type(day)) == day


def test_adding_days_leaves_the_days_as_they_are() -> None:
    """
    Sums are added up into new ones, so that what is remembered of a day never grows by being asked for.
    """
    day = add_up(DAY, COUNTS, NAMES, final=True)
    before = day.total
    once = add_days([day])
    twice = add_days([day], once)
    assert add_days([day]) == once
    assert add_all(twice.values()).impressions == 2 * before.impressions
    assert add_all(once.values()) == day.total == before


# Rates


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (51, 10_000, 0.00388, 0.00670)],
)
def test_intervals_are_wilsons(hits: int, of: int, low: float, high: float) -> None:
    """
    The bounds are those of the published score interval, for few and for rare as well.
    """
    found = rate(hits, of)
    assert found.low == pytest.approx(low, abs=6e-5)
    assert found.high == pytest.approx(high, abs=6e-5)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_an_interval_holds_its_rate_and_narrows(hits: int, of: int) -> None:
    """
    Whatever is counted, the rate lies within its bounds, these within 0 and 1, and ten times as much narrows them.
    """
    one, more = rate(hits, of), rate(hits * 10, of * 10)
    assert 0 <= one.low <= one.value <= one.high <= 1
    assert more.high - more.low <= one.high - one.low


def test_a_rate_says_its_range_in_words() -> None:
    """
    A rate is written with its bounds; one of too few impressions says that it is early, and of none nothing.
    """
    assert rate(51, 10_000).words.replace("\u00a0", " ") == "0.39 % to 0.67 %"
    assert rate(600, 1000).words.replace("\u00a0", " ") == "56.9 % to 63.0 %"
    assert rate(0, 0).words == "nothing yet"
    assert rate(1, FEW - 1).is_early
    assert not rate(1, FEW).is_early


def test_no_creative_wins_before_the_ranges_lie_apart() -> None:
    """
    While two ranges overlap, or one has hardly been seen, it is too early to tell; then the best is named.
    """
    early = judge({"a": rate(12, 1000), "b": rate(8, 1000)})
    few = judge({"a": rate(60, 1000), "b": rate(0, 20)})
    clear = judge({"a": rate(60, 1000), "b": rate(8, 1000), "unseen": rate(0, 0)})
    assert early is not None
    assert few is not None
    assert clear is not None
    assert (early.best, few.best, clear.best) == (None, None, "a")
    assert early.sentence.startswith("Too early to tell")
    assert few.sentence.startswith("Too early to tell")
    assert judge({"a": rate(60, 1000)}) is None


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 5000)), min_size=2, max_size=6))
def test_a_winner_is_above_every_other(seen: list[tuple[int, int]]) -> None:
    """
    Whoever is named best has a lower bound above every other's upper one.
    """
    rates = {str(number): rate(hits, of) for number, (hits, of) in enumerate(seen)}
    verdict = judge(rates)
    assert verdict is not None
    if verdict.best is not None:
        assert all(rates[verdict.best].low > one.high for name, one in rates.items() if name != verdict.best)


# Goals


@pytest.mark.parametrize(
    ("done", "part", "word"),
    [(0, 0.5, "behind"), (400, 0.5, "behind"), (490, 0.5, "on time"), (520, 0.5, "on time"), (700, 0.5, "ahead"),
     (1000, 0.5, "reached"), (1200, 1.5, "reached"), (900, 1.0, "missed"), (0, -0.1, "to come"),
     (0, 0.0001, "on time")],
)  # fmt: skip
def test_a_goal_is_ahead_on_time_or_behind(done: int, part: float, word: str) -> None:
    """
    What is delivered is compared with what is due by now; a little less than due is on time.
    """
    one = booked()
    found = standing(one, done, passed(one, None, at(part), (0.0, 0.0)), at(part))
    assert found is not None
    assert found.word == word
    assert found.sentence.startswith(f"{done:,} of 1,000 impressions")


def test_a_goal_goes_by_the_traffic_where_it_is_known() -> None:
    """
    With a curve by which nine tenths of a week's readers come on its first day, most is due after that day.
    """
    curve = [9.0] * 288 + [1 / 6] * (WEEK_STEPS - 288)
    monday = instant("2026-03-02T00:00:00+01:00")
    one = booked(starts=monday, ends=monday + 7 * 86_400)
    outlook = Outlook({int(SLOT): curve}, Week("Europe/Amsterdam"))
    by_curve = passed(one, outlook, monday + 86_400, (0.0, 0.0))
    by_time = passed(one, None, monday + 86_400, (0.0, 0.0))
    assert by_curve == pytest.approx(0.9, abs=0.01)
    assert by_time == pytest.approx(1 / 7)
    assert (found := standing(one, 500, by_curve, monday + 86_400))
    assert found.word == "behind"


def test_a_pause_owes_nothing() -> None:
    """
    What is paused for the first half of its time owes nothing then, and half of its goal half-way through the rest.
    """
    one, gaps = booked(), ((BEGINS, at(0.5)),)
    assert passed(one, None, at(0.5), (0.0, 0.0), gaps) == 0
    assert passed(one, None, at(0.75), (0.0, 0.0), gaps) == pytest.approx(0.5)


def test_a_frontloaded_goal_owes_more_in_its_first_half() -> None:
    """
    The plan that is kept is the plan that is compared with: half-way, a frontloaded goal owes more than an even one.
    """
    even, front = (standing(booked(pacing=one), 0, 0.5, at(0.5)) for one in (Pacing.EVEN, Pacing.FRONTLOADED))
    assert even
    assert front
    assert even.due
    assert front.due
    assert front.due > even.due * 1.2


def test_a_goal_without_dates_owes_nothing_and_a_run_on_goes_on() -> None:
    """
    An open booking is neither ahead nor behind; one that runs on after its end says so; a booking without goal nothing.
    """
    open_ = booked(starts=None, ends=None)
    assert passed(open_, None, at(0.5), (0.0, 0.0)) is None
    assert (found := standing(open_, 10, None, at(0.5)))
    assert found.word == "open"
    late = booked(on_shortfall=OnShortfall.RUN_ON)
    assert (found := standing(late, 10, 1.0, at(1.1)))
    assert found.word == "runs on"
    assert standing(line_item(), 10, 0.5, at(0.5)) is None


def test_a_daily_goal_is_of_the_day() -> None:
    """
    A goal per day has its day for its time.
    """
    one = booked(240, goal=Goal(240, Measure.CLICKS, daily=True))
    noon = BEGINS + 86_400 * 1.5
    share = passed(one, None, noon, (BEGINS + 86_400, BEGINS + 2 * 86_400))
    assert share == pytest.approx(0.5)
    assert (found := standing(one, 120, share, noon))
    assert found.word == "on time"
    assert "clicks today" in found.sentence


# Charts


@given(st.integers(0, 10**9), st.integers(2, 8))
def test_marks_are_round_and_cover(most: int, wanted: int) -> None:
    """
    The axis begins at 0, ends at or above the highest bar, and its steps are 1, 2 or 5 times a power of ten.
    """
    marks = round_marks(most, wanted)
    step = marks[1]
    assert marks[0] == 0
    assert marks[-1] >= most
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert len(marks) <= wanted + 2


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=366))
def test_bars_stay_within_the_drawing(pairs: list[tuple[int, int]]) -> None:
    """
    No bar leaves the chart, none has a negative height, and the viewable part is no higher than the bar.
    """
    points = [Point("1 Mar", "1 Mar 2026", "", Sum(impressions=n, viewables=m)) for n, m in pairs]
    chart = draw(points, 330, 210)
    assert len(chart.bars) == len(points)
    for bar in chart.bars:
        assert chart.left <= bar.x <= bar.x + bar.width <= chart.width
        assert 0 <= bar.top <= bar.top + bar.height <= chart.bottom + 0.02
        assert 0 <= bar.seen_height <= bar.height + 0.02
        assert math.isfinite(bar.width)
    assert 1 <= len(chart.marks) <= 12


def test_a_chart_is_a_sentence_as_well() -> None:
    """
    Who does not see the chart hears its time, its sum and its highest.
    """
    points = [Point("1", f"{day} Mar 2026", "", Sum(impressions=n)) for day, n in ((1, 5), (2, 9), (3, 0))]
    said = say_points(points, lambda one: one.impressions, "impressions", "each day")
    assert said == "Impressions each day, from 1 Mar 2026 to 3 Mar 2026: 14 in all, most on 2 Mar 2026 with 9."
    assert say_points([], lambda one: one.impressions, "impressions", "each day") == "No impressions."


# Files

HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    " =1+1",
    '"><script>alert(1)</script>',
    "a,b\nc",
    "plain",
    "é 日本",
]


def test_csv_runs_nothing_and_loses_nothing() -> None:
    """
    A text that a spreadsheet would run has an apostrophe before it; every other text and number is as it was.
    """
    data = write_csv(["Name", "n"], [[text, 7] for text in HOSTILE])
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert rows[0] == ["Name", "n"]
    for text, (name, number) in zip(HOSTILE, rows[1:], strict=True):
        assert name in (text, f"'{text}")
        assert name[0] not in "=+-@\t\r"
        assert not name.lstrip(" ").startswith(("=", "+", "-", "@"))
        assert number == "7"


def test_xlsx_runs_nothing_and_loses_nothing() -> None:
    """
    Every text is a text cell and no formula, numbers are numbers, and what XML cannot hold becomes a blank.
    """
    data = write_xlsx("A/B: [x]?", ["Name", "n"], [[text, 7.5] for text in [*HOSTILE, "a\x00b"]])
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    names, numbers = [list(column)[1:] for column in sheet.iter_cols()]
    assert [cell.data_type for cell in names] == ["s"] * len(names)
    shown = [str(cell.value).replace("_x000D_", "\r") for cell in names]
    assert [text.replace("\r", "\n") for text in shown[:-1]] == [text.replace("\r", "\n") for text in HOSTILE]
    assert shown[-1] == "a b"
    assert all(cell.value == 7.5 for cell in numbers)
