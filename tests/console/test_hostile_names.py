"""A name that is markup, or a formula, is a name: on every page, in every snippet format, and nowhere more."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from adserver.console.desk import read_live
from tests.console.desks import Desk
from tests.console.poison import poison, texts_of

HOSTILE = '"><script>alert(1)</script>'
SLOT = 889981
PATHS = [
    "/console", "/console/line-items", "/console/line-items/{line_item}", "/console/book", "/console/creatives",
    "/console/creatives/{creative}", "/console/draft", "/console/history", "/console/history/{version}",
    "/console/pauses", "/console/people", "/console/audit", "/console/preview/page?at=2027-03-10T09:00",
    "/console/calendar", "/console/calendar?weeks=13&q=script", "/console/slots", "/console/slots/889981",
    "/console/creatives/{creative}/framed?slot=889981", "/console/choices?advertiser={advertiser}", "/console/sheet",
    "/console/advertisers", "/console/advertisers/{advertiser}", "/console/reports",
    "/console/reports?by=advertiser&id={advertiser}", "/console/reports?by=line_item&id={line_item}", "/console/more",
]  # fmt: skip


@pytest.fixture(scope="module")
def names(desk: Desk) -> dict[str, str]:
    found = desk.ask(lambda store: poison(store, HOSTILE, SLOT))
    deadline = time.monotonic() + 10
    while desk.http.get(f"/ads?id={SLOT}").json()["version"] < int(found["version"]):
        assert time.monotonic() < deadline, "the version was never served"
    return found


def test_every_text_of_the_catalog_is_poisoned(desk: Desk, names: dict[str, str]) -> None:
    """
    No entry has a text left that a person may have written: a field added to the model is poisoned as well, or is
    named among those that are kept.
    """
    assert names
    document = desk.ask(read_live).document
    assert not set(texts(document)) - {HOSTILE}
    assert {type(one).__name__ for one in walk(document)} >= {"Slot", "Advertiser", "Campaign", "Creative", "LineItem",
                                                              "Pause", "Political", "Site", "Terms"}  # fmt: skip


def walk(value: Any) -> Iterator[Struct]:
    """Every struct within *value*, and itself."""
    if isinstance(value, Struct):
        yield value
        for name in value.__struct_fields__:
            yield from walk(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from walk(one)


def texts(value: Any) -> Iterator[str]:
    for one in walk(value):
        for name in texts_of(one):
            found = getattr(one, name)
            if isinstance(found, dict):
                found = (*found, *(word for words in found.values() for word in words))
            yield from (
                text for text in (found if isinstance(found, tuple) else (found,)) if type(text) is str and text
            )


@pytest.mark.parametrize("path", PATHS)
def test_a_name_is_text_on_every_page(desk: Desk, names: dict[str, str], path: str) -> None:
    """
    Wherever it stands, the markup in a name is escaped; nothing on the page could run it.
    """
    answer = desk.browser("admin").get(path.format(**names))
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"""<[^>]*"><script""", answer.text)


@pytest.mark.parametrize("form", ["html", "placeholder", "email", "amp", "native"])
def test_a_name_is_text_in_every_snippet(desk: Desk, names: dict[str, str], form: str) -> None:
    """
    The same in what pages embed, whatever the format.
    """
    assert names
    for slot in (889977, 889979, SLOT, 889990):
        assert "<script>alert" not in desk.http.get(f"/ads/{slot}?format={form}").text
