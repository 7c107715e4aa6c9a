"""Signing in and out, one's own page, people and the audit log.

A session's cookie is `__Host-`: Secure, for this host and path alone, never seen by a script, never sent along with
another site's call.
"""

import logging
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from adserver.console import api_tokens, audit, links, people, sessions, throttle
from adserver.console import signin as openid
from adserver.console.login import Refused, log_in, log_out
from adserver.console.people import Person, Role
from adserver.console.web import COOKIE, Call
from adserver.console.web import Refused as TurnedAway
from adserver.errors import BadPerson

log = logging.getLogger(__name__)

_BINDING = "__Host-adserver-signin"
_WRONG = "That is not the right name and password."


def _inside(path: str) -> str:
    """Where to go after signing in: a page of the console, never another site."""
    good = path.startswith("/console") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if good else "/console"


async def login_page(call: Call) -> Response:
    if call.session is not None:
        return call.go(_inside(call.query("next")))
    return await _show(call, call.query("next"), said=call.told("said"))


async def _show(call: Call, onward: str, status: int = 200, **values: Any) -> Response:
    said = {"said": "", "wrong": "", "name": "", **values}
    provider = "your organisation" if call.tools.provider else ""
    return await call.page("login.html", status, next=_inside(onward), provider=provider, **said)


async def login(call: Call) -> Response:
    """Open a session, if the name and the password are right and there were not too many tries."""
    name, password = call.text("name"), str(call.form.get("password", ""))
    old = call.request.cookies.get(COOKIE, "")
    done = await log_in(call.store, name, password, call.address, call.now, old)
    match done:
        case throttle.Wait():
            sentence = f"Too many tries. Wait {_say_wait(done.seconds)}, then try again."
            return await _show(call, call.text("next"), 429, wrong=sentence, name=name)
        case Refused():
            return await _show(call, call.text("next"), 401, wrong=_WRONG, name=name)
    return _welcome(call.go(_inside(call.text("next"))), done.token)


def _welcome(response: Response, token: str) -> Response:
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="strict")
    return response


async def signin(call: Call) -> Response:
    """Send the browser to the sign-in provider."""
    provider = _provider(call)
    begun = await openid.begin(call.store, provider, call.address, call.now, _inside(call.query("next")))
    if isinstance(begun, throttle.Wait):
        raise TurnedAway(429, f"Too many sign-ins were begun. Wait {_say_wait(begun.seconds)}.")
    response = RedirectResponse(begun.url, 303, {"cache-control": "no-store"})
    response.set_cookie(_BINDING, begun.binding, path="/", max_age=600, secure=True, httponly=True, samesite="lax")
    return response


async def callback(call: Call) -> Response:
    """What the provider sends the browser back with. A page of ours leads on: the session's cookie is not sent along
    with a call that another site has begun.
    """
    provider = _provider(call)
    binding, old = (call.request.cookies.get(name, "") for name in (_BINDING, COOKIE))
    done = await openid.finish(call.store, provider, call.request.query_params, binding, call.address, call.now, old)
    if isinstance(done, openid.Refused):
        log.warning("a sign-in was refused: %s", done.detail or done.reason)
        return await _show(call, "", 403, wrong=done.reason)
    response = await call.page("onward.html", next=_inside(done.return_to))
    response.delete_cookie(_BINDING, path="/", secure=True, httponly=True, samesite="lax")
    return _welcome(response, done.token)


def _provider(call: Call) -> openid.Provider:
    if call.tools.provider is None:
        raise TurnedAway(404, "No sign-in provider is set up here.")
    return call.tools.provider


def _say_wait(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"


async def sign_in(call: Call, person: Person, onward: str) -> Response:
    """Open a new session for *person* in this browser, in place of any it had."""
    old = call.request.cookies.get(COOKIE, "")
    token = await sessions.open_session(call.store, person, call.now, call.address, old)
    entry = audit.Entry(at=call.now, who=person.name, what="signs in", address=call.address)
    await audit.note(call.store, entry)
    return _welcome(call.go(onward), token)


async def logout(call: Call) -> Response:
    await log_out(call.store, call.request.cookies.get(COOKIE, ""), call.address, call.now)
    response = call.go("/console/login", said="You are signed out.")
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


async def link_page(call: Call) -> Response:
    token = call.request.path_params["token"]
    if await links.find_link(call.store, token, call.now) is None:
        raise TurnedAway(404, "This link was used, or is older than a day. Ask your admin for a new one.")
    return await call.page("link.html", token=token, wrong="")


async def use_link(call: Call) -> Response:
    token, password = call.request.path_params["token"], str(call.form.get("password", ""))
    if password != call.form.get("again", ""):
        return await call.page("link.html", 422, token=token, wrong="The two are not the same; type it twice.")
    try:
        person = await links.use_link(call.store, token, password, call.now, call.address)
    except people.BadPassword as error:
        return await call.page("link.html", 422, token=token, wrong=f"{str(error)[0].upper()}{str(error)[1:]}.")
    except BadPerson as error:
        raise TurnedAway(404, str(error)) from None
    return await sign_in(call, person, "/console")


async def nowhere(call: Call) -> Response:
    """An address that is none: said on a page, since somebody has typed it or kept it."""
    if not call.request.path_params["rest"].strip("/"):
        return call.go("/console")
    raise TurnedAway(404, "There is no page at this address. It may be mistyped, or of something that was sent with a "
                     "button and cannot be opened by itself.")  # fmt: skip


# One's own page


async def more(call: Call) -> Response:
    return await call.page("more.html")


async def me(call: Call) -> Response:
    return await _show_me(call)


async def _show_me(call: Call, status: int = 200, **values: Any) -> Response:
    said = {"wrong": "", "said": call.told("said"), "token": "", **values}
    here = call.session.id if isinstance(call.session, sessions.Session) else ""
    return await call.page(
        "me.html",
        status,
        opened=await sessions.list_sessions(call.store, call.who, call.now),
        here_id=here,
        tokens=await api_tokens.list_tokens(call.store, call.who),
        **said,
    )


async def change_password(call: Call) -> Response:
    """Set another password; every session of the person ends but a new one here."""
    tried = await throttle.attempt(call.store, call.who, call.address, call.now)
    if isinstance(tried, throttle.Wait):
        return await _show_me(call, 429, wrong=f"Too many tries. Wait {_say_wait(tried.seconds)}.")
    if await people.verify_password(call.store, call.who, call.form.get("old", "")) is None:
        return await _show_me(call, 422, wrong="That is not your present password.")
    await throttle.succeeded(call.store, tried, call.now)
    new = str(call.form.get("password", ""))
    if new != call.form.get("again", ""):
        return await _show_me(call, 422, wrong="The two new ones are not the same; type it twice.")
    try:
        await people.set_password(call.store, call.who, new, call.actor, call.now)
    except BadPerson as error:
        return await _show_me(call, 422, wrong=str(error))
    person = await people.read_person(call.store, call.who)
    if person is None:
        raise TurnedAway(403, "You were removed meanwhile.")
    return await sign_in(
        call, person, f"/console/me?said={quote('Your password is changed; you are signed out elsewhere.')}"
    )


async def close_session(call: Call) -> Response:
    if call.text("all"):
        await sessions.close_all(call.store, call.who)
        await call.note("ends sessions", call.who, "all")
        return call.go("/console/login", said="You are signed out everywhere.")
    if not await sessions.close_one(call.store, call.who, call.text("id")):
        return await _show_me(
            call, 404, wrong="You have no such session; it may have ended by itself. Nothing is changed."
        )
    await call.note("ends sessions", call.who, "one")
    return call.go("/console/me", said="That session is ended.")


async def make_token(call: Call) -> Response:
    try:
        token = await api_tokens.make_token(call.store, call.who, call.text("label"), call.actor, call.now)
    except BadPerson as error:
        return await _show_me(call, 422, wrong=str(error))
    return await _show_me(call, token=token)


async def revoke_token(call: Call) -> Response:
    if not await api_tokens.revoke_token(call.store, call.who, call.text("id"), call.actor, call.now):
        return await _show_me(call, 404, wrong="You have no such token; it may be revoked already. Nothing is changed.")
    return call.go("/console/me", said="That token lets nobody in any more.")


# People, for admins


async def people_page(call: Call) -> Response:
    return await _show_people(call)


async def _show_people(call: Call, status: int = 200, **values: Any) -> Response:
    said = {"wrong": "", "said": call.told("said"), "link": "", "link_for": "", **values}
    everybody = await people.list_people(call.store)
    tokens: dict[str, list[api_tokens.Token]] = {}
    for one in await api_tokens.list_tokens(call.store):
        tokens.setdefault(one.person, []).append(one)
    return await call.page(
        "people.html", status, people=everybody, tokens=tokens, roles=[role.value for role in Role], **said
    )


async def change_people(call: Call) -> Response:
    """Add, remove, give a role or a link, revoke a token, by the button that was pressed."""
    name, act = call.text("name"), call.text("act")
    try:
        match act:
            case "add":
                added = await people.add_person(
                    call.store, name, people.parse_role(call.text("role")), call.actor, call.now
                )
                return await _link_for(call, added.name)
            case "role":
                await people.set_role(call.store, name, people.parse_role(call.text("role")), call.actor, call.now)
                return call.go("/console/people", said=f"{name} has the role {call.text('role')} now.")
            case "link":
                return await _link_for(call, name)
            case "remove":
                await people.remove_person(call.store, name, call.actor, call.now)
                return call.go("/console/people", said=f"{name} is removed and signed out.")
            case "revoke":
                if not await api_tokens.revoke_token(call.store, name, call.text("id"), call.actor, call.now):
                    wrong = f"{name} has no such token; it may be revoked already. Nothing is changed."
                    return await _show_people(call, 404, wrong=wrong)
                return call.go("/console/people", said=f"That token of {name} lets nobody in any more.")
    except BadPerson as error:
        return await _show_people(call, 422, wrong=f"{str(error)[0].upper()}{str(error)[1:]}.")
    raise TurnedAway(400, "Say what to do.")


async def _link_for(call: Call, name: str) -> Response:
    token = await links.make_link(call.store, name, call.actor, call.now)
    return await _show_people(call, link=links.address(call.tools.settings.base_url, token), link_for=name)


async def audit_page(call: Call) -> Response:
    who, subject = call.query("who") or None, call.query("subject") or None
    found = await audit.read(call.store, 100, call.query("before") or None, who=who, subject=subject)
    return await call.page("audit.html", found=found, who=who or "", subject=subject or "")
