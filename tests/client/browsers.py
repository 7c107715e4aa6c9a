"""A real Chromium on pages with snippets in them: a reader who leaves such a page and comes back."""

import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from tests.page.conftest import chromium, context
from tests.service.live import eventually

__all__ = ["browser", "context", "views_of_a_page_that_is_come_back_to"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """With the module's end Playwright's loop ends, too: whatever runs after it here may have one of its own."""
    with chromium() as found:
        yield found


def views_of_a_page_that_is_come_back_to(context: BrowserContext, url: str, away: str) -> list[str]:
    """The pixels that a reader's browser asks for who opens *url*, goes *away*, and comes back by the Back button.

    The way back must be by the browser's back/forward cache.
    """
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 6000})  # the whole of it is seen
    page.add_init_script("addEventListener('pageshow', (event) => { window.kept = event.persisted; })")
    page.goto(url)
    eventually(
        lambda: _said(page, "kept === false && [...document.images].every((one) => one.complete)"), 15, "the ads"
    )
    page.goto(away)
    page.evaluate("history.back()")
    eventually(lambda: _said(page, "location.href") == url and _said(page, "String(window.kept)"), 15, "the way back")
    page.evaluate("() => new Promise((done) => setTimeout(done, 500))")
    assert _said(page, "window.kept"), "the page was loaded again"
    return [one for one in asked if re.match(r"https?://[^/]+/i/", one)]


def _said(page: Page, expression: str) -> object:
    """What the page says; nothing while another comes in its place."""
    with suppress(Error):
        return page.evaluate(expression)
    return None
