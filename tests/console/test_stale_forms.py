"""Forms that are older than what is live, too large, or somebody else's words: nothing is lost, undone or believed."""

import html
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from adserver.console import desk as desks
from adserver.console import drafts, sessions
from adserver.console.drafts import Draft
from adserver.store import Store
from tests.console.desks import Browser, Desk
from tests.console.forms import Form, forms_of, submit
from tests.service.live import Service, eventually

ITEM = "molenkorst-daily"


def publish(desk: Desk, **fields: object) -> int:
    """A colleague changes the booking; the new version's number, once it is served."""

    async def change(store: Store) -> int:
        live = await desks.read_live(store)
        old = drafts.find(live.document, "line_items", ITEM)
        draft = drafts.put(Draft(live.number), live.document, "line_items", structs.replace(old, **fields))
        version, _ = await desks.publish(
            store, draft, author="bob", note="", expected=live.number, now=time.time()
        )  # fmt: skip
        return version.number

    number = desk.ask(change)
    deadline = time.monotonic() + 10
    while desk.http.get("/ads?id=889990").json()["version"] < number:
        assert time.monotonic() < deadline
    return number


def form_of(page: str, action: str) -> dict[str, list[str]]:
    """What a browser would send of the page's form, unchanged."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page, re.DOTALL)
    assert form
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", form[0]):
        name, value = (re.search(rf'{key}="([^"]*)"', tag) for key in ("name", "value"))
        kind = re.search(r'type="(\w+)"', tag)
        if name and (kind is None or kind[1] not in ("checkbox", "radio", "file") or " checked" in tag):
            found.setdefault(name[1], []).append(unescape(value[1]) if value else "")
    for name, body in re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>(.*?)</textarea>', form[0], re.DOTALL):
        found.setdefault(name, []).append(unescape(body.removeprefix("\n")))
    for name, body in re.findall(r'<select[^>]*name="(\w+)"[^>]*>(.*?)</select>', form[0], re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)"[^>]* selected', body) or re.search(
            r'<option value="([^"]*)"', body
        )
        if chosen:
            found.setdefault(name, []).append(unescape(chosen[1]))
    return found


def unescape(text: str) -> str:
    return html.unescape(text)


def save(browser: Browser, path: str, fields: dict[str, list[str]]) -> httpx.Response:
    return browser.http.post(path, data=fields, headers={**browser.headers, "origin": browser.url})


def draft_of(desk: Desk, person: str) -> Draft:
    async def read(store: Store) -> Draft:
        return await desks.read_draft(store, person, 0)

    return desk.ask(read)


@pytest.mark.parametrize(
    "path",
    [
        f"/console/line-items/{ITEM}",
        "/console/line-items/kadefiets-first-box",
        "/console/line-items/lindemeer-first-box",
        "/console/advertisers/kadefiets",
        "/console/slots/889990",
        "/console/creatives/zoutmond-hall-ticket-tag",
        "/console/creatives/zoutmond-hall-listing",
    ],
)
def test_a_form_saved_as_it_is_changes_nothing(desk: Desk, path: str) -> None:
    """
    Opening and saving leaves an empty draft.
    """
    ann = desk.sign_in(desk.add(f"ann-{abs(hash(path))}@desk.example", "sales"))
    answer = save(ann, path, form_of(ann.get(path).text, path))
    assert answer.status_code == 303, answer.text
    assert not draft_of(desk, f"ann-{abs(hash(path))}@desk.example")


def test_an_old_form_does_not_undo_a_colleague(desk: Desk) -> None:
    """
    Ann opens a booking, Bob publishes another name for it, Ann saves: both are shown as a clash, and nothing is undone.
    """
    ann = desk.sign_in(desk.add("ann-stale@desk.example", "sales"))
    path = f"/console/line-items/{ITEM}"
    fields = form_of(ann.get(path).text, path)
    publish(desk, name="Bob's name")
    assert save(ann, path, {**fields, "name": ["Ann's name"]}).status_code == 303
    page = ann.get("/console/draft").text
    assert "Both of you changed this" in page
    location = save(ann, "/console/draft/publish", form_of(page, "/console/draft/publish")).headers["location"]
    assert "changed%20the%20same" in location
    assert "Bob&#39;s name" in desk.browser("viewer").get(path).text


def test_a_clash_is_settled_by_who_has_seen_it(desk: Desk) -> None:
    """
    While Ann chooses, Bob publishes once more: her choice is of what she has not seen, and is asked for again.
    """
    ann = desk.sign_in(desk.add("ann-settles@desk.example", "sales"))
    path = f"/console/line-items/{ITEM}"
    fields = form_of(ann.get(path).text, path)
    publish(desk, name="First")
    save(ann, path, {**fields, "name": ["Ann's"]})
    choice = form_of(ann.get("/console/draft").text, "/console/draft/settle")
    publish(desk, name="Second")
    mine = {**choice, f"line_items/{ITEM}": ["mine"]}
    location = save(ann, "/console/draft/settle", mine).headers["location"]
    assert "published%20meanwhile" in location
    page = ann.get("/console/draft").text
    assert "Both of you changed this" in page
    again = {**form_of(page, "/console/draft/settle"), f"line_items/{ITEM}": ["mine"]}
    assert "on%20top%20of%20version" in save(ann, "/console/draft/settle", again).headers["location"]
    [left] = draft_of(desk, "ann-settles@desk.example").puts.line_items
    assert left.name == "Ann's"


def test_two_windows_of_one_person_lose_nothing(desk: Desk) -> None:
    """
    Eight forms saved at the same moment are all in the draft; a page of the draft from before them publishes nothing.
    """
    person = "ann-windows@desk.example"
    ann = desk.sign_in(desk.add(person, "sales"))
    slots = [889977 + n for n in range(8)]
    forms = [form_of(ann.get(path).text, path) for path in (f"/console/slots/{slot}" for slot in slots)]
    save(ann, "/console/slots/889990", {**form_of(ann.get("/console/slots/889990").text, "/console/slots/889990"),
                                        "name": ["Before"]})  # fmt: skip
    old = form_of(ann.get("/console/draft").text, "/console/draft/publish")

    def rename(number: int) -> int:
        return save(ann, f"/console/slots/{slots[number]}", {**forms[number], "name": [f"Slot {number}"]}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(rename, range(8))) == {303}
    assert {id_ for _, id_ in draft_of(desk, person).places} == {889990, *slots}
    refused = save(ann, "/console/draft/publish", old).headers["location"]
    assert "another%20window" in refused
    assert len(draft_of(desk, person).places) == 9


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"/console/line-items/{ITEM}", "name"),
        ("/console/advertisers/kadefiets", "name"),
        ("/console/slots/889990", "name"),
        ("/console/creatives/kadefiets-electric-160x600", "alt"),
    ],
)
@pytest.mark.parametrize("drafted", [False, True], ids=["as it is live", "drafted"])
def test_one_entry_in_two_tabs(desk: Desk, path: str, field: str, *, drafted: bool) -> None:
    """
    The second to save is shown what the first has made of it, and what they sent; nothing is lost either way.
    """
    person = f"tabs-{int(drafted)}-{abs(hash(path))}@desk.example"
    ann = desk.sign_in(desk.add(person, "sales"))
    if drafted:
        assert save(ann, path, {**form_of(ann.get(path).text, path), field: ["Drafted"]}).status_code == 303
    one, other = (form_of(ann.get(path).text, path) for _ in range(2))
    assert save(ann, path, {**one, field: ["Of the first tab"]}).status_code == 303

    def drafted_now() -> str:
        draft = draft_of(desk, person)
        [entry] = [
            e for table in ("line_items", "advertisers", "slots", "creatives") for e in getattr(draft.puts, table)
        ]
        return str(getattr(entry, field))

    asked = save(ann, path, {**other, field: ["Of the second tab"]})
    assert asked.status_code == 409
    assert "another window of yours has changed it since" in asked.text
    assert "<del>Of the first tab</del> → <ins>Of the second tab</ins>" in asked.text
    assert drafted_now() == "Of the first tab"
    done = save(ann, path, form_of(asked.text, path))
    assert done.status_code == 303, done.text
    assert drafted_now() == "Of the second tab"
    assert save(ann, path, {**form_of(ann.get(path).text, path), field: ["Once more"]}).status_code == 303


def test_a_problem_does_not_make_an_old_form_new(desk: Desk) -> None:
    """
    A form that comes back with a problem is still as old as it was.
    """
    ann = desk.sign_in(desk.add("ann-mended@desk.example", "sales"))
    path = f"/console/line-items/{ITEM}"
    one, other = (form_of(ann.get(path).text, path) for _ in range(2))
    assert save(ann, path, {**one, "name": ["First"]}).status_code == 303
    wrong = save(ann, path, {**other, "name": [""]})
    assert wrong.status_code == 422
    asked = save(ann, path, {**form_of(wrong.text, path), "name": ["Second"]})
    assert asked.status_code == 409
    assert draft_of(desk, "ann-mended@desk.example").puts.line_items[0].name == "First"


def test_what_another_tab_removed_is_asked_about(desk: Desk) -> None:
    """
    A booking that is removed in one tab and saved in another, and the other way round.
    """
    ann = desk.sign_in(desk.add("ann-removes@desk.example", "sales"))
    path = f"/console/line-items/{ITEM}"
    page = ann.get(path).text
    fields, removal = form_of(page, path), form_of(page, f"{path}/remove")
    assert save(ann, f"{path}/remove", removal).status_code == 303
    asked = save(ann, path, {**fields, "name": ["Kept"]})
    assert asked.status_code == 409
    assert "has removed it since" in asked.text
    assert save(ann, path, form_of(asked.text, path)).status_code == 303
    asked = save(ann, f"{path}/remove", removal)
    assert asked.status_code == 409
    assert [one.name for one in draft_of(desk, "ann-removes@desk.example").puts.line_items] == ["Kept"]
    assert save(ann, f"{path}/remove", form_of(asked.text, f"{path}/remove")).status_code == 303
    assert draft_of(desk, "ann-removes@desk.example").removes == (("line_items", ITEM),)


@pytest.mark.parametrize("since", ["0", "0-", "0-abcdef"])
def test_a_form_made_by_hand_is_asked_about(desk: Desk, since: str) -> None:
    """
    A form that says it is of a version without the booking, or of an entry that never was, is not taken for fresh.
    """
    person = f"hand{since}@desk.example".replace("-", "x")
    ann = desk.sign_in(desk.add(person, "sales"))
    path = f"/console/line-items/{ITEM}"
    fields = form_of(ann.get(path).text, path)
    answer = save(ann, path, {**fields, "name": ["By hand"], "since": [since]})
    assert answer.status_code == 409
    assert not draft_of(desk, person)


def test_an_old_page_of_the_draft_throws_nothing_away(desk: Desk) -> None:
    """
    What was saved after it was made stays; the new page says so and throws away what it shows.
    """
    person = "ann-drops@desk.example"
    ann = desk.sign_in(desk.add(person, "sales"))
    for slot in ("889990", "889991"):
        path = f"/console/slots/{slot}"
        save(ann, path, {**form_of(ann.get(path).text, path), "name": ["One"]})
        if slot == "889990":
            old = ann.get("/console/draft").text
    all_of_it = [one for one in forms_of(old) if one.action == "/console/draft/drop"]
    assert len(all_of_it) == 2
    for form in all_of_it:
        location = submit(ann, form).headers["location"]
        assert "another%20window" in location
        assert "Nothing was thrown away" in ann.get(location).text
    assert len(draft_of(desk, person).places) == 2
    for form in forms_of(ann.get("/console/draft").text):
        if form.action == "/console/draft/drop" and "place" not in form.fields:
            assert "said=" in submit(ann, form).headers["location"]
    assert not draft_of(desk, person)


def test_a_sheet_is_taken_as_it_was_shown(desk: Desk) -> None:
    """
    Of two sheets in two windows only what a page showed can be taken from it; what was drafted after it was made is
    shown before it is written over.
    """
    person = "ann-sheets@desk.example"
    ann = desk.sign_in(desk.add(person, "sales"))
    text = ann.get("/console/sheet/export/csv").content.decode("utf-8-sig")
    [name] = [one.name for one in desk.ask(desks.read_live).document.line_items if one.id == ITEM]
    headers = {**ann.headers, "origin": ann.url}

    def upload(new: str) -> Form:
        files = {"sheet": ("bookings.csv", text.replace(name, new).encode("utf-8-sig"))}
        answer = ann.http.post("/console/sheet", data={"csrf": ann.csrf}, files=files, headers=headers)
        assert answer.status_code == 200
        return next(one for one in forms_of(answer.text) if one.action == "/console/sheet/take")

    first, second = upload("From sheet 1"), upload("From sheet 2")
    refused = submit(ann, first)
    assert refused.status_code == 409
    assert "Another sheet was uploaded" in refused.text
    assert not draft_of(desk, person)
    path = f"/console/line-items/{ITEM}"
    assert save(ann, path, {**form_of(ann.get(path).text, path), "name": ["Typed"]}).status_code == 303
    asked = submit(ann, second)
    assert asked.status_code == 409
    assert "<del>Typed</del> → <ins>From sheet 2</ins>" in asked.text
    assert draft_of(desk, person).puts.line_items[0].name == "Typed"
    again = next(one for one in forms_of(asked.text) if one.action == "/console/sheet/take")
    assert submit(ann, again).status_code == 303
    assert draft_of(desk, person).puts.line_items[0].name == "From sheet 2"


def test_an_undo_that_comes_too_late_is_asked_for_again(desk: Desk) -> None:
    """
    Somebody publishes while Ann looks at an older version: her note stays, she is shown what they changed, and can undo
    on the same page.
    """
    ann = desk.sign_in(desk.add("ann-undoes@desk.example", "sales"))
    older = publish(desk, name="Before it all")
    publish(desk, name="In between")
    path = f"/console/history/{older}"
    form = next(one for one in forms_of(ann.get(path).text) if one.action == f"{path}/restore")
    latest = publish(desk, name="Bob's latest")
    asked = submit(ann, form, {"note": "it was better then"})
    assert asked.status_code == 409
    assert f"bob has published version {latest} meanwhile" in asked.text
    assert "<del>In between</del> → <ins>Bob&#39;s latest</ins>" in asked.text
    assert "<del>Bob&#39;s latest</del> → <ins>Before it all</ins>" in asked.text
    again = next(one for one in forms_of(asked.text) if one.action == f"{path}/restore")
    assert again.fields["note"] == ["it was better then"]
    done = submit(ann, again)
    assert done.headers["location"].startswith("/console/history?said="), done.text
    live = desk.ask(desks.read_live)
    assert (live.number, drafts.find(live.document, "line_items", ITEM).name) == (latest + 1, "Before it all")


BODIES: dict[str, Callable[[], bytes]] = {
    "percent signs": lambda: b"a=" + b"%" * 6_000_000,
    "escapes": lambda: b"%41" * 2_000_000,
    "a little too much": lambda: b"name=" + b"x" * 17_000,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_form_anybody_may_send_is_small(desk: Desk, kind: str) -> None:
    """
    Whoever has no account cannot have a worker take megabytes apart: it is not even read.
    """
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": desk.service.url}
    answer = desk.http.post("/console/login", content=BODIES[kind](), headers=headers)
    assert answer.status_code == 413
    assert "16 kB" in answer.text


def test_a_strangers_sentence_is_not_ours(desk: Desk) -> None:
    """
    What an address says is shown only where this session was told so by us.
    """
    ann = desk.browser("sales")
    for path in ("/console/login?said=Call+0900", "/console/draft?wrong=Pay+up", "/console/draft?said=Pay+up&seal=-"):
        page = (desk.http.get(path) if "login" in path else ann.get(path)).text
        assert "Call 0900" not in page
        assert "Pay up" not in page
    ours = ann.post("/console/draft/drop", {}).headers["location"]
    assert "Your draft is empty again." in ann.get(ours).text
    assert "Your draft is empty again." not in desk.browser("admin").get(ours).text


def test_another_host_is_not_ours(desk: Desk) -> None:
    """
    An Origin counts where it is the public one, not because the Host says the same.
    """
    headers = {"host": "evil.example", "origin": "http://evil.example"}
    answer = desk.http.post("/console/login", data={"name": "a", "password": "b"}, headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("at", ["0001-01-01T00:00", "9999-12-31T23:59"])
def test_the_ends_of_time_are_refused_in_words(desk: Desk, at: str) -> None:
    """
    No page fails over an instant that has no place in the newsroom's zone.
    """
    ann = desk.browser("sales")
    assert ann.get("/console/preview", params={"at": at}).status_code == 200
    assert ann.get("/console/preview/page", params={"at": at}).status_code == 400
    assert "starts" in ann.post(f"/console/line-items/{ITEM}/check", {"starts": at}).json()["wrong"]


@pytest.mark.parametrize("body", [b'{"put":{},"put":{}}', b'{"a":[{"b":1,"c":2,"b":3}]}'])
def test_a_name_that_comes_twice_is_refused(desk: Desk, body: bytes) -> None:
    """
    Of two values of one name the API does not silently take the last.
    """
    ann = desk.browser("sales")
    headers = {**ann.headers, "origin": ann.url, "x-csrf-token": ann.csrf, "if-match": '"1"'}

    def answer_now() -> httpx.Response | None:
        """The answer by the live version; a worker may not have the one that a test before has published."""
        number = desk.http.get("/ads?id=889990").json()["version"]
        found = desk.http.post("/api/catalog", content=body, headers={**headers, "if-match": f'"{number}"'})
        return None if found.status_code == 412 else found

    answer = eventually(answer_now, 10, "the live version in every worker")
    assert answer.status_code == 400
    assert "comes twice in one object" in answer.json()["detail"]


def test_a_form_whose_session_has_ended_can_be_sent_again(desk: Desk) -> None:
    """
    Every field comes back as it was typed, as text; in a new session it is asked for once more, then done.
    """
    name = "ended@desk.example"
    ann = desk.sign_in(desk.add(name, "sales"))
    typed = {"name": '"><script>alert(1)</script>', "sizes": "300x250", "label": "Ad", "when_empty": "keep"}
    path = "/console/slots/889990"
    page = ann.get(path).text
    fields = {**form_of(page, path), **{key: [value] for key, value in typed.items()}}
    desk.ask(lambda store: sessions.close_all(store, name))

    kept = ann.http.post(path, data=fields, headers={**ann.headers, "origin": ann.url})
    assert kept.status_code == 403
    assert "Your session has ended" in kept.text
    assert "<script>alert" not in kept.text
    assert name not in kept.text
    again = form_of(kept.text, path)
    assert {key: value for key, value in again.items() if key != "csrf"} == {
        key: value for key, value in fields.items() if key != "csrf"
    }
    assert again["csrf"] == [""]

    ann = desk.sign_in(name)
    asked = ann.http.post(path, data=again, headers={**ann.headers, "origin": ann.url})
    assert asked.status_code == 403
    assert f"Send it again as {name}" in asked.text
    assert not desk.ask(lambda store: desks.read_draft(store, name, 0))
    done = ann.http.post(path, data=form_of(asked.text, path), headers={**ann.headers, "origin": ann.url})
    assert done.headers["location"].startswith("/console/draft?said=")
    [slot] = desk.ask(lambda store: desks.read_draft(store, name, 0)).puts.slots
    assert (slot.name, slot.label) == ('"><script>alert(1)</script>', "Ad")


def test_what_was_typed_outlives_the_check_of_a_field(desk: Desk) -> None:
    """
    A click on the button leaves a field first, whose check is sent with the form: whatever else is on its way from
    sessions that have ended, large files too, no form comes back empty.
    """
    name = "ended-checks@desk.example"
    ann = desk.sign_in(desk.add(name, "sales"))
    path = f"/console/line-items/{ITEM}"
    fields = {**form_of(ann.get(path).text, path), "name": ["Typed at length"]}
    desk.ask(lambda store: sessions.close_all(store, name))

    def send(number: int) -> httpx.Response:
        headers = {**ann.headers, "origin": ann.url}
        if number % 3 == 0:
            return ann.http.post(f"{path}/check", data=fields, headers=headers)
        if number % 3 == 1:
            return ann.http.post(path, data=fields, headers=headers)
        return ann.http.post(path, data=fields, headers=headers, files={"image": ("mill.png", b"x" * 400_000)})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(36)))
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        else:
            assert answer.status_code == 403, answer.headers
            assert form_of(answer.text, path)["name"] == ["Typed at length"]


def test_a_script_is_not_sent_to_the_page_to_sign_in(desk: Desk) -> None:
    """
    What a page's script asks for after the session has ended is refused: it would put that page into its own.
    """
    stranger = desk.stranger("no-session-of-ours")
    headers = {**stranger.headers, "sec-fetch-dest": "empty", "sec-fetch-site": "same-origin"}
    assert desk.http.get("/console/choices?advertiser=a", headers=headers).status_code == 401
    assert desk.http.get("/console/draft/forecast", headers=headers).status_code == 401
    assert desk.http.get("/console/draft/forecast", headers=stranger.headers).status_code == 303


def test_a_file_has_to_be_chosen_again(desk: Desk) -> None:
    """
    The fields beside it are kept, and the page says so; of more than there is room for, signing in is all that is said.
    """
    ended = desk.stranger("no-session-of-ours")
    send = {"headers": {**ended.headers, "origin": ended.url}, "data": {"title": "Mill", "since": "1"}}
    kept = ended.http.post("/console/creatives/new", files={"image": ("mill.png", b"x" * 700_000)}, **send)  # type: ignore[arg-type]
    assert kept.status_code == 403
    assert "has to be chosen again" in kept.text
    assert form_of(kept.text, "/console/creatives/new") == {"csrf": [""], "title": ["Mill"], "since": ["1"]}
    large = ended.http.post("/console/creatives/new", files={"image": ("mill.png", b"x" * 2_000_000)}, **send)  # type: ignore[arg-type]
    assert large.headers["location"].startswith("/console/login?said=")


@pytest.mark.parametrize(
    ("path", "fields", "origin", "cookie"),
    [
        ("/console/me/password", {"password": "secret words", "again": "secret words"}, None, True),
        ("/console/draft/drop", {"csrf": "x", "since": "1"}, None, True),
        ("/console/slots/889990", {"name": "Typed"}, "https://evil.example", True),
        ("/console/slots/889990", {"name": "Typed"}, None, False),
    ],
    ids=["a password", "nothing typed", "another site", "never signed in"],
)
def test_what_is_not_kept_for_later(
    desk: Desk, path: str, fields: dict[str, str], origin: str | None, *, cookie: bool
) -> None:
    """
    No page repeats a password or what another site has sent; without anything typed, signing in is all that is asked.
    """
    browser = desk.stranger("no-session-of-ours" if cookie else "")
    answer = browser.http.post(path, data=fields, headers={**browser.headers, "origin": origin or browser.url})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/login?said=")
    assert "words" not in answer.text + answer.headers["location"]


def test_a_provider_that_is_away_is_said(tmp_path: Path) -> None:
    """
    Signing in through it answers in words, and passwords go on.
    """
    names = {"ISSUER": "http://127.0.0.1:9", "CLIENT_ID": "a", "DOMAINS": "desk.example"}
    service = Service(tmp_path, workers=1, environ={f"ADSERVER_OIDC_{name}": text for name, text in names.items()})
    service.start()
    try:
        answer = service.http.get("/console/signin")
        assert answer.status_code == 503
        assert "a password works meanwhile" in answer.text
    finally:
        service.http.close()
        service.stop()
