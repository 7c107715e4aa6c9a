"""Fixtures of the page tests: a real Chromium on pages of another origin than the ad server's, which is real too."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.page.site import Site
from tests.service.live import Service, eventually

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# An ordinary name: "HeadlessChrome" would rightly be filed as a robot.
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
SIX = [889990, 889991, 889992, 889977, 889994, 889993]
TALL, LARGE, STICKY, FRESH, COLLAPSES, KEEPS, TAGGED, TWO, PASSES, LISTING, POLITICAL = range(1001, 1012)


def configure(config: Path) -> None:
    """Slots with one booking each, so that it is known what shows there."""
    booked = {
        TALL: ("300x600", "house-app-300x600", ""),
        LARGE: ("970x250", "house-morning-970x250", ""),
        STICKY: ("300x250", "house-morning-300x250", ""),
        FRESH: ("300x250", "house-weekend-300x250", "refresh_s = 30"),
        TAGGED: ("300x250", "zoutmond-hall-ticket-tag", ""),
        TWO: ("300x250", "house-ask-300x250", ""),
        LISTING: ("300x250", "zoutmond-hall-listing", ""),
        POLITICAL: ("300x250", "wide-water-vote-300x250", ""),
    }
    owners = {TAGGED: "hall", LISTING: "hall", POLITICAL: "water"}
    text = ""
    for slot, (size, creative, more) in booked.items():
        owner = owners.get(slot, "house")
        text += f"""
        [[slot]]
        id = {slot}
        name = "Slot {slot}"
        size = "{size}"
        lazy = false
        {more}
        [[line_item]]
        id = "only-{slot}"
        name = "Only {slot}"
        campaign = "{owner}"
        priority = "house"
        page = "roadblock_any"
        slots = [{slot}]
        creatives = ["{creative}"]
        """
    text += """
        [[campaign]]
        id = "hall"
        name = "Hall"
        advertiser = "zoutmond-hall"
        [[campaign]]
        id = "water"
        name = "Water"
        advertiser = "wide-water"
        """
    for slot, empty in (
        (COLLAPSES, ""),
        (KEEPS, 'when_empty = "keep"'),
        (PASSES, 'when_empty = "passback"\npassback = "<p>Ask them</p>"'),
    ):
        text += f'\n[[slot]]\nid = {slot}\nname = "Slot {slot}"\nsize = "300x250"\n{empty}\n'
    (config / "pages.toml").write_text(text)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser as readers have it, with its back/forward cache."""
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed: run tools/install-system-programs")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield found
        found.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture(scope="package")
def service(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("page"), environ={"ADSERVER_ALLOWED_ORIGINS": site.url}, configure=configure)
    made.start()
    yield made
    with suppress(ProcessLookupError):
        made.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 720}, user_agent=AGENT)
    made.set_default_timeout(15_000)
    yield made
    made.close()


class Reader:
    """Somebody reading a page of the site: what the page asked of the ad server, and what the browser complained of."""

    def __init__(self, context: BrowserContext, site: Site, service: Service) -> None:
        self.context, self.site, self.service = context, site, service
        self.page: Page = context.new_page()
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.requests.append(request))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def asked(self, kind: str) -> list[str]:
        """The addresses of one *kind* that were asked for: `ads`, `i`, `v` or `c`."""
        return [one.url for one in self.requests if re.match(rf"https?://[^/]+/{kind}(/|\?|$)", one.url)]

    def open(self, body: str, path: str = "/page", script: str = "", headers: dict[str, str] | None = None) -> Page:
        """Read a page with *body*; *script* are attributes of the loader's tag."""
        self.site.pages[path] = page(self.service, body, script), headers or {}
        self.page.goto(self.site.url + path)
        return self.page

    def wait(self, condition: str) -> None:
        """Until it is true in the page."""
        eventually(lambda: self.page.evaluate(condition) or None, 15, condition)

    def hears(self, kind: str, n: int = 1) -> None:
        """Until so many requests of a *kind* were made."""
        eventually(lambda: (self.page.evaluate("1") and len(self.asked(kind)) >= n) or None, 15, f"{n} of /{kind}")

    def filled(self, n: int = 1) -> None:
        """Until so many boxes have their ads."""
        self.wait(f"document.querySelectorAll('.adserver-placeholder aside img.adserver-pixel').length >= {n}")

    def settle(self) -> None:
        """Until everything the page has begun to send so far is known here: what is asked later comes later."""
        mark = f"{self.site.url}/mark-{len(self.requests)}"
        self.site.pages[mark.removeprefix(self.site.url)] = ""
        self.page.evaluate("(url) => fetch(url, {cache: 'no-store'}).then((answer) => answer.text())", mark)
        eventually(lambda: any(one.url == mark for one in self.requests) or None, 5, "the mark")

    def framed(self) -> None:
        """Until the browser has looked once more at what is on the screen, and has told everybody who asked it to."""
        self.page.evaluate(
            """() => new Promise((done) => {
                const observer = new IntersectionObserver(() => { observer.disconnect(); done(); });
                observer.observe(document.body);
            })"""
        )


@pytest.fixture
def reader(context: BrowserContext, site: Site, service: Service) -> Reader:
    return Reader(context, site, service)


def page(service: Service, body: str, script: str = "") -> str:
    """A page with the loader on it."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>News</title>'
        '<link rel="icon" href="data:,">'
        f'<link rel="stylesheet" href="{service.url}/loader.css">'
        f'<script src="{service.url}/loader.js" defer {script}></script></head><body>{body}</body></html>'
    )


def placeholder(service: Service, *slots: int | str) -> str:
    """The markup that a page cache keeps for these slots."""
    query = "&".join(f"id={slot}" for slot in slots)
    ads = service.http.get(f"/ads?format=placeholder&{query}").json()["ads"]
    return "\n".join(ads[str(slot)]["html"] for slot in slots)
