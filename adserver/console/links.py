"""One-time links by which a person sets their password: at the first start, and when an admin hands one out.

Rules: a link is good for a day and for one use; a newer one, a new password or the person's removal ends it. Looking
at it does not use it up, because mail programs look at links before people do: setting the password does.
"""

from msgspec import Struct

from adserver.console.audit import LOG, Actor, Entry, fields
from adserver.console.people import (
    PEOPLE,
    SCRIPT,
    NoSuchPerson,
    Person,
    hash_password,
    new_generation,
    parse_new_password,
    read_person,
)
from adserver.console.unguessable import digest, is_secret, new_secret
from adserver.errors import BadPerson, StoreRefused
from adserver.store import Store

LINK_S = 86_400
PATH = "/console/link/"
ADMIN = "admin"
_KIND = b"link"


class BadLink(BadPerson):
    """The link is used up, too old, replaced, or none of ours."""


_MAKE = f"""{SCRIPT}
if not get('role') then return 'nobody' end
set('link', ARGV[2])
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. name, 'EX', {LINK_S})
note(4)
return 'done'
"""
_USE = f"""{SCRIPT}
if not get('role') or get('link') ~= ARGV[2] then return 'used' end
set('password', ARGV[3])
set('generation', ARGV[4])
redis.call('HDEL', people, 'link:' .. name)
redis.call('GETDEL', KEYS[3])
note(5)
return 'done'
"""
_FIRST = f"""{SCRIPT}
if #redis.call('HGETALL', people) > 0 then return 'known' end
set('role', 'admin')
set('added', ARGV[4])
set('generation', ARGV[5])
set('link', ARGV[2])
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. name, 'EX', {LINK_S})
note(6)
return 'done'
"""


class Link(Struct, frozen=True):
    """What may be set by a link: whose password, until which Unix second."""

    name: str
    until: float


def _key(hashed: str) -> str:
    return f"as:{{console}}:link:{hashed}"


def address(base_url: str, token: str) -> str:
    return f"{base_url.rstrip('/')}{PATH}{token}"


async def make_link(store: Store, name: str, by: Actor, now: float) -> str:
    """A token for *name*; an earlier one is good no more. Raises NoSuchPerson."""
    token = new_secret()
    hashed = digest(_KIND, token)
    entry = Entry(at=now, who=by.name, what="makes link", subject=name, address=by.address)
    reply = await store.ask(
        "EVAL", _MAKE, 3, PEOPLE, LOG, _key(hashed), name, hashed, f"{now + LINK_S:.3f}", *fields(entry)
    )
    if reply != b"done":
        raise NoSuchPerson(f"nobody is called {name!r:.80}")
    return token


async def find_link(store: Store, token: str, now: float) -> Link | None:
    """What *token* is good for, without using it up; None when for nothing."""
    if not is_secret(token):
        return None
    hashed = digest(_KIND, token)
    found = await store.ask("GET", _key(hashed))
    if found is None:
        return None
    until, _, name = found.decode("utf-8", "replace").partition(" ")
    try:
        link = Link(name, float(until))
    except ValueError:
        raise StoreRefused(f"{_key('…')} holds what is no link of ours") from None
    current = await store.ask("HGET", PEOPLE, f"link:{name}")
    return link if now < link.until and current == hashed.encode() else None


async def use_link(store: Store, token: str, password: str, now: float, client: str = "") -> Person:
    """Set the password *token* is for, once, and end that person's sessions. *client* is who asks, an address.

    Raises BadLink; or BadPassword, and then the link is still good.
    """
    link = await find_link(store, token, now)
    if link is None:
        raise BadLink("this link is not good any more; ask an admin for a new one, or run: adserver user passwd --link")
    hashed = await hash_password(parse_new_password(link.name, password))
    entry = Entry(at=now, who=link.name, what="sets password", subject=link.name, detail="by a link", address=client)
    mine = digest(_KIND, token)
    reply = await store.ask(
        "EVAL", _USE, 3, PEOPLE, LOG, _key(mine), link.name, mine, hashed, new_generation(), *fields(entry)
    )
    person = await read_person(store, link.name) if reply == b"done" else None
    if person is None:
        raise BadLink("this link was used a moment ago; sign in with the password that was set")
    return person


async def first_start(store: Store, base_url: str, now: float) -> str | None:
    """When nobody may sign in yet: add `admin` and return the link by which they set their password; else None.

    Of many that call it at once, one gets the link.
    """
    token = new_secret()
    hashed = digest(_KIND, token)
    entry = Entry(at=now, who="first start", what="adds person", subject=ADMIN, detail="as admin")
    reply = await store.ask(
        "EVAL", _FIRST, 3, PEOPLE, LOG, _key(hashed),
        ADMIN, hashed, f"{now + LINK_S:.3f}", f"{now:.3f}", new_generation(), *fields(entry),
    )  # fmt: skip
    return address(base_url, token) if reply == b"done" else None
