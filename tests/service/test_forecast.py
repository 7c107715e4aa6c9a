"""`adserver forecast` beside a running service: its own curves, the live bookings, a change, remedies."""

import json
import time
from collections.abc import Callable

import pytest

from adserver.days import Days
from adserver.simulate import shape
from adserver.traffic import STEPS
from tests.service.live import SLOTS, Service, eventually

SHORT = """
[[line_item]]
id = "short"
name = "More than there is"
campaign = "kadefiets-electric"
priority = "bulk"
slots = [889984]
creatives = ["kadefiets-electric-160x600"]
starts = 2026-01-01T00:00:00+01:00
ends = {ends}
goal = {{ impressions = 5_000_000 }}
"""


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """With five weeks of traffic on record: 2,000 requests a day of each slot."""
    service = new_service(workers=1)
    service.start()
    days = Days("Europe/Amsterdam")
    today, _ = days.locate(time.time())
    with service.redis() as store:
        for day in range(today - 35, today + 2):  # of today what is over counts, and midnight may come
            steps = [round(2000 / STEPS * shape(day, step)) for step in range(STEPS)]
            data = b"".join(n.to_bytes(4, "big") for n in steps)
            for slot in SLOTS:
                store.set(f"as:{{curves}}:{day}:{slot}", data)
    return service


def test_a_month_ahead(service: Service) -> None:
    """
    Each line item has its line; a daily goal is kept every day; the slots' requests are those on record.
    """
    found = json.loads(service.run("forecast", "--json", within_s=60).stdout)
    by_name = {one["line_item"]: one for one in found["line_items"]}
    daily = by_name["molenkorst-daily"]
    assert daily["counted"] <= 31 * 2000
    assert daily["counted"] >= 29 * 1800, "the slot has fewer requests than the goal: it takes them all"
    assert daily["goal"] == 3000
    assert daily["daily"] == {"days": 30, "reached": 0, "today": False}
    missed = 30 * 3000 - daily["counted"]
    assert 0.98 * missed <= daily["short"] <= 1.02 * (missed + 2000), "what the last day has by then is not yet missed"
    assert daily["not_tried"] == []
    assert by_name["kadefiets-narrow"]["remedies"] is None, "it needs none"
    in_slot = by_name["kadefiets-narrow"]["counted"] + by_name["vlonderstroom-narrow"]["counted"]
    assert in_slot == pytest.approx(30 * 2000, rel=0.1)
    table = service.run("forecast", "--days", "2", within_s=60).stdout
    assert "molenkorst-daily" in table
    assert "reached on 0 of 2 days" in table
    assert "line item" in table


def test_a_change_is_tried_before_anybody_publishes_it(service: Service) -> None:
    """
    A booking that cannot reach its goal is told with what would help; whom it hurts is told by how much.
    """
    change = service.home / "change.toml"
    ends = time.strftime("%Y-%m-%dT00:00:00+01:00", time.gmtime(time.time() + 20 * 86_400))
    change.write_text(SHORT.format(ends=ends).replace('"bulk"', '"standard"'))
    said = service.run("forecast", "--with", str(change), within_s=120).stdout
    assert "*More than there is* falls short." in said
    assert "No longer flight, slot or priority that was tried is enough" in said
    assert "*Electric, narrow side rail* loses" in said
    assert service.http.get("/readyz").json()["catalog_version"] == 1


def test_what_there_is_no_time_for_is_told_as_not_tried(service: Service) -> None:
    """
    In words, and for programs as those words: an empty list would mean that nothing helps.
    """
    change = service.home / "late.toml"
    ends = time.strftime("%Y-%m-%dT00:00:00+01:00", time.gmtime(time.time() + 20 * 86_400))
    change.write_text(SHORT.format(ends=ends).replace("5_000_000", "30_000"))
    late = ["forecast", "--with", str(change), "--remedies-within", "0"]
    said = service.run(*late, within_s=120).stdout
    assert "Not tried for want of time (--remedies-within): " in said
    found = json.loads(service.run(*late, "--json", within_s=120).stdout)
    [short] = [one for one in found["line_items"] if one["line_item"] == "short"]
    assert short["remedies"] == "not tried"
    assert "priority standard" in short["not_tried"]


def test_a_change_with_a_slip_is_refused(service: Service) -> None:
    """
    In the words of `check`, with exit code 1; so is a service that has seen no traffic yet.
    """
    change = service.home / "slip.toml"
    change.write_text(SHORT.format(ends="2030-01-01T00:00:00+01:00").replace("889984", "1"))
    refused = service.run("forecast", "--with", str(change), code=1)
    assert "names slot 1, which does not exist" in refused.stderr
    assert "cannot be read" in service.run("forecast", "--with", "missing.toml", code=1).stderr


def test_without_traffic_nothing_is_foretold(new_service: Callable[..., Service]) -> None:
    """
    A new service says so; after its first pages it goes by them.
    """
    service = new_service(workers=1)
    service.start()
    assert "no traffic is recorded yet" in service.run("forecast", code=1).stderr
    for _ in range(5):
        service.http.get("/ads/889984")
    eventually(lambda: service.run("forecast", "--days", "1", code=None).returncode == 0, 20, "a first forecast")
