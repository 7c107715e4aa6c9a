"""Counts in Redis or Valkey, a rebuildable view of the journals; applying the same batch twice counts it once.

Rules: every key begins with `as:`; a partition is one hash and a batch is one command on it; whatever goes wrong,
the connection is closed and the cursor is read again before anything is sent, because a reply may be missing, late
or another command's. The same holds behind sentinels and on a cluster: a new connection asks anew who is primary,
and no command is sent to a second server.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from struct import Struct as Layout
from typing import Any

import redis.asyncio as aioredis
from msgspec import Struct
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from adserver.errors import StoreRefused, StoreUnavailable
from adserver.store_url import Form, StoreUrl, parse_store_url
from adserver.tally import Batch

TIMEOUT_S = 1.0
CONNECT_S = 0.5
SENTINEL_S = 0.3
"""So that two sentinels that hang still leave time to ask the third."""
ADS = "as:ads"
"""Hash of ad key (hex) to ad name, so that reports can name what is counted."""
WAITS_MS = (5, 10, 20, 40, 80, 150, 300)
"""A replica is asked how far it is once for each: when asked too early it would tell the next time a second later."""
MARK_S = 172_800
PRODUCERS = "as:producers"
"""Hash of producer (hex) to what its holder says of it."""
CLOSING = "as:closing"
"""Hash: `alarm`, JSON of what keeps days from being closed; `late:<day>` for each day wanted open for late events."""
SINCE = "since"
"""The registry's own birth, Unix seconds: one that was just wiped does not know everybody yet."""

_COUNT = re.compile(rb"[1-6]:[0-9]{1,2}:[0-9a-f]{1,14}(?::[a-z0-9-]+)?")
_CURSOR = re.compile(rb"@[0-9a-f]{16}")
NOBODY = bytes(8)
"""The producer of what is counted without a journal; see apply.lua."""

_ENTRY = Layout("<BH")
_APPLY = files("adserver").joinpath("apply.lua").read_text()
_APPLY_SHA = hashlib.sha1(_APPLY.encode(), usedforsecurity=False).hexdigest()
_FAST: dict[str, Any] = {
    "socket_timeout": TIMEOUT_S,
    "socket_connect_timeout": CONNECT_S,
    "retry": Retry(NoBackoff(), 0),  # never repeat a command by itself
    "health_check_interval": 0,
    "protocol": 2,  # one round trip less to connect, and nothing arrives that was not asked for
    "client_name": "adserver",
    "driver_info": None,  # else two more commands at each connecting, which Redis before 7.2 does not know
}


LATE = ":late"
"""What the key of a closed day's late arrivals ends in."""
_RESTORE_AT_ONCE = 1000
_SCAN = 2000


def partition(day: int, part: str = "") -> str:
    """The key of a day's counts, or of its *part* LATE; the braces keep it whole on a cluster."""
    return f"as:{{{day}}}{part}"


def _mark(day: int) -> str:
    """A key on the partition's own server, written so that a replica has something newer to confirm."""
    return f"as:{{{day}}}:mark"


class _Cluster(RedisCluster):
    """The library's cluster client without its repeats: a command goes to its key's server, once.

    An answer such as MOVED, like every failure, is the caller's; the next command asks the cluster anew who holds
    which key.
    """

    _WITHOUT_KEY = ("INFO", "PING", "TIME")
    known = False

    async def initialize(self, *_: Any, **__: Any) -> "_Cluster":
        """Who holds which key. (The library's own would also ask for the table of all commands, 200 kB.)"""
        if not self.known:
            try:
                await self.nodes_manager.initialize()
            except BaseException:
                await self.aclose()
                raise
            self.known = True
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        await self.initialize()
        try:
            return await self.node(args).execute_command(*args, **kwargs)
        except NoScriptError:  # the one answer that leaves nothing in doubt
            raise
        except BaseException:
            await self.aclose()
            raise

    def node(self, args: Sequence[Any]) -> ClusterNode:
        if args[0] in self._WITHOUT_KEY:
            return self.get_random_primary_node()
        node = self.get_node_from_key(args[3 if args[0] in ("EVAL", "EVALSHA") else 1])
        assert node is not None  # only asking for a replica can find none
        return node

    async def aclose(self) -> None:
        self.known = False
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")


class Applied(Struct, frozen=True):
    """The batch is counted, and the cursor stands at its end. *repeats* of its token events had been counted before."""

    cursor: int
    repeats: int


class Mismatch(Struct, frozen=True):
    """Nothing was counted: the store remembers another cursor than the batch starts from."""

    cursor: int


class Sealed(Struct, frozen=True):
    """Nothing was counted: the day is closed."""


Outcome = Applied | Mismatch | Sealed


class Behind(Struct, frozen=True):
    """A day was not sealed: *producer*'s cursor stands at *cursor*, which is not its last record."""

    producer: str
    cursor: int


class Snapshot(Struct, frozen=True):
    """All of one partition at one moment. *producers* are cursors by producer (hex).

    *page* is what an archive holds of the day: where it is set, cursors and bits may be gone already.
    """

    sealed: bool
    page: bytes | None
    producers: dict[str, int]
    counts: dict[str, int]
    bits: dict[bytes, bytes]


# Checks that every producer is where it must be, and seals: nothing can come between.
_SEAL = """
if redis.call('HEXISTS', KEYS[1], 'sealed') == 1 then return {'sealed'} end
for i = 2, #ARGV, 2 do
  local cursor = redis.call('HGET', KEYS[1], '@' .. ARGV[i]) or '0'
  if cursor ~= ARGV[i + 1] then return {'behind', ARGV[i], cursor} end
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1])
return {'sealed'}
"""

# Fills a late partition bit by bit. Whoever begins anew takes over; once open it is never filled again.
_FILL = """
if redis.call('HEXISTS', KEYS[1], 'open') == 1 then return 'open' end
if ARGV[2] ~= 'first' and redis.call('HGET', KEYS[1], 'filling') ~= ARGV[1] then return 'lost' end
redis.call('HSET', KEYS[1], 'filling', ARGV[1], unpack(ARGV, 3))
return 'filled'
"""


class Unconfirmed(Struct, frozen=True):
    """It is not known that a replica has what was counted; *reason* is the end of a sentence."""

    reason: str


class Health(Struct, frozen=True):
    """What the server says of itself; *warnings* are sentences for ops."""

    version: str
    warnings: tuple[str, ...]


class Store:
    """One connection to the store (on a cluster: one to each server), for one task. Made by `open_store`."""

    def __init__(self, connection: "aioredis.Redis | _Cluster", login: Mapping[str, Any]) -> None:
        self._redis = connection
        self._login = login
        self._others: dict[tuple[str, int], aioredis.Redis] = {}

    async def check(self) -> Health:
        """Raises StoreRefused when using these servers as they are set up would make counts wrong."""
        found = [_judge(info, clustered=isinstance(self._redis, _Cluster)) for info in await self._ask(self._infos())]
        return Health(found[0].version, tuple(dict.fromkeys(one for health in found for one in health.warnings)))

    async def _infos(self) -> list[dict[str, Any]]:
        """What each primary says of itself."""
        if isinstance(self._redis, _Cluster):
            await self._redis.initialize()
            return list(await asyncio.gather(*(node.execute_command("INFO") for node in self._redis.get_primaries())))
        return [await self._redis.info()]

    async def cursors(self, day: int, producers: Sequence[bytes], part: str = "") -> list[int]:
        """How far *day* has counted each of these producers: 0 where it does not know one."""
        key = partition(day, part)
        values = await self._ask(self._redis.hmget(key, [f"@{producer.hex()}" for producer in producers]))
        if not all(map(_is_whole, values)):
            raise StoreRefused(f"{key} holds cursors that are not numbers: {values!r:.80}")
        return [int(value or 0) for value in values]

    async def apply(self, producer: bytes, batch: Batch, part: str = "") -> Outcome:
        """Count *batch*, whole or not at all. Raises StoreUnavailable or StoreRefused; then nothing is known."""
        key, arguments = partition(batch.day, part), _arguments(producer, batch)
        try:
            reply = await self._ask(self._redis.evalsha(_APPLY_SHA, 1, key, *arguments))
        except _UnknownScript:  # the server is new, was restarted, or its scripts were flushed; EVAL leaves it there
            reply = await self._ask(self._redis.eval(_APPLY, 1, key, *arguments))
        if not isinstance(reply, list) or reply[2:4] != [producer.hex().encode(), batch.end]:
            raise StoreUnavailable(f"the store answered {reply!r:.80}, which was not asked")
        match reply:
            case [b"applied", int(cursor), _, _, int(repeats)]:
                return Applied(cursor, repeats)
            case [b"mismatch", int(cursor), *_]:
                return Mismatch(cursor)
            case [b"sealed", *_]:
                return Sealed()
        raise StoreRefused(f"{key} holds values that are not counts; nothing is added to it")

    async def name_ads(self, names: Mapping[bytes, str]) -> None:
        if names:
            await self._ask(self._redis.hset(ADS, mapping={key.hex(): name for key, name in names.items()}))

    async def register(self, producer: bytes, facts: str) -> None:
        await self._ask(self._redis.hset(PRODUCERS, producer.hex(), facts))

    async def register_new(self, producer: bytes, facts: str, now: float) -> None:
        """Register *producer* unless it is known; the registry remembers since when it does."""
        await self._ask(self._redis.hsetnx(PRODUCERS, SINCE, f"{now:.0f}"))
        await self._ask(self._redis.hsetnx(PRODUCERS, producer.hex(), facts))

    async def producers(self) -> dict[str, str]:
        return _texts(await self._ask(self._redis.hgetall(PRODUCERS)))

    async def counts(self, day: int, part: str = "", hours: Iterable[int] = range(25)) -> dict[str, int]:
        """A day's count fields, or those of some *hours*. Reads the directories first: token bits are never pulled."""
        if not (wanted := [f"F{hour}" for hour in hours]):
            return {}
        directories = await self._ask(self._redis.hmget(partition(day, part), wanted))
        fields = [name for text in directories if text for name in text.decode("ascii", "replace").split("\n") if name]
        return await self.counts_of(day, fields, part)

    async def counts_of(self, day: int, fields: Sequence[str], part: str = "") -> dict[str, int]:
        """Those of a day's count *fields* that there are."""
        key = partition(day, part)
        found: dict[str, int] = {}
        for start in range(0, len(fields), 1000):
            some = fields[start : start + 1000]
            values = await self._ask(self._redis.hmget(key, some))
            for field, value in zip(some, values, strict=True):
                if not _is_whole(value):
                    raise StoreRefused(f"{key} holds {value!r:.40} as the count {field!r:.80}")
                if value is not None:
                    found[field] = int(value)
        return found

    # Closing days

    async def state(self, day: int) -> tuple[bool, str | None]:
        """Whether *day* is sealed, and once it is in the archive and tidied up, the digest of its page there."""
        sealed, closed = await self._ask(self._redis.hmget(partition(day), ["sealed", "closed"]))
        return sealed is not None, closed.decode("ascii", "replace") if closed else None

    async def seal(self, day: int, ends: Mapping[str, int], seal: str) -> Behind | None:
        """Refuse everything for *day* from here on, if each producer's cursor stands at its end; else say whose not."""
        pairs = [text for name, end in ends.items() for text in (name, str(end))]
        reply = await self.ask("EVAL", _SEAL, 1, partition(day), seal, *pairs)
        return None if reply[0] == b"sealed" else Behind(reply[1].decode(), int(reply[2]))

    async def snapshot(self, day: int, part: str = "") -> Snapshot | None:
        """A whole partition as it was at one moment; None when it changed while it was read."""
        key = partition(day, part)
        fields: dict[bytes, bytes] = {}
        at = 0
        while True:
            at, some = await self._ask(self._redis.hscan(key, at, count=_SCAN))
            fields.update(some)
            if int(at) == 0:
                break
        # Whatever changes a partition moves a cursor in it, adds fields to it or takes some away.
        watched = sorted(name for name in fields if name[:1] == b"@" or name in (b"sealed", b"open", b"page"))
        values = await self._ask(self._redis.hmget(key, [*watched, "sealed"]))
        length = await self._ask(self._redis.hlen(key))
        if length != len(fields) or values[:-1] != [fields[name] for name in watched]:
            return None
        counts = {name.decode("ascii"): value for name, value in fields.items() if _COUNT.fullmatch(name)}
        cursors = {name[1:].decode("ascii"): value for name, value in fields.items() if _CURSOR.fullmatch(name)}
        if not all(map(_is_whole, [*counts.values(), *cursors.values()])):
            raise StoreRefused(f"{key} holds counts or cursors that are not numbers; the day is not closed")
        return Snapshot(
            sealed=b"sealed" in fields,
            page=fields.get(b"page"),
            producers={name: int(value) for name, value in cursors.items()},
            counts={name: int(value) for name, value in counts.items()},
            bits={name: value for name, value in fields.items() if name[:2] == b"b:"},
        )

    async def producers_of(self, day: int, part: str = "") -> dict[str, int]:
        """Every cursor in a partition by producer (hex)."""
        found: dict[bytes, bytes] = {}
        at = 0
        while True:
            at, some = await self._ask(self._redis.hscan(partition(day, part), at, match="@*", count=_SCAN))
            found.update(some)
            if int(at) == 0:
                ours = {name: value for name, value in found.items() if _CURSOR.fullmatch(name) and value.isdigit()}
                return {name[1:].decode("ascii"): int(value) for name, value in ours.items()}

    async def restore(self, day: int, counts: Mapping[str, int], seal: str) -> None:
        """Put a closed day's totals back; it is sealed first, so that nothing is added to them."""
        key = partition(day)
        await self._ask(self._redis.hset(key, "sealed", seal))
        if strange := (await self.counts(day)).keys() - counts.keys():
            await self._ask(self._redis.hdel(key, *strange))
        directories: dict[str, str] = {}
        for field in sorted(counts):
            directories[f"F{field.split(':')[1]}"] = directories.get(f"F{field.split(':')[1]}", "") + f"{field}\n"
        pairs = [*((field, str(n)) for field, n in counts.items()), *directories.items()]
        for start in range(0, len(pairs), _RESTORE_AT_ONCE):
            await self._ask(self._redis.hset(key, mapping=dict(pairs[start : start + _RESTORE_AT_ONCE])))

    async def tidy(self, day: int, digest: str, page: bytes) -> None:
        """Take token bits and cursors out of a sealed and archived day, then note that it is done.

        The *page* comes first: nobody may take what is left for the whole, and other machines copy it.
        """
        key, at = partition(day), 0
        await self._ask(self._redis.hset(key, "page", page))
        while True:
            at, some = await self._ask(self._redis.hscan(key, at, count=_SCAN))
            names = [name for name in some if name[:1] == b"@" or name[:2] == b"b:"]
            for start in range(0, len(names), _RESTORE_AT_ONCE):
                await self._ask(self._redis.hdel(key, *names[start : start + _RESTORE_AT_ONCE]))
            if int(at) == 0:
                break
        await self._ask(self._redis.hset(key, "closed", digest))

    async def page(self, day: int) -> bytes | None:
        """What an archive holds of *day*, left here for the others."""
        found: bytes | None = await self._ask(self._redis.hget(partition(day), "page"))
        return found

    async def is_late_open(self, day: int) -> bool:
        return bool(await self._ask(self._redis.hexists(partition(day, LATE), "open")))

    async def open_late(self, day: int, fields: Mapping[str | bytes, str | bytes], mark: str) -> bool:
        """Let what comes late for *day* be counted, in a partition that begins with *fields*; False: another began."""
        key, pairs, how = partition(day, LATE), list(fields.items()), "first"
        for start in range(0, max(1, len(pairs)), _RESTORE_AT_ONCE):
            some = [text for pair in pairs[start : start + _RESTORE_AT_ONCE] for text in pair]
            reply = await self.ask("EVAL", _FILL, 1, key, mark, how, "late", "1", *some)
            if reply != b"filled":
                return bool(reply == b"open")
            how = "more"
        return bool(await self.ask("EVAL", _FILL, 1, key, mark, "more", "open", "1") in (b"filled", b"open"))

    async def forget_day(self, day: int) -> None:
        """Remove a day's totals, and those of its late arrivals."""
        for part in ("", LATE):
            await self._ask(self._redis.unlink(partition(day, part)))

    async def deregister(self, producers: Sequence[str]) -> None:
        if producers:
            await self._ask(self._redis.hdel(PRODUCERS, *producers))

    async def ad_names(self) -> dict[str, str]:
        return _texts(await self._ask(self._redis.hgetall(ADS)))

    async def ask(self, *command: str | bytes | int) -> Any:
        """A command on one key, or on several that share a hash tag, for what is not counting.

        Raises StoreUnavailable or StoreRefused.
        """
        return await self._ask(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]

    async def confirm(self, day: int, producer: bytes) -> "int | Unconfirmed":
        """The cursor of *producer* in *day* that is known to be on the disks of the primary and of a replica.

        The cursor is read, something is written behind it and waited for, all on one connection: after a silent
        reconnect WAITAOF would answer for a connection that wrote nothing. Raises StoreUnavailable or StoreRefused.
        """
        server = await self._ask(self._server_of(day))
        replicas = await self._replicas(server)
        if isinstance(replicas, Unconfirmed):
            return replicas
        asked = server.pipeline(transaction=False)
        asked.hmget(partition(day), [f"@{producer.hex()}"])
        asked.set(_mark(day), producer.hex(), ex=MARK_S)
        for ms in WAITS_MS:
            asked.execute_command("WAITAOF", 1, 1, ms)
        asked.info("replication")
        (cursor,), _, *_, (local, distant), info = await self._ask(asked.execute())
        if local < 1 or distant < 1:
            return Unconfirmed(f"no replica of the store had it on disk within {sum(WAITS_MS)} ms")
        if not _addresses(info) <= replicas:
            return Unconfirmed("another replica joined the store meanwhile")
        if not _is_whole(cursor):
            raise StoreRefused(f"{partition(day)} holds a cursor that is not a number: {cursor!r:.40}")
        return int(cursor or 0)

    async def syncs_every_write(self) -> bool:
        """Whether what the store has answered for is on the disk of its primary, or of each of them on a cluster."""
        servers = [self._redis]
        if isinstance(self._redis, _Cluster):
            await self._ask(self._redis.initialize())
            servers = [self._other(node.host, int(node.port)) for node in self._redis.get_primaries()]
        for server in servers:
            info = await self._ask(server.info())
            if not info.get("aof_enabled") or await self._ask(_appendfsync(server)) != b"always":
                return False
        return True

    async def why_unconfirmed(self) -> str | None:
        """Why no replica can confirm what is counted, in words for ops. Raises StoreUnavailable or StoreRefused."""
        servers = [self._redis]
        if isinstance(self._redis, _Cluster):
            await self._ask(self._redis.initialize())
            servers = [self._other(node.host, int(node.port)) for node in self._redis.get_primaries()]
        for server in servers:
            replicas = await self._replicas(server)
            if isinstance(replicas, Unconfirmed):
                return replicas.reason
        return None

    async def _server_of(self, day: int) -> Any:
        if not isinstance(self._redis, _Cluster):
            return self._redis
        await self._redis.initialize()
        node = self._redis.node(("GET", partition(day)))
        return self._other(node.host, int(node.port))

    async def _replicas(self, server: Any) -> "set[tuple[str, int]] | Unconfirmed":
        """The addresses of the replicas of *server*, when it and each of them sync every write before they answer.

        With `everysec`, WAITAOF answers too early on Redis 7.4 and on Valkey (redis/redis PR 13793).
        """
        info = await self._ask(server.info())
        if _redis_version(info) < (7, 2):
            return Unconfirmed(f"the store is version {info.get('redis_version')}, and WAITAOF came with Redis 7.2")
        if not info.get("aof_enabled") or await self._ask(_appendfsync(server)) != b"always":
            return Unconfirmed("the store's primary does not run with 'appendonly yes' and 'appendfsync always'")
        replicas = _addresses(info)
        if not replicas:
            return Unconfirmed("the store has no replica")
        for host, port in replicas:
            try:
                setting = await self._ask(_appendfsync(self._other(host, port)))
            except (StoreUnavailable, StoreRefused) as error:
                return Unconfirmed(f"the store's replica {host}:{port} cannot be asked how it syncs: {error}")
            if setting != b"always":
                return Unconfirmed(f"the store's replica {host}:{port} does not run with 'appendfsync always'")
        return replicas

    def _other(self, host: str, port: int) -> aioredis.Redis:
        """A connection to one server of several, kept for the next time."""
        found = self._others.get((host, port))
        if found is None:
            found = aioredis.Redis(host=host, port=port, single_connection_client=True, **_FAST, **self._login)
            self._others[host, port] = found
        return found

    async def close_others(self) -> None:
        for connection in self._others.values():
            await connection.aclose()
        self._others.clear()

    async def _ask(self, command: Any) -> Any:
        """Await one command; every failure of the way there becomes one of ours."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await command
        except NoScriptError as error:
            raise _UnknownScript(str(error)) from error
        except (MovedError, AskError) as error:
            raise StoreUnavailable(f"a key has moved to another server of the cluster ({error})") from error
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StoreRefused(f"a key of ours holds another program's data: {error}") from error
            raise StoreUnavailable(f"the store says: {error}") from error
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            if isinstance(error.__cause__, AuthenticationError):  # the library wraps what happens while connecting
                raise StoreUnavailable(f"the store refuses the password or user: {error}") from error
            raise StoreUnavailable(f"the store cannot be reached: {str(error) or type(error).__name__}") from error
        finally:
            if task and task.cancelling() > cancelled:
                # The library sends with wait_for, and that of Python 3.11 swallows a cancellation now and then.
                raise asyncio.CancelledError


class _UnknownScript(StoreUnavailable):
    """The server does not know the script, or not any more."""


def _is_whole(value: bytes | None) -> bool:
    """The same that apply.lua takes for a number; int() alone would take b" 7 " and b"1_000"."""
    return value is None or (value.isdigit() and len(value) <= 15)


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in found.items()}


def _arguments(producer: bytes, batch: Batch) -> list[Any]:
    numbers = {field: index for index, field in enumerate(batch.fields, 1)}
    arguments: list[Any] = [producer.hex(), batch.start, batch.end, len(batch.fields), len(batch.tokens)]
    for field, increment in batch.fields.items():
        arguments += (field, increment)
    for chunk, entries in batch.tokens.items():
        arguments += (chunk, b"".join([_ENTRY.pack(place, numbers[field]) for place, field in entries]))
    return arguments


async def _appendfsync(server: Any) -> bytes:
    found = await server.execute_command("CONFIG GET", "appendfsync")
    pairs = found.items() if isinstance(found, dict) else [found[:2]]
    return next((_bytes(value) for name, value in pairs if _bytes(name) == b"appendfsync"), b"")


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _addresses(info: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Where the replicas are that INFO names."""
    entries = [info.get(f"slave{number}") for number in range(int(info.get("connected_slaves", 0)))]
    return {(str(entry["ip"]), int(entry["port"])) for entry in entries if isinstance(entry, dict)}


def _judge(info: Mapping[str, Any], *, clustered: bool) -> Health:
    """Raises StoreRefused."""
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if _redis_version(info) < (6, 2):
        raise StoreRefused(f"the store is version {version}; expected Redis 6.2 or newer, or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreRefused(
            f"the store's maxmemory-policy is {policy!r}, which could evict a cursor and count events twice; "
            "set it to 'noeviction'"
        )
    if info.get("role") != "master":
        raise StoreRefused("the store is a replica and cannot be written to; give the address of the primary")
    if info.get("cluster_enabled") and not clustered:
        raise StoreRefused("the store is one server of a cluster; begin ADSERVER_REDIS_URL with redis+cluster://")
    if info.get("aof_enabled"):
        return Health(version, ())
    return Health(
        version, ("the store keeps no append-only file, so counts are rebuilt from the journals when it restarts",)
    )


def _redis_version(info: Mapping[str, Any]) -> tuple[int, ...]:
    """What Redis version the server is compatible with; Valkey names one, too."""
    return tuple(map(int, str(info.get("redis_version", "0")).split(".")[:2]))


@asynccontextmanager
async def open_store(url: str, connections: int = 1) -> AsyncIterator[Store]:
    """A connection of its own, or a pool for several tasks, closed with the body. It connects at the first command."""
    single = connections == 1
    where = parse_store_url(url)
    match where.form:
        case Form.SERVER:
            login = _login_of(url)
            most = _FAST if single else {**_FAST, "max_connections": connections}
            opened = _open_server(aioredis.Redis.from_url(url, single_connection_client=single, **most))
        case Form.SENTINEL:
            login = where.login
            opened = _open_behind_sentinels(where, single=single)
        case Form.CLUSTER:
            login = where.login
            nodes = [ClusterNode(host, port) for host, port in where.nodes]
            opened = _open_server(_Cluster(startup_nodes=nodes, **_FAST, **login))
    async with opened as connection:
        store = Store(connection, login)
        try:
            yield store
        finally:
            await store.close_others()


@asynccontextmanager
async def _open_server(connection: "aioredis.Redis | _Cluster") -> "AsyncIterator[aioredis.Redis | _Cluster]":
    try:
        yield connection
    finally:
        with suppress(RedisError, TimeoutError):  # a socket that is not closed in time is given up, with what was asked
            await connection.aclose()


@asynccontextmanager
async def _open_behind_sentinels(url: StoreUrl, *, single: bool) -> "AsyncIterator[aioredis.Redis | _Cluster]":
    """Each connecting asks the sentinels who is primary, in an order of its own: the first may hang."""
    patience = {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}
    nodes = random.sample(url.nodes, len(url.nodes))
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        nodes, sentinel_kwargs={**_FAST, **patience, **url.sentinel_login}
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        url.name, sentinel, **_FAST, **url.login
    )
    connection = aioredis.Redis(connection_pool=pool, single_connection_client=single)
    try:
        yield connection
    finally:
        await connection.aclose()
        await pool.disconnect()
        await sentinel.aclose()


def _login_of(url: str) -> dict[str, Any]:
    """The arguments with which to open a connection to a replica of the server at *url*."""
    given = dict(parse_url(url))
    if given.get("connection_class") is SSLConnection:
        given["ssl"] = True
    return {name: value for name, value in given.items() if name in ("username", "password") or name.startswith("ssl")}
