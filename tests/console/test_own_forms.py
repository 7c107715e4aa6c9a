"""Every form of every page, sent as the page has it: what a browser sends is taken, and nothing has to be added."""

import time

import pytest

from adserver.console.api_tokens import make_token
from adserver.console.routes import RULES
from tests.console.desks import TEST, Browser, Desk
from tests.console.forms import form_at, forms_of, submit

ADMIN = "forms@desk.example"
EXAMPLES = {
    "/console/line-items/{id}": "molenkorst-daily",
    "/console/creatives/{id}": "zoutmond-hall-listing",
    "/console/advertisers/{id}": "kadefiets",
    "/console/slots/{id}": "889990",
    "/console/history/{number}": "1",
}
NO_PAGES = {
    "/console/login", "/console/signin", "/console/signin/callback", "/console/link/{token}",  # before signing in
    "/console/creatives/{id}/framed", "/console/files/{name}", "/console/preview/page",  # frames and files
    "/console/sheet/export/{form}", "/console/reports.csv", "/console/reports.xlsx", "/console/choices",
    "/console/draft/forecast", "/console/{rest:path}",
}  # fmt: skip
PAGES = [
    rule.path.partition("{")[0] + EXAMPLES.get(rule.path, "")
    for rule in RULES
    if rule.method == "GET" and rule.path.startswith("/console") and rule.path not in NO_PAGES
]


def prepare(desk: Desk) -> Browser:
    """An admin with something drafted, published, paused and made, so that each page has all its forms."""
    admin = desk.sign_in(desk.add(ADMIN, "admin"))
    slot = form_at(admin, "/console/slots/889991", "/console/slots/889991")
    assert submit(admin, slot, {"name": f"Drafted {time.monotonic()}"}).status_code == 303
    if "/lift" not in (pauses := admin.get("/console/pauses").text):
        [pause] = [one for one in forms_of(pauses) if one.action == "/console/pauses"]
        assert submit(admin, pause, {"kind": "advertiser", "advertiser": "kadefiets"}).status_code == 303
    if "revoke" not in admin.get("/console/me").text:
        desk.ask(lambda store: make_token(store, ADMIN, "test", TEST, 1.0))
    return admin


@pytest.mark.parametrize("path", PAGES)
def test_each_form_is_taken_as_its_page_has_it(desk: Desk, path: str) -> None:
    """
    No form lacks a field that its address asks for: it is done, or asked about in words on a page of its own.
    """
    actions = {(one.method, one.action) for one in forms_of(prepare(desk).get(path).text, path)}
    for method, action in sorted(actions):
        admin = prepare(desk)
        page = admin.get(path)
        assert page.status_code == 200
        form = next(one for one in forms_of(page.text, path) if (one.method, one.action) == (method, action))
        answer = submit(admin, form)
        assert answer.status_code in (200, 303, 409, 422), (action, answer.text)
        if answer.status_code == 409:
            assert "<main" in answer.text


def test_a_slot_is_added(desk: Desk) -> None:
    """
    The form of a new slot, filled in as a person does, puts it into the draft.
    """
    ann = desk.sign_in(desk.add("slots@desk.example", "sales"))
    form = form_at(ann, "/console/slots/new", "/console/slots/new")
    answer = submit(ann, form, {"name": "Below the fold", "sizes": "300x250"})
    assert answer.status_code == 303, answer.text
    assert "Below the fold" in ann.get("/console/draft").text
