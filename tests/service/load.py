"""Readers for the service under test: page views on loopback, every answer and every missing answer noted."""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.service.live import BROWSER, Service

_TOKEN = re.compile(rb"/i/([A-Za-z0-9_-]{48})")
_EXPECTED = {"served": 200, "impressions": 204, "clicks": 302}
_PACE_S = 0.002


class Load:
    """What the readers saw. *unanswered* are requests whose connection ended first, with the time of each."""

    def __init__(self, port: int, readers: int) -> None:
        self._port = port
        self._readers = readers
        self._stop = threading.Event()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.acknowledged_at: list[tuple[float, str]] = []
        self.ignored: Counter[str] = Counter()
        self.unanswered: list[tuple[float, str]] = []
        self.refused: list[float] = []

    def __repr__(self) -> str:
        return f"<Load {dict(self.statuses)} unanswered {Counter(kind for _, kind in self.unanswered)}>"

    @property
    def views(self) -> int:
        return self.acknowledged["served"]

    def unexpected(self) -> dict[tuple[str, int], int]:
        """The answers that no reader should get."""
        return {found: n for found, n in self.statuses.items() if _EXPECTED[found[0]] != found[1]}

    def lost(self, kind: str) -> int:
        return sum(one == kind for _, one in self.unanswered)

    def agrees(self, counts: dict[str, int], before: dict[str, int]) -> bool:
        """Everything acknowledged is in *counts*, and nothing that was not at least asked for."""
        return all(
            self.acknowledged[kind] <= counts[kind] - before[kind] <= self.acknowledged[kind] + self.lost(kind)
            for kind in _EXPECTED
        )

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        self._stop.set()

    async def _run(self) -> None:
        await asyncio.gather(*(self._read_pages(n) for n in range(self._readers)))

    async def _read_pages(self, number: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        views = 0
        while not self._stop.is_set():
            if connection is None:
                try:
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    self.refused.append(time.monotonic())
                    await asyncio.sleep(0.02)
                    continue
            views += 1
            slot = 889977 + (views + number) % 18
            try:
                body = await self._ask(connection, "served", f"GET /ads/{slot}")
                found = _TOKEN.search(body)
                if found:
                    token = found[1].decode()
                    await self._ask(connection, "impressions", f"POST /i/{token}")
                    if views % 4 == 0:
                        await self._ask(connection, "clicks", f"GET /c/{token}")
            except (OSError, EOFError):
                await _close(connection[1])
                connection = None
            await asyncio.sleep(_PACE_S)
        if connection:
            await _close(connection[1])

    async def _ask(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], kind: str, request: str
    ) -> bytes:
        reader, writer = connection
        try:
            length = "Content-Length: 0\r\n" if request.startswith("POST") else ""
            writer.write(f"{request} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {BROWSER}\r\n{length}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(size[1])) if size else b""
        except (OSError, EOFError):
            self.unanswered.append((time.monotonic(), kind))
            raise
        status = int(head.split(b" ", 2)[1])
        self.statuses[kind, status] += 1
        if b"adserver-ignored" in head:
            self.ignored[kind] += 1
        elif status == _EXPECTED[kind]:
            self.acknowledged[kind] += 1
            self.acknowledged_at.append((time.monotonic(), kind))
        if b"connection: close" in head:
            raise EOFError
        return body


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@contextmanager
def readers_of(service: Service, readers: int = 6) -> Iterator[Load]:
    """Readers that go on reading pages while the body runs."""
    load = Load(service.port, readers)
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        yield load
    finally:
        load.stop()
        thread.join(30)
        assert not thread.is_alive()


def more(load: Load, views: int) -> Callable[[], bool]:
    """Whether *load* has seen that many page views more than now."""
    wanted = load.views + views
    return lambda: load.views >= wanted


def counted(service: Service, load: Load, before: dict[str, int]) -> Callable[[], dict[str, int] | None]:
    """The service's sums, once nothing waits and all that *load* was acknowledged is in them."""

    def look() -> dict[str, int] | None:
        counts = service.settled()
        return counts if counts and load.agrees(counts, before) else None

    return look
