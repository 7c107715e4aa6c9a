"""One's own page and the people's: what is ended has ended, and what was not is said."""

import time

from adserver.console.api_tokens import find_token, list_tokens, make_token
from adserver.console.sessions import list_sessions
from tests.console.desks import TEST, Desk
from tests.console.forms import forms_of, submit

NOW = 1.0


def test_another_ones_token_is_not_told_as_revoked(desk: Desk) -> None:
    """
    Posting its id to one's own page changes nothing and says so; neither does an id that never was.
    """
    bob, ann = desk.add("bob-tokens@desk.example", "sales"), desk.sign_in(desk.add("ann-tokens@desk.example", "sales"))
    token = desk.ask(lambda store: make_token(store, bob, "his", TEST, NOW))
    [his] = desk.ask(lambda store: list_tokens(store, bob))
    for id_ in (his.id, "0" * 16, ""):
        answer = ann.post("/console/me/tokens/revoke", {"id": id_})
        assert answer.status_code == 404
        assert "You have no such token" in answer.text
    assert desk.ask(lambda store: find_token(store, token, NOW))


def test_a_session_that_is_not_there_is_not_told_as_ended(desk: Desk) -> None:
    """
    One's own can be ended; another's, or one that never was, is not, and that is said.
    """
    name = desk.add("ann-sessions@desk.example", "viewer")
    ann, elsewhere, bob = desk.sign_in(name), desk.sign_in(name), desk.browser("sales")
    [theirs, *_] = desk.ask(lambda store: list_sessions(store, "sales@desk.example", time.time()))
    for id_ in (theirs.id, "0" * 64):
        answer = ann.post("/console/me/sessions", {"id": id_})
        assert answer.status_code == 404
        assert "You have no such session" in answer.text
    assert bob.get("/console").status_code == 200
    [form] = [one for one in forms_of(ann.get("/console/me").text) if "id" in one.fields]
    assert submit(ann, form).headers["location"].startswith("/console/me?said=")
    assert elsewhere.get("/console").status_code == 303


def test_an_admin_revokes_anybodys_token(desk: Desk) -> None:
    """
    It is listed beside its owner, lets nobody in any more at once, and a second time there is nothing to revoke.
    """
    bob, admin = desk.add("bob-revoked@desk.example", "sales"), desk.browser("admin")
    token = desk.ask(lambda store: make_token(store, bob, "Billing", TEST, NOW))
    bearer = {"authorization": f"Bearer {token}"}
    assert desk.http.get("/api/me", headers=bearer).status_code == 200
    page = admin.get("/console/people").text
    assert "Billing" in page
    [form] = [one for one in forms_of(page) if "id" in one.fields and one.fields["name"] == [bob]]
    done = admin.get(submit(admin, form).headers["location"]).text
    assert f"That token of {bob} lets nobody in any more." in done
    assert desk.http.get("/api/me", headers=bearer).status_code == 401
    again = submit(admin, form)
    assert again.status_code == 404
    assert "has no such token" in again.text
