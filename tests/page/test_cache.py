"""A page behind a real nginx cache: shown a thousand times, made once, and each view counted."""

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from playwright.sync_api import BrowserContext

from tests.page.conftest import AGENT, SIX, Reader, configure
from tests.page.site import Site
from tests.service.live import Service, eventually, free_port, tokens

pytestmark = pytest.mark.system

ARTICLE = "<h1>News</h1>" + "\n<p>Words.</p>\n".join(f'[the_ad id="{slot}"]' for slot in SIX)
NGINX = """
daemon off;
master_process off;
worker_processes 1;
error_log {home}/error.log;
pid {home}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    proxy_cache_path {home}/cache keys_zone=pages:1m;
    proxy_cache pages;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    add_header X-Cache $upstream_cache_status always;
    upstream site {{ server 127.0.0.1:{site}; keepalive 16; }}
    upstream ads {{ server 127.0.0.1:{ads}; keepalive 16; keepalive_timeout 4s; }}
    server {{
        listen 127.0.0.1:{port};
        error_page 502 = @starting;
        location @starting {{ return 444; }}
        location / {{ proxy_pass http://site; }}
        location ~ ^/(ads|i|m|v|c|assets|loader|readyz) {{ proxy_pass http://ads; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cached(origin: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """The address of an nginx that caches both the site's pages and the ad server's answers, as they allow."""
    if not shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        pytest.skip("nginx is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    home = tmp_path_factory.mktemp("nginx")
    public = {"ADSERVER_PUBLIC_URL": url}
    service = Service(tmp_path_factory.mktemp("ads"), port=free_port(), environ=public, configure=configure)
    (home / "nginx.conf").write_text(NGINX.format(home=home, site=origin.port, ads=service.port, port=port))
    nginx = subprocess.Popen(
        ["nginx", "-p", str(home), "-c", str(home / "nginx.conf")],
        env={"PATH": "/usr/sbin:/usr/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def make() -> tuple[str, dict[str, str]]:
        """What a content management system does: the article, once, with the caching that the ad server allows."""
        answer = service.http.post("/render?format=placeholder", content=ARTICLE, headers={"content-type": "text/html"})
        head = (
            '<link rel="icon" href="data:,"><link rel="stylesheet" href="/loader.css">'
            '<script src="/loader.js" defer></script>'
        )
        return f"<!doctype html><title>News</title>{head}{answer.text}", {
            "cache-control": answer.headers["cache-control"]
        }

    origin.pages["/article"] = make
    try:
        service.start()  # whose addresses, and so its readiness, are nginx's
        yield url, service
    finally:
        nginx.terminate()
        nginx.wait(10)
        service.stop()


class Visit:
    """Page views of one reader after the other, over one connection: what `/loader.js` does, without a screen."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"))

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str) -> tuple[int, str, str]:
        """Status, what the cache says, and text. What a busy server puts off is sent again, as it asks to."""
        for last in (False, False, False, True):
            self._connection.request(method, path, headers={"user-agent": AGENT})
            answer = self._connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            if last or answer.status != 503:
                break
            time.sleep(int(answer.headers["retry-after"]))
        return answer.status, answer.headers["x-cache"], text

    def read(self) -> tuple[str, list[str]]:
        """One page view; what the cache said of the page, and the tokens that came for it."""
        _, cache, text = self.ask("GET", "/article")
        slots = re.findall(r'data-adserver-slot="([0-9]+)"', text)
        status, _, answer = self.ask("GET", f"/ads?{'&'.join(f'id={slot}' for slot in slots)}")
        assert status == 200
        found = [tokens(ad["html"])[0] for ad in json.loads(answer)["ads"].values()]
        for token in found:
            assert self.ask("GET", f"/i/{token}")[0] == 200
            assert self.ask("POST", f"/v/{token}")[0] == 204
        return cache, found


def by_slot(service: Service) -> dict[int, tuple[int, int, int]]:
    """Served, impressions and viewable impressions of the six slots, once nothing waits to be counted."""
    eventually(service.settled, 15, "counting")
    rows = {row["slot"]: row for row in service.http.get("/api/report").json()["rows"]}
    figures = "served", "impressions", "viewables"
    return {slot: tuple(rows[slot][one] if slot in rows else 0 for one in figures) for slot in SIX}  # type: ignore[misc]


def more(before: dict[int, tuple[int, int, int]], n: int) -> dict[int, tuple[int, int, int]]:
    return {slot: (a + n, b + n, c + n) for slot, (a, b, c) in before.items()}


def test_a_thousand_views_of_a_cached_page_count_a_thousand_times(cached: tuple[str, Service], origin: Site) -> None:
    """
    nginx has the page made once and shows it a thousand times: each slot has a thousand impressions and viewables.
    """
    url, service = cached
    with Visit(url) as reader:
        reader.ask("GET", "/article")  # from here on it is in the cache
    before, made = by_slot(service), origin.asked.count("/article")

    def visit(n: int) -> list[tuple[str, list[str]]]:
        with Visit(url) as reader:
            return [reader.read() for _ in range(n)]

    with ThreadPoolExecutor(8) as pool:
        views = [view for views in pool.map(visit, [125] * 8) for view in views]

    assert [cache for cache, _ in views] == ["HIT"] * 1000
    assert origin.asked.count("/article") == made == 1
    assert len({token for _, found in views for token in found}) == 6000
    eventually(lambda: by_slot(service) == more(before, 1000) or None, 60, "a thousand of each")
    assert by_slot(service) == more(before, 1000)


def test_one_view_that_replays_its_beacons_is_one(cached: tuple[str, Service]) -> None:
    """
    A page view that sends all of its beacons fifty times over is one impression and one viewable in each slot.
    """
    url, service = cached
    before = by_slot(service)
    with Visit(url) as reader:
        _, found = reader.read()
        for _ in range(49):
            for token in found:
                assert reader.ask("GET", f"/i/{token}")[0] == 200
                assert reader.ask("POST", f"/v/{token}")[0] == 204

    eventually(lambda: by_slot(service) == more(before, 1) or None, 15, "one of each")
    assert by_slot(service) == more(before, 1)


def seen(reader: Reader, token: str) -> bool:
    """Whether the page has reported the ad with *token* as seen."""
    reader.page.evaluate("1")
    return any(token in url for url in reader.asked("v"))


def test_a_real_browser_is_counted_alike(cached: tuple[str, Service], context: BrowserContext, origin: Site) -> None:
    """
    Three readers in Chromium scroll through the cached page: three impressions and viewables in each slot.
    """
    url, service = cached
    before, made = by_slot(service), origin.asked.count("/article")
    for _ in range(3):
        reader = Reader(context, origin, service)
        context.clear_cookies()
        reader.page.goto(f"{url}/article")
        reader.filled(6)
        for ad in reader.page.locator("aside.adserver").all():
            ad.scroll_into_view_if_needed()
            token = tokens(ad.inner_html())[0]
            eventually(partial(seen, reader, token), 15, "the view")
        reader.hears("v", 6)
        reader.hears("i", 6)
        assert len(reader.asked("ads")) == 1
        assert reader.complaints == []
        reader.page.close()

    eventually(lambda: by_slot(service) == more(before, 3) or None, 15, "three of each")
    assert by_slot(service) == more(before, 3)
    assert origin.asked.count("/article") == made


def test_answers_for_one_reader_are_never_kept(cached: tuple[str, Service]) -> None:
    """
    The same nginx may keep whatever it is allowed to: the page, pictures and the loader, and no token of anybody.
    """
    url, _ = cached
    for_all = {"/loader.js": True, "/loader.css": True, "/article": True}
    with Visit(url) as reader:
        for path, kept in {f"/ads?id={SIX[0]}": False, f"/ads/{SIX[0]}": False, **for_all}.items():
            reader.ask("GET", path)
            assert (reader.ask("GET", path)[1] == "HIT") is kept, path


def test_no_cache_keeps_a_placeholder_past_the_next_change(cached: tuple[str, Service]) -> None:
    """
    A flight ends in two minutes: no cache may keep its slot's placeholder, or an article with it, longer than that.
    """
    _, service = cached
    ends = datetime.now(UTC) + timedelta(seconds=120)
    file = service.config / "ending.toml"
    file.write_text(
        f"""
        [[slot]]
        id = 1100
        name = "Ends soon"
        size = "300x250"
        [[line_item]]
        id = "ends-soon"
        name = "Ends soon"
        campaign = "house"
        priority = "house"
        slots = [1100]
        creatives = ["house-ask-300x250"]
        starts = 2026-01-01T00:00:00Z
        ends = {ends.isoformat(timespec="seconds")}
        """
    )
    service.run("apply", str(service.config), "--force")

    def age() -> int:
        answer = service.http.get("/ads/1100?format=placeholder")
        found = re.search(r"max-age=([0-9]+)", answer.headers["cache-control"]) if answer.status_code == 200 else None
        return int(found[1]) if found else 0

    assert 0 < eventually(age, 10, "the new slot") <= (ends - datetime.now(UTC)).total_seconds() + 1

    def article() -> str | None:
        """How long the article may be kept, from a worker that knows the new slot already."""
        body, headers = ARTICLE + '[the_ad id="1100"]', {"content-type": "text/html"}
        answer = service.http.post("/render?format=placeholder", content=body, headers=headers)
        return None if "adserver-unknown" in answer.headers else answer.headers["cache-control"]

    kept = int(eventually(article, 10, "the new slot").removeprefix("public, max-age="))
    assert datetime.now(UTC) + timedelta(seconds=kept - 1) <= ends
