"""One word without end as every name, note and reason: no page is wider than its screen, and no column is squeezed."""

import time

import pytest
from msgspec import structs
from playwright.sync_api import Browser

from adserver import versions
from adserver.console import desk as desks
from adserver.console import drafts
from adserver.console.drafts import Draft
from adserver.console.report_links import PATH as REPORTS
from adserver.store import Store
from tests.console.desks import Desk
from tests.console.poison import poison
from tests.console.test_stories import PAGES, SIZES, chromium, sign_in  # noqa: F401

pytestmark = pytest.mark.system
WORD = "W" * 190
MORE = ["/console/draft?clash", "/console/line-items?q=w", "/console/calendar?weeks=13", "/console/history/2"]
NARROWEST = 100
"""Pixels of a column that is not a number's: some ten letters."""
SQUEEZED = """least => [...document.querySelectorAll('.table:not(.figures) thead th:not(.number)')].filter(
    one => getComputedStyle(one.closest('thead')).position !== 'absolute'
        && one.getBoundingClientRect().width < least).map(
    one => `${one.textContent} ${one.getBoundingClientRect().width}`)"""
WIDEST = """() => [...document.querySelectorAll('main *')].filter(
    one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, .calendar-box, .unseen')).map(
    one => `${one.tagName}.${one.className} ${one.textContent.slice(0, 30)}`).slice(0, 5)"""


async def draft_both(store: Store, person: str) -> None:
    """A draft that clashes with what somebody published since, in an entry whose texts are such words."""
    live = await desks.read_live(store)
    mine, other = live.document.line_items[:2]
    draft = drafts.put(Draft(live.number), live.document, "line_items", structs.replace(mine, name=f"mine{WORD}"[:190]))
    await desks.write_draft(store, person, drafts.remove(draft, live.document, "line_items", other.id), "")
    theirs = structs.replace(mine, name=f"theirs{WORD}"[:190])
    document = structs.replace(live.document, line_items=(theirs, *live.document.line_items[1:]))
    version = versions.Version(number=live.number + 1, author=WORD, at=time.time(), note=WORD, document=document)
    await versions.publish(store, version, {}, live.number)


@pytest.fixture(scope="module")
def names(desk: Desk) -> dict[str, str]:
    found = desk.ask(lambda store: poison(store, WORD, 889990))
    desk.add("clash", "admin")
    desk.add(WORD, "sales")
    desk.ask(lambda store: draft_both(store, "clash"))
    deadline = time.monotonic() + 10
    while desk.http.get("/ads?id=889990").json()["version"] < int(found["version"]) + 1:
        assert time.monotonic() < deadline, "the version was never served"
    return found


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SIZES[request.param]


def test_no_word_is_too_long(chromium: Browser, desk: Desk, names: dict[str, str], size: tuple[int, int]) -> None:  # noqa: F811
    """
    Every page of the console, with such words in every entry, the draft, a clash, the history and the audit log.
    """
    assert names
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]})
    wrong = []
    for person in ("clash", "plain"):
        context.clear_cookies()
        sign_in(context, desk, person, "admin")
        page = context.new_page()
        paths = [*PAGES, *MORE] if person == "plain" else ["/console/draft"]
        for path in paths:
            if path in (REPORTS, "/console/login") or "somebodys-tag" in path:
                continue
            page.goto(f"{desk.service.url}{path}")
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append((path, page.evaluate(WIDEST)))
            elif squeezed := page.evaluate(SQUEEZED, NARROWEST):
                wrong.append((path, squeezed))
        page.close()
    context.close()
    assert wrong == []
