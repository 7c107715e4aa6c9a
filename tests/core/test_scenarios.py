"""Decisions as data: each file of `tests/scenarios/` is one story, in the very tables of a configuration.

Beside the bookings a file has `[[page]]` tables, each a page view, or many:

    at      the instant, with an offset
    asks    slot ids, and groups by name
    format  what the page is, such as "email"; a web page when it is not said
    query   what the page says of itself, as in a request
    shows   per ask the line item that answers; "nothing: not-live" and the like where none does
    creatives  the creatives of those that answer
    because    why others did not answer: line item = "step: reason"
    takes      how much of its chances each line item with a goal takes now, 0 to 1
    says       why it takes that
    reached    line items that have their goal
    earned     what creatives have earned by being clicked, by line item, where their rotation is optimised
    seen       line items that this reader may not be shown now, and why; known = false where nobody knows the reader
    left    how often this reader may be shown what a frequency cap counts, such as "line_item:bread"
    view    which view of its slots it is, counted from 0
    views   that many views one after another, of which each line item has as many as `counts` says, give or take 3,
            and each creative as many as `shown` says
"""

import tomllib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adserver.catalog import Catalog
from adserver.checks import check
from adserver.context import parse_query
from adserver.decide import Decision, Filled, Lost, Page, decide
from adserver.documents import TABLES, read_tables
from adserver.model import Format, Group, SlotId
from adserver.pacing import Pace
from tests.make import draws, entries

STORIES = sorted((Path(__file__).parent.parent / "scenarios").glob("*.toml"))


class View(msgspec.Struct, forbid_unknown_fields=True):
    """A `[[page]]` table."""

    at: datetime
    asks: list[int | str]
    format: Format = Format.HTML
    query: str = ""
    shows: list[str] | None = None
    creatives: list[str] | None = None
    because: dict[str, str] = {}
    takes: dict[str, float] = {}
    says: dict[str, str] = {}
    reached: list[str] = []
    earned: dict[str, dict[str, float]] = {}
    seen: dict[str, str] = {}
    known: bool = True
    left: dict[str, int] = {}
    view: int = 0
    views: int = 1
    counts: dict[str, int] | None = None
    shown: dict[str, int] | None = None

    def page(self, catalog: Catalog) -> Page:
        asks: list[SlotId | Group] = [SlotId(one) if isinstance(one, int) else catalog.groups[one] for one in self.asks]
        held = self.seen if self.known else None
        return Page(tuple(asks), self.format, parse_query(self.query.encode()).context, held, self.left)


def read_story(path: Path) -> tuple[Catalog, list[View]]:
    tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    assert tables.pop("story").endswith(".")
    views = msgspec.convert(tables.pop("page"), list[View])
    document, known, problems = read_tables(entries(tables, path.name))
    assert [*problems, *check(document, known)] == []
    assert tables.keys() <= TABLES.keys()
    return Catalog(document, 1), views


def tell(decision: Decision) -> str:
    return decision.ad.line_item.id if isinstance(decision, Filled) else f"nothing: {decision.reason.value}"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_told(path: Path) -> None:
    """
    Every page view of the file shows what the file says.
    """
    catalog, views = read_story(path)
    assert views
    for view in views:
        assert view.shows is not None or view.counts is not None, "a page says what it shows"
        page, now = view.page(catalog), view.at.timestamp()
        counts: Counter[str] = Counter()
        shown: Counter[str] = Counter()
        for n in range(view.view, view.view + view.views):
            trace: list[Lost] = []
            pace = Pace(view.takes, view.says, view.earned, frozenset(view.reached))
            decisions = decide(catalog, now, page, draws(n), pace, trace)
            counts.update(map(tell, decisions))
            shown.update(one.ad.creative.id for one in decisions if isinstance(one, Filled))
            if view.shows is not None:
                assert [tell(one) for one in decisions] == view.shows
            if view.creatives is not None:
                assert [one.ad.creative.id for one in decisions if isinstance(one, Filled)] == view.creatives
            told = {one.line_item.id: f"{one.step.value}: {one.reason}" for one in trace}
            assert view.because.items() <= told.items()
        if view.counts is not None:
            assert counts.keys() == view.counts.keys()
            assert all(abs(counts[name] - n) <= 3 for name, n in view.counts.items()), counts
        if view.shown is not None:
            assert shown.keys() == view.shown.keys()
            assert all(abs(shown[name] - n) <= 3 for name, n in view.shown.items()), shown


def test_there_are_stories() -> None:
    """
    The directory is where this test looks.
    """
    assert len(STORIES) >= 10
