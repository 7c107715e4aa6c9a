"""Who is signed in: sessions in the store, ended by idling, by age, by closing, and by any change of role or password.

Rules: the cookie's value is random and new at each sign-in, and only its hash is kept. A session holds its person's
generation and is over when they have another; the role is read from the person each time.
"""

import hashlib

from msgspec import Struct

from adserver.console.people import PEOPLE, NoSuchPerson, Person, Role, new_generation
from adserver.console.unguessable import digest, is_secret, new_secret
from adserver.errors import StoreRefused
from adserver.store import Store

SESSIONS = "as:{console}:sessions"
"""Hash of a session's hash to `opened used generation address name`, instants as Unix seconds."""
IDLE_S = 8 * 3600
LONGEST_S = 7 * 86_400
TOUCH_S = 60
"""A session's last use is written at most this often: a page is many requests."""
_KIND = b"session"

_LUA = f"""
local sessions, people = KEYS[1], KEYS[2]
local function live(record, now)
  local opened, used, generation, address, name = string.match(record, '^(%S+) (%S+) (%S+) (%S+) (.+)$')
  if not opened then return nil end
  if now >= opened + {LONGEST_S} or now >= used + {IDLE_S} then return nil end
  local person = redis.call('HMGET', people, 'role:' .. name, 'generation:' .. name)
  if not person[1] or person[2] ~= generation then return nil end
  return {{name, person[1], opened, used, address, generation}}
end
"""
_OPEN = f"""{_LUA}
local now, name, generation = tonumber(ARGV[2]), ARGV[3], ARGV[4]
if redis.call('HGET', people, 'generation:' .. name) ~= generation then return 'moved' end
if ARGV[6] ~= '' then redis.call('HDEL', sessions, ARGV[6]) end
local found = redis.call('HGETALL', sessions)
for i = 1, #found, 2 do
  if not live(found[i + 1], now) then redis.call('HDEL', sessions, found[i]) end
end
redis.call('HSET', sessions, ARGV[1], table.concat({{ARGV[2], ARGV[2], generation, ARGV[5], name}}, ' '))
redis.call('EXPIRE', sessions, {LONGEST_S})
redis.call('HSET', people, 'seen:' .. name, ARGV[2])
return 'open'
"""
_FIND = f"""{_LUA}
local record, now = redis.call('HGET', sessions, ARGV[1]), tonumber(ARGV[2])
if not record then return false end
local found = live(record, now)
if not found then
  redis.call('HDEL', sessions, ARGV[1])
  return false
end
if now >= found[4] + {TOUCH_S} then
  found[4] = ARGV[2]
  redis.call('HSET', sessions, ARGV[1], table.concat({{found[3], found[4], found[6], found[5], found[1]}}, ' '))
end
return found
"""
_LIST = f"""{_LUA}
local found, listed = redis.call('HGETALL', sessions), {{}}
for i = 1, #found, 2 do
  local one = live(found[i + 1], tonumber(ARGV[2]))
  if one and one[1] == ARGV[1] then
    table.insert(one, found[i])
    table.insert(listed, one)
  end
end
return listed
"""
_CLOSE_ONE = """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record or string.match(record, '^%S+ %S+ %S+ %S+ (.+)$') ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_CLOSE_ALL = """
if not redis.call('HGET', KEYS[1], 'role:' .. ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'generation:' .. ARGV[1], ARGV[2])
return 1
"""


class Session(Struct, frozen=True, kw_only=True):
    """A person at a browser. *csrf* is what each of its forms must send back; *id* names it in a list of sessions."""

    id: str
    name: str
    role: Role
    csrf: str
    opened: float
    used: float
    address: str


class Opened(Struct, frozen=True, kw_only=True):
    """A session in a person's list of them."""

    id: str
    opened: float
    used: float
    address: str


async def open_session(store: Store, person: Person, now: float, address: str, old: str = "") -> str:
    """The cookie's value for *person*, as read when they proved who they are; ends the browser's *old* session.

    Raises NoSuchPerson when they were changed or removed since.
    """
    token = new_secret()
    replaced = digest(_KIND, old) if is_secret(old) else ""
    reply = await store.ask(
        "EVAL", _OPEN, 2, SESSIONS, PEOPLE,
        digest(_KIND, token), f"{now:.3f}", person.name, person.generation, _word(address), replaced,
    )  # fmt: skip
    if reply != b"open":
        raise NoSuchPerson(f"{person.name!r} was changed meanwhile; sign in again")
    return token


def _word(address: str) -> str:
    return "".join(address.split())[:64] or "-"


async def find_session(store: Store, token: str, now: float) -> Session | None:
    """Whose session *token* opened, while it is neither over nor closed; its use is noted."""
    if not is_secret(token):
        return None
    id = digest(_KIND, token)  # noqa: A001 - the field's own name
    found = await store.ask("EVAL", _FIND, 2, SESSIONS, PEOPLE, id, f"{now:.3f}")
    if not found:
        return None
    name, role, opened, used, address = (one.decode() for one in found[:5])
    try:
        return Session(
            id=id,
            name=name,
            role=Role(role),
            csrf=hashlib.blake2s(b"csrf", key=token.encode()[:32], salt=b"console").hexdigest(),
            opened=float(opened),
            used=float(used),
            address=address,
        )
    except ValueError:
        raise StoreRefused(f"{PEOPLE} holds a role this service does not know: {role!r:.40}") from None


async def list_sessions(store: Store, name: str, now: float) -> list[Opened]:
    """A person's sessions, the one used last first."""
    found = await store.ask("EVAL", _LIST, 2, SESSIONS, PEOPLE, name, f"{now:.3f}")
    listed = [
        Opened(id=id.decode(), opened=float(opened), used=float(used), address=address.decode())
        for _, _, opened, used, address, _, id in found  # noqa: A001
    ]
    return sorted(listed, key=lambda one: one.used, reverse=True)


async def close_session(store: Store, token: str) -> None:
    if is_secret(token):
        await store.ask("HDEL", SESSIONS, digest(_KIND, token))


async def close_one(store: Store, name: str, id: str) -> bool:  # noqa: A002 - the field's own name
    """Close the session *id* of *name*'s list; False when they have none such."""
    return bool(await store.ask("EVAL", _CLOSE_ONE, 1, SESSIONS, id, name))


async def close_all(store: Store, name: str) -> None:
    """End every session of *name*."""
    await store.ask("EVAL", _CLOSE_ALL, 1, PEOPLE, name, new_generation())
