"""Report links: an address by which an advertiser sees their own figures, without an account, until it ends.

Rules: the address is unguessable and only its hash is kept, so it is shown once. It is for one advertiser and for
nothing else; when it has expired or was revoked it is the same as one that never was. Making and revoking go into the
audit log in the same step, and the address into none.
"""

import secrets
from datetime import date, timedelta

import msgspec
from msgspec import Struct

from adserver.console.audit import LOG, Actor, Entry, fields
from adserver.console.unguessable import digest, is_secret, new_secret
from adserver.errors import AdserverError, StoreRefused
from adserver.fields import parse_name
from adserver.store import Store

PATH = "/report/"
DAYS = (30, 90, 180, 365)
"""For how long a link may be made."""
DEFAULT_DAYS = 90
MOST = 50
"""Links one advertiser may have."""
LINKS = "as:{console}:report-links"
"""Hash of a link's hash to what is known of it."""
SEEN = "as:{console}:report-links-seen"
"""Hash of a link's hash to the last day (UTC) somebody looked."""
_KIND = b"report"
_REMEMBERED_S = 90 * 86_400
"""How long an expired link stays in the list."""


class BadLink(AdserverError):
    """No such link can be made: the words say why."""


class _Kept(Struct, frozen=True, kw_only=True):
    id: str
    advertiser: str
    label: str
    made: float
    until: float
    by: str


class ReportLink(_Kept, frozen=True, kw_only=True):
    """A link as it is listed. *made* and *until* are Unix seconds, *seen* the last day it was looked at."""

    seen: str | None = None

    def is_good(self, now: float) -> bool:
        return now < self.until


def _index(advertiser: str) -> str:
    """The key of an advertiser's links, by their hashes."""
    return f"as:{{console}}:report-links-of:{advertiser}"


def address(base_url: str, token: str) -> str:
    return f"{base_url.rstrip('/')}{PATH}{token}"


_MAKE = f"""
local now, kept = tonumber(ARGV[3]), 0
for _, hashed in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local one = redis.call('HGET', KEYS[1], hashed)
  if not one or cjson.decode(one)['until'] + {_REMEMBERED_S} <= now then
    redis.call('SREM', KEYS[3], hashed)
    redis.call('HDEL', KEYS[1], hashed)
    redis.call('HDEL', KEYS[2], hashed)
  else
    kept = kept + 1
  end
end
if kept >= {MOST} then return 'many' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[4], '*', unpack(ARGV, 4))
return 'done'
"""
_FIND = """
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept or tonumber(ARGV[3]) >= cjson.decode(kept)['until'] then return false end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return kept
"""
_REVOKE = """
for _, hashed in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local kept = redis.call('HGET', KEYS[1], hashed)
  local one = kept and cjson.decode(kept)
  if one and one.id == ARGV[1] then
    redis.call('HDEL', KEYS[1], hashed)
    redis.call('HDEL', KEYS[2], hashed)
    redis.call('SREM', KEYS[3], hashed)
    local entry = {unpack(ARGV, 2)}
    entry[10] = one.label
    redis.call('XADD', KEYS[4], '*', unpack(entry))
    return 1
  end
end
return 0
"""


async def make_report_link(store: Store, advertiser: str, label: str, days: int, by: Actor, now: float) -> str:
    """A token for the figures of *advertiser*, to be shown once. Raises BadLink."""
    if days not in DAYS:
        raise BadLink(f"a link is good for {', '.join(map(str, DAYS[:-1]))} or {DAYS[-1]} days; choose one of them")
    try:
        label = parse_name(label)
    except ValueError as error:
        raise BadLink(f"the label {error}") from None
    token, until = new_secret(), now + days * 86_400
    kept = _Kept(
        id=secrets.token_hex(8),
        advertiser=advertiser,
        label=label,
        made=round(now, 3),
        until=round(until, 3),
        by=by.name,
    )
    detail = f"{label}; {days} days"
    entry = Entry(at=now, who=by.name, what="makes report link", subject=advertiser, detail=detail, address=by.address)
    reply = await store.ask(
        "EVAL", _MAKE, 4, LINKS, SEEN, _index(advertiser), LOG,
        digest(_KIND, token), msgspec.json.encode(kept), f"{now:.3f}", *fields(entry),
    )  # fmt: skip
    if reply == b"many":
        raise BadLink(f"there are {MOST} links already; revoke one that nobody uses any more")
    return token


async def find_report_link(store: Store, token: str, now: float) -> ReportLink | None:
    """What *token* is good for, and the day is noted; None when for nothing, whatever the reason."""
    if not is_secret(token):
        return None
    day = (date(1970, 1, 1) + timedelta(days=now // 86_400)).isoformat()
    found = await store.ask("EVAL", _FIND, 2, LINKS, SEEN, digest(_KIND, token), day, f"{now:.3f}")
    return _decode(found, day) if found else None


async def list_report_links(store: Store, advertiser: str) -> list[ReportLink]:
    """An advertiser's links, the newest first, expired ones for a while as well."""
    hashes = await store.ask("SMEMBERS", _index(advertiser))
    if not hashes:
        return []
    wanted = sorted(hashes)
    kept, seen = [await store.ask("HMGET", key, *wanted) for key in (LINKS, SEEN)]
    found = [_decode(one, day.decode() if day else None) for one, day in zip(kept, seen, strict=True) if one]
    return sorted(found, key=lambda link: link.made, reverse=True)


async def revoke_report_link(store: Store, advertiser: str, id: str, by: Actor, now: float) -> bool:  # noqa: A002
    """End the link *id* of *advertiser*, at once; False when there is none such."""
    entry = Entry(at=now, who=by.name, what="revokes report link", subject=advertiser, address=by.address)
    return bool(await store.ask("EVAL", _REVOKE, 4, LINKS, SEEN, _index(advertiser), LOG, id, *fields(entry)))


def _decode(value: bytes, seen: str | None) -> ReportLink:
    try:
        kept = msgspec.json.decode(value, type=_Kept)
    except msgspec.DecodeError as error:
        raise StoreRefused(f"{LINKS} holds a link this service cannot read: {error}") from None
    return ReportLink(**msgspec.structs.asdict(kept), seen=seen)
