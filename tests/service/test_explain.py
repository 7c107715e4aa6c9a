"""Explain on a running service: the same winner as the next answer's, in a sentence, by API and command line."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.service.live import Service, coming, eventually


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """One worker: each has its own place in the turns of its slots."""
    service = new_service(workers=1)
    service.start()
    return service


def test_what_is_explained_is_what_is_served_next(service: Service) -> None:
    """
    Asked twenty times, each explanation names the line item of the answer that follows, and counts nothing itself.
    """
    asked = 'adserver_requests_total{slot="889991"}'
    requests = service.series()[asked]
    for query in ("section=travel", "section=business&tag=accident", "") * 7:
        told = service.http.get(f"/api/explain/889991?{query}")
        again = service.http.get(f"/api/explain/889991?{query}")
        assert told.json()["candidates"] == again.json()["candidates"]
        entry = service.http.get(f"/ads?id=889991&{query}").json()["ads"]["889991"]
        assert (told.json()["line_item"], told.json()["creative"]) == (entry["line_item"], entry["creative"])
        assert told.json()["sentence"].startswith("Showing *")
    assert service.series()[asked] == requests + 21


def test_the_command_line_says_it_in_a_sentence_and_a_table(service: Service) -> None:
    """
    A roadblock of the travel pages shows in both boxes or in none; the table names who was passed over, and why.
    """
    said = service.run(
        "explain", "889990", "889991", "--section", "travel", "--view", "0", "--at", f"{coming(2):%Y-%m-%dT%H:%M}"
    ).stdout
    assert f"889990, {coming(2).isoformat()}" in said
    assert said.count("Showing *Islands and winter, travel pages, both boxes* because it holds 25 % of this slot") == 2
    assert "until 1 January 2030" in said
    assert "it is for pages with section business or section housing, and this one has none of these" in said
    alone = json.loads(service.run("explain", "889990", "--section", "travel", "--view", "0", "--json").stdout)
    assert alone[0]["line_item"] != "noorderveer-travel-pages"
    reasons = {one["line_item"]: one["reason"] for one in alone[0]["candidates"]}
    assert reasons["noorderveer-travel-pages"] == "it shows in all of its slots on a page or in none"


def test_several_slots_are_explained_as_one_page(service: Service) -> None:
    """
    A roadblock wins both boxes or none: over the API as in the answer that follows, the path's slot first.
    """
    won = set()
    for _ in range(12):
        told = service.http.get("/api/explain/889990?id=889991&id=889990&section=travel").json()
        assert [told["slot"], *(one["slot"] for one in told["others"])] == [889990, 889991]
        ads = service.http.get("/ads?id=889990&id=889991&section=travel").json()["ads"]
        assert [told["line_item"], told["others"][0]["line_item"]] == [one["line_item"] for one in ads.values()]
        won.add((told["line_item"], told["others"][0]["line_item"]))
    assert ("noorderveer-travel-pages", "noorderveer-travel-pages") in won
    assert all((a == "noorderveer-travel-pages") == (b == "noorderveer-travel-pages") for a, b in won)
    assert service.http.get("/api/explain/889990").json()["others"] == []
    for path in ("/api/explain/5?id=889990", "/api/explain/889990?id=5", "/api/explain/889990?id="):
        assert service.http.get(path).status_code == 404


def test_another_instant_is_explained_to_staff(service: Service) -> None:
    """
    With the staff token, as the preview of that instant; without it 403, and an instant that is none is 400.
    """
    asked = f"/api/explain/889991?section=business&at={coming(1):%Y-%m-%dT%H:%M}"
    staff = {"authorization": f"Bearer {(service.data / 'staff-token').read_text().strip()}"}
    told = service.http.get(asked, headers=staff)
    assert told.json()["at"] == coming(1).isoformat()
    assert told.json()["line_item"] == "lindemeer-office-hours"
    assert told.headers["adserver-preview"] == coming(1).astimezone(UTC).isoformat()
    sunday = service.http.get(
        f"/api/explain/889991?section=business&at={coming(6):%Y-%m-%dT%H:%M}", headers=staff
    ).json()
    reasons = {one["line_item"]: one["step"] for one in sunday["candidates"]}
    assert reasons["lindemeer-office-hours"] == "hours"
    assert service.http.get(asked).status_code == 403
    refused = service.http.get("/api/explain/889991?at=noon", headers=staff)
    assert (refused.status_code, "Parameter 'at'" in refused.json()["detail"]) == (400, True)


def test_the_past_is_explained_by_the_version_of_then(service: Service) -> None:
    """
    After a publication an instant before it is told by the version and the names of then; earlier, nothing was.
    """
    began = time.time()
    slots = service.config / "slots.toml"
    slots.write_text(slots.read_text() + '\n[[slot]]\nid = 889970\nname = "New box"\nsize = "300x250"\n')
    eventually(lambda: time.time() > began + 1.5, 3, "a moment")
    service.run("apply", str(service.config))
    then = datetime.fromtimestamp(began, UTC).isoformat()
    assert "in *New box*: nobody has booked it" in service.run("explain", "889970").stdout
    said = service.run("explain", "889970", "--at", then).stdout
    assert "Nothing shows in slot 889970: there is no such slot." in said
    assert "version 1\n" in said
    early = datetime.fromtimestamp(began - 86_400, UTC).isoformat()
    refused = service.run("explain", "889990", "--at", early, code=1).stderr
    assert f"--at '{early}': nothing was published then; the first version came later" in refused


FAR = ["0001-01-01", "9999-12-31T23:59-23:59", "2035-01-01", "0001-01-01T00:00+14:00"]


@pytest.mark.parametrize("at", FAR)
def test_an_instant_too_far_away_is_refused(service: Service, at: str) -> None:
    """
    In words, as previews do, and with exit code 1: never a traceback.
    """
    said = service.run("explain", "889990", "--at", at, code=1).stderr
    assert said == f"--at {at!r} lies more than 400 days away\n"


@pytest.mark.parametrize("arguments", [["--view", "1" + "0" * 400], ["--view", "-1"], ["--view", "9" * 5000], ["0"]])
def test_a_number_out_of_bounds_is_refused(service: Service, arguments: list[str]) -> None:
    """
    A view, or a slot, that no counter comes to: usage, and the bounds.
    """
    said = service.run("explain", "889990", *arguments, code=2).stderr
    assert re.search("expected [01] to 4,294,967,295 ", said)
    assert "Traceback" not in said


def test_without_a_view_the_instant_says_which_it_is(service: Service) -> None:
    """
    The same instant is the same view, and in a minute of instants others show than the first in line; JSON says which.
    """
    told = set()
    for second in range(0, 60, 12):
        at = f"{coming(2):%Y-%m-%dT%H:%M}:{second:02}"
        first, again = (json.loads(service.run("explain", "889990", "--at", at, "--json").stdout)[0] for _ in range(2))
        assert first == again
        told.add((first["line_item"], first["creative"]))
        assert first["view"] == int(coming(2).timestamp()) + second
    assert len(told) > 1
    chosen = json.loads(service.run("explain", "889990", "--view", "3", "--json").stdout)[0]
    assert chosen["view"] == 3
    assert "view" not in service.http.get("/api/explain/889991").json()


def test_an_unknown_device_is_refused(service: Service) -> None:
    """
    Usage and the choices, where it was ignored: the page would have been explained as of no device.
    """
    said = service.run("explain", "889990", "--device", "phone", code=2).stderr
    assert re.search("invalid choice: 'phone' .*desktop.*mobile.*tablet", said)
    assert service.run("explain", "889990", "--device", "Mobile").stdout


def test_a_newsletter_is_explained_by_its_places(service: Service) -> None:
    """
    Twenty issues: each explanation, and each preview of now, names the ad that the place then gets, and asks for none.
    """
    staff = {"authorization": f"Bearer {(service.data / 'staff-token').read_text().strip()}"}
    for n in range(20):
        query = f"format=email&issue=i-{n}&reader=ann&consent=1"
        told = service.http.get(f"/api/explain/889988?{query}").json()
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        seen = service.http.get(f"/ads?id=889988&{query}&at={now}", headers=staff).json()["ads"]["889988"]
        got = service.http.get(f"/ads?id=889988&{query}").json()["ads"]["889988"]
        assert (told["line_item"], told["creative"]) == (got["line_item"], got["creative"])
        assert (seen["line_item"], seen["creative"]) == (got["line_item"], got["creative"])


def test_what_cannot_be_explained_is_said(service: Service) -> None:
    """
    An unknown slot has its sentence; an instant that is none ends with exit code 1.
    """
    assert "Nothing shows in slot 5: there is no such slot." in service.run("explain", "5").stdout
    assert "expected an instant" in service.run("explain", "889990", "--at", "noon", code=1).stderr
    assert "expected an instant" in service.run("explain", "889990", "--at", "", code=1).stderr
