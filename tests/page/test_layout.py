"""An editor's wish: the page does not jump, whatever the ads do."""

import time

import pytest
from playwright.sync_api import Route

from tests.page.conftest import COLLAPSES, KEEPS, SIX, TALL, Reader, placeholder

pytestmark = pytest.mark.system

SHIFTS = """
    window.shifts = 0;
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts += one.value;
    }).observe({type: "layout-shift", buffered: true});
"""
SIZES = {"desk": (1280, 800), "tablet": (768, 1024), "phone": (360, 740)}


def read_on(reader: Reader) -> float:
    """Read the whole page, screen by screen; how far it has shifted (cumulative layout shift) in all."""
    shown = reader.page
    while True:
        reader.framed()
        before = shown.evaluate("scrollY")
        shown.evaluate("scrollBy({top: innerHeight / 2, behavior: 'instant'})")
        reader.framed()
        if shown.evaluate("scrollY") == before:
            break
    shown.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    reader.framed()
    return float(shown.evaluate("window.shifts"))


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("what", ["filled", "empty", "slow", "away", "in the page"])
def test_the_sample_article_does_not_shift(reader: Reader, what: str, size: str) -> None:
    """
    The sample article with its six slots and more has a cumulative layout shift of 0.00: with ads, without any, with
    ads that come late while it is read, without an ad server, and with its ads in the page from the start.
    """
    width, height = SIZES[size]
    # the sample's own panel of counts grows with what other tests count, and is no ad
    reader.context.route("**/api/report?*", lambda route: route.fulfill(json={"rows": []}))
    reader.page.set_viewport_size({"width": width, "height": height})
    reader.page.add_init_script(SHIFTS)
    held = []
    if what == "empty":
        nothing = {"html": "", "filled": False, "reason": "no-booking", "max_age": 0}
        ids = [*map(str, SIX), "889978", "889980", "group:side-rail"]
        reader.context.route("**/ads?*", lambda route: route.fulfill(json={"ads": dict.fromkeys(ids, nothing)}))
    elif what == "slow":
        reader.context.route("**/ads?*", lambda route: held.append(route))
    elif what == "away":
        reader.context.route("**/ads?*", lambda route: route.abort())

    reader.page.goto(f"{reader.service.url}/{'' if what == 'in the page' else '?format=placeholder'}")
    if what == "slow":
        reader.hears("ads")
        reader.page.evaluate("scrollTo({top: 300, behavior: 'instant'})")
        reader.framed()
        held[0].continue_()
    if what in ("filled", "slow"):
        reader.wait("document.querySelectorAll('.adserver-placeholder aside').length >= 9")
    elif what != "in the page":
        reader.wait("[...document.querySelectorAll('.adserver-placeholder')].some((box) => !box.offsetHeight)")

    assert round(read_on(reader), 2) == 0
    for slot in SIX:
        assert reader.page.locator(f"[data-adserver-slot='{slot}'], aside[data-slot='{slot}']").count() >= 1


def test_the_shift_would_be_seen(reader: Reader) -> None:
    """
    A box without a size does shift the page when it is filled: the measure measures.
    """
    reader.page.add_init_script(SHIFTS)
    held = []
    reader.context.route("**/ads?*", lambda route: held.append(route))
    reader.open(f'<div data-adserver-slot="{TALL}"></div><p>Words that move.</p>')
    reader.hears("ads")
    reader.framed()
    held[0].continue_()
    reader.wait("document.querySelector('aside')")

    assert read_on(reader) > 0.01


BY_CSS = f"""
<style>.ad-room {{ min-height: calc(600px + 1.5rem) }}</style>
<div class="ad-room" data-adserver-slot="{TALL}"></div>
"""
BY_DRAWING = f"""
<div class="adserver adserver-placeholder" data-adserver-slot="{TALL}">
  <span class="adserver-label" data-label="Advertisement" aria-hidden="true"></span>
  <svg class="adserver-space" width="300" height="600" viewBox="0 0 300 600" aria-hidden="true"></svg>
</div>
"""


@pytest.mark.parametrize("box", [BY_CSS, BY_DRAWING], ids=["css", "drawing"])
def test_a_box_written_by_hand_keeps_its_room(reader: Reader, box: str) -> None:
    """
    Where a template writes the box itself, a rule of the page's style or a drawing in it keeps its room: the page has
    been painted before the script comes, and does not shift when the script and then the ad do.
    """

    def late(route: Route) -> None:
        time.sleep(0.5)
        route.continue_()

    reader.page.add_init_script(SHIFTS)
    reader.context.route("**/loader.js", late)
    reader.open(f"{box}<p>Words that stay.</p>")
    reader.wait("document.querySelector('[data-adserver-slot] aside img.adserver-pixel')")
    reader.wait("[...document.images].every((image) => image.complete)")

    painted, came = reader.page.evaluate(
        """() => [
            performance.getEntriesByName("first-contentful-paint")[0].startTime,
            performance.getEntriesByType("resource").find((one) => /loader.js/.test(one.name)).responseEnd,
        ]"""
    )
    assert painted < came
    assert read_on(reader) == 0
    assert reader.page.evaluate("document.querySelector('[data-adserver-slot]').style.overflow") == ""


def test_an_empty_box_goes_once_it_is_below_the_screen(reader: Reader) -> None:
    """
    On the screen an empty box keeps its room; when the reader has scrolled above it, it goes.
    """
    space = '<div style="height: 3000px"></div>'
    reader.open(f"{space}{placeholder(reader.service, KEEPS)}{placeholder(reader.service, COLLAPSES)}{space}")
    reader.wait(f"document.querySelector('[data-adserver-slot=\"{COLLAPSES}\"]').offsetHeight === 0")
    assert reader.page.evaluate(f"document.querySelector('[data-adserver-slot=\"{KEEPS}\"]').offsetHeight") >= 250

    held = []
    reader.context.route("**/ads?*", lambda route: held.append(route))
    reader.page.reload()
    reader.hears("ads", 2)
    box = f"document.querySelector('[data-adserver-slot=\"{COLLAPSES}\"]')"
    reader.page.evaluate(f"{box}.scrollIntoView()")
    reader.framed()
    held[0].continue_()
    reader.wait("document.querySelector('.adserver-empty')")
    reader.framed()
    assert reader.page.evaluate(f"{box}.offsetHeight") >= 250

    reader.page.evaluate("scrollTo(0, 0)")
    reader.wait(f"{box}.offsetHeight === 0")
