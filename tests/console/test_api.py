"""The console's twin for programs, on a running service: the same rights and checks, no change without a version."""

import io
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs
from PIL import Image

from adserver.console import audit, drafts
from adserver.console.api_tokens import make_token
from adserver.console.desk import read_draft, read_live, write_draft
from adserver.console.drafts import Draft
from adserver.stills import make_still
from adserver.store import Store
from adserver.versions import live_number
from tests.console.desks import TEST, Desk
from tests.service.live import Service, eventually, free_port
from tests.service.test_api import CHECKS

WINTER = {
    "id": "winter-boots",
    "name": "Winter boots",
    "campaign": "molenkorst-bread",
    "priority": "standard",
    "slots": [889990],
    "creatives": ["molenkorst-recipe"],
    "starts": "2027-01-04T00:00:00+01:00",
    "ends": "2027-02-01T00:00:00+01:00",
    "goal": {"impressions": 50_000},
}
UNPACED = {name: value for name, value in WINTER.items() if name != "goal"}


class Program:
    """Calls the API with a token of a person of some role."""

    def __init__(self, desk_: Desk, role: str) -> None:
        name = desk_.add(f"{role}@api.example", role)
        token = desk_.ask(lambda store: make_token(store, name, f"test {time.monotonic_ns()}", TEST, time.time()))
        self.name = name
        self.desk = desk_
        self.headers = {"authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.desk.http.request(method, path, headers=headers, **options)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def change(self, method: str, path: str, body: Any = None, version: int | None = None) -> httpx.Response:
        """A call that changes something, for *version* or the live one."""
        number = self.live if version is None else version
        return self.ask(method, path, json=body, headers={"if-match": f'"{number}"'})

    @property
    def live(self) -> int:
        return self.desk.ask(live_number)


@pytest.fixture(scope="module")
def sales(desk: Desk) -> Program:
    return Program(desk, "sales")


@pytest.fixture(scope="module")
def admin(desk: Desk) -> Program:
    return Program(desk, "admin")


def problems(answer: httpx.Response) -> list[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return [f"{one['where']}: {one['what']}" for one in answer.json()["problems"]]


def picture(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


# Reading


def test_says_who_calls(desk: Desk, sales: Program) -> None:
    """
    A program learns its person's name and role; a browser's session is told the same, without a token.
    """
    told = sales.get("/api/me")
    assert (told["name"], told["role"]) == ("sales@api.example", "sales")
    assert told["token"]["label"].startswith("test ")
    assert desk.browser("viewer").get("/api/me").json() == {
        "name": "viewer@desk.example",
        "role": "viewer",
        "token": None,
    }


def test_refuses_who_is_nobody(desk: Desk) -> None:
    """
    Without a token, or with one that was never given out, the answer is 401 and says what is missing.
    """
    for headers in ({}, {"authorization": "Bearer adt_nonsense"}, {"authorization": "Basic YTpi"}):
        answer = desk.http.get("/api/catalog", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "API token" in answer.json()["detail"]


def test_gives_the_catalog_as_the_configuration_spells_it(sales: Program) -> None:
    """
    The document comes whole, with the version as its ETag, in the tables and words of config/*.toml.
    """
    answer = sales.ask("GET", "/api/catalog")
    whole = answer.json()
    assert answer.headers["etag"] == f'"{whole["version"]}"' == f'"{sales.live}"'
    assert whole["site"]["time_zone"] == "Europe/Amsterdam"
    slot = next(one for one in whole["slot"] if one["id"] == 889990)
    assert slot["sizes"] == ["300x250"]
    sponsor = next(one for one in whole["line_item"] if one["priority"] == "sponsorship")
    assert datetime.fromisoformat(sponsor["starts"]).tzinfo is not None
    assert all(one["image"].startswith("assets/") for one in whole["creative"] if "image" in one)


def test_what_was_read_can_be_written_back_and_changes_nothing(sales: Program) -> None:
    """
    The whole catalog sent back as it was given publishes nothing: the live version stays.
    """
    before = sales.live
    whole = sales.get("/api/catalog")
    del whole["version"]
    answer = sales.change("POST", "/api/catalog", {"put": whole})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"version": before, "changes": []}
    assert sales.live == before


def test_lists_a_table_by_pages_and_words(sales: Program) -> None:
    """
    A table is searched by id and name, in pages that say how many there are; what is no table or page is refused.
    """
    listed = sales.get("/api/catalog/slot?q=first+BOX")
    assert [one["id"] for one in listed["entries"]] == [889990]
    assert (listed["count"], listed["page"], listed["pages"]) == (1, 1, 1)
    assert sales.get("/api/catalog/slot?page=2")["entries"] == []
    assert sales.ask("GET", "/api/catalog/slot?page=0").status_code == 400
    answer = sales.ask("GET", "/api/catalog/banner")
    assert answer.status_code == 404
    assert "line_item" in answer.json()["detail"]


# Writing


def test_publishes_an_entry_at_once(sales: Program, admin: Program) -> None:
    """
    PUT adds or replaces one entry and makes it live as a new version with author and note, told in history and log.
    """
    before = sales.live
    answer = sales.change("PUT", "/api/catalog/line_item/winter-boots?note=as+agreed", WINTER)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/api/catalog/line_item/winter-boots"
    assert answer.headers["etag"] == f'"{before + 1}"'

    found = sales.get("/api/catalog/line_item/winter-boots")
    assert found == {**WINTER, "starts": "2027-01-03T23:00:00Z", "ends": "2027-01-31T23:00:00Z"}

    answer = sales.change("PUT", "/api/catalog/line_item/winter-boots", {**found, "name": "Boots"})
    assert answer.status_code == 200
    assert answer.json()["entry"]["name"] == "Boots"

    newest = sales.get("/api/versions")["versions"]
    assert [(one["author"], one["note"]) for one in newest[:2]] == [(sales.name, ""), (sales.name, "as agreed")]
    changed = sales.get(f"/api/versions/{before + 2}/difference")["changes"]
    assert [(one["what"], one["table"], one["id"]) for one in changed] == [("changed", "line_item", "winter-boots")]
    assert changed[0]["fields"] == [{"label": "Name", "before": "Winter boots", "after": "Boots"}]
    logged = admin.get(f"/api/audit?subject=version+{before + 1}")["entries"]
    assert [(one["who"], one["what"]) for one in logged] == [(sales.name, "publishes")]
    assert "as agreed" in logged[0]["detail"]

    assert sales.change("DELETE", "/api/catalog/line_item/winter-boots").status_code == 200
    assert sales.ask("GET", "/api/catalog/line_item/winter-boots").status_code == 404
    assert sales.change("DELETE", "/api/catalog/line_item/winter-boots").status_code == 404


def test_what_is_published_is_served(desk: Desk, sales: Program) -> None:
    """
    A change is in force for readers within two seconds, on every worker.
    """
    flight = {"starts": "2026-01-01T00:00:00Z", "ends": "2090-01-01T00:00:00Z"}
    put = {
        "slot": [{"id": 100_777, "name": "Fresh", "sizes": ["300x250"]}],
        "line_item": [{**UNPACED, **flight, "id": "fresh", "slots": [100_777]}],
    }
    number = sales.change("POST", "/api/catalog", {"put": put}).json()["version"]

    def is_served() -> bool:
        with desk.service.each_worker() as workers:
            return all(
                one.get("/ads?id=100777").json()["ads"]["100777"]["line_item"] == "fresh" for one in workers.values()
            )

    assert eventually(is_served, 10)
    remove = {"line_item": ["fresh"], "slot": [100_777]}
    answer = sales.change("POST", "/api/catalog", {"remove": remove, "note": "over"}, number)
    assert {one["what"] for one in answer.json()["changes"]} == {"removed"}


def test_many_entries_go_live_together_or_not_at_all(sales: Program) -> None:
    """
    Of a request with anything wrong nothing is published, and every problem is told, within entries and between them.
    """
    before = sales.live
    put = {
        "line_item": [
            {**WINTER, "id": "good"},
            {**WINTER, "id": "bad", "starts": "2027-01-04T00:00:00", "priority": "standart"},
            {**WINTER, "id": "lost", "campaign": "nowhere"},
            "no entry",
        ],
        "banner": [],
    }
    answer = sales.change("POST", "/api/catalog", {"put": put, "remove": {"slot": [1], "line_item": ["good", "gone"]}})
    assert answer.status_code == 422
    told = "\n".join(problems(answer))
    assert "line item 'bad': field 'starts' is 2027-01-04T00:00:00, which has no offset" in told
    assert "did you mean 'standard'?" in told
    assert "line item 'lost': names campaign 'nowhere', which does not exist" in told
    assert "put: table 'banner' does not exist" in told
    assert "a [[line_item]]: field '' is 'no entry'" in told
    assert "slot 1: is to be removed, and is not there" in told
    assert "line item 'gone': is to be removed, and is not there" in told
    assert sales.live == before

    taken = sales.change("POST", "/api/catalog", {"put": {"line_item": [WINTER, WINTER]}})
    assert any("the id is taken already, in this request" in one for one in problems(taken))


def test_removing_what_others_need_is_refused(sales: Program) -> None:
    """
    The whole document is checked: an advertiser with campaigns stays, and the answer names what still needs it.
    """
    answer = sales.change("DELETE", "/api/catalog/advertiser/molenkorst")
    assert answer.status_code == 422
    assert any("names advertiser 'molenkorst', which does not exist" in one for one in problems(answer))


def test_a_change_without_a_version_is_refused(sales: Program) -> None:
    """
    Whoever does not say what they have seen is told which version is live, by 428; what is no version is 400.
    """
    calls = [
        ("POST", "/api/catalog"),
        ("PUT", "/api/catalog/slot/889990"),
        ("DELETE", "/api/catalog/slot/889990"),
        ("POST", "/api/versions/1/restore"),
    ]
    for method, path in calls:
        answer = sales.ask(method, path, json={})
        assert answer.status_code == 428
        assert f'"{sales.live}"' in answer.json()["detail"]
        for nonsense in ("*", "1", 'W/"1"', '"x"', '"1", "2"'):
            assert sales.ask(method, path, json={}, headers={"if-match": nonsense}).status_code == 400


def test_a_stale_change_says_who_published_what_since(desk: Desk, sales: Program, admin: Program) -> None:
    """
    Made for an older version, a change is refused by 412 with everybody who published since and what differs now.
    """
    seen = sales.live
    assert (
        admin.change("PUT", "/api/catalog/line_item/theirs?note=first", {**WINTER, "id": "theirs"}).status_code == 201
    )
    for method, path, body in [
        ("POST", "/api/catalog", {"put": {}}),
        ("PUT", "/api/catalog/line_item/mine", {**WINTER, "id": "mine"}),
        ("DELETE", "/api/catalog/line_item/theirs", None),
        ("POST", "/api/versions/1/restore", None),
        ("POST", "/api/pauses", {}),
    ]:
        answer = sales.change(method, path, body, seen)
        assert answer.status_code == 412, answer.text
        told = answer.json()
        assert admin.name in told["detail"]
        assert [(one["author"], one["note"]) for one in told["since"]] == [(admin.name, "first")]
        assert [(one["what"], one["id"]) for one in told["changes"]] == [("added", "theirs")]
        assert answer.headers["etag"] == f'"{seen + 1}"'
    assert sales.live == seen + 1
    assert sales.change("DELETE", "/api/catalog/line_item/theirs").status_code == 200


def test_of_two_programs_at_once_one_wins_and_nothing_is_lost(sales: Program) -> None:
    """
    Changes made for the same version at the same time: one is live, every other is refused as stale.
    """
    seen = sales.live
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda n: sales.change("PUT", f"/api/catalog/line_item/race-{n}", {**WINTER, "id": f"race-{n}"}, seen),
                range(6),
            )
        )
    assert sorted(one.status_code for one in answers) == [201, 412, 412, 412, 412, 412]
    assert sales.live == seen + 1
    left = [one["id"] for one in sales.get("/api/catalog/line_item?q=race-")["entries"]]
    assert len(left) == 1
    sales.change("DELETE", f"/api/catalog/line_item/{left[0]}")


def test_drafts_of_people_stay_as_they_are(desk: Desk, sales: Program) -> None:
    """
    What somebody has drafted in the console is neither published nor forgotten by a program of theirs.
    """

    async def draft(store: Store) -> Draft:
        live = await read_live(store)
        slot = drafts.find(live.document, "slots", 889991)
        made = drafts.put(Draft(live.number), live.document, "slots", structs.replace(slot, id=1, name="Mine"))
        await write_draft(store, sales.name, made, "")
        return made

    made = desk.ask(draft)
    assert sales.change("PUT", "/api/catalog/line_item/beside", {**WINTER, "id": "beside"}).status_code == 201
    assert desk.ask(lambda store: read_draft(store, sales.name, 1)) == made
    assert sales.ask("GET", "/api/catalog/slot/1").status_code == 404
    sales.change("DELETE", "/api/catalog/line_item/beside")


def test_strange_bodies_are_refused_in_words(sales: Program) -> None:
    """
    What is no JSON, no object, of another id, with an unknown part or an endless note is a 400 with a sentence.
    """
    match = {"if-match": f'"{sales.live}"'}
    for method, path, content in [
        ("POST", "/api/catalog", b"{"),
        ("POST", "/api/catalog", b"[]"),
        ("POST", "/api/catalog", b'{"puts": {}}'),
        ("POST", "/api/catalog", b'{"note": 3}'),
        ("POST", "/api/catalog", b'{"note": "' + b"x" * 501 + b'"}'),
        ("POST", "/api/catalog", b"[" * 100_000),
        ("POST", "/api/catalog", b'{"note": "\xff"}'),
        ("PUT", "/api/catalog/slot/1", b"[1]"),
        ("PUT", "/api/catalog/slot/1", b'{"id": 2}'),
    ]:
        answer = sales.ask(method, path, content=content, headers=match)
        assert answer.status_code == 400, (content[:40], answer.text)
        assert answer.json()["detail"]
    for content in (b'{"put": []}', b'{"remove": 1}', b'{"put": {"slot": {}}}', b'{"remove": {"slot": [{}]}}'):
        assert sales.ask("POST", "/api/catalog", content=content, headers=match).status_code == 422
    large = b'{"note": "' + b"x" * 7_000_000 + b'"}'
    assert sales.ask("POST", "/api/catalog", content=large, headers=match).status_code == 413


def test_the_site_can_be_changed(sales: Program) -> None:
    """
    The [site] table is put as one object, and told in the difference.
    """
    site = sales.get("/api/catalog")["site"]
    answer = sales.change("POST", "/api/catalog", {"put": {"site": {**site, "name": "The Courier"}}})
    assert answer.json()["changes"][0]["fields"] == [{"label": "Name", "before": site["name"], "after": "The Courier"}]
    sales.change("POST", "/api/catalog", {"put": {"site": site}})


# Versions


def test_an_older_version_comes_back(sales: Program, admin: Program) -> None:
    """
    Restoring makes an older document live as a new version; a version can be read whole and compared with any other.
    """
    before, seen = sales.live, sales.get("/api/catalog")
    sales.change("PUT", "/api/catalog/line_item/mistake", {**WINTER, "id": "mistake"})
    answer = sales.change("POST", f"/api/versions/{before}/restore?note=a+mistake")
    assert answer.json() == {"version": before + 2}
    assert {**sales.get("/api/catalog"), "version": before} == seen
    told = sales.get(f"/api/versions/{before + 2}")
    assert (told["note"], told["author"]) == ("a mistake", sales.name)
    assert told["catalog"]["slot"] == seen["slot"]
    assert sales.get(f"/api/versions/{before + 2}/difference?since={before}")["changes"] == []
    [undone] = admin.get(f"/api/audit?subject=version+{before + 2}")["entries"]
    assert undone["what"] == "undoes"
    assert f"back to version {before}: " in undone["detail"]
    assert " → " in undone["detail"] or "removed" in undone["detail"], undone
    for path in (
        "/api/versions/999999",
        "/api/versions/999999/difference",
        f"/api/versions/{before}/difference?since=99999",
    ):
        assert sales.ask("GET", path).status_code == 404
    assert sales.ask("GET", "/api/versions/x").status_code == 400
    older = sales.get("/api/versions?before=2")
    assert [one["number"] for one in older["versions"]] == [1]
    assert older["before"] is None


# Pauses


def test_a_pause_needs_no_version_and_is_lifted_again(sales: Program, admin: Program) -> None:
    """
    What has to stop at once is stopped on top of whatever is live, until the instant given; and comes back when asked.
    """
    ends = "2099-01-01T00:00:00+01:00"
    body = {"advertiser": "molenkorst", "ends": ends, "reason": "recall", "by": "somebody else"}
    answer = sales.ask("POST", "/api/pauses", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()["pause"]
    assert (made["by"], made["reason"], made["ends"]) == (sales.name, "recall", "2098-12-31T23:00:00Z")
    assert made in sales.get("/api/pauses")["pauses"]
    assert sales.get(answer.headers["location"]) == made

    gone = sales.ask("DELETE", f"/api/pauses/{made['id']}")
    assert gone.json() == {"version": answer.json()["version"] + 1}
    assert sales.get("/api/pauses")["pauses"] == []
    assert sales.ask("DELETE", f"/api/pauses/{made['id']}").status_code == 404
    logged = [(one["who"], one["what"]) for one in admin.get(f"/api/audit?who={sales.name}")["entries"][:2]]
    assert logged == [(sales.name, "lifts a pause"), (sales.name, "pauses")]
    lifted, paused = (one["detail"] for one in admin.get(f"/api/audit?who={sales.name}")["entries"][:2])
    assert paused == "pauses everything of Molenkorst Bakery until Thu 1 Jan 2099 00:00: recall"
    assert lifted == f"lifts the pause: {paused}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "names 0 things"),
        ({"section": "sport", "category": "bank"}, "names 2 things"),
        ({"section": "sport"}, "field 'ends' is missing"),
        ({"section": "sport", "ends": "tomorrow"}, "expected a date and time with an offset"),
        ({"section": "sport", "ends": "2020-01-01T00:00:00Z"}, "lies before anything would be paused"),
        ({"line_item": "nobody", "ends": "2099-01-01T00:00:00Z"}, "names line item 'nobody', which does not exist"),
        ({"section": "sport", "ends": "2099-01-01T00:00:00Z", "for": "4h"}, "field 'for' does not exist here"),
    ],
)
def test_a_pause_that_says_too_little_is_refused(sales: Program, body: dict[str, str], told: str) -> None:
    """
    One thing, until one instant to come: anything else is told in words, and nothing is paused.
    """
    before = sales.live
    answer = sales.ask("POST", "/api/pauses", json=body)
    assert answer.status_code == 422
    assert any(told in one for one in problems(answer)), answer.text
    assert sales.live == before


# Images


@pytest.mark.parametrize("way", ["body", "form"])
def test_an_image_is_kept_and_shown(sales: Program, way: str) -> None:
    """
    An image is sent as the body or in a form and kept under its content's name; a creative that names it goes live.
    """
    data = picture(600, 500)
    if way == "body":
        answer = sales.ask("POST", "/api/assets", content=data, headers={"content-type": "image/png"})
    else:
        answer = sales.ask("POST", "/api/assets", files={"file": ("boots.png", data, "image/png")})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["pixels"], told["fits"]) == ("600x500", ["300x250"])
    assert re.fullmatch(r"assets/[0-9a-f]{32}\.png", told["image"])

    creative = {
        "id": f"boots-{way}",
        "advertiser": "molenkorst",
        "kind": "image",
        "size": "300x250",
        "image": told["image"],
        "alt": "Boots",
        "click_url": "https://boots.example/",
    }
    path = f"/api/catalog/creative/boots-{way}"
    answer = sales.change("PUT", path, creative)
    assert answer.status_code == 201, answer.text
    assert sales.get(path) == creative

    def look() -> httpx.Response | None:
        found = sales.desk.http.get(f"/{told['image']}")
        return found if found.status_code == 200 else None

    shown = eventually(look)
    assert shown.headers["content-type"] == "image/png"

    wrong = sales.change("PUT", path, {**creative, "size": "728x90"})
    assert "field 'image'" in problems(wrong)[0]
    assert "600x500 pixels" in problems(wrong)[0]
    gone = sales.change("PUT", path, {**creative, "image": "assets/" + "0" * 32 + ".png"})
    assert "upload it by POST /api/assets" in problems(gone)[0]
    assert sales.change("DELETE", path).status_code == 200


def moving() -> bytes:
    """A picture that moves."""
    out = io.BytesIO()
    red, blue = (Image.new("RGB", (300, 250), colour) for colour in ("red", "blue"))
    red.save(out, "GIF", save_all=True, append_images=[blue], duration=[200, 700], loop=0)
    return out.getvalue()


def test_a_picture_that_moves_is_published_with_its_still(sales: Program) -> None:
    """
    Uploaded by the API or by the form, the creative brings its still along, which is public with it.
    """
    told = sales.ask("POST", "/api/assets", content=moving(), headers={"content-type": "image/gif"}).json()
    creative = {
        "id": "moving-boots",
        "advertiser": "molenkorst",
        "kind": "image",
        "size": "300x250",
        "image": told["image"],
        "alt": "Boots",
        "click_url": "https://boots.example/",
    }
    assert sales.change("PUT", "/api/catalog/creative/moving-boots", creative).status_code == 201
    assert sales.get("/api/catalog/creative/moving-boots") == creative
    http = sales.desk.http
    image = eventually(lambda: found if (found := http.get(f"/{told['image']}")).status_code == 200 else None)
    still = make_still(image.content)
    assert still is not None
    eventually(lambda: http.get(f"/assets/{still.name}").content == still.data, what="the still")

    browser = sales.desk.browser("sales")
    fields = {"alt": "Shoes", "click_url": "https://shoes.example/"}
    answer = browser.post(
        "/console/creatives/moving-boots", fields, files={"image": ("shoes.gif", moving(), "image/gif")}
    )
    assert answer.status_code == 303, answer.text
    page = browser.get("/console/creatives/moving-boots/framed?slot=889990").text
    assert f'srcset="{sales.desk.service.url}/assets/{still.name}"' in page
    browser.post("/console/draft/drop")
    assert sales.change("DELETE", "/api/catalog/creative/moving-boots").status_code == 200


def test_what_is_no_image_is_refused_and_not_kept(sales: Program) -> None:
    """
    A script in an image's name, an empty form, and a body of another type are refused in words.
    """
    script = sales.ask("POST", "/api/assets", content=b"<script>", headers={"content-type": "image/png"})
    assert script.status_code == 422
    assert "expected a PNG" in problems(script)[0]
    assert sales.ask("POST", "/api/assets", files={"file": ("", b"")}).status_code == 400
    assert sales.ask("POST", "/api/assets", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert (
        sales.ask("POST", "/api/assets", content=b"x" * 7_000_000, headers={"content-type": "image/png"}).status_code
        == 413
    )


# The rest


def test_the_audit_log_is_read_by_pages_and_by_admins_alone(desk: Desk, sales: Program, admin: Program) -> None:
    """
    An admin reads the log newest first and goes on where a page ended; others may not read it.
    """
    assert sales.ask("GET", "/api/audit").status_code == 403
    page = admin.get("/api/audit")
    positions = [one["position"] for one in page["entries"]]
    assert positions == sorted(positions, reverse=True)
    assert all(datetime.fromisoformat(one["at"]) <= datetime.now(UTC) for one in page["entries"])
    older = admin.get(f"/api/audit?before={positions[2]}")
    assert older["entries"][0]["position"] == positions[3]
    assert {one["who"] for one in admin.get(f"/api/audit?who={sales.name}")["entries"]} <= {sales.name}
    assert desk.ask(lambda store: audit.read(store, 1)).entries[0].position == positions[0]


def test_a_browsers_session_needs_the_form_token(desk: Desk) -> None:
    """
    A page of the console may call the API with its cookie, and with its form token where something changes.
    """
    browser = desk.browser("sales")
    number = browser.get("/api/versions").json()["live"]
    headers = {**browser.headers, "origin": browser.url, "if-match": f'"{number}"'}
    assert browser.http.post("/api/catalog", json={}, headers=headers).status_code == 403
    answer = browser.http.post("/api/catalog", json={}, headers={**headers, "x-csrf-token": browser.csrf})
    assert answer.json() == {"version": number, "changes": []}


def test_with_a_port_for_ops_the_api_stays_where_the_console_is(tmp_path: Path) -> None:
    """
    What asks nobody who they are moves to the port for ops; what asks for a token stays on the public one.
    """
    port = free_port()
    service = Service(tmp_path, "--ops-port", str(port), workers=1)
    service.start()
    try:
        with httpx.Client(trust_env=False) as http:
            ops = f"http://127.0.0.1:{port}"
            assert http.get(f"{service.url}/api/catalog").status_code == 401
            assert http.get(f"{service.url}/api/me").status_code == 401
            assert http.get(f"{service.url}/api/report").status_code == 404
            assert http.get(f"{service.url}/api/explain/889990").status_code == 404
            assert http.get(f"{ops}/api/report").status_code == 200
            assert http.get(f"{ops}/api/explain/889990").status_code == 200
            assert http.get(f"{ops}/api/catalog").status_code == 404
            assert http.get(f"{ops}/console").status_code == 404
    finally:
        service.stop()


def test_answers_are_as_described_whatever_a_program_sends(desk: Desk, admin: Program, tmp_path: Path) -> None:
    """
    schemathesis with an admin's token for the live version, good and bad data: no 500, nothing that is not described.
    """
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{desk.service.url}/openapi.json", "--no-color",
        "--header", f"Authorization: {admin.headers['authorization']}", "--header",
        f'If-Match: "{admin.live}"', "--include-path-regex",
        "^/api/(me|catalog|versions|pauses|assets|audit)", "--checks", ",".join(CHECKS), "--mode", "all",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "6", "--seed", "20", "--workers", "1",
        "--warnings", "off", "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "Traceback" not in desk.service.log()
