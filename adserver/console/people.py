"""People who may use the console: their roles and passwords.

Rules: all that is known of people is one hash, so that each change, its guard (the last admin stays) and its line in
the audit log are one script. A person's *generation* is a random word that every change of role or password renews;
sessions hold the one they were opened under and end when it is another. Checking a password takes as long for a name
nobody has.
"""

import asyncio
import hashlib
import re
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from adserver.console.audit import LOG, Actor, Entry, fields
from adserver.errors import BadPerson, StoreRefused
from adserver.fields import parse_name
from adserver.store import Store

PEOPLE = "as:{console}:people"
"""Hash: `role:`, `password:`, `added:`, `seen:`, `generation:`, `link:` and `subject:`, each followed by a name."""
TOKENS = "as:{console}:tokens"
"""Hash of an API token's hash to what is known of it; see `api_tokens`."""
TOKEN_DAYS = "as:{console}:token-days"  # noqa: S105 - a key's name
DRAFTS = "as:{console}:drafts"
"""Hash of a person's name to what they have drafted; see `desk`."""
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200
LONGEST_NAME = 200

_NAME = re.compile(r"[^ @:]+(?: [^ @:]+)*|[^ @:]+@[^ @:]+")
_PLAIN = re.compile(r"[ .@+'-]")
_HASHER = PasswordHasher()
_SALT, _HASH = (b64encode(secrets.token_bytes(n)).rstrip(b"=").decode() for n in (_HASHER.salt_len, _HASHER.hash_len))
_NOBODYS = f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${_SALT}${_HASH}"
"""A hash that no password has, and that takes as long to find that out."""
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")
"""Each check takes 64 MB and some 50 ms: two at once, so that many who try fill neither the memory nor the cores."""


class BadName(BadPerson):
    """Not a name a person can have here."""


class BadPassword(BadPerson):
    """Not a password a person can have here."""


class BadRole(BadPerson):
    """Not one of the roles."""


class PersonExists(BadPerson):
    """The name is taken."""


class NoSuchPerson(BadPerson):
    """Nobody has this name."""


class LastAdmin(BadPerson):
    """Somebody must be left who can manage people."""


class Role(Enum):
    """What a person may do; each role includes those before it."""

    VIEWER = "viewer"
    SALES = "sales"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


class Person(Struct, frozen=True, kw_only=True):
    """Somebody who may sign in. *added* and *last_sign_in* are Unix seconds; *generation* see the module's rules."""

    name: str
    role: Role
    added: float
    has_password: bool
    last_sign_in: float | None
    generation: str


# Names, roles and passwords


def parse_person_name(value: object) -> str:
    """A plain name or an e-mail address, in small letters. Raises BadName."""
    try:
        text = unicodedata.normalize("NFC", parse_name(value).lower())
    except ValueError as error:
        raise BadName(f"the name {error}") from None
    if unicodedata.normalize("NFKC", text) != text:
        raise BadName(f"the name {text!r:.80} has letters in a form of their own; type it in plain ones")
    letters = _PLAIN.sub("", text)
    known = all(unicodedata.category(char)[0] in "LMN" or char == "_" for char in letters)
    if not letters or not known or not _NAME.fullmatch(text) or len(text) > LONGEST_NAME:
        raise BadName(
            f"the name {text!r:.80} cannot be used; expected an e-mail address, or words of letters, digits, "
            "'.', '-', '_', '+' and ''' with one blank between them"
        )
    return text


def parse_role(value: object) -> Role:
    """Raises BadRole."""
    try:
        return Role(value)
    except ValueError:
        raise BadRole(f"the role {value!r:.40} is unknown; expected viewer, sales or admin") from None


def parse_new_password(name: str, value: object) -> str:
    """A password that *name* may have. Raises BadPassword, whose words do not repeat it."""
    text = _typed(value)
    if text is None:
        raise BadPassword("the password is not valid Unicode text")
    if len(text) < SHORTEST_PASSWORD:
        raise BadPassword(
            f"the password has {len(text)} characters; expected at least {SHORTEST_PASSWORD}, a few words will do"
        )
    if len(text) > LONGEST_PASSWORD:
        raise BadPassword(f"the password has {len(text):,} characters; at most {LONGEST_PASSWORD} are allowed")
    if text.casefold().strip() in (name.casefold(), name.casefold().partition("@")[0]):
        raise BadPassword("the password is the name; choose another")
    return text


def _typed(value: object) -> str | None:
    """The same text from every keyboard; None when it is no text."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return unicodedata.normalize("NFC", value)


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _HASHER.hash, password)


def _matches(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


# Reading


async def read_person(store: Store, name: str) -> Person | None:
    """Who has this *name*, as `parse_person_name` gave it."""
    values = await store.ask("HMGET", PEOPLE, *(f"{field}:{name}" for field in _FIELDS))
    return _person(name, dict(zip(_FIELDS, values, strict=True)))


async def list_people(store: Store) -> list[Person]:
    """Everybody, by name."""
    found = await store.ask("HGETALL", PEOPLE)
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    by_name: dict[str, dict[str, bytes | None]] = {}
    for key, value in pairs:
        field, _, name = key.decode("utf-8", "replace").partition(":")
        by_name.setdefault(name, {})[field] = value
    people = [_person(name, known) for name, known in sorted(by_name.items())]
    return [one for one in people if one is not None]


_FIELDS = ("role", "password", "added", "seen", "generation")


def _person(name: str, known: Mapping[str, bytes | None]) -> Person | None:
    role, added, seen = known.get("role"), known.get("added"), known.get("seen")
    if role is None:
        return None
    try:
        return Person(
            name=name,
            role=Role(role.decode()),
            added=float(added or 0),
            has_password=known.get("password") is not None,
            last_sign_in=float(seen) if seen else None,
            generation=(known.get("generation") or b"").decode(),
        )
    except ValueError:
        raise StoreRefused(f"{PEOPLE} holds a person this service cannot read: {name!r:.80}") from None


async def verify_password(store: Store, name: object, password: object) -> Person | None:
    """Who *name* is, when that is their password. Takes as long for everybody; renews a hash of older parameters."""
    try:
        known = parse_person_name(name)
    except BadName:
        known = ""
    values = await store.ask("HMGET", PEOPLE, *(f"{field}:{known}" for field in _FIELDS))
    found = dict(zip(_FIELDS, values, strict=True))
    person, hashed = _person(known, found), (found["password"] or b"").decode("ascii", "replace")
    text = _typed(password)
    can_be = person is not None and bool(hashed) and text is not None and len(text) <= LONGEST_PASSWORD
    asked = (hashed, text or "") if can_be else (_NOBODYS, "")
    if not await asyncio.get_running_loop().run_in_executor(_THREADS, _matches, *asked) or not can_be:
        return None
    if _HASHER.check_needs_rehash(hashed):
        await store.ask("EVAL", _RENEW, 1, PEOPLE, known, hashed, await hash_password(asked[1]))
    return person


# Changing. Each script ends with the entry for the audit log, whose tenth word is its detail.

SCRIPT = """
local people, name = KEYS[1], ARGV[1]
local function get(field) return redis.call('HGET', people, field .. ':' .. name) end
local function set(field, value) redis.call('HSET', people, field .. ':' .. name, value) end
local function note(first, detail)
  local entry = {unpack(ARGV, first)}
  if detail then entry[10] = detail end
  redis.call('XADD', KEYS[2], '*', unpack(entry))
end
local function is_last_admin()
  if get('role') ~= 'admin' then return false end
  local found, admins = redis.call('HGETALL', people), 0
  for i = 1, #found, 2 do
    if string.sub(found[i], 1, 5) == 'role:' and found[i + 1] == 'admin' then admins = admins + 1 end
  end
  return admins < 2
end
"""
_ADD = f"""{SCRIPT}
if get('role') then return 'exists' end
set('role', ARGV[2])
set('added', ARGV[3])
set('generation', ARGV[4])
if ARGV[5] ~= '' then set('password', ARGV[5]) end
note(6)
return 'done'
"""
_SET_ROLE = f"""{SCRIPT}
local old = get('role')
if not old then return 'nobody' end
if old == ARGV[2] then return 'done' end
if is_last_admin() then return 'last' end
set('role', ARGV[2])
set('generation', ARGV[3])
note(4, 'from ' .. old .. ' to ' .. ARGV[2])
return 'done'
"""
_SET_PASSWORD = f"""{SCRIPT}
if not get('role') then return 'nobody' end
set('password', ARGV[2])
set('generation', ARGV[3])
redis.call('HDEL', people, 'link:' .. name)
note(4)
return 'done'
"""
_RENEW = """
if redis.call('HGET', KEYS[1], 'password:' .. ARGV[1]) == ARGV[2] then
  redis.call('HSET', KEYS[1], 'password:' .. ARGV[1], ARGV[3])
end
return 'done'
"""
_REMOVE = f"""{SCRIPT}
if not get('role') then return 'nobody' end
if is_last_admin() then return 'last' end
for _, field in ipairs({{'role', 'password', 'added', 'seen', 'generation', 'link', 'subject'}}) do
  redis.call('HDEL', people, field .. ':' .. name)
end
local tokens = redis.call('HGETALL', KEYS[3])
for i = 1, #tokens, 2 do
  if cjson.decode(tokens[i + 1]).person == name then
    redis.call('HDEL', KEYS[3], tokens[i])
    redis.call('HDEL', KEYS[4], tokens[i])
  end
end
redis.call('HDEL', KEYS[5], name)
redis.call('DEL', KEYS[6])
note(2)
return 'done'
"""


def sheet_key(name: str) -> str:
    """Where the spreadsheet lies that somebody has uploaded and not taken over; see `sheeting`."""
    return f"as:{{console}}:sheet:{hashlib.blake2s(name.encode(), digest_size=16).hexdigest()}"


def new_generation() -> str:
    return secrets.token_hex(8)


async def add_person(store: Store, name: str, role: Role, by: Actor, now: float, password: str | None = None) -> Person:
    """Add somebody; without *password* they need a link or a sign-in provider. Raises BadPerson."""
    name = parse_person_name(name)
    hashed = "" if password is None else await hash_password(parse_new_password(name, password))
    generation = new_generation()
    entry = Entry(at=now, who=by.name, what="adds person", subject=name, detail=f"as {role.value}", address=by.address)
    reply = await store.ask(
        "EVAL", _ADD, 2, PEOPLE, LOG, name, role.value, f"{now:.3f}", generation, hashed, *fields(entry)
    )
    if reply != b"done":
        raise PersonExists(f"{name!r} is there already; use another name")
    return Person(
        name=name,
        role=role,
        added=round(now, 3),
        has_password=bool(hashed),
        last_sign_in=None,
        generation=generation,
    )


async def set_role(store: Store, name: str, role: Role, by: Actor, now: float) -> None:
    """Their sessions end; the same role again changes nothing. Raises NoSuchPerson or LastAdmin."""
    entry = Entry(at=now, who=by.name, what="sets role", subject=name, address=by.address)
    _judge(
        await store.ask("EVAL", _SET_ROLE, 2, PEOPLE, LOG, name, role.value, new_generation(), *fields(entry)),
        name,
        "be given another role",
    )


async def set_password(store: Store, name: str, password: str, by: Actor, now: float) -> None:
    """Their sessions end, and a one-time link they had. Raises BadPassword or NoSuchPerson."""
    hashed = await hash_password(parse_new_password(name, password))
    entry = Entry(at=now, who=by.name, what="sets password", subject=name, address=by.address)
    reply = await store.ask("EVAL", _SET_PASSWORD, 2, PEOPLE, LOG, name, hashed, new_generation(), *fields(entry))
    _judge(reply, name, "")


async def remove_person(store: Store, name: str, by: Actor, now: float) -> None:
    """Their sessions, links, API tokens, draft and uploaded sheet go with them, so that nobody who gets the name later
    gets those. Raises NoSuchPerson or LastAdmin.
    """
    entry = Entry(at=now, who=by.name, what="removes person", subject=name, address=by.address)
    keys = PEOPLE, LOG, TOKENS, TOKEN_DAYS, DRAFTS, sheet_key(name)
    reply = await store.ask("EVAL", _REMOVE, len(keys), *keys, name, *fields(entry))
    _judge(reply, name, "be removed")


def _judge(reply: Any, name: str, wanted: str) -> None:
    if reply == b"nobody":
        raise NoSuchPerson(f"nobody is called {name!r:.80}")
    if reply == b"last":
        raise LastAdmin(f"{name!r} is the last admin and cannot {wanted}; make somebody else an admin first")
