"""Invalid traffic over real HTTP: by address behind trusted proxies, by rate, by the operator's list; and suspects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.live import Service, eventually

EVENTS = ("impressions", "viewables", "clicks")
LIMIT = 5
READER, AT_WORK, LISTED = "203.0.113.9", "192.0.2.7", "198.51.100.7"


@pytest.fixture(scope="module")
def address_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a") / "addresses.txt"
    path.write_text("198.51.100.0/24  # a data centre\n")
    return path


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service], address_list: Path) -> Service:
    """One worker behind a proxy on this machine, with staff, a list and a low rate."""
    service = new_service(
        workers=1,
        environ={
            "ADSERVER_TRUSTED_PROXIES": "127.0.0.1",
            "ADSERVER_STAFF_ADDRESSES": "192.0.2.0/24 2001:db8:1::/48",
            "ADSERVER_ADDRESS_LIST_FILE": str(address_list),
            "ADSERVER_RATE_PER_MINUTE": str(LIMIT),
            "ADSERVER_ACCESS_LOG": "1",
        },
    )
    service.start()
    service.http.get("/ads/889990")
    eventually(lambda: service.counts()["served"] == 1, 10, "the first count, which makes the slot's row")
    return service


def report(service: Service) -> dict[str, Any]:
    """Slot 889990's row, after the identity was looked at in every row."""
    rows = service.http.get("/api/report").json()["rows"]
    for row in rows:
        for event in EVENTS:
            assert row["gross"][event] - sum(row["invalid_by_type"][event].values()) == row[event]
            assert row["suspect"][event] <= row[event]
        assert sum(row["invalid"].values()) == sum(row["gross"].values()) - sum(row[event] for event in EVENTS)
    return service.row(889990)


def impression(service: Service, came_by: str, **headers: str) -> httpx.Response:
    """A fresh snippet's impression, forwarded for the addresses *came_by*."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.get(f"/i/{service.token()}", headers={"x-forwarded-for": came_by, **named})


@pytest.mark.parametrize(
    ("came_by", "reason"),
    [
        (AT_WORK, "staff"),
        ("2001:db8:1::77", "staff"),
        (f"203.0.200.9, {AT_WORK}", "staff"),
        (f"203.0.200.9, {AT_WORK}, 127.0.0.1", "staff"),
        (LISTED, "address-list"),
        (f"{LISTED}:4711", "address-list"),
        ("203.0.113.9", None),
        (f"{AT_WORK}, 203.0.113.9", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_an_event_is_judged_by_the_address_the_proxy_saw(service: Service, came_by: str, reason: str | None) -> None:
    """
    The last address that is no trusted proxy's is the reader's, whatever a reader wrote before it.
    """
    before = report(service)

    answer = impression(service, came_by)

    assert answer.status_code == 200
    assert answer.headers.get("adserver-ignored") == reason
    after = report(service)
    assert after["gross"]["impressions"] - before["gross"]["impressions"] == 1
    assert after["impressions"] - before["impressions"] == (reason is None)
    if reason:
        filed = [row["invalid_by_type"]["impressions"].get(reason, 0) for row in (before, after)]
        assert filed[1] - filed[0] == 1


def test_every_event_of_a_colleague_is_filed_by_its_type(service: Service) -> None:
    """
    Impression, viewable and click of one token are each filed beside their own count, and in the metrics.
    """
    series = [f'adserver_events_invalid_total{{reason="staff",type="{one[:-1]}"}}' for one in EVENTS]
    before, metrics = report(service), [service.metric(one) for one in series]
    token, headers = service.token(), {"x-forwarded-for": AT_WORK}

    answers = [
        service.http.get(f"/i/{token}", headers=headers),
        service.http.post(f"/v/{token}", headers=headers),
        service.http.get(f"/c/{token}", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [200, 204, 302]
    assert [answer.headers["adserver-ignored"] for answer in answers] == ["staff"] * 3
    after = report(service)
    assert [after[event] for event in EVENTS] == [before[event] for event in EVENTS]
    for event in EVENTS:
        filed = [row["invalid_by_type"][event].get("staff", 0) for row in (before, after)]
        assert filed[1] - filed[0] == 1
    assert [service.metric(one) - was for one, was in zip(series, metrics, strict=True)] == [1, 1, 1]


def test_what_one_network_sends_too_often_is_filed(service: Service) -> None:
    """
    A minute's first events of a /24 count, whichever of its addresses sent them; then they are filed. Others' count.
    """
    before = report(service)

    said = [impression(service, f"100.64.7.{n}").headers.get("adserver-ignored") for n in range(LIMIT + 3)]
    said += [impression(service, f"100.64.{n}.1").headers.get("adserver-ignored") for n in (6, 8)]

    assert said == [None] * LIMIT + ["rate"] * 3 + [None] * 2
    after = report(service)
    assert after["impressions"] - before["impressions"] == LIMIT + 2
    filed = [row["invalid_by_type"]["impressions"].get("rate", 0) for row in (before, after)]
    assert filed[1] - filed[0] == 3


def test_suspects_are_counted_and_told_apart(service: Service) -> None:
    """
    An HTTP library's events are counted like a browser's, nothing in the answer tells, and the report says how many.
    """
    name = 'adserver_events_suspect_total{type="impression"}'
    before, metric, valid = report(service), service.metric(name), service.metric(name.replace("_suspect", ""))

    answer = impression(service, "100.65.1.1", user_agent="curl/8.9.1")

    assert "adserver-ignored" not in answer.headers
    after = report(service)
    assert after["impressions"] - before["impressions"] == 1
    assert after["suspect"]["impressions"] - before["suspect"]["impressions"] == 1
    assert after["invalid"] == before["invalid"]
    assert service.metric(name) - metric == 1
    assert service.metric(name.replace("_suspect", "")) - valid == 1


def test_a_token_counts_once_whoever_comes_first(service: Service) -> None:
    """
    A token that a suspect sent is used up for a reader, and the other way round: the net count has it once.
    """
    before = report(service)
    for names in (("curl/8", "Mozilla/5.0 (X11) Firefox/140.0"), ("Mozilla/5.0 (X11) Firefox/140.0", "curl/8")):
        token = service.token()
        for name in names:
            service.http.get(f"/i/{token}", headers={"user-agent": name, "x-forwarded-for": "100.66.1.1"})
    after = report(service)
    assert after["impressions"] - before["impressions"] == 2
    assert after["suspect"]["impressions"] - before["suspect"]["impressions"] == 1


def test_the_list_is_read_again_and_a_bad_one_keeps_the_last(service: Service, address_list: Path) -> None:
    """
    Within seconds of a change the new list is in force; a bad one changes nothing, says every problem, shows in the
    metrics and in /readyz, and is forgiven once it is mended.
    """
    refused = 'adserver_config_reload_failures_total{cause="addresses"}'
    was = service.metric(refused)

    address_list.write_text("100.67.0.0/16\n192.0.2.1/24\nnonsense\n")
    eventually(lambda: service.metric(refused) == was + 1, 10, "the refusal")

    assert f"{address_list}:2: '192.0.2.1/24' is an address inside a network" in service.log()
    assert f"{address_list}:3: 'nonsense' is no address" in service.log()
    assert impression(service, LISTED).headers.get("adserver-ignored") == "address-list"
    assert impression(service, "100.67.1.1").headers.get("adserver-ignored") is None
    ready = service.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "2 problems" in " ".join(ready.json()["reasons"])

    address_list.write_text("100.67.0.0/16\n")
    eventually(lambda: service.http.get("/readyz").json()["status"] == "ok", 10, "the mended list")

    assert impression(service, "100.67.1.1").headers.get("adserver-ignored") == "address-list"
    assert impression(service, LISTED).headers.get("adserver-ignored") is None
    assert service.metric(refused) == was + 1


def test_no_address_is_kept(service: Service) -> None:
    """
    After an event its reader's address is in no metric, in no file and in no line of the log, only its network.
    """
    address = "100.99.98.97"
    impression(service, address)

    assert address not in service.http.get("/metrics").text
    assert address not in service.log()
    assert "100.99.98.0" in service.log(), "the access log names the network"
    for path in service.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert address.encode() not in path.read_bytes(), path


def test_a_strangers_word_for_an_address_is_not_taken(new_service: Callable[..., Service]) -> None:
    """
    Without trusted proxies nobody can make another's events look like staff's, nor their own like somebody else's.
    """
    service = new_service(workers=1, environ={"ADSERVER_STAFF_ADDRESSES": AT_WORK, "ADSERVER_RATE_PER_MINUTE": "3"})
    service.start()

    said = [
        impression(service, came_by).headers.get("adserver-ignored") for came_by in (AT_WORK, READER, LISTED, "::1")
    ]

    assert said == [None, None, None, "rate"]


def test_a_service_does_not_start_with_a_list_it_cannot_read(
    new_service: Callable[..., Service], tmp_path: Path
) -> None:
    """
    Who starts the service is told every problem of the list at once, and of the setting.
    """
    path = tmp_path / "addresses.txt"
    path.write_text("192.0.2.1/24\n\nnonsense\n")
    listed = new_service(environ={"ADSERVER_ADDRESS_LIST_FILE": str(path)})
    said = listed.run("serve", "--port", "0", code=1).stderr
    assert f"{path}:1: " in said
    assert f"{path}:3: " in said

    own = new_service(environ={"ADSERVER_STAFF_ADDRESSES": "192.0.2.1/24 nonsense 192.0.2.9"})
    said = own.run("serve", "--port", "0", code=2).stderr
    assert said.count("ADSERVER_STAFF_ADDRESSES: ") == 2
    assert "did you mean 192.0.2.0/24" in said
