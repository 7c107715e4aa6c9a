"""A cached page gets its ads: one call, each view counted once, nothing left on the device, nothing broken."""

import re
import shutil
import subprocess
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page

from tests.page.conftest import (
    AGENT,
    ARGUMENTS,
    CHROMIUM,
    COLLAPSES,
    FRESH,
    KEEPS,
    LARGE,
    PASSES,
    SIX,
    STICKY,
    TAGGED,
    TALL,
    TWO,
    Reader,
    page,
    placeholder,
)
from tests.page.site import Site
from tests.service.live import Service, eventually

pytestmark = pytest.mark.system

START = 1_700_000_000


def impressions(service: Service, slot: int) -> tuple[int, int]:
    """Impressions and viewable impressions of *slot*, once nothing waits to be counted."""
    eventually(service.settled, 10, "counting")
    rows = {row["slot"]: row for row in service.http.get("/api/report").json()["rows"]}
    return (rows[slot]["impressions"], rows[slot]["viewables"]) if slot in rows else (0, 0)


def prefetches(service: Service, slot: int) -> int:
    """Impressions of *slot* that were filed as prefetches, once nothing waits to be counted."""
    eventually(service.settled, 10, "counting")
    rows = {row["slot"]: row for row in service.http.get("/api/report").json()["rows"]}
    return int(rows[slot]["invalid_by_type"]["impressions"].get("prefetch", 0)) if slot in rows else 0


def test_six_slots_take_one_call_and_leave_nothing_on_the_device(reader: Reader) -> None:
    """
    All placeholders of a page are filled by one request that says what the page says of itself; no cookie, no storage.
    """
    reader.open(
        placeholder(reader.service, *SIX),
        script='data-section="town" data-tags="library, night shift" data-consent="0" data-keys="edition=late&mood=1"',
    )
    reader.filled(4)
    reader.wait("document.querySelectorAll('.adserver-placeholder aside').length === 6")
    shown = reader.page

    (asked,) = reader.asked("ads")
    assert "&".join(f"id={slot}" for slot in SIX) in asked
    for said in ("section=town", "tag=library", "tag=night+shift", "consent=0", "lang=en", "key.edition=late"):
        assert said in asked
    assert reader.context.cookies() == []
    assert shown.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert shown.evaluate("Promise.all([indexedDB.databases(), caches.keys()]).then((all) => all.flat().length)") == 0
    assert shown.evaluate("navigator.serviceWorker.getRegistrations().then((all) => all.length)") == 0
    assert shown.locator("aside .adserver-label").first.is_visible()
    assert reader.complaints == []


def test_groups_are_filled_and_a_slot_named_twice_once(reader: Reader) -> None:
    """
    A group's box gets one of its slots; a second box of the same slot goes, since one view has one token.
    """
    boxes = placeholder(reader.service, TALL, "group:side-rail")
    space = '<div style="height: 3000px"></div>'
    reader.open(f"{boxes}{space}{placeholder(reader.service, TALL)}")
    reader.wait("document.querySelectorAll('.adserver-placeholder aside').length === 2")

    assert reader.page.evaluate("document.querySelector('[data-adserver-group] aside').dataset.slot") in (
        "889982", "889983", "889984",
    )  # fmt: skip
    reader.wait("document.querySelectorAll('[data-adserver-slot]')[1].offsetHeight === 0")


def kept(shown: Page) -> bool:
    """Whether the page came back from the back/forward cache; not yet, while it is still coming."""
    with suppress(Error):
        return bool(shown.evaluate("window.kept"))
    return False


def test_each_view_of_a_cached_page_counts_once(reader: Reader) -> None:
    """
    The same cached page read three times is three impressions, three viewables, and no more for beacons sent again.
    """
    before = impressions(reader.service, TALL)
    for _ in range(3):
        reader.requests.clear()
        reader.open(placeholder(reader.service, TALL))
        reader.filled()
        reader.page.bring_to_front()
        reader.hears("v")
        reader.wait("document.querySelector('.adserver-pixel').complete")
    for url in [*reader.asked("i"), *reader.asked("v")]:
        for _ in range(50):
            assert reader.service.http.post(url).status_code == 204

    eventually(lambda: impressions(reader.service, TALL)[0] >= before[0] + 3 or None, 10, "counting")
    assert impressions(reader.service, TALL) == (before[0] + 3, before[1] + 3)


JAPANESE = [f"東京都渋谷区の天気予報その{n}" for n in range(30)]


def test_what_does_not_fit_into_an_address_is_not_said(reader: Reader) -> None:
    """
    Thirty tags of nine bytes a letter are more than an address holds: the ads come all the same, with as many of the
    tags as fit.
    """
    reader.open(placeholder(reader.service, TALL, TWO), script=f'data-consent="0" data-tags="{",".join(JAPANESE)}"')
    reader.filled(2)

    (asked,) = reader.asked("ads")
    said = parse_qs(urlsplit(asked).query)
    assert len(asked.removeprefix(reader.service.url)) <= 2048
    assert (said["id"], said["consent"]) == ([str(TALL), str(TWO)], ["0"])
    assert said["tag"] == JAPANESE[: len(said["tag"])] != []
    assert reader.complaints == []


def test_more_tags_than_are_looked_at_cost_no_ads(reader: Reader) -> None:
    """
    Three hundred short tags would be more parameters than the service takes: the first are said.
    """
    reader.open(placeholder(reader.service, TALL), script=f'data-tags="{",".join("a" * 300)}"')
    reader.filled()

    assert reader.complaints == []


def test_of_ids_that_do_not_fit_the_others_are_asked(reader: Reader) -> None:
    """
    Groups with names of any length: those that are too much for one call stay empty, and the others get their ads.
    """
    long = "".join(f'<div data-adserver-group="{n}-{"x" * 60}"></div>' for n in range(40))
    reader.open(f"{placeholder(reader.service, TALL)}{long}{placeholder(reader.service, TWO)}")
    reader.filled(2)

    assert len(reader.asked("ads")) == 1
    assert reader.complaints == []


def test_an_answer_that_is_no_ads_is_told_in_the_console(reader: Reader, site: Site) -> None:
    """
    Where the service says no, the page can read it: the console tells of the status, and not of origins.
    """
    refused = reader.service.http.get("/ads?id=1&format=none", headers={"origin": site.url})
    headers = {name: refused.headers[name] for name in ("access-control-allow-origin", "content-type")}
    reader.context.route("**/ads?*", lambda route: route.fulfill(status=400, headers=headers, body=refused.text))
    reader.open(placeholder(reader.service, TALL))

    eventually(lambda: (reader.page.evaluate("1") and len(reader.complaints) == 2) or None, 15, "the warning")
    assert f"adserver: {reader.service.url}/ads answered 400" in reader.complaints


OTHERS = '<script src="/lib/loader.js"></script><script src="/loaders.js"></script>'


@pytest.mark.parametrize(
    "tags",
    [
        '<script src="{}/loader.js"></script>',
        '<script src="{}/loader.js" async></script>',
        OTHERS + '<script type="module" src="{}/loader.js?v=0123456789abcdef"></script>',
    ],
    ids=["head", "async", "module"],
)
def test_the_script_finds_the_boxes_and_itself(reader: Reader, tags: str) -> None:
    """
    In the head without `defer`, with `async`, or as a module beside other loaders: one call, when the boxes are there.
    """
    reader.site.pages |= {"/loaders.js": ("", {"content-type": "text/javascript"})}
    reader.site.pages |= {"/lib/loader.js": ("", {"content-type": "text/javascript"})}
    body = placeholder(reader.service, TALL)
    reader.site.pages["/plain"] = (
        f'<!doctype html><html lang="en"><head><link rel="icon" href="data:,">{tags.format(reader.service.url)}</head>'
        f"<body><p>News</p>{body}</body></html>"
    )
    reader.page.goto(f"{reader.site.url}/plain")
    reader.filled()
    reader.settle()

    assert len(reader.asked("ads")) == 1
    assert reader.complaints == []


def test_a_box_without_layout_waits_until_it_has_some(reader: Reader) -> None:
    """
    A box for another screen is not asked for while it is not displayed, and keeps no ad from its slot's other box;
    once it is displayed it is filled by a call of its own.
    """
    hidden = f'<div id="phone" style="display: none">{placeholder(reader.service, TALL, LARGE)}</div>'
    reader.open(f"{hidden}{placeholder(reader.service, TALL)}")
    reader.filled()
    reader.framed()
    reader.settle()
    assert [parse_qs(urlsplit(url).query)["id"] for url in reader.asked("ads")] == [[str(TALL)]]
    assert len(reader.asked("i")) == 1
    assert reader.page.locator("#phone aside").count() == 0

    reader.page.evaluate("phone.style.display = ''")
    reader.filled(3)
    reader.settle()

    assert [parse_qs(urlsplit(url).query)["id"] for url in reader.asked("ads")[1:]] == [[str(TALL), str(LARGE)]]
    assert reader.complaints == []


def test_back_and_forward_count_nothing_again(reader: Reader) -> None:
    """
    A page that comes back from the back/forward cache is the view that it was: no call, no beacon.
    """
    reader.site.pages["/next"] = "<!doctype html><title>Next</title>"
    reader.page.add_init_script("addEventListener('pageshow', (event) => { window.kept = event.persisted; })")
    shown = reader.open(placeholder(reader.service, TALL))
    reader.filled()
    reader.hears("v")
    before = [len(reader.asked(kind)) for kind in ("ads", "i", "v")]
    assert before == [1, 1, 1]

    shown.goto(f"{reader.site.url}/next")
    shown.evaluate("history.back()")
    eventually(lambda: kept(shown) or None, 10, "the way back")
    assert shown.evaluate("document.title") == "News"
    shown.evaluate("() => new Promise((done) => setTimeout(done, 1500))")  # longer than a view takes
    reader.settle()

    assert [len(reader.asked(kind)) for kind in ("ads", "i", "v")] == before


@pytest.mark.parametrize("what", ["placeholder", "snippet"])
def test_a_prerendered_page_counts_when_it_is_shown(site: Site, service: Service, tmp_path: Path, what: str) -> None:
    """
    A page that the browser renders ahead asks for no ad until its reader is there; then it is one impression. Where
    its ads came with it, their pixels were prefetches, and the script says that they are seen now.

    Without Playwright: a browser that is driven does not render ahead.
    """
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed")
    ad = placeholder(service, TWO) if what == "placeholder" else service.http.get(f"/ads/{TWO}").text
    site.pages["/ahead"] = page(
        service,
        ad + "<script>fetch(`/ran?${document.prerendering}`);"
        "document.addEventListener('prerenderingchange', () => fetch('/shown'))</script>",
    )
    site.pages["/first"] = (
        "<!doctype html><title>First</title>"
        '<script type="speculationrules">{"prerender": [{"urls": ["/ahead"], "eagerness": "immediate"}]}</script>'
        "<script>setInterval(async () => {"
        "  if (await (await fetch('/go', {cache: 'no-store'})).text() === 'now') location.href = '/ahead';"
        "}, 100)</script>"
    )
    site.pages |= {"/ran": "", "/shown": "", "/go": "wait"}
    site.asked.clear()
    before, filed = impressions(service, TWO), prefetches(service, TWO)
    requests = service.series()[f'adserver_requests_total{{slot="{TWO}"}}']
    browser = subprocess.Popen(
        [CHROMIUM, "--headless", *ARGUMENTS, f"--user-data-dir={tmp_path}", f"{site.url}/first"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: "/ran?true" in site.asked or None, 30, "the prerendering")
        assert service.series()[f'adserver_requests_total{{slot="{TWO}"}}'] == requests
        assert "/shown" not in site.asked
        if what == "snippet":
            eventually(lambda: prefetches(service, TWO) == filed + 1 or None, 15, "the pixel")

        site.pages["/go"] = "now"
        eventually(lambda: "/shown" in site.asked or None, 15, "the showing")
        eventually(lambda: impressions(service, TWO)[0] > before[0] or None, 15, "the impression")
        assert impressions(service, TWO)[0] == before[0] + 1
        asked = service.series()[f'adserver_requests_total{{slot="{TWO}"}}'] - requests
        assert (asked, prefetches(service, TWO) - filed) == ((1, 0) if what == "placeholder" else (0, 1))
    finally:
        browser.terminate()
        browser.wait(10)


def test_a_strict_policy_is_enough(reader: Reader) -> None:
    """
    Under the policy of docs/pages.md, without anything inline and with trusted types, ads show and nothing is refused.
    """
    ads = reader.service.url
    policy = (
        f"default-src 'none'; script-src {ads}; style-src {ads}; connect-src {ads}; img-src {ads} data:;"
        " require-trusted-types-for 'script'; trusted-types adserver"
    )
    reader.open(placeholder(reader.service, TALL), headers={"content-security-policy": policy})

    reader.hears("v")

    assert reader.complaints == []
    assert reader.page.locator("aside img").first.is_visible()


def test_without_the_ad_server_the_page_is_as_it_was(reader: Reader) -> None:
    """
    Nobody answers: boxes below the screen go, others stay as empty room, and there is one warning of ours.
    """
    reader.context.route("**/ads?*", lambda route: route.abort())
    boxes = placeholder(reader.service, TALL), placeholder(reader.service, TWO)
    reader.open(f'{boxes[0]}<p id="after">On</p><div style="height: 3000px"></div>{boxes[1]}')

    reader.wait("document.querySelectorAll('.adserver-placeholder')[1].offsetHeight === 0")
    assert reader.page.evaluate("document.querySelectorAll('.adserver-placeholder')[0].offsetHeight") >= 600
    assert [text for text in reader.complaints if "adserver" in text and "ERR_FAILED" not in text] != []
    assert len(reader.complaints) <= 2  # the browser's own line about the request, and ours
    assert reader.page.inner_text("body").strip() == "On"


def test_without_script_a_placeholder_is_nothing(browser_without_script: Reader) -> None:
    """
    A reader without scripts sees no empty box, and the plain snippet as ever.
    """
    reader = browser_without_script
    reader.open(placeholder(reader.service, TALL) + reader.service.http.get(f"/ads/{TWO}").text)

    assert not reader.page.locator(".adserver-placeholder").is_visible()
    assert reader.page.locator("aside.adserver img").first.is_visible()


def test_without_script_and_stylesheet_a_placeholder_says_nothing(browser_without_script: Reader) -> None:
    """
    Where neither script nor stylesheet came, the room stays, without a word in it that would stand there for ever.
    """
    reader = browser_without_script
    reader.site.pages["/bare"] = f"<!doctype html><title>News</title>{placeholder(reader.service, TALL)}<p>On</p>"
    reader.page.goto(f"{reader.site.url}/bare")

    assert reader.page.inner_text("body").strip() == "On"


@pytest.fixture
def browser_without_script(reader: Reader) -> Reader:
    context = reader.context.browser.new_context(java_script_enabled=False)  # type: ignore[union-attr]
    return Reader(context, reader.site, reader.service)


def test_only_slots_that_ask_are_filled_anew_and_only_while_seen(reader: Reader) -> None:
    """
    After 30 s, and not before, a slot with refresh_s gets another ad; never while it is off the screen or in use.
    """
    reader.page.clock.install(time=START)
    space = '<div style="height: 3000px"></div>'
    reader.open(f'{placeholder(reader.service, FRESH, TALL)}{space}<a id="foot" href="#">Foot</a>')
    reader.filled(2)
    reader.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
    reader.page.clock.pause_at(START + 10)
    reader.framed()

    def calls(ms: int) -> int:
        reader.page.clock.run_for(ms)
        reader.settle()
        return len(reader.asked("ads"))

    assert calls(10_000) == 1
    reader.page.evaluate("scrollTo(0, 3000)")
    reader.framed()
    assert calls(60_000) == 1

    reader.page.evaluate("scrollTo(0, 0)")
    reader.framed()
    reader.page.focus(f"[data-adserver-slot='{FRESH}'] a")
    assert calls(5_000) == 1
    reader.page.evaluate("document.activeElement.blur()")
    reader.page.evaluate("scrollTo(0, 3000)")
    reader.framed()
    assert calls(1_000) == 1
    reader.page.evaluate("scrollTo(0, 0)")
    reader.framed()
    assert calls(999) == 1
    assert calls(1) == 2
    assert f"id={FRESH}&" in reader.asked("ads")[1]
    assert str(TALL) not in reader.asked("ads")[1]
    reader.wait("document.images.length && [...document.images].every((image) => image.complete)")
    reader.framed()
    assert calls(29_000) == 2


def test_a_box_that_takes_anothers_place_has_its_own_time(reader: Reader) -> None:
    """
    A page that renders itself anew puts a new box in a slot's place: its ad stays for 30 s of its own, whatever time
    was left to the box before it, and nothing is thrown into the page.
    """
    box = placeholder(reader.service, FRESH)
    reader.page.clock.install(time=START)
    reader.open(f'<div id="app">{box}</div>')
    reader.filled()
    reader.page.clock.pause_at(START + 10)
    reader.framed()
    ready = "document.querySelector('aside') && [...document.images].every((one) => one.complete && one.naturalWidth)"

    def calls(ms: int) -> int:
        reader.page.clock.run_for(ms)
        reader.settle()
        reader.wait(ready)
        reader.framed()
        return len(reader.asked("ads"))

    assert calls(14_000) == 1
    reader.page.evaluate("(box) => { app.innerHTML = box; document.dispatchEvent(new Event('adserver:fill')); }", box)
    reader.hears("ads", 2)
    reader.filled()
    assert calls(0) == 2
    assert calls(29_000) == 2, "the time of the box before it has come"
    assert calls(1_500) == 3
    assert calls(29_000) == 3
    assert calls(1_500) == 4
    assert reader.complaints == []


def test_a_keyboard_passes_an_ad_that_stays_on_the_screen(reader: Reader) -> None:
    """
    Before an ad in a sticky box comes a link that leads past it; an ad in the text needs none.
    """
    fixed = f'<div style="position: sticky; top: 0">{placeholder(reader.service, STICKY)}</div>'
    reader.open(
        f'{fixed}{placeholder(reader.service, TALL)}<a id="on" href="#">On</a>', script='data-skip="Past the ad"'
    )
    reader.filled(2)

    reader.page.keyboard.press("Tab")
    assert reader.page.evaluate("document.activeElement.textContent") == "Past the ad"
    assert reader.page.locator(".adserver-skip").count() == 1
    assert reader.page.locator(".adserver-skip").bounding_box()["width"] > 40  # type: ignore[index]
    reader.page.keyboard.press("Enter")
    reader.page.keyboard.press("Tab")

    inside = f"document.querySelector('[data-adserver-slot=\"{STICKY}\"]').contains(document.activeElement)"
    assert not reader.page.evaluate(inside)
    assert reader.page.url == f"{reader.site.url}/page"


def test_third_party_tags_wait_for_consent(reader: Reader) -> None:
    """
    Without consent there is no frame of anybody else's, and with it there is; a browser that refuses has the last word.
    """
    boxes = placeholder(reader.service, TAGGED, PASSES, TWO)
    for script, headers, frames in (
        ("", {}, 0),
        ('data-consent="0"', {}, 0),
        ('data-consent="1"', {}, 2),
        ('data-consent="1"', {"Sec-GPC": "1"}, 0),
        ('data-consent="1"', {"DNT": "1"}, 0),
    ):
        reader.context.set_extra_http_headers(headers)
        reader.open(boxes, script=script)
        reader.filled()
        assert reader.page.locator("iframe").count() == frames, (script, headers)


def test_boxes_that_keep_their_room_keep_it(reader: Reader) -> None:
    """
    when_empty = "keep" and an empty slot on the screen keep their room; nobody is told of either.
    """
    reader.open(placeholder(reader.service, KEEPS, COLLAPSES))
    reader.hears("ads")
    reader.wait("document.querySelector('.adserver-empty')")

    boxes = "[...document.querySelectorAll('[data-adserver-slot]')]"
    heights = reader.page.evaluate(f"{boxes}.map((box) => box.offsetHeight)")
    assert all(height >= 250 for height in heights)
    assert reader.page.locator("body").aria_snapshot() == ""


def moving_gif() -> bytes:
    """A picture that moves without end: red, and for longer green."""
    out = BytesIO()
    red, green = (Image.new("RGB", (300, 250), colour) for colour in ("red", "green"))
    red.save(out, "GIF", save_all=True, append_images=[green], duration=[200, 400], loop=0)
    return out.getvalue()


def test_what_moves_stands_still_for_readers_who_ask_for_it_and_for_everybody_in_the_end(
    reader: Reader, browser: Browser, tmp_path: Path
) -> None:
    """
    A browser that prefers less motion takes the still and never asks for the animation. Any other shows the animation,
    and half a minute after it was seen the still.
    """

    def configure(config: Path) -> None:
        (config / "assets" / "moving.gif").write_bytes(moving_gif())
        (config / "moving.toml").write_text(f"""
            [[slot]]
            id = {TALL}
            name = "Moving"
            size = "300x250"
            lazy = false
            [[line_item]]
            id = "moving"
            name = "Moving"
            campaign = "house"
            priority = "sponsorship"
            share = 100
            slots = [{TALL}]
            creatives = ["moving"]
            [[creative]]
            id = "moving"
            advertiser = "courier"
            kind = "image"
            size = "300x250"
            image = "assets/moving.gif"
            alt = "Red and green"
            click_url = "https://www.example.com/"
            """)

    service = Service(tmp_path, workers=1, environ={"ADSERVER_ALLOWED_ORIGINS": reader.site.url}, configure=configure)
    service.start()
    calm = browser.new_context(user_agent=AGENT, reduced_motion="reduce")
    try:
        snippet = service.http.get(f"/ads/{TALL}").text
        gif, png = (re.search(rf"/assets/[0-9a-f]{{32}}\.{end}", snippet)[0] for end in ("gif", "png"))  # type: ignore[index]
        assert service.http.get(png).headers["content-type"] == "image/png"
        shown = "document.querySelector('.adserver-link img').currentSrc"
        moving = Reader(reader.context, reader.site, service)
        moving.page.clock.install(time=0)
        moving.open(placeholder(service, TALL))
        moving.filled()
        moving.page.clock.pause_at(3600)
        moving.page.bring_to_front()
        moving.wait(f"{shown}.endsWith('{gif}')")
        moving.framed()
        moving.page.clock.run_for(1000)
        moving.hears("v")
        moving.page.clock.run_for(28_900)  # it may have been seen before the clock was held
        assert moving.page.evaluate(shown).endswith(gif)
        moving.page.clock.run_for(1_200)
        moving.wait(f"{shown}.endsWith('{png}')")
        assert moving.complaints == []

        still = Reader(calm, reader.site, service)
        still.open(placeholder(service, TALL))
        still.filled()
        still.wait(f"{shown}.endsWith('{png}')")
        assert not [one.url for one in still.requests if one.url.endswith(gif)]
    finally:
        calm.close()
        service.stop()
