"""Counts in Redis or Valkey, a rebuildable view of the journals; applying the same batch twice counts it once.

Rules: every key begins with `as:`; a partition is one hash and a batch is one command on it; whatever goes wrong,
the connection is closed and the cursor is read again before anything is sent, because a reply may be missing, late
or another command's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from struct import Struct as Layout
from typing import Any

import redis.asyncio as aioredis
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from adserver.errors import StoreRefused, StoreUnavailable
from adserver.tally import Batch

TIMEOUT_S = 1.0
CONNECT_S = 0.5
ADS = "as:ads"
"""Hash of ad key (hex) to ad name, so that reports can name what is counted."""
PRODUCERS = "as:producers"
"""Hash of producer (hex) to what it said of itself at boot."""

_ENTRY = Layout("<BH")
_APPLY = files("adserver").joinpath("apply.lua").read_text()


def partition(day: int) -> str:
    """The key of a day's counts; the braces keep it whole on a cluster."""
    return f"as:{{{day}}}"


def client(url: str, *, single: bool = False) -> aioredis.Redis:
    """A client that fails fast and never repeats a command by itself."""
    return aioredis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=CONNECT_S,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=single,
        health_check_interval=0,
        protocol=2,  # one round trip less to connect, and nothing arrives that was not asked for
        client_name="adserver",
    )


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


class Health(Struct, frozen=True):
    """What the server says of itself; *warnings* are sentences for ops."""

    version: str
    warnings: tuple[str, ...]


class Store:
    """One connection to the store, for one task. Made by `open_store`."""

    def __init__(self, connection: aioredis.Redis) -> None:
        self._redis = connection
        self._sha: str | None = None

    async def check(self) -> Health:
        """Raises StoreRefused when using this server as it is set up would make counts wrong."""
        info = await self._ask(self._redis.info())
        version = str(info.get("valkey_version") or info.get("redis_version", "0"))
        if tuple(map(int, str(info.get("redis_version", "0")).split(".")[:2])) < (6, 2):
            raise StoreRefused(f"the store is version {version}; expected Redis 6.2 or newer, or Valkey")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise StoreRefused(
                f"the store's maxmemory-policy is {policy!r}, which could evict a cursor and count events twice; "
                "set it to 'noeviction'"
            )
        warnings = []
        if not info.get("aof_enabled"):
            warnings.append(
                "the store keeps no append-only file, so counts are rebuilt from the journals when it restarts"
            )
        if info.get("role") != "master":
            raise StoreRefused("the store is a replica and cannot be written to; give the address of the primary")
        return Health(version, tuple(warnings))

    async def cursors(self, day: int, producers: Sequence[bytes]) -> list[int]:
        """How far *day* has counted each of these producers: 0 where it does not know one."""
        values = await self._ask(self._redis.hmget(partition(day), [f"@{producer.hex()}" for producer in producers]))
        if not all(map(_is_whole, values)):
            raise StoreRefused(f"{partition(day)} holds cursors that are not numbers: {values!r:.80}")
        return [int(value or 0) for value in values]

    async def apply(self, producer: bytes, batch: Batch) -> Outcome:
        """Count *batch*, whole or not at all. Raises StoreUnavailable or StoreRefused; then nothing is known."""
        arguments = _arguments(producer, batch)
        try:
            reply = await self._run(batch.day, arguments)
        except _ForgottenScript:  # the server was restarted, or somebody flushed its scripts
            self._sha = None
            reply = await self._run(batch.day, arguments)
        if not isinstance(reply, list) or reply[2:4] != [producer.hex().encode(), batch.end]:
            raise StoreUnavailable(f"the store answered {reply!r:.80}, which was not asked")
        match reply:
            case [b"applied", int(cursor), _, _, int(repeats)]:
                return Applied(cursor, repeats)
            case [b"mismatch", int(cursor), *_]:
                return Mismatch(cursor)
            case [b"sealed", *_]:
                return Sealed()
        raise StoreRefused(f"{partition(batch.day)} holds values that are not counts; nothing is added to it")

    async def _run(self, day: int, arguments: list[Any]) -> Any:
        if self._sha is None:
            self._sha = await self._ask(self._redis.script_load(_APPLY))
        return await self._ask(self._redis.evalsha(self._sha, 1, partition(day), *arguments))

    async def name_ads(self, names: Mapping[bytes, str]) -> None:
        if names:
            await self._ask(self._redis.hset(ADS, mapping={key.hex(): name for key, name in names.items()}))

    async def register(self, producer: bytes, facts: str) -> None:
        await self._ask(self._redis.hset(PRODUCERS, producer.hex(), facts))

    async def producers(self) -> dict[str, str]:
        return _texts(await self._ask(self._redis.hgetall(PRODUCERS)))

    async def counts(self, day: int) -> dict[str, int]:
        """A day's count fields. Reads the directories first, so that token bits are never pulled."""
        directories = await self._ask(self._redis.hmget(partition(day), [f"F{hour}" for hour in range(25)]))
        fields = [name for text in directories if text for name in text.decode("ascii", "replace").split("\n") if name]
        found: dict[str, int] = {}
        for start in range(0, len(fields), 1000):
            some = fields[start : start + 1000]
            values = await self._ask(self._redis.hmget(partition(day), some))
            for field, value in zip(some, values, strict=True):
                if not _is_whole(value):
                    raise StoreRefused(f"{partition(day)} holds {value!r:.40} as the count {field!r:.80}")
                if value is not None:
                    found[field] = int(value)
        return found

    async def ad_names(self) -> dict[str, str]:
        return _texts(await self._ask(self._redis.hgetall(ADS)))

    async def ping(self) -> None:
        await self._ask(self._redis.ping())

    async def ask(self, *command: str | bytes | int) -> Any:
        """One plain command, for what is not counting. Raises StoreUnavailable or StoreRefused."""
        return await self._ask(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]

    async def _ask(self, command: Any) -> Any:
        """Await one command; every failure of the way there becomes one of ours."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await command
        except NoScriptError as error:
            raise _ForgottenScript(str(error)) from error
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StoreRefused(f"a key of ours holds another program's data: {error}") from error
            raise StoreUnavailable(f"the store says: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error.__cause__, AuthenticationError):  # the library wraps what happens while connecting
                raise StoreUnavailable(f"the store refuses the password or user: {error}") from error
            raise StoreUnavailable(f"the store cannot be reached: {str(error) or type(error).__name__}") from error
        finally:
            if task and task.cancelling() > cancelled:
                # The library sends with wait_for, and that of Python 3.11 swallows a cancellation now and then.
                raise asyncio.CancelledError


class _ForgottenScript(StoreUnavailable):
    """The server does not know the script any more."""


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


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """A connection of its own, closed with the body. Connecting happens at the first command."""
    connection = client(url, single=True)
    try:
        yield Store(connection)
    finally:
        await connection.aclose()
