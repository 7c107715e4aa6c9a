"""API tokens: a program's way in, with the role of the person who made it, until it or the person is removed.

Rules: a token is shown once and kept as a hash. Using one after it was revoked, or its person removed, is the same as
never having had it.
"""

import secrets
from datetime import date

import msgspec
from msgspec import Struct

from adserver.console.audit import LOG, Actor, Entry, fields
from adserver.console.people import PEOPLE, TOKEN_DAYS, TOKENS, NoSuchPerson, Role
from adserver.console.unguessable import digest, is_secret, new_secret
from adserver.errors import BadPerson, StoreRefused
from adserver.fields import parse_name
from adserver.store import Store

PREFIX = "adt_"
MOST = 50
"""Tokens one person may have."""
_KIND = b"token"


class BadLabel(BadPerson):
    """Not a name for a token."""


class TooManyTokens(BadPerson):
    """A person has as many as they may."""


class _Kept(Struct, frozen=True, kw_only=True):
    id: str
    person: str
    label: str
    made: float


class Token(Struct, frozen=True, kw_only=True):
    """A token as it is listed. *made* is the Unix second, *last_used* the day (UTC) as an ISO date."""

    id: str
    person: str
    label: str
    made: float
    last_used: str | None


class Caller(Struct, frozen=True, kw_only=True):
    """On whose behalf a program calls, and what it may do."""

    name: str
    role: Role
    token_id: str
    label: str


_MAKE = f"""
if not redis.call('HGET', KEYS[1], 'role:' .. ARGV[1]) then return 'nobody' end
local found, many = redis.call('HGETALL', KEYS[3]), 0
for i = 2, #found, 2 do
  if cjson.decode(found[i]).person == ARGV[1] then many = many + 1 end
end
if many >= {MOST} then return 'many' end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
return 'done'
"""
_FIND = """
local kept = redis.call('HGET', KEYS[2], ARGV[1])
if not kept then return false end
local role = redis.call('HGET', KEYS[1], 'role:' .. cjson.decode(kept).person)
if not role then return false end
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) end
return {kept, role}
"""
_REVOKE = """
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
  local one = cjson.decode(found[i + 1])
  if one.id == ARGV[1] and one.person == ARGV[2] then
    redis.call('HDEL', KEYS[2], found[i])
    redis.call('HDEL', KEYS[3], found[i])
    local entry = {unpack(ARGV, 3)}
    entry[10] = one.label
    redis.call('XADD', KEYS[1], '*', unpack(entry))
    return 1
  end
end
return 0
"""


async def make_token(store: Store, name: str, label: str, by: Actor, now: float) -> str:
    """A token with the rights of *name*, to be shown once. Raises BadLabel, NoSuchPerson or TooManyTokens."""
    try:
        label = parse_name(label)
    except ValueError as error:
        raise BadLabel(f"the token's name {error}") from None
    token = PREFIX + new_secret()
    kept = _Kept(id=secrets.token_hex(8), person=name, label=label, made=round(now, 3))
    entry = Entry(at=now, who=by.name, what="makes token", subject=name, detail=label, address=by.address)
    reply = await store.ask(
        "EVAL", _MAKE, 3, PEOPLE, LOG, TOKENS,
        name, digest(_KIND, token), msgspec.json.encode(kept), *fields(entry),
    )  # fmt: skip
    if reply == b"nobody":
        raise NoSuchPerson(f"nobody is called {name!r:.80}")
    if reply == b"many":
        raise TooManyTokens(f"{name!r} has {MOST} tokens; revoke one that is not used any more")
    return token


async def find_token(store: Store, token: str, now: float) -> Caller | None:
    """On whose behalf *token* calls; the day is noted."""
    if not token.startswith(PREFIX) or not is_secret(token.removeprefix(PREFIX)):
        return None
    day = date.fromordinal(date(1970, 1, 1).toordinal() + int(now // 86_400)).isoformat()
    found = await store.ask("EVAL", _FIND, 3, PEOPLE, TOKENS, TOKEN_DAYS, digest(_KIND, token), day)
    if not found:
        return None
    kept = _decode(found[0])
    try:
        return Caller(name=kept.person, role=Role(found[1].decode()), token_id=kept.id, label=kept.label)
    except ValueError:
        raise StoreRefused(f"{PEOPLE} holds a role this service does not know: {found[1]!r:.40}") from None


async def list_tokens(store: Store, name: str | None = None) -> list[Token]:
    """The tokens of *name*, or everybody's; the newest first."""
    kept, days = [_pairs(await store.ask("HGETALL", key)) for key in (TOKENS, TOKEN_DAYS)]
    listed = []
    for hashed, value in kept.items():
        one = _decode(value)
        if name in (None, one.person):
            used = days.get(hashed)
            listed.append(Token(**msgspec.structs.asdict(one), last_used=used.decode() if used else None))
    return sorted(listed, key=lambda token: token.made, reverse=True)


async def revoke_token(store: Store, name: str, token_id: str, by: Actor, now: float) -> bool:
    """End the token *token_id* of *name*, at once; False when they have none such."""
    entry = Entry(at=now, who=by.name, what="revokes token", subject=name, address=by.address)
    return bool(await store.ask("EVAL", _REVOKE, 3, LOG, TOKENS, TOKEN_DAYS, token_id, name, *fields(entry)))


def _decode(value: bytes) -> _Kept:
    try:
        return msgspec.json.decode(value, type=_Kept)
    except msgspec.DecodeError as error:
        raise StoreRefused(f"{TOKENS} holds a token this service cannot read: {error}") from None


def _pairs(found: object) -> dict[bytes, bytes]:
    if isinstance(found, dict):
        return found
    assert isinstance(found, list)
    return dict(zip(found[::2], found[1::2], strict=True))
