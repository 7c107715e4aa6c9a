"""Explain on a running service: the same winner as the next answer's, in a sentence, by API and command line."""

import json
from collections.abc import Callable

import pytest

from tests.service.live import Service


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
    said = service.run("explain", "889990", "889991", "--section", "travel", "--at", "2027-03-10T09:00").stdout
    assert "889990, 2027-03-10T09:00:00+01:00" in said
    assert said.count("Showing *Islands and winter, travel pages, both boxes* because it holds 25 % of this slot") == 2
    assert "until 1 January 2030" in said
    assert "it is for pages with section business or section housing, and this one has none of these" in said
    alone = json.loads(service.run("explain", "889990", "--section", "travel", "--json").stdout)
    assert alone[0]["line_item"] != "noorderveer-travel-pages"
    reasons = {one["line_item"]: one["reason"] for one in alone[0]["candidates"]}
    assert reasons["noorderveer-travel-pages"] == "it shows in all of its slots on a page or in none"


def test_what_cannot_be_explained_is_said(service: Service) -> None:
    """
    An unknown slot has its sentence; an instant that is none ends with exit code 1.
    """
    assert "Nothing shows in slot 5: there is no such slot." in service.run("explain", "5").stdout
    assert "expected an instant" in service.run("explain", "889990", "--at", "noon", code=1).stderr
