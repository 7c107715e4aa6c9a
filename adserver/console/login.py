"""Signing in with name and password, and out: throttle, password, session and audit log in their order."""

from msgspec import Struct

from adserver.console.audit import Entry, note
from adserver.console.people import Person, parse_person_name, read_person, verify_password
from adserver.console.sessions import close_session, find_session, open_session
from adserver.console.throttle import Try, Wait, attempt, succeeded
from adserver.errors import BadPerson
from adserver.store import Store


class SignedIn(Struct, frozen=True):
    """*token* is for the cookie."""

    token: str
    person: Person


class Refused(Struct, frozen=True):
    """The name or the password is wrong, and nobody is told which."""


async def log_in(
    store: Store, name: str, password: str, address: str, now: float, old: str = ""
) -> SignedIn | Refused | Wait:
    """A new session for who proves to be *name*; it ends the browser's *old* one."""
    tried = await attempt(store, name, address, now)
    match tried:
        case Wait():
            return tried
        case Try():
            pass
    person = await verify_password(store, name, password)
    if person is None:
        await note(
            store, Entry(at=now, who="", what="fails to sign in", subject=await _of(store, name), address=address)
        )
        return Refused()
    await succeeded(store, tried, now)
    token = await open_session(store, person, now, address, old)
    await note(store, Entry(at=now, who=person.name, what="signs in", address=address))
    return SignedIn(token, person)


async def _of(store: Store, name: str) -> str:
    """The name, if it is somebody's: what nobody is called may be a password in the wrong field."""
    try:
        known = parse_person_name(name)
    except BadPerson:
        known = ""
    return known if await read_person(store, known) else "a name nobody has"


async def log_out(store: Store, token: str, address: str, now: float) -> None:
    session = await find_session(store, token, now)
    await close_session(store, token)
    if session:
        await note(store, Entry(at=now, who=session.name, what="signs out", address=address))
