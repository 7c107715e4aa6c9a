"""A page with six includes through a real nginx, Varnish and Apache: filled, empty, and with the service stopped."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext

from tests.client.browsers import browser, context, views_of_a_page_that_is_come_back_to
from tests.client.peers import OK, peer
from tests.integrations.proxies import EXAMPLES, PROXIES, Site, command, example_page, proxy, running
from tests.service.conftest import new_service
from tests.service.live import Service, client, eventually, free_port, tokens

__all__ = ["browser", "context", "new_service"]

SLOTS = ["889990", "889991", "889992", "889977", "889994", "889993"]
EMPTY = 700003
ASIDE = re.compile(r"<aside.*?</aside>", re.DOTALL)


def _with_an_empty_slot(config: Path) -> None:
    with (config / "slots.toml").open("a") as slots:
        slots.write(f'[[slot]]\nid = {EMPTY}\nname = "Nothing is sold here"\nsize = "300x250"\n')


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """A running service with one slot that nothing fills."""
    found = new_service(configure=_with_an_empty_slot)
    found.start()
    return found


@pytest.fixture(params=PROXIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(kind: str) -> Iterator[Site]:
    with Site(example_page(kind)) as found:
        yield found


def address(url: str) -> str:
    return url.removeprefix("http://")


def without_includes(kind: str) -> str:
    """The example's page as it is where no slot is filled."""
    return re.sub(r"<!--# ?include[^>]*-->|<esi:include[^>]*/>", "", example_page(kind))


def without_ads(page: str) -> str:
    """*page* without its snippets, and without the blank that Apache leaves where an include failed."""
    return re.sub(r"^ $", "", ASIDE.sub("", page), flags=re.MULTILINE)


def test_each_view_of_a_cached_page_has_ads_of_its_own(service: Service, kind: str, site: Site, tmp_path: Path) -> None:
    """
    The site makes the page once; each view's six ads stand in their places, with tokens nobody else has.
    """
    with proxy(kind, tmp_path, site.address, address(service.url)) as url, client(url) as http:
        answers = [http.get("/article") for _ in range(50)]
    assert site.asked == 1
    for answer in answers:
        assert answer.status_code == 200
        assert re.findall(r'<aside[^>]* data-slot="(\d+)"', answer.text) == SLOTS
        assert without_ads(answer.text) == without_includes(kind)
        assert answer.headers["cache-control"] == "private, no-cache"
        assert not {"etag", "last-modified", "set-cookie"} & set(answer.headers)
    found = [token for answer in answers for token in tokens(answer.text)]
    assert len(set(found)) == len(found) == 50 * 6


def test_a_reader_who_comes_back_is_one_view(
    service: Service,
    kind: str,
    site: Site,
    tmp_path: Path,
    context: BrowserContext,
) -> None:
    """
    The browser's Back button shows the page that it still has: nothing is loaded again, and nothing counted.
    """
    with proxy(kind, tmp_path, site.address, address(service.url)) as url:
        views = views_of_a_page_that_is_come_back_to(context, f"{url}/article", f"{service.url}/healthz")
    assert len(set(views)) == len(views) == 6


def test_a_page_is_kept_for_whom_it_was_made(service: Service, kind: str, site: Site, tmp_path: Path) -> None:
    """
    Two hosts are two pages, and what was made for a reader with a cookie or a login is shown to nobody else.
    """
    site.page = f"<title>HOST, COOKIE</title>{site.page}"

    def title(**headers: str) -> str:
        found = re.search("<title>(.*?)</title>", http.get("/article", headers=headers).text)
        assert found
        return found[1]

    with proxy(kind, tmp_path, site.address, address(service.url)) as url, client(url) as http:
        for _ in range(2):
            assert title(host="one.example") == "one.example, nobody"
            assert title(host="two.example") == "two.example, nobody"
            assert title(host="one.example", cookie="ann") == "one.example, ann"
            assert title(host="one.example", cookie="bob") == "one.example, bob"
            assert title(host="one.example", authorization="Basic eA==") == "one.example, nobody"
    assert site.asked == 2 + 2 * 3, "the two pages for everybody are kept, the others made each time"


def test_a_cookie_is_given_to_one_reader_only(service: Service, kind: str, site: Site, tmp_path: Path) -> None:
    """
    What the site gives a reader to tell them by is not kept with the page and given to everybody.
    """
    given = []
    with proxy(kind, tmp_path, site.address, address(service.url)) as url:
        for _ in range(3):
            with client(url) as http:
                given.append(http.get("/welcome").headers.get("set-cookie"))
    assert given[0], "the first reader has a cookie"
    assert len({one for one in given if one}) == len([one for one in given if one])


def test_what_is_no_ad_leaves_no_trace(service: Service, kind: str, site: Site, tmp_path: Path) -> None:
    """
    An empty slot, one nobody knows and a question the service refuses: nothing in their places, all else there.
    """
    site.page = put(site.page, {"889990": str(EMPTY), "889991": "12345", "889992": "889992?at=now&amp;x=1"})
    with proxy(kind, tmp_path, site.address, address(service.url)) as url, client(url) as http:
        page = http.get("/article").text
    assert re.findall(r'<aside[^>]* data-slot="(\d+)"', page) == ["889977", "889994", "889993"]
    assert without_ads(page) == without_includes(kind)


def put(page: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        page = page.replace(f"/_ads/{old}?section", f"/_ads/{new}{'&' if '?' in new else '?'}section")
    return page


def test_a_stopped_service_leaves_the_page_whole_until_it_is_back(
    new_service: Callable[..., Service], kind: str, site: Site, tmp_path: Path
) -> None:
    """
    Without the service readers get the article at once and no error in it; with it they get ads again.
    """
    service = new_service(port=free_port())
    service.start()
    with proxy(kind, tmp_path, site.address, address(service.url)) as url, client(url, timeout_s=30) as http:
        assert len(ASIDE.findall(http.get("/article").text)) == 6
        service.stop()
        began = time.monotonic()
        pages = [http.get("/article") for _ in range(5)]
        assert time.monotonic() - began < 5, "at most 0.3 s a page, on a busy machine"
        service.start()
        eventually(lambda: len(ASIDE.findall(http.get("/article").text)) == 6, 20, "the ads' coming back")
    for answer in pages:
        assert (answer.status_code, without_ads(answer.text)) == (200, without_includes(kind))
        assert "<aside" not in answer.text
    service.stop()


def test_a_service_that_hangs_holds_readers_up_once(kind: str, site: Site, tmp_path: Path) -> None:
    """
    What never answers costs some page its budget; then it is left alone, and pages are whole all the while.
    """
    with (
        peer("hangs") as there,
        proxy(kind, tmp_path, site.address, address(there.url), patient=False) as url,
        client(url, timeout_s=30) as http,
    ):
        began = time.monotonic()
        page = http.get("/article").text
        took = time.monotonic() - began
        assert without_ads(page) == without_includes(kind)
        assert took < 5, (
            "0.3 s by nginx, 0.9 s by Varnish, 1 s by Apache, on a busy machine; what hangs does so for ever"
        )

        def left_alone() -> bool:
            before = there.calls
            assert http.get("/article").text == page
            return there.calls == before

        eventually(left_alone, 20, "being left alone")


@pytest.mark.parametrize("kind", [one for one in PROXIES if "varnish" in one.values], indirect=True)
def test_an_ad_that_breaks_off_is_none(kind: str, site: Site, tmp_path: Path) -> None:
    """
    An answer of which only the beginning arrives leaves no element without an end in the article: by Varnish alone.
    """
    with (
        peer("breaks off") as there,
        proxy(kind, tmp_path, site.address, address(there.url)) as url,
        client(url, timeout_s=30) as http,
    ):
        for _ in range(3):
            page = http.get("/article").text
            assert without_ads(page) == without_includes(kind)
            assert "<aside" not in page


@pytest.mark.parametrize("kind", [one for one in PROXIES if "nginx" in one.values], indirect=True)
def test_a_service_that_drips_holds_readers_up_for_a_while(kind: str, site: Site, tmp_path: Path) -> None:
    """
    Where the head of an answer comes byte by byte, pages are whole and soon do not wait. (Varnish and Apache cannot
    bound it.)
    """
    with (
        peer("drips") as there,
        proxy(kind, tmp_path, site.address, address(there.url), patient=False) as url,
        client(url, timeout_s=60) as http,
    ):

        def quick() -> bool:
            began = time.monotonic()
            assert without_ads(http.get("/article").text) == without_includes(kind)
            return time.monotonic() - began < 0.3

        eventually(quick, 60, "a page that does not wait")


@pytest.mark.system
def test_nginx_waits_for_no_ad_that_trickles(tmp_path: Path) -> None:
    """
    Behind an answer's head, too, a page waits for a fraction of a second, however long bytes go on coming.
    """

    def trickle(connection: Any, stopping: threading.Event) -> None:
        connection.sendall(OK + b"content-length: 2000\r\n\r\n")
        while not stopping.wait(0.02):
            connection.sendall(b"x")

    with (
        Site(example_page("nginx")) as site,
        peer("trickles", answer=trickle) as there,
        proxy("nginx", tmp_path, site.address, address(there.url), patient=False) as url,
        client(url, timeout_s=60) as http,
    ):
        began = time.monotonic()
        assert '<p id="last">' in http.get("/article").text
        assert time.monotonic() - began < 5, "0.5 s, on a busy machine; what trickles does so for 40 s"


@pytest.mark.system
def test_nginx_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    """
    What is left behind where nginx had no time to clean up does not keep it from starting.
    """
    with (
        Site(example_page("nginx")) as site,
        command("nginx", tmp_path, site.address, f"127.0.0.1:{free_port()}") as (arguments, url),
    ):
        with running(arguments, tmp_path, url) as nginx:
            os.killpg(nginx.pid, signal.SIGKILL)
            nginx.wait(10)
        with running(arguments, tmp_path, url), client(url, timeout_s=30) as http:
            assert http.get("/article").text == without_includes("nginx")


@pytest.mark.system
def test_nginx_makes_its_cache_where_debian_has_room_for_one() -> None:
    """
    nginx makes the last directory of its cache's path and no other, and those before it are there on any Debian.
    """
    (path,) = re.findall(
        r"^proxy_cache_path (\S+)", (EXAMPLES / "nginx/adserver.conf").read_text("utf-8"), re.MULTILINE
    )
    assert Path(path).parent == Path("/var/cache")


def test_nobody_asks_for_an_ad_through_the_site(service: Service, kind: str, site: Site, tmp_path: Path) -> None:
    """
    The includes' address is no way around the page: asked from outside it is not there.
    """
    with proxy(kind, tmp_path, site.address, address(service.url)) as url, client(url) as http:
        answer = http.get("/_ads/889990")
        assert (answer.status_code, answer.content) == (204, b"") if kind == "nginx" else answer.status_code == 404
        assert service.url not in answer.text


def test_a_reader_is_not_told_to_the_service_beyond_what_it_needs(kind: str, site: Site, tmp_path: Path) -> None:
    """
    Cookies, logins and ranges of the page stay with the site; the wish not to be told apart is passed on.
    """
    asked: list[bytes] = []

    def note(connection: Any, stopping: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n")

    with (
        peer("notes", answer=note, heard=asked) as there,
        proxy(kind, tmp_path, site.address, address(there.url)) as url,
        client(url) as http,
    ):
        secrets = {"cookie": "session=1", "authorization": "Basic eA==", "range": "bytes=0-5", "sec-gpc": "1"}
        http.get("/article", headers=secrets)
        asked_for_ads = eventually(lambda: [one for one in asked if b"/ads/" in one])
    for request in asked_for_ads:
        lower = request.lower()
        assert b"sec-gpc: 1" in lower
        assert not re.search(rb"\r\n(cookie|authorization|range|referer|if-[a-z-]+):", lower)
