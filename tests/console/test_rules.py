"""Every address of the console by every role: who may, who may not, and what another site's page gets."""

import re
import time

import httpx
import pytest

from adserver.console.api_tokens import list_tokens, make_token, revoke_token
from adserver.console.desk import read_draft, read_live
from adserver.console.links import make_link
from adserver.console.people import Role
from adserver.console.routes import RULES, routes
from adserver.console.sessions import close_session
from adserver.console.web import COOKIE, Rule
from tests.console.desks import PASSWORD, TEST, Browser, Desk

ROLES = ["viewer", "sales", "admin"]
PARAMETERS = {
    "token": "x" * 43,
    "id": "molenkorst-daily",
    "number": "1",
    "name": "0123456789abcdef0123456789abcdef.png",
    "form": "csv",
    "table": "line_item",
    "rest": "nowhere",
}
"""A value for each part of a path; a new part needs one here."""


def fill(path: str) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: PARAMETERS[match[1]], path)


def name_of(rule: Rule) -> str:
    return f"{rule.method} {rule.path}"


def call(browser: Browser, rule: Rule, headers: dict[str, str], csrf: str = "") -> httpx.Response:
    body = {"csrf": csrf} if csrf else {}
    return browser.http.request(rule.method, fill(rule.path), headers={**browser.headers, **headers}, data=body)


def is_sent_away(answer: httpx.Response, rule: Rule) -> bool:
    """Whether somebody who is not signed in was told to."""
    if rule.path.startswith("/api/") or rule.asks:
        return answer.status_code == 401
    return answer.status_code == 303 and answer.headers["location"].startswith("/console/login")


GUARDED = [rule for rule in RULES if rule.least is not None]
PUBLIC = [rule for rule in RULES if rule.least is None and rule.method != "GET"]
WRITING = [rule for rule in GUARDED if rule.method != "GET"]


NO_VERSION = {
    "/console/logout", "/console/me/password", "/console/me/sessions", "/console/me/tokens",
    "/console/me/tokens/revoke", "/console/people", "/console/advertisers/{id}/links",
    "/console/advertisers/{id}/links/revoke",  # accounts and links: in no version
    "/console/book/check", "/console/line-items/{id}/check", "/console/sheet", "/api/assets",
    "/api/import/advanced-ads",  # change no version
    "/console/draft/drop",  # forgets changes, of one's own draft alone
    "/console/sheet/take",  # the sheet itself is kept with its version
    "/console/pauses", "/console/pauses/{id}/lift", "/api/pauses", "/api/pauses/{id}",  # at once, on any version
}  # fmt: skip


def test_every_address_has_a_rule() -> None:
    """
    The routes that are served are those of the rules, and the stylesheet's: a route without a rule cannot be added.
    """
    served = {(method, route.path) for route in routes(None) for method in route.methods or ()}  # type: ignore[arg-type]
    ruled = {(rule.method, rule.path) for rule in RULES}
    heads = {("HEAD", path) for method, path in ruled if method == "GET"}
    assert served == ruled | heads | {(method, "/console/static/{name}") for method in ("GET", "HEAD")}
    assert len(ruled) == len(RULES), "an address has two rules"


def test_what_is_open_to_anybody_is_signing_in_and_report_links() -> None:
    """
    Only these addresses ask for nobody: any other in this list would be a hole.
    """
    open_ = {rule.path for rule in RULES if rule.least is None}
    assert open_ <= {
        "/console/login",
        "/console/link/{token}",
        "/console/signin",
        "/console/signin/callback",
        "/report/{token}",
        "/report/{token}.csv",
        "/console/{rest:path}",  # says that nothing is there
    }


def test_whoever_changes_something_is_at_least_sales() -> None:
    """
    A viewer changes nothing but what is their own: password, sessions, tokens.
    """
    for rule in WRITING:
        assert rule.least is not Role.VIEWER or rule.path.startswith(("/console/me", "/console/logout"))


@pytest.mark.parametrize("rule", GUARDED, ids=name_of)
def test_nobody_gets_in(desk: Desk, rule: Rule) -> None:
    """
    Without a session, with a made-up one, and with one that was ended, everybody is told to sign in.
    """
    ended = desk.browser("admin")
    desk.ask(lambda store: close_session(store, ended.token))
    for browser in (desk.stranger(), desk.stranger("x" * 43), ended):
        assert is_sent_away(call(browser, rule, {"origin": desk.service.url}), rule)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rule", GUARDED, ids=name_of)
def test_each_role_may_what_its_rule_says(desk: Desk, rule: Rule, role: str) -> None:
    """
    Whoever has the least role gets an answer of the page's own; whoever has a lesser one is refused.
    """
    browser = desk.browser(role)
    csrf = browser.csrf
    answer = call(browser, rule, {"origin": desk.service.url, "x-csrf-token": csrf}, csrf)
    assert rule.least is not None
    if Role(role).includes(rule.least):
        assert answer.status_code not in (401, 403, 405, 500), answer.text
        assert not is_sent_away(answer, rule) or rule.path in ("/console/logout", "/console/me/sessions")
    else:
        assert answer.status_code == 403


@pytest.mark.parametrize("rule", WRITING, ids=name_of)
def test_what_changes_a_version_says_which_it_has_seen(desk: Desk, rule: Rule) -> None:
    """
    Without that, or with one that never was, nothing is drafted and nothing published. What asks for none is listed
    here, so that a new address that forgets it fails.
    """
    if not rule.seen:
        assert rule.path in NO_VERSION, "say in its rule where it names the version it was made from"
        return
    name = desk.add(f"seen{RULES.index(rule)}@desk.example", "sales")
    browser, api = desk.sign_in(name), rule.path.startswith("/api/")
    origin = {"origin": desk.service.url, "x-csrf-token": browser.csrf}
    before = desk.ask(read_live).number
    assert call(browser, rule, origin, browser.csrf).status_code == (428 if api else 400)
    if api:
        answer = call(browser, rule, {**origin, "if-match": '"999999"'})
        assert answer.status_code == 412
    else:
        fields = {"csrf": browser.csrf, rule.seen: "999999", "draft": ""}
        data = {**fields, "name": "Stale", "title": "Stale"}
        answer = browser.http.post(fill(rule.path), data=data, headers={**browser.headers, **origin})
        assert answer.status_code in (303, 404, 409, 422), answer.text
        assert answer.status_code != 303 or "wrong=" in answer.headers["location"]
    assert desk.ask(read_live).number == before
    assert not desk.ask(lambda store: read_draft(store, name, 0))


@pytest.mark.parametrize("rule", WRITING, ids=name_of)
def test_another_sites_page_changes_nothing(desk: Desk, rule: Rule) -> None:
    """
    A call without an Origin, with another's, from another site, or without the form's token is refused.
    """
    browser = desk.browser("admin")
    csrf = browser.csrf
    for headers in (
        {"x-csrf-token": csrf},
        {"origin": "https://evil.example", "x-csrf-token": csrf},
        {"origin": "null", "x-csrf-token": csrf},
        {"origin": desk.service.url, "sec-fetch-site": "cross-site", "x-csrf-token": csrf},
        {"sec-fetch-site": "same-site", "x-csrf-token": csrf},
        {"origin": desk.service.url},
        {"origin": desk.service.url, "x-csrf-token": "0" * len(csrf)},
    ):
        form_token = headers.get("x-csrf-token", "")
        assert call(browser, rule, headers, form_token).status_code == 403, headers
    assert browser.get("/console/me").status_code == 200, "the session went on"


@pytest.mark.parametrize("rule", PUBLIC, ids=name_of)
def test_another_sites_page_signs_nobody_in(desk: Desk, rule: Rule) -> None:
    """
    What asks for nobody is taken from a page of ours alone, too: another site's page signs its visitor in as nobody,
    neither by a password nor by a one-time link, which is still good afterwards.
    """
    name = desk.add(f"public{RULES.index(rule)}@desk.example", "sales", PASSWORD)
    link = desk.ask(lambda store: make_link(store, name, TEST, time.time()))
    path = rule.path.replace("{token}", link)
    body = {"name": name, "password": PASSWORD, "again": PASSWORD}
    for headers in (
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": desk.service.url, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = desk.http.request(rule.method, path, data=body, headers=headers)
        assert answer.status_code == 403, headers
        assert "set-cookie" not in answer.headers
    answer = desk.http.request(rule.method, path, data=body, headers={"origin": desk.service.url})
    assert answer.status_code == 303
    assert COOKIE in answer.headers["set-cookie"]
    desk.http.cookies.clear()


def test_a_token_of_another_session_is_not_taken(desk: Desk) -> None:
    """
    The form token belongs to one session: that of a colleague, or of one's own other browser, is refused.
    """
    one, other = desk.browser("sales"), desk.browser("sales")
    answer = one.http.post("/console/draft/drop", data={"csrf": other.csrf}, headers={**one.headers, "origin": one.url})
    assert answer.status_code == 403


def test_a_bearer_token_is_for_the_api_alone(desk: Desk) -> None:
    """
    A program's token opens no page of the console, and none after it was revoked.
    """
    name = desk.add("robot", "sales")
    token = desk.ask(lambda store: make_token(store, name, "test", TEST, time.time()))
    headers = {"authorization": f"Bearer {token}"}
    assert desk.http.get("/console", headers=headers).status_code == 303
    assert desk.http.get("/api/me", headers=headers).json()["name"] == name
    desk.ask(lambda store: revoke_token(store, name, "nothing", TEST, time.time()))
    assert desk.http.get("/api/me", headers=headers).status_code == 200, "another token was revoked"
    [kept] = desk.ask(lambda store: list_tokens(store, name))
    desk.ask(lambda store: revoke_token(store, name, kept.id, TEST, time.time()))
    assert desk.http.get("/api/me", headers=headers).status_code == 401
    assert desk.http.get("/console", headers=headers).status_code == 303


def test_pages_cannot_be_framed_or_kept(desk: Desk) -> None:
    """
    Every page forbids framing, scripts of others, and caches; the cookie is out of reach of scripts and other sites.
    """
    answer = desk.browser("viewer").get("/console")
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/console/nowhere", "/console/draft/settle", "/console/line-items/a/b/c", "/console/~"]
)
def test_an_address_that_is_none_is_said_in_words(desk: Desk, path: str) -> None:
    """
    On a page of the console, to whoever is signed in and to who is not.
    """
    for browser in (desk.browser("viewer"), desk.stranger()):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "There is no page at this address" in answer.text
    assert desk.browser("viewer").get("/console/").headers["location"] == "/console"
