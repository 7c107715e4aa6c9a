"""How often somebody may try to sign in: per account and per address, whether or not the account exists.

Rules: a try is charged before the password is looked at, so that a hundred at once are not a hundred tries; a success
takes its charge back. After 5 within 15 minutes for an account, or 20 from an address, each further charge brings a
wait, twice as long as the one before and at most 15 minutes, during which nothing is looked at: the right password is
refused, too. After 15 quiet minutes all is forgotten.
"""

import hashlib
import math
from ipaddress import ip_address, ip_network

from msgspec import Struct

from adserver.console.people import parse_person_name
from adserver.errors import BadPerson
from adserver.store import Store

WINDOW_S = 900
PER_ACCOUNT, PER_ADDRESS = 5, 20
BEGINNINGS = 100
"""Sign-ins through a provider that one address may begin at once: what is kept of them is bounded by it."""
FIRST_WAIT_S, LONGEST_WAIT_S = 30, 900
_FORGET_S = LONGEST_WAIT_S + WINDOW_S

# A key is a hash: `times` of the latest charges, `streak` of waits given, `until` when the last one ends.
_LUA = f"""
local function look(key, now)
  local found = redis.call('HMGET', key, 'times', 'streak', 'until')
  local state = {{times = {{}}, streak = tonumber(found[2] or 0), wait = tonumber(found[3] or 0)}}
  for one in string.gmatch(found[1] or '', '%S+') do
    if tonumber(one) > now - {WINDOW_S} then table.insert(state.times, one) end
  end
  if now >= state.wait + {WINDOW_S} then state.streak = 0 end
  return state
end
local function keep(key, state)
  redis.call('HSET', key, 'times', table.concat(state.times, ' '), 'streak', state.streak, 'until', state.wait)
  redis.call('EXPIRE', key, {_FORGET_S})
end
"""
_CHARGE = f"""{_LUA}
local now, limits, states = tonumber(ARGV[1]), {{tonumber(ARGV[2]), tonumber(ARGV[3])}}, {{}}
local wait = 0
for i = 1, 2 do
  states[i] = look(KEYS[i], now)
  wait = math.max(wait, states[i].wait - now)
end
if wait > 0 then return {{'wait', tostring(wait)}} end
for i = 1, 2 do
  local state = states[i]
  table.insert(state.times, ARGV[1])
  while #state.times > limits[i] do table.remove(state.times, 1) end
  if #state.times >= limits[i] or state.streak > 0 then
    state.streak = math.min(state.streak + 1, 10)
    state.wait = now + math.min({LONGEST_WAIT_S}, {FIRST_WAIT_S} * 2 ^ (state.streak - 1))
  end
  keep(KEYS[i], state)
end
return {{'try', tostring(states[2].wait)}}
"""
_SUCCEED = f"""{_LUA}
redis.call('HDEL', KEYS[1], 'times', 'streak', 'until')
local now, state = tonumber(ARGV[1]), look(KEYS[2], tonumber(ARGV[1]))
table.remove(state.times)
if state.streak > 0 and tostring(state.wait) == ARGV[2] then
  state.streak = state.streak - 1
  state.wait = now
end
keep(KEYS[2], state)
return 'done'
"""


_BEGIN = """
local now, most, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local many, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%S+)$')
if not many or now >= since + period then many, since = 0, ARGV[1] end
if tonumber(many) >= most then return math.ceil(since + period - now) end
redis.call('SET', KEYS[1], (many + 1) .. ' ' .. since, 'EX', period)
return 0
"""


class Try(Struct, frozen=True, kw_only=True):
    """Leave to look at one password; `succeeded` wants it back."""

    account_key: str
    address_key: str
    until: str


class Wait(Struct, frozen=True):
    """No password is looked at for so many seconds."""

    seconds: int


def _keys(name: str, address: str) -> tuple[str, str]:
    try:
        name = parse_person_name(name)  # one account, however its name is spelled
    except BadPerson:
        name = name[:1000]
    account = hashlib.blake2s(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"as:{{console}}:tries:account:{account}", f"as:{{console}}:tries:address:{_network(address)}"


def _network(address: str) -> str:
    """The address, or of IPv6 the /64 that one household or office has."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if found.version == 6:
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ip_network((int(found), 64), strict=False))
    return str(found)


async def attempt(store: Store, name: str, address: str, now: float) -> Try | Wait:
    """Charge one try to sign in as *name* from *address*, or say how long to wait."""
    keys = _keys(name, address)
    reply, value = await store.ask("EVAL", _CHARGE, 2, *keys, f"{now:.3f}", PER_ACCOUNT, PER_ADDRESS)
    if reply == b"wait":
        return Wait(math.ceil(float(value)))
    return Try(account_key=keys[0], address_key=keys[1], until=value.decode())


async def succeeded(store: Store, tried: Try, now: float) -> None:
    """The password was right: the account's count is cleared, and the address gets its charge back."""
    await store.ask("EVAL", _SUCCEED, 2, tried.account_key, tried.address_key, f"{now:.3f}", tried.until)


async def beginning(store: Store, address: str, now: float, period_s: int) -> Wait | None:
    """Count one sign-in through a provider that *address* begins; a wait when it has begun too many."""
    key = f"as:{{console}}:begun:{_network(address)}"
    seconds = await store.ask("EVAL", _BEGIN, 1, key, f"{now:.3f}", BEGINNINGS, period_s)
    return Wait(int(seconds)) if seconds else None
