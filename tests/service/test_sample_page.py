"""The sample page in a real browser: what a newcomer looks at first."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, sync_playwright

from tests.service.live import Service, eventually

pytestmark = pytest.mark.system

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZES = {"desktop": (1280, 900), "phone": (360, 740)}
IMPRESSIONS = "Number(document.querySelectorAll('#live-totals dd:not(.live-since)')[2]?.dataset.n ?? -1)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    width, height = SIZES[getattr(request, "param", "desktop")]
    # An ordinary name: "HeadlessChrome" would rightly be filed as a robot.
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
    made = browser.new_context(viewport={"width": width, "height": height}, user_agent=agent)
    made.set_default_timeout(15_000)
    yield made
    made.close()


class Complaints:
    """What the browser complained of: console errors, exceptions, failed and refused requests."""

    def __init__(self, page: Page) -> None:
        self.heard: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.heard.append(str(error)))
        page.on("response", self._look)

    def _look(self, answer: Response) -> None:
        if answer.status >= 400:
            self.heard.append(f"{answer.status} {answer.url}")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(message.text)


@pytest.fixture
def page(context: BrowserContext, service: Service) -> tuple[Page, Complaints]:
    page = context.new_page()
    complaints = Complaints(page)
    page.goto(f"{service.url}/")
    wait_for(page, "document.getElementById('live').dataset.state === 'counting'")
    return page, complaints


def wait_for(page: Page, condition: str) -> None:
    """Playwright's own waiting evaluates in the page, which the page's Content-Security-Policy rightly refuses."""
    eventually(lambda: page.evaluate(condition) or None, 15, condition)


def look_at_everything(page: Page) -> None:
    """Scroll through the page, so that what loads near the screen is loaded."""
    for ad in page.locator("aside.adserver").all():
        ad.scroll_into_view_if_needed()
    wait_for(
        page,
        "[...document.querySelectorAll('aside.adserver img')].every((image) => image.complete && image.naturalWidth)",
    )


@pytest.mark.parametrize("context", list(SIZES), indirect=True)
def test_ads_are_visible_and_nothing_complains(page: tuple[Page, Complaints]) -> None:
    """
    Each ad of the article shows at its own size with its label, and the browser has nothing to say.
    """
    shown, complaints = page
    look_at_everything(shown)

    ads = shown.locator("aside.adserver").all()

    assert len(ads) >= 7
    for ad in ads:
        assert ad.is_visible()
        assert ad.get_attribute("aria-label")
        assert ad.locator(".adserver-label").is_visible()
        box = ad.bounding_box()
        assert box
        assert box["width"] > 100
        assert box["height"] > 30
    slots = [ad.get_attribute("data-slot") for ad in ads]
    assert [slot for slot in slots if slot in SIX] == SIX
    assert "[the_ad" not in shown.inner_text("body")
    assert complaints.heard == []


SIX = ["889990", "889991", "889992", "889977", "889994", "889993"]


@pytest.mark.parametrize("context", list(SIZES), indirect=True)
def test_page_never_scrolls_sideways(page: tuple[Page, Complaints]) -> None:
    """
    On a desktop and on a phone of 360 px nothing is wider than the screen.
    """
    shown, _ = page
    look_at_everything(shown)

    width, inner = shown.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")

    assert width <= inner


def test_live_counts_rise_with_each_reload(page: tuple[Page, Complaints]) -> None:
    """
    The panel's impressions are those of the report, and a reload adds its own.
    """
    shown, complaints = page
    look_at_everything(shown)
    wait_for(shown, f"{IMPRESSIONS} > 0")
    before = shown.evaluate(IMPRESSIONS)

    shown.reload()
    look_at_everything(shown)

    wait_for(shown, f"{IMPRESSIONS} > {before}")
    assert complaints.heard == []


def test_reader_is_left_alone(context: BrowserContext, page: tuple[Page, Complaints]) -> None:
    """
    Nothing is stored on the reader's device.
    """
    shown, _ = page
    look_at_everything(shown)

    assert context.cookies() == []
    assert shown.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert shown.evaluate("indexedDB.databases().then((all) => all.length)") == 0


def test_ads_are_reached_by_keyboard(page: tuple[Page, Complaints]) -> None:
    """
    Tab reaches the link of every ad that has one of its own, and the focus is visible.
    """
    shown, _ = page
    wanted = shown.locator("aside.adserver a.adserver-link").count()
    reached: set[str] = set()
    for _ in range(200):
        shown.keyboard.press("Tab")
        found = shown.evaluate(
            """(() => {
                const at = document.activeElement;
                if (!at || !at.matches("a.adserver-link")) return null;
                const style = getComputedStyle(at);
                const seen = style.outlineStyle !== "none" || style.boxShadow !== "none";
                return [at.href, seen, at.textContent.trim() || at.querySelector("img")?.alt || ""];
            })()"""
        )
        if found:
            href, visible, name = found
            assert visible, href
            assert name, href
            reached.add(href)
        if len(reached) == wanted:
            break

    assert wanted >= 5
    assert len(reached) == wanted
