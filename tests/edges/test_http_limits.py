"""Hostile HTTP on real sockets, against a real uvicorn server and a tiny application."""

import asyncio
import json
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from uvicorn import Config, Server

from adserver import http_limits
from adserver.http_limits import REASONS, LimitedHttpProtocol
from adserver.http_speed import FastHttpProtocol

TIMEOUT_S = 0.5


class Quick(LimitedHttpProtocol):
    request_timeout_s = TIMEOUT_S
    allowed_hosts: ClassVar[frozenset[bytes]] = frozenset({b"ads.example"})


class Everything:
    def __contains__(self, _: object) -> bool:
        return True


class Fast(FastHttpProtocol):
    """The protocol the service uses; here it starts every request without a task."""

    request_timeout_s = TIMEOUT_S
    allowed_hosts = Quick.allowed_hosts
    eager = Everything()


class AtMostTwo(Quick):
    connections_per_address = 2


class App:
    """Answers what it was asked, as JSON; /slow answers late, /early before it has the body."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.disconnected = threading.Event()
        self.finished = threading.Event()  # the latest answer was sent, or its peer was gone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        size = 0
        more = not scope["path"].startswith("/early")
        if scope["path"] == "/slow-to-read":
            await asyncio.sleep(2.5 * TIMEOUT_S)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            size += len(message["body"])
            more = message["more_body"]
        if scope["path"] == "/slow":
            await asyncio.sleep(3 * TIMEOUT_S)
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        query = scope["query_string"].decode("ascii")
        answer = {"path": scope["path"], "query": query, "size": size, "headers": headers}
        body = json.dumps(answer).encode()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})
        self.finished.set()


class Running(Server):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.up.set()


class Peer:
    """The server under test, as a client sees it."""

    def __init__(self, app: App, address: Any, family: int) -> None:
        self.app, self.address, self.family = app, address, family
        self.refused: list[str] = []
        self.tasks: set[Any] = set()
        self.connections: set[Any] = set()
        self.loop: asyncio.AbstractEventLoop

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Meanwhile the server's loop does nothing, and what is sent to it gathers."""
        begun, end = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            assert end.wait(10)

        self.loop.call_soon_threadsafe(wait)
        assert begun.wait(10)
        try:
            yield
        finally:
            end.set()

    def shut_down(self) -> None:
        """What the server does with each connection when it stops."""
        for connection in [*self.connections]:
            connection.shutdown()

    def rests(self) -> None:
        """Wait until the app works on nothing: a request of the test before may reach it late."""
        deadline = time.monotonic() + 10
        while self.tasks:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def connect(self) -> socket.socket:
        client = socket.socket(self.family, socket.SOCK_STREAM)
        client.settimeout(10)
        client.connect(self.address)
        return client

    def says(self, *pieces: bytes) -> bytes:
        """Send *pieces*, then everything the server answers until it closes."""
        with self.connect() as client:
            # A refusal may come before everything is sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    client.sendall(piece)
            return until_closed(client)


@contextmanager
def serving(http: Any, *, uds: str | None = None, **options: Any) -> Iterator[Peer]:
    app = App()
    place = {"uds": uds} if uds else {"host": "127.0.0.1", "port": 0}
    server = Running(
        Config(app, http=http, loop="uvloop", lifespan="off", log_config=None, access_log=False, **place, **options)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.up.wait(10)
    peer = Peer(app, uds or server.servers[0].sockets[0].getsockname(), socket.AF_UNIX if uds else socket.AF_INET)
    peer.tasks, peer.connections, peer.loop = server.server_state.tasks, server.server_state.connections, server.loop
    before = http_limits.on_refused
    http_limits.on_refused = peer.refused.append
    try:
        yield peer
    finally:
        http_limits.on_refused = before
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module", params=[Quick, Fast])
def shared(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with serving(request.param) as peer:
        yield peer


@pytest.fixture
def peer(shared: Peer, caplog: pytest.LogCaptureFixture) -> Iterator[Peer]:
    """The shared server; whatever it was sent, it must have logged no warning."""
    shared.rests()
    shared.refused.clear()
    shared.app.paths.clear()
    shared.app.disconnected.clear()
    shared.app.finished.clear()
    caplog.set_level(logging.WARNING)
    yield shared
    assert [record.getMessage() for record in caplog.records] == []


def until_closed(client: socket.socket) -> bytes:
    """All that is answered. A reset is a close, too: of a server that leaves unread what was still on its way."""
    answer = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def one_answer(client: socket.socket) -> bytes:
    """One 200 with a Content-Length, from a connection that stays open."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(1)
    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while length:
        piece = client.recv(length)
        answer += piece
        length -= len(piece)
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def answers(answer: bytes) -> int:
    return len(re.findall(rb"HTTP/1\.1 \d\d\d ", answer))


def shown(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def get(
    target: bytes = b"/", *fields: bytes, version: bytes = b"HTTP/1.1", host: bytes | None = b"Host: a.example"
) -> bytes:
    lines = [b"GET " + target + b" " + version, *([host] if host is not None else []), *fields]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def post(*fields: bytes, body: bytes = b"", target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"POST " + target + b" " + version, b"Host: a.example", *fields, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"
UPGRADE = (b"Connection: upgrade", b"Upgrade: websocket")
NO_CHUNKS = b"0\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int, str]] = {
    # The stack's table
    "length and chunked": (post(b"Content-Length: 5", CHUNKED, body=NO_CHUNKS), 400, "malformed"),
    "chunked and length": (post(CHUNKED, b"Content-Length: 5", body=NO_CHUNKS), 400, "malformed"),
    "xchunked": (post(b"Transfer-Encoding: xchunked", body=NO_CHUNKS), 400, "framing"),
    "two lengths": (post(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"), 400, "malformed"),
    "same length twice": (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400, "malformed"),
    "length with a sign": (post(b"Content-Length: +3", body=b"abc"), 400, "malformed"),
    "length list": (post(b"Content-Length: 3, 4", body=b"abc"), 400, "malformed"),
    "hexadecimal length": (post(b"Content-Length: 0x3", body=b"abc"), 400, "malformed"),
    "space before colon": (get(b"/", b"X-A : b"), 400, "malformed"),
    "NUL in a header": (get(b"/", b"X-A: a\0b"), 400, "malformed"),
    "bare CR in a header": (get(b"/", b"X-A: a\rb"), 400, "malformed"),
    "folded header": (get(b"/", b"X-A: a\r\n b"), 400, "malformed"),
    "bare LF": (get().replace(b"\r\n", b"\n"), 400, "malformed"),
    "bare LF after the first line": (get().replace(b"\r\n", b"\n", 1), 400, "malformed"),
    "bare LF after a header": (get(b"/", b"X-A: a\nX-B: b"), 400, "malformed"),
    "no Host": (get(host=None), 400, "host"),
    "two Hosts": (get(b"/", b"Host: b.example"), 400, "host"),
    "the same Host twice": (get(b"/", b"Host: a.example"), 400, "host"),
    "HTTP/0.9 without version": (b"GET /\r\n\r\n", 400, "version"),
    "HTTP/0.9": (get(version=b"HTTP/0.9"), 400, "version"),
    "another host in the target": (get(b"http://evil.example/"), 400, "foreign_target"),
    "one header of 1 MB": (get(b"/", b"X-A: " + b"a" * 1_000_000), 431, "headers_too_large"),
    "5,000 headers": (get(b"/", *[b"X-A: a"] * 5_000), 431, "headers_too_large"),
    "URL of 100 kB": (get(b"/" + b"a" * 100_000), 414, "target_too_long"),
    "NUL in the path": (get(b"/%00"), 400, "target"),
    "not UTF-8 in the path": (get(b"/%ff"), 400, "target"),
    # Line ends and limits, one past
    "CR LF in the path": (get(b"/a%0d%0aSet-Cookie:%20a"), 400, "target"),
    "target of 2,049 bytes": (get(b"/" + b"a" * 2_048), 414, "target_too_long"),
    "65 fields": (get(b"/", *[b"X-A: a"] * 63), 431, "headers_too_large"),
    "20 fields of 1 kB": (get(b"/", *[b"X-A: " + b"a" * 1_000] * 20), 431, "headers_too_large"),
    # Versions and hosts
    "HTTP/2.0": (get(version=b"HTTP/2.0"), 400, "version"),
    "HTTP/2.0, kept alive": (b"GET / HTTP/2.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 400, "version"),
    "HTTP/0.9, kept alive": (b"GET / HTTP/0.9\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 400, "version"),
    "HTTP/2.0 without keep-alive": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, "version"),
    "HTTP/2.0, kept alive by a proxy": (
        b"GET / HTTP/2.0\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n",
        400,
        "version",
    ),
    "HTTP/1.2": (get(version=b"HTTP/1.2"), 400, "malformed"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed"),
    "empty Host": (get(host=b"Host:"), 400, "host"),
    "Host with a path": (get(host=b"Host: a.example/b"), 400, "host"),
    "Host with a name before it": (get(host=b"Host: me@a.example"), 400, "host"),
    "Host list": (get(host=b"Host: a.example, b.example"), 400, "host"),
    "HTTP/1.0 with two Hosts": (get(b"/", b"Host: b.example", version=b"HTTP/1.0"), 400, "host"),
    # Targets
    "user in the target": (get(b"http://me@a.example/"), 400, "target"),
    "another scheme": (get(b"ftp://a.example/"), 400, "target"),
    "star without OPTIONS": (get(b"*"), 400, "target"),
    "CONNECT": (b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "target"),
    # Bodies
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked", body=NO_CHUNKS), 400, "framing"),
    "identity, then chunked": (post(b"Transfer-Encoding: identity", CHUNKED, body=NO_CHUNKS), 400, "framing"),
    "chunked in HTTP/1.0": (post(CHUNKED, body=NO_CHUNKS, version=b"HTTP/1.0"), 400, "framing"),
    "bad chunk size": (post(CHUNKED, body=b"0x1\r\n"), 400, "malformed"),
    "upgrade with a body": (post(*UPGRADE, b"Content-Length: 24", body=b"GET /smuggled HTTP/1.1\r\n"), 400, "framing"),
    "upgrade with chunks": (post(*UPGRADE, CHUNKED, body=NO_CHUNKS), 400, "framing"),
    "gzip body": (post(b"Content-Encoding: gzip", b"Content-Length: 3", body=b"abc"), 415, "encoded_body"),
    "gzip chunks": (post(b"Content-Encoding: gzip", CHUNKED, body=NO_CHUNKS), 415, "encoded_body"),
    "two encodings": (
        post(b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Content-Length: 1", body=b"a"),
        400,
        "framing",
    ),
}


@pytest.mark.parametrize(("sent", "expected", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_hostile_request_is_refused_once_and_never_reaches_the_app(
    peer: Peer, sent: bytes, expected: int, reason: str
) -> None:
    """
    A hostile request gets one answer of the right status, is counted by reason, and the app sees none of it.
    """
    answer = peer.says(sent)
    assert status(answer) == expected
    assert answers(answer) == 1
    assert peer.refused == [reason]
    assert not [path for path in peer.app.paths if "smuggled" in path]
    if not sent.startswith(b"POST") or reason != "malformed":
        assert peer.app.paths == []


@pytest.mark.parametrize(
    "sent",
    [value[0] for value in REFUSED.values() if len(value[0]) < 300],
    ids=[name for name, value in REFUSED.items() if len(value[0]) < 300],
)
def test_refusal_is_the_same_however_the_bytes_are_cut(peer: Peer, sent: bytes) -> None:
    """
    A request that arrives byte by byte is refused like one that arrives whole.
    """
    whole = status(peer.says(sent))
    with peer.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):
            for at in range(len(sent)):
                client.sendall(sent[at : at + 1])
        assert status(until_closed(client)) == whole


def test_every_refusal_is_a_problem_a_person_can_act_on(peer: Peer) -> None:
    """
    A refusal is a small problem document that says what to do, is not stored, and ends the connection.
    """
    head, _, body = peer.says(get(host=None)).partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    for line in (
        b"content-type: application/problem+json",
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"connection: close",
        b"content-length: %d" % len(body),
    ):
        assert line in lines
    assert json.loads(body) == {
        "title": "Bad Request",
        "status": 400,
        "detail": "Send exactly one Host header, holding a host name and, if needed, a port.",
    }


def test_refused_head_request_gets_no_body(peer: Peer) -> None:
    """
    The refusal of a HEAD request ends with its headers.
    """
    answer = peer.says(b"HEAD / HTTP/1.1\r\n\r\n")
    assert status(answer) == 400
    assert answer.endswith(b"\r\n\r\n")


def test_reasons_are_a_closed_list(peer: Peer) -> None:
    """
    Every reason counted is in REASONS, whatever was sent.
    """
    for sent, _, _ in REFUSED.values():
        peer.says(sent)
    assert set(peer.refused) <= REASONS
    assert len(peer.refused) == len(REFUSED)


ACCEPTED = {
    "plain": get(),
    "HTTP/1.0": get(version=b"HTTP/1.0"),
    "HTTP/1.0 without Host": get(version=b"HTTP/1.0", host=None),
    "Host in capitals with a port": get(host=b"HOST: A.example:8000"),
    "IPv6 Host": get(host=b"Host: [::1]:8000"),
    "name of a container": get(host=b"Host: ad_server:8000"),
    "Host last": get(b"/", b"X-A: a", b"Host: a.example", host=None),
    "target of 2,048 bytes": get(b"/" + b"a" * 2_047),
    "64 fields": get(b"/", *[b"X-A: a"] * 62),
    "15 kB of headers": get(b"/", *[b"X-A: " + b"a" * 1_000] * 15),
    "chunked": post(CHUNKED, b"Connection: close", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "length": post(b"Content-Length: 3", b"Connection: close", body=b"abc"),
    "identity": post(b"Content-Encoding: identity", b"Content-Length: 1", b"Connection: close", body=b"a"),
    "encoding without a body": get(b"/", b"Content-Encoding: gzip"),
    "latin-1 in a header and in the query": get(b"/?q=%ff", b"X-A: \xff"),
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "blank line before": b"\r\n\r\n" + get(),
    "1 MB body": post(b"Content-Length: 1000000", b"Connection: close", body=b"a" * 1_000_000),
}


@pytest.mark.parametrize("sent", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_ordinary_request_passes(peer: Peer, sent: bytes) -> None:
    """
    What ordinary clients send, up to the limits themselves, is answered by the app.
    """
    assert status(peer.says(sent)) == 200
    assert peer.refused == []


@pytest.mark.parametrize(
    ("target", "host", "seen"),
    [
        (b"http://a.example/s/1?x=1", b"Host: a.example", "a.example"),
        (b"HTTP://A.example:80/s/1?x=1", b"Host: a.example", "a.example"),
        (b"https://a.example/s/1?x=1", b"Host: a.example:443", "a.example:443"),
        (b"http://ads.example/s/1?x=1", b"Host: a.example", "ads.example"),
    ],
)
def test_absolute_target_is_served_for_its_own_and_allowed_hosts(
    peer: Peer, target: bytes, host: bytes, seen: str
) -> None:
    """
    A target with a host is served if that is the Host header's or an allowed one, which then is the Host.
    """
    answer = shown(peer.says(get(target, host=host)))
    assert (answer["path"], answer["query"]) == ("/s/1", "x=1")
    assert [value for name, value in answer["headers"] if name == "host"] == [seen]


def test_absolute_target_without_a_path_asks_for_the_root(peer: Peer) -> None:
    """
    http://a.example and http://a.example?x=1 mean the path /.
    """
    answer = shown(peer.says(get(b"http://a.example?x=1")))
    assert (answer["path"], answer["query"]) == ("/", "x=1")


def test_trailer_never_becomes_a_header(peer: Peer) -> None:
    """
    Fields behind the last chunk are dropped, and do not colour the next request on the connection either.
    """
    with peer.connect() as client:
        client.sendall(post(CHUNKED, body=b"1\r\na\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"))
        assert {name for name, _ in shown(one_answer(client))["headers"]} == {"host", "transfer-encoding"}
        client.sendall(get())
        assert status(until_closed(client)) == 200


@pytest.mark.parametrize(
    ("trailer", "reason"),
    [(b"Host: evil.example", "host"), (b"Connection: close", "framing"), (b"Expect: 100-continue", "framing")],
)
def test_trailer_that_would_steer_the_connection_is_refused(peer: Peer, trailer: bytes, reason: str) -> None:
    """
    A trailer may not be a second Host, nor say how the message ends.
    """
    answer = peer.says(post(CHUNKED, body=b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\n"))
    assert status(answer) == 400
    assert peer.refused == [reason]


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX-A: ", post(CHUNKED, body=b"1;a="), post(CHUNKED, body=b"1\r\na\r\n0\r\nX-A: ")]
)
def test_line_without_end_is_refused_while_it_arrives(peer: Peer, start: bytes) -> None:
    """
    A header, chunk extension or trailer that never ends is refused after some 32 KiB, not at the deadline.
    """
    assert status(peer.says(start, b"a" * 100_000)) == 431
    assert peer.refused == ["headers_too_large"]


# Time


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: b",
        post(b"Content-Length: 10", body=b"abc"),
        post(CHUNKED, body=b"5\r\na"),
    ],
    ids=["first byte", "headers", "body", "chunk"],
)
def test_request_never_finished_is_closed_in_time(peer: Peer, sent: bytes) -> None:
    """
    A request whose headers or body never end gets a 408 and the connection closes.
    """
    started = time.monotonic()
    answer = peer.says(sent)
    assert TIMEOUT_S * 0.9 < time.monotonic() - started < TIMEOUT_S + 2
    assert status(answer) == 408
    assert answers(answer) == 1
    assert peer.refused == ["timeout"]


def test_trickled_request_gains_no_time(peer: Peer) -> None:
    """
    A byte now and then does not put off the deadline.
    """
    with peer.connect() as client:
        started = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        client.settimeout(0.05)
        answer = b""
        while not answer:
            client.sendall(b"a")
            with suppress(TimeoutError):
                answer = client.recv(65536)
        assert status(answer) == 408
        assert time.monotonic() - started < TIMEOUT_S + 2


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "blank lines"])
def test_connection_without_a_request_is_closed_silently(peer: Peer, sent: bytes) -> None:
    """
    A new connection that asks nothing is closed without an answer, in the time of one request.
    """
    assert peer.says(sent) == b""
    assert peer.refused == ["no_request"]


def test_second_request_has_the_same_deadline(peer: Peer) -> None:
    """
    On a connection kept alive, the time counts from the first byte of each request.
    """
    with peer.connect() as client:
        client.sendall(get().replace(b"close", b"keep-alive"))
        assert status(one_answer(client)) == 200
        client.sendall(b"GET / HTT")
        assert status(until_closed(client)) == 408


def test_idle_connection_is_closed_even_if_it_sends_blank_lines() -> None:
    """
    A connection kept alive is closed after the keep-alive time; blank lines do not count as life.
    """
    with serving(Quick, timeout_keep_alive=1) as peer, peer.connect() as client:
        client.sendall(get().replace(b"close", b"keep-alive"))
        one_answer(client)
        started = time.monotonic()
        client.settimeout(0.1)
        while time.monotonic() - started < 5:
            with suppress(TimeoutError):
                client.sendall(b"\r\n")
                assert client.recv(1) == b""
                break
        assert 0.5 < time.monotonic() - started < 3


def test_keep_alive_counts_from_the_last_answer() -> None:
    """
    A connection in use is not closed by the keep-alive time of an earlier request.
    """
    with serving(Quick, timeout_keep_alive=1) as peer, peer.connect() as client:
        for target in (b"/", b"/slow", b"/slow"):  # 1.8 s in all
            client.sendall(get(target).replace(b"close", b"keep-alive"))
            assert status(one_answer(client)) == 200
        answered = time.monotonic()
        assert until_closed(client) == b""
        assert 0.8 < time.monotonic() - answered < 3


def test_app_may_take_its_time_over_a_whole_request(peer: Peer) -> None:
    """
    No deadline runs while the app works on a request that has fully arrived.
    """
    assert status(peer.says(get(b"/slow"))) == 200
    assert peer.refused == []


def test_body_the_app_has_not_read_yet_is_not_held_against_the_peer(peer: Peer) -> None:
    """
    With the buffer full and the app not reading, the peer cannot send, so its time does not run out.
    """
    sent = post(b"Content-Length: 8000000", b"Connection: close", body=b"a" * 8_000_000, target=b"/slow-to-read")
    answer = peer.says(sent)
    assert shown(answer)["size"] == 8_000_000


def test_waiting_for_100_continue_is_not_held_against_the_peer(peer: Peer) -> None:
    """
    Who waits for 100 Continue from a slow app still gets it, and from then on all of its time for the body.
    """
    with peer.connect() as client:
        client.sendall(
            post(b"Content-Length: 3", b"Expect: 100-continue", b"Connection: close", target=b"/slow-to-read")
        )
        interim = b""
        while not interim.endswith(b"\r\n\r\n"):
            interim += client.recv(1)
        assert status(interim) == 100
        time.sleep(0.7 * TIMEOUT_S)  # a slow peer
        client.sendall(b"abc")
        assert shown(until_closed(client))["size"] == 3


def test_100_continue_without_a_body_runs_out_of_time(peer: Peer) -> None:
    """
    Once 100 Continue is said, the body must come: 408 otherwise, and the app learns that the peer is gone.
    """
    answer = peer.says(post(b"Content-Length: 3", b"Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ")
    assert peer.app.disconnected.wait(10)
    assert peer.refused == ["timeout"]


def test_100_continue_is_not_said_behind_a_refusal(peer: Peer) -> None:
    """
    An app that reads only after its request was refused learns that the peer is gone, and nothing more is sent.
    """
    with peer.connect() as client:
        client.sendall(post(CHUNKED, b"Expect: 100-continue", target=b"/slow-to-read", body=b"x"))
        head = client.recv(65536)  # stays connected while the app wakes up
        assert status(head) == 400
        assert peer.app.paths == [] or peer.app.disconnected.wait(10)


def test_body_that_comes_after_its_answer_gets_no_second_answer(peer: Peer) -> None:
    """
    A request answered before its body ended is closed at the deadline without another answer.
    """
    answer = peer.says(post(b"Content-Length: 10", body=b"abc", target=b"/early"))
    assert status(answer) == 200
    assert answers(answer) == 1


# Pipelining and upgrades


def test_pipelined_requests_are_answered_in_order(peer: Peer) -> None:
    """
    Requests sent ahead are all answered, the first one first.
    """
    ahead = get(b"/slow").replace(b"Connection: close\r\n", b"") + get(b"/2").replace(b"Connection: close\r\n", b"")
    answer = peer.says(ahead + get(b"/3"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert peer.app.paths == ["/slow", "/2", "/3"]


@pytest.mark.parametrize("rest", [b"\0", b"GET / HT"], ids=["malformed", "unfinished"])
def test_refusal_never_cuts_into_the_answer_before_it(peer: Peer, rest: bytes) -> None:
    """
    Behind a request still being answered, a bad one ends the connection after that answer.
    """
    answer = peer.says(get(b"/slow").replace(b"Connection: close\r\n", b"") + rest)
    assert status(answer) == 200
    if rest == b"\0":
        assert answers(answer) == 1
        assert b"connection: close" in answer
    else:
        assert answer.count(b"HTTP/1.1 408 ") == 1


def test_bad_body_behind_an_answer_ends_the_connection_after_it(peer: Peer) -> None:
    """
    A request with a broken body, sent ahead, costs the ones before it nothing; the app never sees it.
    """
    ahead = get(b"/slow").replace(b"Connection: close\r\n", b"")
    answer = peer.says(ahead + ahead + post(CHUNKED, body=b"x", target=b"/bad"))
    assert answers(answer) == answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"connection: close") == 1
    assert peer.app.paths == ["/slow", "/slow"]
    assert peer.refused == ["malformed"]


def test_peer_that_leaves_with_requests_ahead_leaves_no_error_in_the_log(peer: Peer) -> None:
    """
    A peer that sends two requests at once and goes is not worth a log line.
    """
    with peer.connect() as client:
        client.sendall(get(b"/slow").replace(b"Connection: close\r\n", b"") * 2)
    assert peer.app.finished.wait(10)
    assert status(peer.says(get())) == 200


def test_pipelining_is_bounded(peer: Peer) -> None:
    """
    Of 9,000 requests in one go the first few are answered, then the connection closes.
    """
    answer = peer.says(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 9_000)
    assert 1 <= answer.count(b"HTTP/1.1 200 OK\r\n") <= http_limits.MAX_PIPELINED + 1
    assert peer.refused == ["pipelined"]


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_upgrade_request_is_an_ordinary_request(peer: Peer, protocol: bytes) -> None:
    """
    Upgrade is not heeded: the request is answered over HTTP, and so is the one behind it.
    """
    upgrade = get(b"/1", b"Connection: upgrade", b"Upgrade: " + protocol).replace(b"Connection: close\r\n", b"")
    answer = peer.says(upgrade + upgrade + get(b"/2"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert peer.app.paths == ["/1", "/1", "/2"]


# Load


def test_connections_of_one_address_are_capped() -> None:
    """
    Over the cap a new connection gets 503, and gets in again once one was closed.
    """
    with serving(AtMostTwo) as peer:
        with peer.connect() as first, peer.connect() as second:
            for client in (first, second):
                client.sendall(get().replace(b"close", b"keep-alive"))
                assert status(one_answer(client)) == 200
            answer = peer.says(get())
            assert status(answer) == 503
            assert b"retry-after: 1" in answer
            assert peer.refused == ["address_busy"]
            first.sendall(get())
            assert status(until_closed(first)) == 200
            second.sendall(get())
            assert status(until_closed(second)) == 200
        assert status(peer.says(get())) == 200
    assert not LimitedHttpProtocol._open


def test_unix_socket_peers_are_not_capped(tmp_path: Path) -> None:
    """
    Peers on a Unix socket have no address and are not counted.
    """
    with serving(AtMostTwo, uds=str(tmp_path / "s")) as peer:
        clients = [peer.connect() for _ in range(4)]
        for client in clients:
            with client:
                client.sendall(get())
                assert status(until_closed(client)) == 200


def test_full_server_says_503_without_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """
    Over --limit-concurrency a request gets a 503 problem, and no warning each time.
    """
    with serving(Quick, limit_concurrency=1) as peer:
        answer = peer.says(get())
    assert status(answer) == 503
    assert shown(answer)["title"] == "Service Unavailable"
    assert caplog.records == []


def test_others_are_served_beside_idle_connections(peer: Peer) -> None:
    """
    Five hundred silent connections keep nobody out, and are gone in time.
    """
    idle = [peer.connect() for _ in range(500)]
    assert status(peer.says(get())) == 200
    for client in idle:
        with client:
            assert until_closed(client) == b""


# Configuration


def test_spawned_workers_can_be_given_the_class() -> None:
    """
    uvicorn's Config survives the pickling that spawning workers does to it, by class and by name.
    """
    for http in (LimitedHttpProtocol, "adserver.http_limits:LimitedHttpProtocol"):
        config = pickle.loads(pickle.dumps(Config("app:app", http=http, log_config=None)))
        assert config.http == http


def read_in_a_new_process(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from adserver.http_limits import LimitedHttpProtocol as p;"
        "print(p.request_timeout_s, p.connections_per_address, sorted(p.allowed_hosts))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_environment_sets_the_limits() -> None:
    """
    The time, the cap and the allowed hosts come from the environment, with quiet defaults.
    """
    assert read_in_a_new_process().stdout == "5.0 0 []\n"
    done = read_in_a_new_process(
        ADSERVER_REQUEST_TIMEOUT_S="2.5",
        ADSERVER_CONNECTIONS_PER_ADDRESS="7",
        ADSERVER_ALLOWED_HOSTS="B.test:81, a.test",
    )
    assert done.stdout == "2.5 7 [b'a.test', b'b.test:81']\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADSERVER_REQUEST_TIMEOUT_S", "0"),
        ("ADSERVER_REQUEST_TIMEOUT_S", "nan"),
        ("ADSERVER_REQUEST_TIMEOUT_S", "５"),
        ("ADSERVER_CONNECTIONS_PER_ADDRESS", "-1"),
        ("ADSERVER_ALLOWED_HOSTS", "https://a.test"),
    ],
)
def test_bad_environment_is_refused_by_name(name: str, value: str) -> None:
    """
    A value that makes no sense stops the start and is named.
    """
    done = read_in_a_new_process(**{name: value, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 1
    assert f"{name}: '{value}' is not" in done.stderr
