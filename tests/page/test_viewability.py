"""Viewable impressions in a real browser: half of the pixels, for one second without a break, where a reader looks.

The page's clock is held, so that 0.9 s are 0.9 s on any machine; what is on the screen is the browser's own finding.
"""

import pytest

from tests.page.conftest import LARGE, LISTING, POLITICAL, TALL, Reader, placeholder
from tests.service.live import eventually, tokens

pytestmark = pytest.mark.system

SPACE = '<div style="height: 3000px"></div>'
START = 1_700_000_000


def ready(reader: Reader, slot: int, lead: str = SPACE) -> None:
    """A page whose ad is far below the screen, its clock held."""
    reader.page.clock.install(time=START)
    reader.open(f"{lead}{placeholder(reader.service, slot)}{SPACE}")
    reader.filled()
    reader.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
    reader.page.clock.pause_at(START + 3600)
    reader.framed()


def show(reader: Reader, pixels: int, what: str = "aside .adserver-link img") -> None:
    """Scroll so that just so many rows of the ad's picture are on the screen, at its foot."""
    shown = reader.page.evaluate(
        """([pixels, what]) => {
            const image = document.querySelector(what);
            scrollTo(0, scrollY + image.getBoundingClientRect().top + pixels - innerHeight);
            return innerHeight - image.getBoundingClientRect().top;
        }""",
        [pixels, what],
    )
    assert shown == pytest.approx(pixels, abs=0.51)
    reader.framed()


def run(reader: Reader, ms: int) -> int:
    """Let so many milliseconds pass; how many views have been reported until then."""
    reader.page.clock.run_for(ms)
    reader.settle()
    return len(reader.asked("v"))


def test_viewable_after_one_second_and_not_before(reader: Reader) -> None:
    """
    Half of an ad counts as viewed after 1.0 s, and not after 0.9 s; it is counted once, however long it stays.
    """
    ready(reader, TALL)

    show(reader, 300)

    assert run(reader, 900) == 0
    assert run(reader, 100) == 1
    assert run(reader, 5000) == 1


def test_less_than_half_is_never_viewable(reader: Reader) -> None:
    """
    49 % of an ad may stay as long as it likes.
    """
    ready(reader, TALL)

    show(reader, 294)

    assert run(reader, 60_000) == 0


def test_two_halves_of_a_second_do_not_add_up(reader: Reader) -> None:
    """
    The second must be one piece: what leaves the screen begins anew.
    """
    ready(reader, TALL)
    for _ in range(3):
        show(reader, 400)
        assert run(reader, 600) == 0
        show(reader, 100)
        assert run(reader, 600) == 0

    show(reader, 400)
    assert run(reader, 999) == 0
    assert run(reader, 1) == 1


@pytest.mark.parametrize(("rows", "viewable"), [(78, 1), (72, 0)])
def test_of_a_large_ad_thirty_percent_suffice(reader: Reader, rows: int, viewable: int) -> None:
    """
    From 242,500 pixels on, as 970x250 has, 31 % are enough, and 29 % are not.
    """
    ready(reader, LARGE)

    show(reader, rows)

    assert run(reader, 1000) == viewable


def test_an_ad_in_a_wide_column_is_no_larger_than_it_is(reader: Reader) -> None:
    """
    A 300x250 that is HTML takes its column's whole width, and is judged by its own size: 34 % are too little.
    """
    wide = ".adserver-placeholder { display: block !important } div.adserver-html { height: 250px }"
    ready(reader, LISTING, f"<style>{wide}</style>{SPACE}")
    assert reader.page.locator("div.adserver-html").bounding_box()["width"] > 1000  # type: ignore[index]

    show(reader, 85, "div.adserver-html")
    assert run(reader, 5000) == 0

    show(reader, 126, "div.adserver-html")
    assert run(reader, 1000) == 1


def test_an_ad_that_is_narrowed_meanwhile_is_judged_by_what_it_has_become(reader: Reader) -> None:
    """
    35 % of a large ad are enough while it is large; when it has become small before the second is over, they are not.
    """
    hole = '<div id="hole" style="overflow: hidden; width: 340px"><div id="inner" style="width: 970px">'
    ready(reader, LARGE, SPACE + hole)
    show(reader, 250)
    assert run(reader, 500) == 0

    reader.page.evaluate("hole.style.width = '105px'; inner.style.width = '300px'")
    reader.framed()

    assert run(reader, 5000) == 0


def test_a_tab_without_focus_shows_nothing_to_anybody(reader: Reader) -> None:
    """
    Another window is in front: the ad is not viewable until the reader is back, for a whole second.
    """
    ready(reader, TALL)
    reader.context.new_cdp_session(reader.page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    other = reader.context.new_page()
    other.bring_to_front()
    reader.wait("!document.hasFocus()")

    show(reader, 600)
    assert run(reader, 5000) == 0

    reader.page.bring_to_front()
    reader.wait("document.hasFocus()")
    assert run(reader, 900) == 0
    assert run(reader, 100) == 1


def test_a_background_tab_shows_nothing_to_anybody(reader: Reader) -> None:
    """
    While the tab is hidden no second passes, and one that had begun is lost.
    """
    ready(reader, TALL)
    hide = """(state) => {
        Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    show(reader, 600)
    assert run(reader, 900) == 0

    reader.page.evaluate(hide, "hidden")
    assert run(reader, 5000) == 0

    reader.page.evaluate(hide, "visible")
    assert run(reader, 900) == 0
    assert run(reader, 100) == 1


def test_a_click_makes_it_viewable_at_once(reader: Reader) -> None:
    """
    Who follows an ad has seen it, however quickly.
    """
    ready(reader, TALL)
    reader.context.route("**/c/*", lambda route: route.fulfill(body="there"))
    show(reader, 600)

    reader.page.locator("aside .adserver-link").click()

    reader.wait("true")
    reader.settle()
    assert len(reader.asked("v")) == 1
    assert run(reader, 5000) == 1


def test_only_the_ads_own_link_makes_it_viewable(reader: Reader) -> None:
    """
    Who passes an ad by, or reads what the law wants said of it, has not followed it; who follows it has seen it.
    """
    stay = "<script>addEventListener('click', (event) => event.preventDefault())</script>"
    ready(reader, POLITICAL, f'{SPACE}{stay}<div style="position: sticky; top: 0">')

    reader.page.locator(".adserver-skip").focus()
    reader.page.keyboard.press("Enter")
    reader.page.locator(".adserver-political a").click()
    assert run(reader, 0) == 0

    reader.page.locator("aside .adserver-link").click()
    assert run(reader, 0) == 1


@pytest.mark.parametrize("how", ["opacity: 0", "visibility: hidden"])
def test_what_cannot_be_seen_is_not_seen(reader: Reader, how: str) -> None:
    """
    An ad in a box that is transparent or hidden is not viewable, until it has been plain to see for a whole second.
    """
    reader.page.clock.install(time=START)
    reader.open(f'<div id="veil" style="{how}">{placeholder(reader.service, TALL)}</div>')
    reader.filled()
    reader.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
    reader.page.clock.pause_at(START + 3600)
    reader.framed()
    assert run(reader, 5000) == 0

    reader.page.evaluate("veil.removeAttribute('style')")
    reader.framed()

    assert run(reader, 999) == 0
    assert run(reader, 1001) == 1


@pytest.mark.parametrize("what", ["late", "lost"])
def test_without_its_picture_an_ad_is_not_seen(reader: Reader, what: str) -> None:
    """
    The second begins when the picture is there. An ad whose picture never comes is measured, and not viewable.
    """
    held = []
    reader.context.route("**/assets/*", lambda route: held.append(route) if what == "late" else route.abort())
    reader.page.clock.install(time=START)
    reader.open(placeholder(reader.service, TALL))
    reader.filled()
    reader.wait("document.querySelector('.adserver-pixel').naturalWidth")
    reader.page.clock.pause_at(START + 3600)
    reader.framed()

    assert run(reader, 60_000) == 0
    assert len(reader.asked("m")) == 1

    if what == "late":
        held[0].continue_()
        reader.wait("document.querySelector('.adserver-link img').naturalWidth")
        reader.framed()
        assert run(reader, 900) == 0
        assert run(reader, 100) == 1


@pytest.mark.parametrize("picture", [True, False])
def test_an_impression_that_was_lost_is_sent_again_where_the_ad_is_seen(reader: Reader, picture: bool) -> None:
    """
    Something keeps the pixel away: the script reports the impression, once; not where the picture is kept away, too.
    """
    reader.context.route("**/i/*", lambda route: route.abort() if route.request.method == "GET" else route.continue_())
    if not picture:
        reader.context.route("**/assets/*", lambda route: route.abort())
    reader.open(placeholder(reader.service, TALL))
    reader.wait("document.images.length === 2 && [...document.images].every((image) => image.complete)")
    reader.hears("m")
    reader.framed()
    reader.settle()

    sent = [one.method for one in reader.requests if "/i/" in one.url]
    assert sent == (["GET", "POST"] if picture else ["GET"])


def test_where_nothing_can_be_measured_nothing_is_claimed(reader: Reader) -> None:
    """
    A browser that cannot say what is on the screen still shows the ads; their views are not measured.
    """
    reader.page.add_init_script("delete window.IntersectionObserver")
    reader.page.clock.install(time=START)
    reader.open(placeholder(reader.service, TALL))
    reader.filled()

    assert run(reader, 60_000) == 0
    assert len(reader.asked("i")) == 1
    assert reader.asked("m") == []
    assert reader.complaints == []


def test_what_is_watched_is_said_once(reader: Reader) -> None:
    """
    An ad that the page watches is measured, whether it is ever seen or not; one that a template put in, too.
    """
    snippet = reader.service.http.get(f"/ads/{TALL}").text
    reader.open(f"{snippet}{SPACE}{placeholder(reader.service, LARGE)}")
    reader.filled()
    reader.hears("m", 2)
    reader.page.evaluate("scrollTo(0, 3000)")
    reader.page.evaluate("document.dispatchEvent(new Event('adserver:fill'))")
    reader.settle()

    measured = [url.rsplit("/", 1)[1] for url in reader.asked("m")]
    assert len(measured) == len(set(measured)) == 2
    assert tokens(snippet)[0] in measured


def test_a_view_that_was_not_made_safe_is_sent_again(reader: Reader) -> None:
    """
    503 says that the view is not on a disk yet: it is sent again, and the same token cannot count twice.
    """
    answers = [503, 503, 204]
    reader.context.route(
        "**/v/*",
        lambda route: route.fulfill(status=answers.pop(0), headers={"access-control-allow-origin": "*"}),
    )
    ready(reader, TALL)
    show(reader, 600)

    assert run(reader, 1000) == 1
    for sent in (2, 3):
        for _ in range(3):  # the answer comes in its own time
            if run(reader, 5000) >= sent:
                break
    assert run(reader, 60_000) == 3
    assert len(set(reader.asked("v"))) == 1
    assert answers == []


def test_who_leaves_early_has_been_counted_all_the_same(reader: Reader) -> None:
    """
    What is not safe yet when the page is left goes by `sendBeacon`, which arrives although the page and its retries are
    gone.
    """

    def counted() -> int:
        rows = {row["slot"]: row for row in reader.service.http.get("/api/report").json()["rows"]}
        return int(rows.get(TALL, {}).get("viewables", 0))

    before = counted()
    reader.context.route("**/v/*", lambda route: route.fulfill(status=503))
    ready(reader, TALL)
    show(reader, 600)
    assert run(reader, 1000) == 1
    reader.context.unroute("**/v/*")

    reader.site.pages["/next"] = "<title>Another page</title>"
    reader.page.goto(reader.site.url + "/next")

    eventually(lambda: counted() == before + 1, what="the view")


def test_snippets_that_came_with_the_page_are_measured_too(reader: Reader) -> None:
    """
    A page that a template filled has its ads already; the script reports which of them are viewable.
    """
    reader.page.clock.install(time=START)
    reader.open(reader.service.http.get(f"/ads/{TALL}").text)
    reader.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
    reader.framed()

    assert run(reader, 2000) == 1
    assert reader.asked("ads") == []
