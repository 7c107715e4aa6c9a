"""Previews on a running service: another instant, or an older version; for staff alone, and never counted."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from tests.service.live import Service, client, coming, eventually, tokens

TUESDAY_NINE, SUNDAY_NINE = (f"{coming(weekday):%Y-%m-%dT%H:%M}" for weekday in (1, 6))
MARKED = coming(1).astimezone(UTC).isoformat()


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """One worker: each has its own place in the turns of its slots."""
    service = new_service(workers=1)
    service.start()
    return service


@pytest.fixture
def staff(service: Service) -> httpx.Client:
    http = client(service.url)
    http.headers["authorization"] = f"Bearer {(service.data / 'staff-token').read_text().strip()}"
    return http


def shown(http: httpx.Client, query: str, slot: int = 889991) -> str | None:
    answer = http.get(f"/ads?id={slot}&{query}")
    assert answer.status_code == 200, answer.text
    found = answer.json()["ads"][str(slot)]
    name = found["line_item"]
    return str(name) if name else None


def test_another_hour_shows_what_will_show_then(service: Service, staff: httpx.Client) -> None:
    """
    A booking of office hours on business pages shows on a Tuesday at nine and on no Sunday; the answer is marked.
    """
    assert shown(staff, f"section=business&at={TUESDAY_NINE}") == "lindemeer-office-hours"
    assert shown(staff, f"section=business&at={SUNDAY_NINE}") != "lindemeer-office-hours"
    answer = staff.get(f"/ads/889991?section=business&at={TUESDAY_NINE}")
    assert answer.headers["adserver-preview"] == MARKED
    assert ">PREVIEW Advertisement<" in answer.text
    assert "data-preview" in answer.text
    assert tokens(answer.text) == []
    assert "adserver-pixel" not in answer.text


def test_without_the_token_there_is_no_preview(service: Service) -> None:
    """
    403 on delivery calls, a password's question on the sample page; a wrong token is none.
    """
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic !"},
        {"authorization": "Basic eDp5"},
    ):
        for path in (f"/ads/889990?at={TUESDAY_NINE}", f"/ads?id=889990&at={TUESDAY_NINE}"):
            assert service.http.get(path, headers=headers).status_code == 403
        article = {"content": "x", "headers": {**headers, "content-type": "text/html"}}
        assert service.http.post(f"/render?at={TUESDAY_NINE}", **article).status_code == 403  # type: ignore[arg-type]
        page = service.http.get(f"/?at={TUESDAY_NINE}", headers=headers)
        assert page.status_code == 401
        assert page.headers["www-authenticate"].startswith("Basic ")
    assert (service.data / "staff-token").stat().st_mode & 0o777 == 0o600


def test_a_preview_counts_nothing(service: Service, staff: httpx.Client) -> None:
    """
    Neither requests nor anything else, and no turn of a slot is used up.
    """
    eventually(service.settled, 10, "counts")
    before, counters = service.counts(), service.series()
    draw = service.http.get("/api/explain/889990").json()["candidates"]
    password = (service.data / "staff-token").read_text().strip()
    for at in (TUESDAY_NINE, datetime.now(UTC).isoformat().replace("+", "%2B")):
        assert staff.get(f"/ads/889990?at={at}").status_code == 200
        assert staff.head(f"/ads/889990?at={at}").status_code == 200
        assert staff.get(f"/ads?id=889990&id=5&at={at}").json()["ads"]["5"]["reason"] == "unknown-slot"
        article = {"content": '[the_ad id="889990"][the_ad id="7"]', "headers": {"content-type": "text/html"}}
        found = staff.post(f"/render?at={at}", **article)  # type: ignore[arg-type]
        assert found.status_code == 200
        assert found.text.count("data-preview") == 1
        page = service.http.get(f"/?at={at}", auth=("staff", password))
        assert page.status_code == 200
        assert page.text.count("data-preview") > 5
        assert page.headers["adserver-preview"]
    assert service.counts() == before
    assert service.http.get("/api/explain/889990").json()["candidates"] == draw
    changed = {name for name, value in service.series().items() if value != counters.get(name)}
    assert not [
        name for name in changed if name.startswith(("adserver_requests", "adserver_served", "adserver_unfilled"))
    ]


def test_a_preview_of_now_is_what_is_served_next(service: Service, staff: httpx.Client) -> None:
    """
    Twenty times, for pages that differ.
    """
    for n in range(20):
        query = ["section=travel", "section=business", ""][n % 3]
        now = datetime.now(UTC).isoformat().replace("+", "%2B")
        will = shown(staff, f"{query}&at={now}", 889990)
        assert shown(service.http, query, 889990) == will


def test_the_past_is_shown_by_the_version_of_then(service: Service, staff: httpx.Client) -> None:
    """
    After a publication an instant before it still shows the old label; one before the first version is refused.
    """
    began = time.time()
    slots = service.config / "slots.toml"
    slots.write_text(slots.read_text().replace('size = "160x600"', 'size = "160x600"\nlabel = "Changed"'))
    eventually(lambda: time.time() > began + 1.5, 3, "a moment")
    service.run("apply", str(service.config))
    eventually(lambda: ">Changed<" in service.http.get("/ads/889984").text, 5, "the new version")
    then = datetime.fromtimestamp(began, UTC).isoformat().replace("+", "%2B")
    answer = staff.get(f"/ads/889984?at={then}")
    assert ">PREVIEW Advertisement<" in answer.text
    assert ">PREVIEW Changed<" in staff.get(f"/ads/889984?at={TUESDAY_NINE}").text
    early = datetime.fromtimestamp(began - 86_400, UTC).isoformat().replace("+", "%2B")
    refused = staff.get(f"/ads/889984?at={early}")
    assert refused.status_code == 400
    assert "before the first version" in refused.json()["detail"]


@pytest.mark.parametrize("at", ["noon", "2027-13-01", "9999-12-31T23:59", "0001-01-01T00:00", "2035-01-01", "%00"])
def test_what_is_no_instant_is_refused(staff: httpx.Client, at: str) -> None:
    """
    In words, and with 400.
    """
    answer = staff.get(f"/ads/889990?at={at}")
    assert answer.status_code == 400
    assert "Parameter 'at'" in answer.json()["detail"]


def test_an_empty_instant_is_refused(service: Service, staff: httpx.Client) -> None:
    """
    On every delivery call, with the staff token or without: it never means the live page, which would count.
    """
    before = service.series()['adserver_requests_total{slot="889990"}']
    for http in (service.http, staff):
        for at in ("at=", "at=%20", f"at={TUESDAY_NINE}&at="):
            article = {"content": '[the_ad id="889990"]', "headers": {"content-type": "text/html"}}
            answers = [
                *(
                    http.get(f"{path}{at}")
                    for path in ("/ads/889990?", "/ads?id=889990&", "/?", "/api/explain/889990?")
                ),
                http.head(f"/ads/889990?{at}"),
                http.post(f"/render?{at}", **article),  # type: ignore[arg-type]
            ]
            assert [one.status_code for one in answers] == [400] * 6
            assert "Parameter 'at' is empty" in answers[0].json()["detail"]
    assert service.series()['adserver_requests_total{slot="889990"}'] == before


def test_goals_are_as_far_as_they_will_be(service: Service, staff: httpx.Client) -> None:
    """
    A daily goal begins anew on another day; explain at the same instant agrees.
    """
    found = staff.get(f"/ads?id=889980&at={TUESDAY_NINE}").json()
    assert found["preview"] == MARKED
    assert found["ads"]["889980"]["filled"]
    said = service.run("explain", "889980", "--at", TUESDAY_NINE).stdout
    assert "it has a goal of 3,000 impressions to reach today" in said
    assert '"line_item":"molenkorst-daily"' in service.run("explain", "889980", "--at", TUESDAY_NINE, "--json").stdout


def test_a_preview_of_now_is_what_this_reader_gets_next(service: Service, staff: httpx.Client) -> None:
    """
    By the device of the call and what the reader has seen: as the next call is answered, capped bookings included.
    """
    phone = {"user-agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"}
    for query in ("section=town", "section=town&reader=ann&consent=1", "section=town&consent=1"):
        for slot in (889977, 889980, 889986, 889990):
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            path = f"/ads?id={slot}&{query}"
            seen = staff.get(f"{path}&at={now}", headers=phone).json()["ads"][str(slot)]
            live = service.http.get(path, headers=phone).json()["ads"][str(slot)]
            assert (seen["filled"], seen["line_item"], seen["reason"]) == (
                live["filled"],
                live["line_item"],
                live["reason"],
            )
