"""Readers: a few connections kept busy with page views and their beacons, every answer and every missing answer noted.

A token event that was not answered is sent again until it is; a few that were answered are sent again all the same. A
snippet is never asked for twice.
"""

import asyncio
import base64
import random
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from adserver.events import Type
from adserver.tracking import CLICK_WAIT_S

BROWSER = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_TOKEN = re.compile(rb"/([ic])/([A-Za-z0-9_-]{48})")
_LENGTH = re.compile(rb"\ncontent-length: *(\d+)")
_IGNORED = re.compile(rb"\nadserver-ignored: *([a-z-]+)")
_REQUEST = b"%s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + BROWSER + b"\r\n%s\r\n"
_AHEAD = b"Sec-Purpose: prefetch;prerender\r\n"
_ANSWER_S = 4.0
_REFUSED = ("expired", "future")


class Key(NamedTuple):
    """One event that can be counted once."""

    issuer: bytes
    serial: int
    type: int


class About(NamedTuple):
    """What an event is counted under."""

    day: int
    ad: bytes


class Answer(NamedTuple):
    status: int
    ignored: str
    body: bytes
    took_s: float


class Notes:
    """What the readers know. Events acknowledged *at_once* were promised only what survives kill -9, not power."""

    def __init__(self) -> None:
        self.about: dict[Key, About] = {}
        self.acknowledged: set[Key] = set()
        self.at_once: set[Key] = set()
        self.open: set[Key] = set()
        self.unanswered_views = 0
        self.unanswered = 0
        self.replays = 0
        self.refused = 0
        self.unexpected: Counter[str] = Counter()

    def done(self) -> int:
        return len(self.acknowledged) + self.refused


class Driver:
    """Asks for *events* events over *connections* connections of *port*; without *beacons* for views alone."""

    def __init__(
        self,
        port: int,
        slots: Sequence[int],
        events: int,
        connections: int,
        rng: random.Random,
        *,
        beacons: bool = True,
    ) -> None:
        self._port = port
        self._slots = slots
        self._events = events
        self._connections = connections
        self._rng = rng
        self._beacons = beacons
        self.notes = Notes()
        self.asked = 0

    async def run(self, deadline: float) -> None:
        """Until all is asked and every token event answered, or *deadline* (monotonic) has come."""
        readers = [_Reader(self._port) for _ in range(self._connections)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for reader in readers:
                    tasks.create_task(self._read_pages(reader, random.Random(self._rng.random()), deadline))
        finally:
            for reader in readers:
                reader.close()

    async def _read_pages(self, reader: "_Reader", rng: random.Random, deadline: float) -> None:
        """Views, each with its beacons; for a tenth of every second views alone, so that unsynced ones gather."""
        beacons: deque[tuple[bytes, Type, bytes]] = deque()
        while (self.asked < self._events or beacons) and time.monotonic() < deadline:
            views_only = not self._beacons or time.monotonic() % 1 < 0.1
            while beacons and (not views_only or self.asked >= self._events):
                await self._send(reader, rng, *beacons.popleft(), deadline)
            if self.asked >= self._events:
                continue
            self.asked += 1
            answer = await reader.ask(b"GET /ads/%d" % rng.choice(self._slots))
            if answer is None:
                self.notes.unanswered_views += 1
                continue
            found = {text: kind for kind, text in _TOKEN.findall(answer.body)}
            if answer.status not in (200, 204):
                self.notes.unexpected[f"GET /ads answered {answer.status}"] += 1
            clicks = {text for kind, text in _TOKEN.findall(answer.body) if kind == b"c"}
            for text in found:
                key, about = read_token(text, Type.SERVED)
                self.notes.about[key] = about
                self.notes.acknowledged.add(key)
                self.notes.at_once.add(key)
                ways = [(Type.IMPRESSION, b"GET /i/"), (Type.VIEWABLE, b"POST /v/")]
                if rng.random() < 0.4:
                    ways.append((Type.MEASURED, b"POST /m/"))
                if text in clicks and rng.random() < 0.4:
                    ways.append((Type.CLICK, b"GET /c/"))
                if self._beacons:
                    self.asked += len(ways)
                    beacons += [(text, type_, way) for type_, way in ways]

    async def _send(
        self, reader: "_Reader", rng: random.Random, text: bytes, type_: Type, way: bytes, deadline: float
    ) -> None:
        key, about = read_token(text, type_)
        notes = self.notes
        notes.about[key] = about
        if type_ is not Type.CLICK and rng.random() < 0.03:
            await reader.ask(way + text, _AHEAD)  # whatever becomes of it: it must not take the event's place
        times = 2 if rng.random() < 0.05 else 1
        while times:
            answer = await reader.ask(way + text)
            if answer is None or answer.status == 503:
                notes.unanswered += answer is None
                if key not in notes.acknowledged:
                    notes.open.add(key)
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.01)
                continue
            times -= 1
            if answer.ignored in _REFUSED:
                notes.refused += key not in notes.acknowledged
                return
            if answer.status not in (200, 204, 302) or answer.ignored not in ("", "duplicate"):
                notes.unexpected[f"{way.decode()} answered {answer.status} {answer.ignored}"] += 1
            if key in notes.acknowledged:
                notes.replays += 1
            elif type_ is Type.CLICK and (answer.took_s > CLICK_WAIT_S * 0.8 or answer.ignored):
                notes.at_once.add(key)
            notes.acknowledged.add(key)
            notes.open.discard(key)


def read_token(text: bytes, type_: Type) -> tuple[Key, About]:
    """The event that a token of our own stands for."""
    raw = base64.urlsafe_b64decode(text)
    day, issuer = int.from_bytes(raw[2:4], "little"), raw[8:13]
    return Key(issuer, int.from_bytes(raw[13:17], "little"), int(type_)), About(day, raw[17:24])


class _Reader:
    """One connection, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, what: bytes, header: bytes = b"") -> Answer | None:
        """The answer, or None when the connection ended first."""
        while self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
        reader, writer = self._streams
        began = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_S):
                empty = b"Content-Length: 0\r\n" if what.startswith(b"POST") else b""
                writer.write(_REQUEST % (what, empty + header))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length and int(length[1]) else b""
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            self.close()
            return None
        if b"\nconnection: close" in head:
            self.close()
        ignored = _IGNORED.search(head)
        said = ignored[1].decode() if ignored else ""
        return Answer(int(head.split(b" ", 2)[1]), said, body, time.monotonic() - began)

    def close(self) -> None:
        if self._streams:
            with suppress(OSError):
                self._streams[1].transport.abort()
        self._streams = None
