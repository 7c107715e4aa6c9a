"""Counts in Redis or Valkey, a rebuildable view of the journals; applying the same batch twice counts it once.

Rules: every key begins with `as:`; a partition is one hash and a batch is one command on it; whatever goes wrong,
the connection is closed and the cursor is read again before anything is sent, because a reply may be missing, late
or another command's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import redis.asyncio as aioredis
from msgspec import Struct
from redis.backoff import NoBackoff
from redis.asyncio.retry import Retry
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from adserver.errors import StoreRefused, StoreUnavailable
from adserver.tally import Batch

TIMEOUT_S = 1.0
CONNECT_S = 0.5
ADS = "as:ads"
"""Hash of ad key (hex) to ad name, so that reports can name what is counted."""
PRODUCERS = "as:producers"
"""Hash of producer (hex) to what it said of itself at boot."""

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
        try:
            return [int(value or 0) for value in values]
        except ValueError:
            raise StoreRefused(f"{partition(day)} holds cursors that are not numbers: {values!r:.80}") from None

    async def apply(self, producer: bytes, batch: Batch) -> Outcome:
        """Count *batch*, whole or not at all. Raises StoreUnavailable or StoreRefused; then nothing is known."""
        if self._sha is None:
            self._sha = await self._ask(self._redis.script_load(_APPLY))
        arguments = _arguments(producer, batch)
        try:
            reply = await self._ask(self._redis.evalsha(self._sha, 1, partition(batch.day), *arguments))
        except _ForgottenScript:
            self._sha = None
            return await self.apply(producer, batch)
        status, cursor, echo, to, repeats = reply
        if (echo, to) != (producer.hex().encode(), batch.end):
            raise StoreUnavailable(f"the store answered for {echo!r:.40} {to!r:.40}, which was not asked")
        match status:
            case b"applied":
                return Applied(int(cursor), int(repeats))
            case b"mismatch":
                return Mismatch(int(cursor))
            case b"sealed":
                return Sealed()
        raise StoreRefused(f"{partition(batch.day)} holds values that are not counts; nothing is added to it")

    async def name_ads(self, names: Mapping[bytes, str]) -> None:
        if names:
            await self._ask(self._redis.hset(ADS, mapping={key.hex(): name for key, name in names.items()}))

    async def register(self, producer: bytes, facts: str) -> None:
        await self._ask(self._redis.hset(PRODUCERS, producer.hex(), facts))

    async def producers(self) -> dict[str, str]:
        found = await self._ask(self._redis.hgetall(PRODUCERS))
        return {key.decode(): value.decode() for key, value in found.items()}

    async def counts(self, day: int) -> dict[str, int]:
        """A day's count fields. Reads the directories first, so that token bits are never pulled."""
        directories = await self._ask(self._redis.hmget(partition(day), [f"F{hour}" for hour in range(25)]))
        fields = [name for text in directories if text for name in text.decode().split("\n") if name]
        found: dict[str, int] = {}
        for start in range(0, len(fields), 1000):
            some = fields[start : start + 1000]
            values = await self._ask(self._redis.hmget(partition(day), some))
            found.update((field, int(value)) for field, value in zip(some, values, strict=True) if value is not None)
        return found

    async def ad_names(self) -> dict[str, str]:
        found = await self._ask(self._redis.hgetall(ADS))
        return {key.decode(): value.decode() for key, value in found.items()}

    async def ping(self) -> None:
        await self._ask(self._redis.ping())

    async def ask(self, *command: str | bytes | int) -> Any:
        """One plain command, for what is not counting. Raises StoreUnavailable or StoreRefused."""
        return await self._ask(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]

    async def _ask(self, command: Any) -> Any:
        """Await one command; every failure of the way there becomes one of ours."""
        try:
            return await asyncio.wait_for(command, TIMEOUT_S)
        except NoScriptError as error:
            raise _ForgottenScript(str(error)) from error
        except AuthenticationError as error:
            raise StoreUnavailable(f"the store refuses the password or user: {error}") from error
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StoreRefused(f"a key of ours holds another program's data: {error}") from error
            raise StoreUnavailable(f"the store says: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the store cannot be reached: {error or type(error).__name__}") from error


class _ForgottenScript(StoreUnavailable):
    """The server was restarted since the script was loaded."""


def _arguments(producer: bytes, batch: Batch) -> list[Any]:
    numbers = {field: index for index, field in enumerate(batch.fields, 1)}
    arguments: list[Any] = [producer.hex(), batch.start, batch.end, len(batch.fields), len(batch.tokens)]
    for field, increment in batch.fields.items():
        arguments += (field, increment)
    for chunk, entries in batch.tokens.items():
        packed = b"".join(bytes((place, *numbers[field].to_bytes(2, "little"))) for place, field in entries)
        arguments += (chunk, packed)
    return arguments


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """A connection of its own, closed with the body. Connecting happens at the first command."""
    connection = client(url, single=True)
    try:
        yield Store(connection)
    finally:
        await connection.aclose()
