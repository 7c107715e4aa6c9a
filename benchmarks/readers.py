"""Readers at a steady pace, and one who looks how long an event takes from its answer to its count.

`wrk` asks as fast as it can; an outage lasts minutes and wants a moderate load instead.
"""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import redis
from msgspec import Struct

from adserver.events import TOKEN_BIT, Type
from adserver.store import partition
from adserver.tally import TOKENS_A_CHUNK
from adserver.token import Keys, verify
from benchmarks.articles import SLOTS

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_TOKEN = re.compile(rb"/i/([A-Za-z0-9_-]{48})")
_CONNECTIONS = 16
EVENTS_A_PAGE = 2.55
"""Each page view is served and begun to be shown, every second is viewable, every twentieth is clicked."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Lag(Struct, frozen=True):
    """One probe: when its beacon was answered, and how long after that the store had counted it. Monotonic seconds."""

    answered: float
    lag_s: float


class Readers:
    """What they saw: answers by kind and status, requests that got none, and probes."""

    def __init__(self, port: int, pages_a_second: float, keys: Keys, store: Callable[[], "redis.Redis"]) -> None:
        self._port = port
        self._pace = pages_a_second
        self._keys = keys
        self._store = store
        self._stop = threading.Event()
        self._due = 0
        self.failure: Exception | None = None
        self.answers: Counter[tuple[str, int]] = Counter()
        self.unanswered = 0
        self.lags: list[Lag] = []

    @property
    def events(self) -> int:
        """Those acknowledged."""
        return sum(n for (_, status), n in self.answers.items() if status < 400)

    def wrong(self) -> dict[tuple[str, int], int]:
        return {key: n for key, n in self.answers.items() if key[1] >= 400}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self.failure = error

    async def _run(self) -> None:
        self._began = time.monotonic()
        await asyncio.gather(self._probe(), *(self._read() for _ in range(_CONNECTIONS)))

    async def _turn(self) -> int:
        """Wait for the next page view's time; a pace that cannot be kept is not caught up with later."""
        self._due += 1
        number = self._due
        late = time.monotonic() - self._began - number / self._pace
        if late < 0:
            await asyncio.sleep(-late)
        elif late > 1:
            self._began += late
        return number

    async def _read(self) -> None:
        connection: Connection | None = None
        while not self._stop.is_set():
            number = await self._turn()
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                body = await self._ask(connection, "served", f"GET /ads/{SLOTS[number % len(SLOTS)]}")
                if found := _TOKEN.search(body):
                    token = found[1].decode()
                    await self._ask(connection, "impression", f"GET /i/{token}")
                    if number % 2 == 0:
                        await self._ask(connection, "viewable", f"POST /v/{token}")
                    if number % 20 == 0:
                        await self._ask(connection, "click", f"GET /c/{token}")
            except (OSError, EOFError):
                self.unanswered += 1
                connection = None
        if connection:
            connection[1].close()

    async def _probe(self) -> None:
        """One event after the other: have it answered, then ask the store for its bit until it is set."""
        while not self._stop.is_set():
            connection = await asyncio.open_connection("127.0.0.1", self._port)  # one kept idle would be closed
            found = _TOKEN.search(await self._ask(connection, "served", f"GET /ads/{SLOTS[0]}"))
            assert found  # the sample's slots are all filled
            await self._ask(connection, "impression", f"GET /i/{found[1].decode()}")
            answered = time.monotonic()
            connection[1].close()
            token = verify(self._keys, found[1])
            name = b"b:" + token.issuer + (token.serial // TOKENS_A_CHUNK).to_bytes(4, "big")
            place = token.serial % TOKENS_A_CHUNK * 4 + TOKEN_BIT[Type.IMPRESSION]
            while not self._stop.is_set():
                bits = await asyncio.to_thread(self._look, partition(token.day), name)
                if bits and bits[place >> 3] >> (place & 7) & 1:
                    self.lags.append(Lag(answered, time.monotonic() - answered))
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)

    def _look(self, key: str, name: bytes) -> bytes | None:
        with suppress(redis.RedisError), self._store() as client:
            found: bytes | None = client.hget(key, name)
            return found
        return None

    async def _ask(self, connection: Connection, kind: str, request: str) -> bytes:
        reader, writer = connection
        length = "Content-Length: 0\r\n" if request.startswith("POST") else ""
        writer.write(f"{request} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {BROWSER}\r\n{length}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(size[1])) if size else b""
        self.answers[kind, int(head.split(b" ", 2)[1])] += 1
        return body


@contextmanager
def reading(readers: Readers) -> Iterator[Readers]:
    """They read in a thread of their own while the body runs."""
    thread = threading.Thread(target=readers.run)
    thread.start()
    try:
        yield readers
    finally:
        readers.stop()
        thread.join(60)
    if readers.failure:
        raise readers.failure
