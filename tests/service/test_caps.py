"""Frequency caps on a running service: what one reader has seen, whichever worker answers, and whoever is not known."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.service.live import BROWSER, Service, eventually

SLOT = 889984
BOOKING = """
[[line_item]]
id = "launch"
name = "Launch"
campaign = "kadefiets-electric"
priority = "sponsorship"
share = 100
slots = [889984]
creatives = ["kadefiets-electric-160x600"]
frequency = ["{most} per day"]
{more}
"""
PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 9) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36"


def book(config: Path, most: int, more: str = "") -> None:
    path = config / "advertiser-kadefiets.toml"
    head = path.read_text().partition('\n[[line_item]]\nid = "launch"')[0]
    path.write_text(head + BOOKING.format(most=most, more=more))


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service("--watch", configure=lambda config: book(config, 3))
    service.start()
    return service


def shows(http: httpx.Client, query: str = "", **headers: str) -> bool:
    """Whether the capped line item shows on a page that is viewed once."""
    answer = http.get(
        f"/ads/{SLOT}?{query}", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    assert answer.status_code == 200
    return 'data-line-item="launch"' in answer.text


def test_a_reader_sees_it_three_times(service: Service) -> None:
    """
    Whichever worker answers; another reader is another; afterwards others show, and explain says why.
    """
    with service.each_worker() as workers:
        first, second = workers.values()
        for http in (first, second):  # the first look of a worker has to find the store
            eventually(lambda http=http: shows(http, f"reader={id(http)}&consent=1"), 5, "the first")  # type: ignore[misc]
        assert [shows(http, "reader=ann&consent=1") for http in (first, second, first)] == [True] * 3
        for http in (first, second):  # at once: what was told is read from the store by both
            eventually(lambda http=http: not shows(http, "reader=ann&consent=1"), 1, "the cap")  # type: ignore[misc]
        assert shows(second, "reader=bob&consent=1")
    told = service.http.get(f"/api/explain/{SLOT}?reader=ann&consent=1").json()
    assert "this reader has seen it 3 times within a day" in told["sentence"]


def test_pages_and_articles_count_as_one_view_does(service: Service) -> None:
    """
    The three ways to ask share what was seen.
    """
    query = "reader=carl&consent=1"
    found = service.http.get(f"/ads?id={SLOT}&{query}").json()["ads"][str(SLOT)]
    assert found["line_item"] == "launch"
    article = {"content": f'[the_ad id="{SLOT}"]', "headers": {"content-type": "text/html"}}
    for _ in range(2):
        assert 'data-line-item="launch"' in service.http.post(f"/render?{query}", **article).text  # type: ignore[arg-type]
    eventually(lambda: not shows(service.http, query), 1, "the cap")
    assert 'data-line-item="launch"' not in service.http.post(f"/render?{query}", **article).text  # type: ignore[arg-type]


def test_who_is_not_known_is_not_shown_it(service: Service) -> None:
    """
    Without a key, without consent, and against Sec-GPC or DNT; a look by HEAD counts nothing.
    """
    assert not shows(service.http)
    assert not shows(service.http, "reader=dora")
    assert not shows(service.http, "reader=dora&consent=1", sec_gpc="1")
    assert not shows(service.http, "reader=dora&consent=1", dnt="1")
    for _ in range(5):
        service.http.head(f"/ads/{SLOT}?reader=dora&consent=1")
    assert [shows(service.http, "reader=dora&consent=1") for _ in range(3)] == [True] * 3


def test_explain_and_previews_know_a_cap_on_one_page(new_service: Callable[..., Service]) -> None:
    """
    Once a day is once on a page of two slots: for a fresh reader of the command line, and in a preview of later for a
    reader who is named, as served; who is not named is not shown it there, either.
    """

    def configure(config: Path) -> None:
        book(config, 1, 'page = "roadblock_any"')
        path = config / "advertiser-kadefiets.toml"
        path.write_text(
            path.read_text().replace("slots = [889984]\ncreatives = [", 'slots = [889984, 889983]\ncreatives = ["b", ')
            + '[[creative]]\nid = "b"\nadvertiser = "kadefiets"\nkind = "text"\ntitle = "B"\n'
            'click_url = "https://b.example/"\n'
        )

    service = new_service(workers=1, configure=configure)
    service.start()
    said = service.run("explain", "889984", "889983", "--fresh-reader", "--json").stdout
    assert [one["line_item"] == "launch" for one in json.loads(said)] == [True, False]
    assert "this page shows it as often as this reader may see it" in said
    staff = {"authorization": f"Bearer {(service.data / 'staff-token').read_text().strip()}"}
    at = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for query, expected in (("reader=ann&consent=1", [True, False]), ("reader=ann", [False] * 2), ("", [False] * 2)):
        for more in (f"&at={at}", ""):
            ads = service.http.get(f"/ads?id=889984&id=889983&{query}{more}", headers=staff).json()["ads"]
            assert [one["line_item"] == "launch" for one in ads.values()] == expected


def test_a_readers_key_is_never_stored(service: Service) -> None:
    """
    Neither the store nor the log holds it.
    """
    assert shows(service.http, "reader=a-very-secret-reader&consent=1")
    keys = eventually(lambda: list(service.redis().scan_iter("as:{reader:*")), 5, "the reader")
    assert all(re.fullmatch(rb"as:\{reader:[0-9a-f]{32}\}", key) for key in keys)
    assert "a-very-secret-reader" not in service.log()


def test_a_cap_that_is_tightened_holds_within_two_seconds(service: Service) -> None:
    """
    What was seen before counts against the new cap.
    """
    query = "reader=emil&consent=1"
    assert [shows(service.http, query) for _ in range(2)] == [True, True]
    book(service.config, 2)
    eventually(lambda: service.http.get("/readyz").json()["catalog_version"] > 1, 5, "the new version")
    with service.each_worker() as workers:
        for http in workers.values():
            eventually(lambda http=http: not shows(http, query), 2, "the new cap")  # type: ignore[misc]


def test_a_slow_store_delays_nobody(service: Service) -> None:
    """
    While it stands still pages are answered at once, without what has a cap.
    """
    store = service.store()
    store.suspend()
    try:
        with service.connection() as http:
            began = time.monotonic()
            assert not any(shows(http, f"reader=frida-{n}&consent=1") for n in range(20))
            assert time.monotonic() - began < 0.5, "half of one timeout of the store for 20 pages"
    finally:
        store.resume()
    assert sum(value for name, value in service.series().items() if name.startswith("adserver_caps_unknown")) > 0
    eventually(lambda: shows(service.http, "reader=gerd&consent=1"), 10, "the store's word")


def test_devices_are_told_by_their_browsers(new_service: Callable[..., Service]) -> None:
    """
    A booking for telephones shows on them, by their name, by client hints, or where a template says it for them.
    """
    more = '\n[line_item.targeting]\nany = { device = ["mobile"] }'

    def configure(config: Path) -> None:
        book(config, 1, more)
        path = config / "advertiser-kadefiets.toml"
        path.write_text(path.read_text().replace('frequency = ["1 per day"]\n', ""))

    service = new_service(workers=1, configure=configure)
    service.start()
    assert shows(service.http, user_agent=PHONE)
    assert not shows(service.http, user_agent=BROWSER)
    assert shows(service.http, user_agent=BROWSER, sec_ch_ua_mobile="?1")
    assert shows(service.http, "device=mobile")
    assert shows(service.http, f"ua={PHONE.replace(' ', '%20').replace(';', '%3B')}", user_agent="python-httpx/0.28")
    assert not shows(service.http, user_agent="python-httpx/0.28")
