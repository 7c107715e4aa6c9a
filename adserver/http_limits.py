"""Refuses hostile HTTP inside uvicorn, before a request costs more than its bytes.

- Nothing here costs a whole and ordinary request a timer, a loop over its headers or a log line.
- A refusal is one problem document and a closed connection; it is counted by a reason out of REASONS
  (never by anything the peer sent) and leaves no log line, so a flood of garbage floods no log.
- An answer is never written into the middle of another: behind a request still being answered, a
  refused one gets no answer, only the close after that response.
- The environment is read at import, since uvicorn's spawned workers get this class by its name.
"""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar, Final, Literal, NoReturn
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_TARGET_BYTES: Final = 2 * 1024
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_HEADER_FIELDS: Final = 64
MAX_PIPELINED: Final = 16  # one read of 256 kB could otherwise queue 9,000 requests
# Closing with unread bytes makes the kernel send a reset, which can overtake the answer: half-close,
# throw away what still arrives, and give up after this long.
LINGER_S: Final = 1.0

_REFUSALS: Final = {
    "malformed": (400, "This is not valid HTTP/1.1; check the client or proxy that sent it."),
    "version": (400, "Only HTTP/1.0 and HTTP/1.1 are spoken here; use one of them."),
    "host": (400, "Send exactly one Host header, holding a host name and, if needed, a port."),
    "target": (400, "Ask for a plain path such as /readyz, in UTF-8 and without control characters."),
    "foreign_target": (400, "The address names another host than the Host header; ask for the path alone."),
    "framing": (400, "Send one Content-Length or one Transfer-Encoding: chunked, and no body with an Upgrade."),
    "timeout": (408, "The request did not arrive whole in time; send headers and body without pausing."),
    "target_too_long": (414, f"Shorten the address to at most {MAX_TARGET_BYTES} bytes."),
    "encoded_body": (415, "Compressed bodies are not read; send the body without Content-Encoding."),
    "headers_too_large": (431, f"Send at most {MAX_HEADER_FIELDS} header fields and {MAX_HEADER_BYTES} bytes of them."),
    "address_busy": (503, "This address has too many open connections; reuse them, or try again in a second."),
    "server_busy": (503, "The server has too many requests at once; try again in a second."),
    "pipelined": (503, "Too many requests were sent ahead; wait for answers before sending more."),
}
_BODIES: Final = {
    reason: json.dumps({"title": HTTPStatus(status).phrase, "status": status, "detail": detail}).encode("ascii")
    for reason, (status, detail) in _REFUSALS.items()
}
# "no_request": the time ran out before a request began, so there is nobody to answer.
REASONS: Final = frozenset(_REFUSALS) | {"no_request"}

on_refused: Callable[[str], None] = lambda _reason: None  # noqa: E731 - replaced by whoever counts

_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ABSOLUTE_FORM = re.compile(rb"(https?)://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# llhttp takes Proxy-Connection for Connection.
_SPECIAL = frozenset(
    (
        b"host",
        b"connection",
        b"proxy-connection",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
    )
)
_KEEP_ALIVE = {b"connection": b"keep-alive"}
_SLASH, _PERCENT = b"/%"


class _Stop(Exception):
    """Ends the parser's work; feed_data turns it into its own error."""


def _seconds_from_environment(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not float(text):
        raise ValueError(f"{name}: {text!r} is not a time in seconds above 0, such as {default}; correct or unset it")
    return float(text)


def _count_from_environment(name: str) -> int:
    text = os.environ.get(name) or "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{name}: {text!r} is not a whole number, such as 100, or 0 for no limit; correct or unset it")
    return int(text)


def _hosts_from_environment(name: str) -> frozenset[bytes]:
    hosts = frozenset(host.strip().lower().encode() for host in os.environ.get(name, "").split(",") if host.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{name}: '{host.decode()}' is not a host, expected such as ads.example.com,a.test:8000")
    return hosts


class LimitedHttpProtocol(HttpToolsProtocol):
    """Pass to uvicorn as ``http=``: the class itself, or "adserver.http_limits:LimitedHttpProtocol".

    A request must be whole within *request_timeout_s* of its first byte, a connection's first one
    within that of the accept. Time the server takes (for an earlier request, with its buffer full,
    before it says 100 Continue) is not held against the peer.
    """

    request_timeout_s: ClassVar[float] = _seconds_from_environment("ADSERVER_REQUEST_TIMEOUT_S", 5.0)
    connections_per_address: ClassVar[int] = _count_from_environment("ADSERVER_CONNECTIONS_PER_ADDRESS")
    allowed_hosts: ClassVar[frozenset[bytes]] = _hosts_from_environment("ADSERVER_ALLOWED_HOSTS")

    _open: ClassVar[Counter[str]] = Counter()  # connections by address, in this process

    _address: str | None = None
    _timer: asyncio.TimerHandle | None = None
    _refused = False
    _reason = "malformed"
    _host: bytes | None = None
    _checked_host: bytes | None = None
    _special: dict[bytes, bytes] | None = None  # the fields in _SPECIAL of the request being read
    _withheld = 0  # bytes read since the parser last handed any on: a line or trailer without end
    _handed_on = False
    _held_back = False  # the peer waits for 100 Continue
    _idle_since = 0.0
    _answering: RequestResponseCycle | None = None  # while others queue behind it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.connections_per_address and self.client is not None:
            self._address = self.client[0]
            self._open[self._address] += 1
            if self._open[self._address] > self.connections_per_address:
                self._refuse("address_busy")
                return
        self._timer = self.loop.call_later(self.request_timeout_s, self._time_is_up)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._address is not None:
            self._open[self._address] -= 1
            if not self._open[self._address]:
                del self._open[self._address]
        self._stop_timer()
        if self._answering is not None:
            # The parent only tells the newest, and a write to a closed transport is logged as an error.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) > MAX_HEADER_BYTES:
            # So that limits are looked at every 16 KiB, where uvloop reads up to 256 kB.
            for start in range(0, len(data), MAX_HEADER_BYTES):
                self.data_received(data[start : start + MAX_HEADER_BYTES])
            return
        if self._refused:
            return
        try:
            self.feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Nothing is upgraded to: what follows is the next request. At most MAX_PIPELINED deep.
            self.data_received(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._reason)
            return
        cycle = self.cycle
        if self.scope is not None and (
            cycle is None or cycle.more_body or cycle.response_complete or cycle.scope is not self.scope
        ):
            self._await_the_rest(len(data))

    def feed(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _SPECIAL:
            if name == b"host" and self._host is None:
                self._host = value
            else:
                self._note(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        url = self.url
        if len(self.headers) > MAX_HEADER_FIELDS or len(url) > MAX_TARGET_BYTES or self._timer is not None:
            self._check_sizes()
        # Without a Connection header only HTTP/1.1 is kept alive; asking for the version takes 0.3 us.
        special, stays = self._special, self.parser.should_keep_alive()
        if special is not None or not stays:
            self._check_special(special or {})
        if self._host != self._checked_host or self._host is None:
            self._check_host()
        if url[0] != _SLASH or _PERCENT in url:  # as numbers: b"%" in url takes 1 us
            self._check_target()
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            self._stop("server_busy")  # the parent would answer too, but warn in the log each time
        if self.pipeline and len(self.pipeline) >= MAX_PIPELINED:
            self._stop("pipelined")
        before = self.cycle
        plain = special is None or (special == _KEEP_ALIVE and self.parser.get_http_version() == "1.1")
        idle = before is None or before.response_complete
        if stays and idle and ((plain and self._answers(url)) or self._collects(url, special)):
            return
        self._begin(before)

    def _begin(self, before: RequestResponseCycle | None) -> None:
        HttpToolsProtocol.on_headers_complete(self)  # super() takes 0.5 us longer
        if self.pipeline and len(self.pipeline) == 1:
            self._answering = before
        if self._special is not None:
            # The scope keeps its list: a trailer arriving while the app runs must not become a header.
            self.headers = []

    def _answers(self, _: bytes) -> bool:
        """Answer a request that has no body and ends nothing, if that needs no application; a subclass may."""
        return False

    def _collects(self, _: bytes, __: dict[bytes, bytes] | None) -> bool:
        """Take the request's body before any application sees the request; a subclass may."""
        return False

    def on_body(self, body: bytes) -> None:
        self._handed_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._host = self._special = None
        if self._timer is not None:
            self._stop_timer()
            self._withheld = 0
            self._held_back = False
        cycle = self.cycle
        if self.scope is not None:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        # The parent starts and cancels a keep-alive timer for each request. One that is looked at when
        # it fires does as well, and the 2 us saved pay for the checks above.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._answering, app = self.pipeline.pop()
            self._start_asgi_task(self._answering, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive_for(self.timeout_keep_alive)

    def _keep_alive_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if self.transport.is_closing() or busy or self._reading() == "head":
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._keep_alive_for(left)
        else:
            self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def _stop(self, reason: str) -> NoReturn:
        self._reason = reason
        raise _Stop

    def _note(self, name: bytes, value: bytes) -> None:
        if self._special is None:
            self._special = {}
        if name == b"host":
            self._stop("host")
        if (name in self._special and b"connection" not in name) or self._reading() == "body":
            self._stop("framing")
        self._special[name] = value
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def _check_sizes(self) -> None:
        if len(self.url) > MAX_TARGET_BYTES:
            self._stop("target_too_long")
        size = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if len(self.headers) > MAX_HEADER_FIELDS or size > MAX_HEADER_BYTES:
            self._stop("headers_too_large")

    def _check_special(self, fields: dict[bytes, bytes]) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop("version")
        coding = fields.get(b"transfer-encoding")
        if coding is None and not fields.get(b"content-length", b"").strip(b" \t0"):
            return
        # llhttp also takes "gzip, chunked", and chunked in HTTP/1.0; of an upgrade it skips the body,
        # which would then be read as the next request.
        if coding is not None and (coding.strip().lower() != b"chunked" or version == "1.0"):
            self._stop("framing")
        if self.parser.should_upgrade():
            self._stop("framing")
        if fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            self._stop("encoded_body")

    def _check_host(self) -> None:
        if self._host is None:
            if self.parser.get_http_version() != "1.0":
                self._stop("host")
        elif not _HOST.fullmatch(self._host):
            self._stop("host")
        self._checked_host = self._host

    def _check_target(self) -> None:
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":
            return
        if self.url[0] != _SLASH:
            self._use_absolute_form()
        path = unquote_to_bytes(self.url.partition(b"?")[0])
        try:
            path.decode()
        except UnicodeDecodeError:
            self._stop("target")
        if _CONTROL.search(path):
            self._stop("target")

    def _use_absolute_form(self) -> None:
        match = _ABSOLUTE_FORM.fullmatch(self.url)
        if match is None or not _HOST.fullmatch(match[2]):
            self._stop("target")
        port = b":443" if match[1].lower() == b"https" else b":80"
        named = match[2].lower().removesuffix(port)
        if self._host is None or named != self._host.lower().removesuffix(port):
            if named not in self.allowed_hosts:
                self._stop("foreign_target")
            # RFC 9112, 3.2.2: the host in the target counts, whatever the header says.
            self.headers[:] = [(b"host", match[2]), *(field for field in self.headers if field[0] != b"host")]
        self.url = match[3] if match[3].startswith(b"/") else b"/" + match[3]

    def _reading(self) -> Literal["nothing", "head", "body"]:
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            return "nothing" if self.scope is None else "head"
        return "body" if cycle.more_body else "nothing"

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await_the_rest(self, read: int) -> None:
        reading = self._reading()
        if reading == "nothing":
            return  # blank lines, or the end of a body already answered: the keep-alive timer runs on
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse("target_too_long")
            return
        if self._awaits_100_continue() and not self._held_back:
            self._held_back = True
            self._stop_timer()
            self._look_again()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.request_timeout_s, self._time_is_up)
        self._withheld = 0 if self._handed_on else self._withheld + read
        self._handed_on = False
        if self._withheld > MAX_HEADER_BYTES + MAX_TARGET_BYTES or len(self.headers) > MAX_HEADER_FIELDS:
            self._refuse("headers_too_large")

    def _time_is_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._reading() == "nothing":
            on_refused("no_request")
            self._close()
        elif self._awaits_100_continue() and self._held_back:
            self._look_again()
        elif self._held_back or self._waits_for_us():
            self._held_back = False
            self._timer = self.loop.call_later(self.request_timeout_s, self._time_is_up)
        else:
            self._refuse("timeout")

    def _look_again(self) -> None:
        """The peer's time begins when it is told to go on, which uvicorn does without a word to us."""
        self._timer = self.loop.call_later(self.request_timeout_s / 10, self._time_is_up)

    def _awaits_100_continue(self) -> bool:
        return self.cycle is not None and self.cycle.waiting_for_100_continue

    def _waits_for_us(self) -> bool:
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        behind_another = self._reading() == "head" or bool(self.pipeline)
        return behind_another or self.flow.read_paused

    def _refuse(self, reason: str) -> None:
        on_refused(reason)
        self._refused = True
        self._unset_keepalive_if_required()
        self._stop_timer()
        cycle = self.cycle
        reading = self._reading()
        if cycle is not None and not cycle.response_complete:
            last: RequestResponseCycle | None = None
            if reading != "body":
                last = cycle
            elif self.pipeline:
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._answering
            if last is not None:
                last.keep_alive = False  # the response to an earlier request ends the connection
                return
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False  # or it would be said behind our answer
            cycle.message_event.set()
            if not cycle.response_started:
                self._answer(reason)
        elif reading != "body":
            self._answer(reason)
        self._close()

    def _answer(self, reason: str) -> None:
        body = _BODIES[reason]
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        status = _REFUSALS[reason][0]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % field for field in headers), b"\r\n"]
        if self.parser.get_method() != b"HEAD":
            lines.append(body)
        self.transport.write(b"".join(lines))

    def finish(self) -> None:
        """End the connection behind its last answer; a peer that was refused may still be sending."""
        if self._refused:
            self._close()
        else:
            self.transport.close()

    def _close(self) -> None:
        self._refused = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)
