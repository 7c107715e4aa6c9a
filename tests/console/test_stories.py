"""What sales people do, done in a real browser: at a desk, on a phone, and the first of it by keyboard alone."""

import csv
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Literal
from zoneinfo import ZoneInfo

import httpx
import openpyxl  # type: ignore[import-untyped]
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from msgspec import structs
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from adserver.console import desk as desks
from adserver.console import drafts, sessions
from adserver.console.drafts import Draft
from adserver.console.links import address, make_link
from adserver.console.report_links import PATH as REPORTS
from adserver.console.report_links import make_report_link
from adserver.console.web import COOKIE
from adserver.model import Kind, SlotId
from adserver.store import Store
from tests.console.desks import PASSWORD, TEST, Desk
from tests.console.provider import CLIENT, SECRET, running_provider
from tests.service.live import Service, free_port

pytestmark = pytest.mark.system

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZES = {"desk": (1280, 900), "phone": (360, 740)}
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


class Watched:
    """A page, and everything about it that must not be: complaints, and requests to anywhere else."""

    def __init__(self, context: BrowserContext, desk: Desk) -> None:
        self.desk = desk
        self.page = context.new_page()
        self.wrong: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        context.on("request", self._look)

    def _hear(self, message: ConsoleMessage) -> None:
        refused = (
            "the server responded with a status of 4" in message.text
        )  # a form that is shown again with its errors
        if message.type in ("error", "warning") and not refused:
            self.wrong.append(message.text)

    def _look(self, request: Request) -> None:
        if not request.url.startswith((self.desk.service.url, "blob:", "data:", "about:", *self.allowed)):
            self.wrong.append(f"asks {request.url}")

    def goto(self, path: str) -> Page:
        self.page.goto(f"{self.desk.service.url}{path}")
        return self.page


@pytest.fixture
def context(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    width, height = SIZES[getattr(request, "param", "desk")]
    made = chromium.new_context(viewport={"width": width, "height": height})
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def watched(context: BrowserContext, desk: Desk) -> Iterator[Watched]:
    found = Watched(context, desk)
    yield found
    assert found.wrong == []


expect.set_options(timeout=20_000)  # three browsers and their services share two cores


def sign_in(context: BrowserContext, desk: Desk, name: str, role: str) -> None:
    """Give the browser a session, as signing in would."""
    token = desk.sign_in(desk.add(name, role)).token
    context.add_cookies(
        [{"name": COOKIE, "value": token, "url": desk.service.url.replace("http:", "https:"), "secure": True,
          "httpOnly": True, "sameSite": "Strict"}]
    )  # fmt: skip


def picture(colour: str, size: tuple[int, int] = (300, 250)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def snippet(desk: Desk, slot: int, query: str = "") -> str:
    return httpx.get(f"{desk.service.url}/ads/{slot}{query}").text


def eventually_served(desk: Desk, slot: int, text: str, *, there: bool = True, within_s: float = 10.0) -> None:
    """Every worker serves it, or none does any more."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = [snippet(desk, slot) for _ in range(12)]  # several workers, several draws
        if all((text in one) is there for one in found):
            return
        time.sleep(0.1)
    raise AssertionError(f"{slot} never showed it: {found[-1][:400]}" if there else f"{slot} still shows {text}")


def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until that has the focus, as somebody without a mouse does; forwards alone, and not round the page."""
    for _ in range(120):
        if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key never reaches {wanted}")


@pytest.mark.parametrize("context", ["desk", "phone"], indirect=True)
def test_first_sign_in_and_a_booking_by_keyboard_alone(watched: Watched, tmp_path: Path) -> None:
    """
    From the one-time link to a published booking with a new advertiser and an uploaded image, without a mouse; the
    ad is then served by its slot.
    """
    desk, page = watched.desk, watched.page
    name = desk.add(f"first-{time.time_ns()}", "sales")
    link = desk.ask(lambda store: make_link(store, name, TEST, time.time()))
    watched.page.goto(address(desk.service.url, link))
    keys = page.keyboard
    tab_to(page, "#f-password")
    keys.type(PASSWORD)
    keys.press("Tab")
    keys.type(PASSWORD)
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Today")
    tab_to(page, 'a[href="/console/book"]')
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Book a campaign")

    mark = f"Tide {time.time_ns()}"
    image = tmp_path / "tide.png"
    image.write_bytes(picture(f"#{time.time_ns() % 0xFFFFFF:06x}"))
    tab_to(page, "#f-advertiser")
    keys.press("End")  # a new advertiser is the last choice
    expect(page.locator("#f-new_advertiser")).to_be_visible()
    tab_to(page, "#f-new_advertiser")
    keys.type(mark)
    tab_to(page, "#f-name")
    keys.type(mark)
    tab_to(page, 'input[name="slots"][value="889992"]')
    keys.press("Space")
    tab_to(page, 'input[name="how"][value="goal"]')
    keys.press("ArrowDown")  # a share
    expect(page.locator("#f-share")).to_be_visible()
    tab_to(page, "#f-share")
    keys.type("100")
    tab_to(page, "#f-image")
    page.locator("#f-image").set_input_files(image)  # the file dialog is the system's own
    tab_to(page, "#f-alt")
    keys.type(f"{mark}, the picture")
    tab_to(page, "#f-click_url")
    keys.type("https://tide.example/")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Your draft")
    expect(page.locator("main")).to_contain_text(mark)
    tab_to(page, "#f-note")
    keys.type("the first booking")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("History")
    expect(page.locator("main")).to_contain_text("is live")
    eventually_served(desk, 889992, f"{mark}, the picture")
    image_url = re.search(r'src="([^"]*/assets/[0-9a-f]{32}\.png)"', snippet(desk, 889992))
    assert image_url
    served = httpx.get(image_url[1])
    assert served.status_code == 200
    assert "immutable" in served.headers["cache-control"]

    before = snippet(desk, 889992)
    assert mark in before
    tab_to(page, "tbody tr:nth-child(2) a")  # the version before it
    keys.press("Enter")
    expect(page.locator("main")).to_contain_text("Go back to it")
    tab_to(page, "#f-note")
    keys.press("Enter")
    expect(page.locator("main")).to_contain_text("is live: everything is as it was")
    eventually_served(desk, 889992, mark, there=False)


def test_next_tuesday_at_nine(context: BrowserContext, watched: Watched) -> None:
    """
    A booking for next week is seen on the sample article at that hour, marked PREVIEW, before it is published; and
    not an hour before it starts.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, f"preview-{time.time_ns()}", "sales")
    watched.goto("/console/preview")
    instant = page.locator("button", has_text="Tuesday 09:00").first.get_attribute("value")
    assert instant
    watched.goto("/console/book")
    page.locator("#f-advertiser").select_option("molenkorst")
    page.locator("#f-name").fill("Next Tuesday only")
    page.locator('input[name="slots"][value="889990"]').check()
    page.locator("#f-starts").fill(f"{instant[:11]}08:30")
    page.locator('input[name="how"][value="share"]').check()
    page.locator("#f-share").fill("25")
    page.locator('#choices input[value="molenkorst-mill-300x250"]').check()
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("h1")).to_have_text("Your draft")
    page.get_by_role("link", name="Preview on a page").click()
    page.locator("button", has_text="Tuesday 09:00").first.click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("aside.adserver").first).to_contain_text("PREVIEW")
    shown = set()
    for hour in ("08:00", "09:00"):
        for section in ("", "town", "sport"):
            path = f"/console/preview/page?at={instant[:11]}{hour}&section={section}"
            text = httpx.get(f"{desk.service.url}{path}", headers={"cookie": _cookie(context)}).text
            shown |= {hour} if 'data-line-item="next-tuesday-only"' in text else set()
    assert "08:00" not in shown
    assert 'data-line-item="next-tuesday-only"' not in snippet(desk, 889990)


class Elsewhere:
    """Another origin, as that of a third party: a script that draws a picture and tells what it could reach."""

    SCRIPT = """
        let reached = "nothing";
        try { reached = parent.document.title || "a page"; } catch {}
        try { reached = document.cookie || reached; } catch {}
        const drawn = new Image();
        drawn.src = `%s/tag.png?reached=${encodeURIComponent(reached)}`;
        drawn.alt = "by the tag";
        document.body.append(drawn);
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                here.asked.append(self.path)
                script = self.path == "/tag.js"
                self.send_response(200)
                self.send_header("content-type", "text/javascript" if script else "image/png")
                self.end_headers()
                self.wfile.write((here.SCRIPT % here.url).encode() if script else picture("teal"))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    found = Elsewhere()
    thread = Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def draft_creative(desk: Desk, person: str, name: str, kind: Kind, html: str) -> None:
    """Put a third party's creative into the draft of *person*, with a booking of all of the first box."""

    async def body(store: Store) -> None:
        live = await desks.read_live(store)
        like = next(one for one in live.document.creatives if one.id == "molenkorst-card")
        creative = structs.replace(like, id=name, kind=kind, html=html, click_url=None)
        sponsors = [one for one in live.document.line_items if 889990 in one.slots and one.share is not None]
        line_item = structs.replace(sponsors[0], id=f"{name}-booked", name=name, campaign="molenkorst-bread",
                                    creatives=(name,), slots=(SlotId(889990),), share=100.0, starts=None, ends=None,
                                    targeting=None, hours=(), goal=None)  # fmt: skip
        draft = drafts.put(Draft(live.number), live.document, "creatives", creative)
        draft = drafts.put(draft, live.document, "line_items", line_item)
        draft = drafts.remove(draft, live.document, "line_items", *(one.id for one in sponsors))
        await desks.write_draft(store, person, draft, "")

    desk.ask(body)


@pytest.mark.parametrize("kind", [Kind.TAG, Kind.HTML])
def test_what_third_parties_show_is_seen_in_previews(
    context: BrowserContext, watched: Watched, elsewhere: Elsewhere, kind: Kind
) -> None:
    """
    A tag's script and an HTML creative's picture come from elsewhere, in the creative's own previews and on the sample
    article, as on a reader's page; what runs there reaches nothing of the console, and no policy is broken.
    """
    desk, page = watched.desk, watched.page
    watched.allowed = (elsewhere.url,)
    name = f"elsewhere-{kind.value}-{time.time_ns()}"
    person = f"previews-{time.time_ns()}"
    sign_in(context, desk, person, "sales")
    draft_creative(desk, person, name, kind, {
        Kind.TAG: f'<div id="spot"></div><script src="{elsewhere.url}/tag.js"></script>',
        Kind.HTML: f'<p><img src="{elsewhere.url}/html.png" alt="bought" width="300" height="250"></p>',
    }[kind])  # fmt: skip
    watched.goto(f"/console/creatives/{name}")
    page.locator("iframe").first.scroll_into_view_if_needed()
    in_frames(page, elsewhere.url)
    watched.goto("/console/preview")
    in_frames(page, elsewhere.url)
    assert {one.partition("?")[0] for one in elsewhere.asked} >= {"/tag.js" if kind is Kind.TAG else "/html.png"}
    assert {one.partition("=")[2] for one in elsewhere.asked} <= {"", "nothing"}
    for frame in page.frames[1:]:
        assert frame.evaluate("origin") == "null"


def in_frames(page: Page, url: str) -> None:
    """Wait until some frame of *page* has drawn a picture of that origin."""
    end = time.monotonic() + 15
    drawn = "url => [...document.images].some(one => one.src.startsWith(url) && one.complete && one.naturalWidth > 0)"
    while time.monotonic() < end:
        with suppress(PlaywrightError):  # a frame that goes on loading
            if any(frame.evaluate(drawn, url) for frame in page.frames[1:]):
                return
        page.wait_for_timeout(100)
    raise AssertionError(f"no frame shows a picture of {url}")


def _cookie(context: BrowserContext) -> str:
    return "; ".join(f"{one['name']}={one['value']}" for one in context.cookies())


def test_two_people_publish_the_same_entry(context: BrowserContext, chromium: Browser, watched: Watched) -> None:
    """
    The second to publish sees who was faster and what they changed, chooses, and publishes; nothing is lost.
    """
    desk, mine = watched.desk, watched.page
    stamp = time.time_ns()
    sign_in(context, desk, f"second-{stamp}", "sales")
    others = chromium.new_context()
    sign_in(others, desk, f"first-{stamp}", "sales")
    theirs = others.new_page()
    for page, name in ((mine, f"Mine {stamp}"), (theirs, f"Theirs {stamp}")):
        page.goto(f"{desk.service.url}/console/line-items/molenkorst-daily")
        page.locator("#f-name").fill(name)
        page.get_by_role("button", name="Save to my draft").click()
        expect(page.locator("h1")).to_have_text("Your draft")
    theirs.get_by_role("button", name="Publish").click()
    expect(theirs.locator("h1")).to_have_text("History")
    mine.get_by_role("button", name="Publish").click()
    expect(mine.locator("main")).to_contain_text(f"first-{stamp} has published")
    expect(mine.locator("main")).to_contain_text(f"Theirs {stamp}")
    expect(mine.locator("main")).to_contain_text(f"Mine {stamp}")
    mine.locator('input[type="radio"][value="mine"]').check()
    mine.get_by_role("button", name="Go on with these").click()
    mine.get_by_role("button", name="Publish").click()
    expect(mine.locator("h1")).to_have_text("History")
    mine.goto(f"{desk.service.url}/console/line-items/molenkorst-daily")
    expect(mine.locator("#f-name")).to_have_value(f"Mine {stamp}")
    others.close()


@pytest.mark.parametrize("context", ["desk", "phone"], indirect=True)
def test_an_advertiser_is_paused_and_comes_back(context: BrowserContext, watched: Watched) -> None:
    """
    One button takes all of an advertiser's ads off every page within two seconds; another shows them again, and so
    does the end of the time that was chosen, all by itself.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, f"pause-{time.time_ns()}", "sales")
    eventually_served(desk, 889992, 'data-line-item="zoutmond-hall-')
    watched.goto("/console/pauses")
    page.locator('input[name="kind"][value="advertiser"]').check()
    page.locator("#f-advertiser").select_option("zoutmond-hall")
    page.locator("#f-for").select_option("1h")
    page.locator("#f-reason").fill("the hall has burnt")
    page.get_by_role("button", name="Pause now").click()
    expect(page.locator("main")).to_contain_text("It comes back by itself")
    eventually_served(desk, 889992, 'data-line-item="zoutmond-hall-', there=False)
    page.get_by_role("button", name="Show it again now").first.click()
    expect(page.locator("main")).to_contain_text("It shows again")
    eventually_served(desk, 889992, 'data-line-item="zoutmond-hall-')
    back = (int(time.time() + 10) // 60 + 1) * 60
    page.locator('input[name="kind"][value="advertiser"]').check()
    page.locator("#f-advertiser").select_option("zoutmond-hall")
    page.locator("#f-for").select_option("until")
    page.locator("#f-until").fill(datetime.fromtimestamp(back, ZoneInfo("Europe/Amsterdam")).strftime("%Y-%m-%dT%H:%M"))
    page.get_by_role("button", name="Pause now").click()
    expect(page.locator("main")).to_contain_text("It comes back by itself")
    eventually_served(desk, 889992, 'data-line-item="zoutmond-hall-', there=False)
    assert time.time() < back
    eventually_served(desk, 889992, 'data-line-item="zoutmond-hall-', within_s=back - time.time() + 10)
    assert time.time() >= back


def test_each_field_is_checked_as_it_is_left(context: BrowserContext, watched: Watched, tmp_path: Path) -> None:
    """
    A field that is needed and left empty, a destination that is none, dates that are the wrong way round while other
    fields are wrong, and an image: each is told beside it at once, and the image need not be chosen again.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, f"leaving-{time.time_ns()}", "sales")
    watched.goto("/console/book")
    page.locator("#f-name").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#w-name")).to_have_text("Say what it is called")
    page.locator("#f-starts").fill("2099-03-02T00:00")
    page.locator("#f-ends").fill("2099-03-01T00:00")
    page.locator("#f-click_url").fill("javascript:alert(1)")
    page.keyboard.press("Tab")
    expect(page.locator("#w-ends")).to_contain_text("ends before it starts")
    expect(page.locator("#w-click_url")).to_contain_text("no web address")
    expect(page.locator("#w-creatives")).to_have_text("")  # not left yet
    page.locator("#f-ends").fill("2099-04-01T00:00")
    page.locator("#f-click_url").fill("https://tide.example/")
    page.locator('input[name="how"][value="rest"]').check()
    page.locator("summary", has_text="Finer rules").click()
    page.locator("#f-pacing").select_option("asap")
    page.locator("#f-name").focus()
    expect(page.locator("#w-pacing")).to_contain_text("Only a number")
    expect(page.locator("#w-ends")).to_have_text("")
    expect(page.locator("#w-click_url")).to_have_text("")

    bad, image = tmp_path / "bad.png", tmp_path / "tide.png"
    bad.write_bytes(b"<script>alert(1)</script>")
    image.write_bytes(picture("navy", (600, 500)))
    page.locator("#f-image").set_input_files(bad)
    expect(page.locator("#w-image")).to_contain_text("expected a PNG")
    page.locator("#f-alt").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#w-image")).to_contain_text("expected a PNG")
    page.locator("#f-image").set_input_files(image)
    expect(page.locator("[data-kept]")).to_be_visible()
    expect(page.locator("#w-image")).to_have_text("")
    expect(page.locator("#w-alt")).to_contain_text("Say in words")
    page.locator("#f-name").fill("Left and checked")
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("#problems")).to_contain_text("Choose at least one place")
    page.locator("#f-advertiser").select_option("molenkorst")
    page.locator('input[name="slots"][value="889990"]').check()
    page.locator("#f-pacing").select_option("even")
    page.locator("#f-alt").fill("The sea")
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("h1")).to_have_text("Your draft")
    expect(page.locator("main")).to_contain_text("The sea")


@pytest.mark.parametrize("context", ["desk", "phone"], indirect=True)
def test_what_was_typed_outlives_the_session(context: BrowserContext, watched: Watched) -> None:
    """
    A booking sent after the session has ended stays on a page that tells so; signed in again in another tab, it is
    sent from there and is in the draft as it was typed.
    """
    desk, page = watched.desk, watched.page
    name = f"overnight-{time.time_ns()}@desk.example"
    desk.add(name, "sales", PASSWORD)
    sign_in(context, desk, name, "sales")
    watched.goto("/console/book")
    page.locator("#f-advertiser").select_option("molenkorst")
    page.locator("#f-name").fill('Overnight "sale" & more')
    page.locator('input[name="slots"][value="889990"]').check()
    page.locator('input[name="how"][value="share"]').check()
    page.locator("#f-share").fill("25")
    page.locator('#choices input[value="molenkorst-mill-300x250"]').check()
    desk.ask(lambda store: sessions.close_all(store, name))
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("h1")).to_have_text("Not saved yet")
    assert Axe().run(page).response["violations"] == []

    with context.expect_page() as opened:
        page.get_by_role("link", name="Sign in").click()
    tab = opened.value
    tab.locator("#f-name").fill(name)
    tab.locator("#f-password").fill(PASSWORD)
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.locator("h1")).to_have_text("Today")
    tab.close()
    page.get_by_role("button", name="Send it again").click()
    page.get_by_role("button", name=f"Send it again as {name}").click()
    expect(page.locator("h1")).to_have_text("Your draft")
    [line_item] = desk.ask(lambda store: desks.read_draft(store, name, 1)).puts.line_items
    assert (line_item.name, line_item.slots) == ('Overnight "sale" & more', (889990,))


def test_a_viewer_may_look_and_not_publish(context: BrowserContext, watched: Watched) -> None:
    """
    A viewer sees every page and no button that changes anything; the calls behind them are refused.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, "viewer-story", "viewer")
    for path in ("/console", "/console/line-items", "/console/draft", "/console/history", "/console/pauses"):
        watched.goto(path)
        expect(page.get_by_role("button", name=re.compile("Publish|Pause now|Book|Undo"))).to_have_count(0)
    assert desk.browser("viewer").post("/console/draft/publish", {"version": "1"}).status_code == 403


PAGES = [
    "/console", "/console/line-items", "/console/book", "/console/line-items/molenkorst-daily", "/console/creatives",
    "/console/creatives/new", "/console/creatives/molenkorst-mill-300x250",
    "/console/creatives/molenkorst-card", "/console/creatives/somebodys-tag", "/console/draft", "/console/preview",
    "/console/history", "/console/history/1", "/console/pauses", "/console/sheet", "/console/me", "/console/people",
    "/console/audit", "/console/more", "/console/login", "/console/calendar", "/console/slots", "/console/slots/889990",
    "/console/slots/new", "/console/reports", "/console/reports?by=advertiser&id=molenkorst", "/console/advertisers",
    "/console/advertisers/molenkorst", REPORTS,
]  # fmt: skip
LOOKS: list[tuple[Literal["light", "dark"], str]] = [(scheme, size) for size in SIZES for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def somebodys_tag(desk: Desk) -> None:
    """A third party's tag among the creatives, which asks nobody for anything."""
    desk.add("axe", "admin")
    draft_creative(desk, "axe", "somebodys-tag", Kind.TAG, "<p>A tag</p><script>document.title = 'it ran'</script>")


@pytest.fixture(scope="module")
def failed_sign_in(desk: Desk) -> None:
    """Somebody who is not known tries to sign in, which the audit log tells."""
    desk.stranger().post("/console/login", {"name": "nobody@desk.example", "password": "a guess of somebody"})


def look_at(page: Page, watched: Watched, name: str, size: str, scheme: str) -> None:
    """Nothing for axe to object to, not wider than its screen, no complaint; and a picture of it if that is asked."""
    page.wait_for_load_state("networkidle", timeout=90_000)  # a forecast may take a minute
    found = Axe().run(page).response["violations"]
    said = [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
    assert said == [], (scheme, size)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (scheme, size)
    assert watched.wrong == []
    if pictures := os.environ.get("ADSERVER_SCREENSHOTS"):
        page.screenshot(path=Path(pictures) / f"{name}-{size}-{scheme}.png", full_page=True)


@pytest.mark.usefixtures("somebodys_tag", "failed_sign_in")
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_for_everybody(chromium: Browser, desk: Desk, path: str) -> None:
    """
    No page has anything axe objects to, in light and dark, at a desk and at 360 px; none is wider than its screen,
    complains in the browser's console, or asks anything of another origin.

    With ADSERVER_SCREENSHOTS set, the directory it names gets a picture of each.
    """
    name = re.sub(r"[^a-z0-9]+", "-", path).strip("-")
    if path == REPORTS:
        path += desk.ask(lambda store: make_report_link(store, "molenkorst", "axe", 30, TEST, time.time()))
    for scheme, size in LOOKS:
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        if path.startswith("/console") and path != "/console/login":
            sign_in(context, desk, "axe", "admin")
        watched = Watched(context, desk)
        look_at(watched.goto(path), watched, name, size, scheme)
        context.close()


@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_every_page_that_comes_of_something_is_for_everybody(
    chromium: Browser, desk: Desk, tmp_path: Path, scheme: Literal["light", "dark"], size: str
) -> None:
    """
    The same for a clash, a form with mistakes, a sheet's problems and its difference, the page of a one-time link, and
    a refusal.
    """
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    stamp = time.time_ns()
    person = f"states-{stamp}"
    sign_in(context, desk, person, "sales")
    watched = Watched(context, desk)
    page = watched.goto("/console/line-items/molenkorst-daily")
    page.locator("#f-name").fill(f"Mine {stamp}")
    page.get_by_role("button", name="Save to my draft").click()
    expect(page.locator("h1")).to_have_text("Your draft")

    async def publish_theirs(store: Store) -> None:
        live = await desks.read_live(store)
        item = next(one for one in live.document.line_items if one.id == "molenkorst-daily")
        theirs = structs.replace(item, name=f"Theirs {stamp}")
        draft = drafts.put(Draft(live.number), live.document, "line_items", theirs)
        await desks.publish(store, draft, author="theirs", note="", expected=live.number, now=time.time())

    desk.ask(publish_theirs)
    look_at(watched.goto("/console/draft"), watched, "console-draft-clash", size, scheme)

    page = watched.goto("/console/book")
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("#problems")).to_be_visible()
    look_at(page, watched, "console-book-problems", size, scheme)

    answer = httpx.get(f"{desk.service.url}/console/sheet/export/csv", headers={"cookie": _cookie(context)})
    titles, row, *_ = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    for file, title, value in (("good.csv", "Name", f"Sheet {stamp}"), ("bad.csv", "Slots", "770000")):
        changed = [value if name == title else cell for name, cell in zip(titles, row, strict=True)]
        with (tmp_path / file).open("w", newline="") as out:
            csv.writer(out).writerows([titles, changed])
    for file, what, shown in (("bad.csv", "problems", "#problems"), ("good.csv", "difference", "#diff")):
        page = watched.goto("/console/sheet")
        page.locator("#f-sheet").set_input_files(tmp_path / file)
        page.get_by_role("button", name="Show the difference").click()
        expect(page.locator(shown)).to_be_visible()
        look_at(page, watched, f"console-sheet-{what}", size, scheme)

    look_at(watched.goto("/console/people"), watched, "console-refused", size, scheme)
    link = desk.ask(lambda store: make_link(store, person, TEST, time.time()))
    page.goto(address(desk.service.url, link))
    look_at(page, watched, "console-link", size, scheme)
    context.close()


@pytest.mark.parametrize("context", ["desk", "phone"], indirect=True)
def test_an_advertiser_opens_the_report_link(chromium: Browser, context: BrowserContext, watched: Watched) -> None:
    """
    A link is made in a click and shown once; whoever has it sees this advertiser's figures and can go nowhere else
    from there; revoked, it is as if it had never been.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, f"links-{time.time_ns()}", "sales")
    watched.goto("/console/advertisers/molenkorst")
    label = f"Ms de Vries {time.time_ns()}"
    page.locator("#f-label").fill(label)
    page.get_by_role("button", name="Make a report link").click()
    link = page.locator("#new-link").inner_text()
    watched.goto("/console/advertisers/molenkorst")
    expect(page.locator("#new-link")).to_have_count(0)

    outside = chromium.new_context(viewport=page.viewport_size)
    theirs = Watched(outside, desk)
    theirs.page.goto(link)
    expect(theirs.page.locator("h1")).to_contain_text("Molenkorst")
    assert "Kadefiets" not in theirs.page.content()
    assert theirs.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    hrefs = theirs.page.eval_on_selector_all("a[href], form[action]", "all => all.map(one => one.href || one.action)")
    assert hrefs
    assert all(href.startswith(link.split("?")[0]) or "#" in href for href in hrefs), hrefs
    assert outside.cookies() == []
    theirs.page.emulate_media(media="print")
    assert theirs.page.locator("h1").is_visible()
    theirs.goto("/console/reports")
    expect(theirs.page).to_have_url(re.compile("/console/login"))

    page.get_by_role("button", name=f"Revoke {label}").click()
    assert theirs.page.goto(link).status == 404  # type: ignore[union-attr]
    theirs.wrong.clear()  # the browser's console says that the address was not found
    outside.close()


def test_a_sheet_with_two_bad_cells(context: BrowserContext, watched: Watched, tmp_path: Path) -> None:
    """
    The bookings go out, come back with a date that does not exist and a slot nobody has, and both cells are named;
    mended, the difference is shown, and then it is in the draft.
    """
    desk, page = watched.desk, watched.page
    sign_in(context, desk, f"sheet-{time.time_ns()}", "sales")
    answer = httpx.get(f"{desk.service.url}/console/sheet/export/xlsx", headers={"cookie": _cookie(context)})
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    sheet = book.worksheets[0]
    columns = {cell.value: cell.column for cell in sheet[1]}
    rows = {one[columns["Id"] - 1].value: one[0].row for one in sheet.iter_rows(min_row=2)}
    row, other = rows["molenkorst-daily"], rows["kadefiets-first-box"]
    ends, slots = sheet.cell(row, columns["Ends"]), sheet.cell(other, columns["Slots"])
    kept = ends.value, slots.value
    ends.value, slots.value = "31 June 2027", "889999"
    bad = tmp_path / "bad.xlsx"
    book.save(bad)
    watched.goto("/console/sheet")
    page.locator("#f-sheet").set_input_files(bad)
    page.get_by_role("button", name="Show the difference").click()
    expect(page.locator("#problems")).to_contain_text(f"row {row}, Ends")
    expect(page.locator("#problems")).to_contain_text(f"row {other}, Slots")
    ends.value, slots.value = kept
    sheet.cell(row, columns["Name"]).value = "Renamed in a sheet"
    good = tmp_path / "good.xlsx"
    book.save(good)
    page.locator("#f-sheet").set_input_files(good)
    page.get_by_role("button", name="Show the difference").click()
    expect(page.locator("main")).to_contain_text("Renamed in a sheet")
    page.get_by_role("button", name="Put it in my draft").click()
    expect(page.locator("h1")).to_have_text("Your draft")
    expect(page.locator("main")).to_contain_text("Renamed in a sheet")


def test_one_slot_of_many_is_found(context: BrowserContext, watched: Watched) -> None:
    """
    A site of more than sixty slots: the booking form narrows them to what is typed, and never hides what is chosen.
    """
    desk, page = watched.desk, watched.page

    async def add_slots(store: Store) -> None:
        live = await desks.read_live(store)
        slots = [structs.replace(live.document.slots[0], id=SlotId(770000 + n), name=f"Place {n}") for n in range(60)]
        draft = drafts.put(Draft(live.number), live.document, "slots", *slots)
        await desks.publish(store, draft, author="test", note="", expected=live.number, now=time.time())

    desk.ask(add_slots)
    sign_in(context, desk, f"many-{time.time_ns()}", "sales")
    watched.goto("/console/book")
    page.locator('input[name="slots"][value="770001"]').check()
    page.get_by_label("Find a slot").fill("place 42")
    expect(page.locator("#places label:visible")).to_have_count(2)
    assert page.locator('input[value="770042"]').is_visible()
    assert page.locator('input[value="770001"]').is_checked()
    page.get_by_label("Find a slot").fill("")
    expect(page.locator("#places label:visible")).to_have_count(78)


def test_somebody_signs_in_at_the_organisations_provider(chromium: Browser, tmp_path: Path) -> None:
    """
    From a page that was asked for, by another site, back to that page, signed in; the session's cookie, which no other
    site's link brings along, is there by then. Refused, it is said why, and who is refused has no session.
    """
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    port = free_port()
    with running_provider("localhost") as idp:
        environ = {
            "ADSERVER_OIDC_ISSUER": idp.url, "ADSERVER_OIDC_CLIENT_ID": CLIENT,
            "ADSERVER_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "ADSERVER_OIDC_DOMAINS": "courier.example", "ADSERVER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        service = Service(tmp_path / "service", port=port, environ=environ)
        service.start()
        try:
            page = chromium.new_context().new_page()
            page.goto(f"{service.url}/console/line-items?q=bread")
            page.get_by_role("link", name="Sign in with your organisation").click()
            page.wait_for_url(f"{service.url}/console/line-items?q=bread")
            expect(page.get_by_role("contentinfo")).to_contain_text("ann@courier.example (viewer)")

            idp.does(claims={"email": "eve@elsewhere.example"})
            other = chromium.new_context().new_page()
            other.goto(f"{service.url}/console/calendar")
            other.get_by_role("link", name="Sign in with your organisation").click()
            expect(other.locator("p.bad")).to_contain_text("not of a domain that may sign in")
            assert COOKIE not in {one["name"] for one in other.context.cookies()}
        finally:
            service.stop()
