"""Answers with one write, and without a task or a scope where nothing is waited for: what uvicorn leaves to gain.

uvicorn builds a scope of fourteen entries, a cycle and a task for every request and writes an answer's head and body
apart; together that is more than a small answer takes. Rules: an answer sent in one piece leaves in one write, any
other goes uvicorn's way; paths in `eager` start without a task, when all that has arrived is read, and get one when
they have to wait for more (so they must not ask for their task before they wait); a plain GET (no body, the
connection stays) that one of the application's `AT_ONCE` functions knows is answered by it, at once or a moment later,
and the application sees no request; the same goes for a POST to a path in `collecting` whose body arrives whole with
its head. These answers leave together, when all that had arrived is read: writing each at once wakes the peer each
time, and costs a third of the requests a second. Everything else is plain ASGI.
"""

from collections.abc import Callable, Container, Coroutine, Generator
from types import coroutine
from typing import Any, ClassVar, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from adserver.http_limits import LimitedHttpProtocol

AT_ONCE = "adserver.at_once"
"""Where the application leaves its functions in the lifespan state."""


class Outbox:
    """The connections whose answers leave in a moment."""

    def __init__(self) -> None:
        self._waiting: list[FastHttpProtocol] = []

    def add(self, protocol: "FastHttpProtocol") -> None:
        if not self._waiting:
            protocol.loop.call_soon(self._flush)
        self._waiting.append(protocol)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for protocol in waiting:
            protocol.send_unsent()


class AtOnce(NamedTuple):
    """Each gives an answer's status and all that follows the date in it, or None where the request must go the long
    way: *get* by the target of a plain GET, *post* by the headers and the body of a POST.

    *soon* takes a plain GET by its target, headers and client, and tells its answer later, once; it is False where it
    does not. *outbox* holds the answers of an event loop until they leave.
    """

    get: Callable[[bytes], tuple[int, bytes] | None]
    post: Callable[[list[tuple[bytes, bytes]], bytes], tuple[int, bytes] | None]
    soon: Callable[[bytes, list[tuple[bytes, bytes]], tuple[str, int] | None, Callable[[int, bytes], None]], bool]
    outbox: Outbox


_STAYS = b"keep-alive"
_PLAIN_POST = frozenset((b"content-length", b"connection"))


class JoinedAnswer(RequestResponseCycle):
    """A request's cycle that holds the head of the answer back until its body is there."""

    _head: Any = None

    async def send(self, message: Any) -> None:
        head = self._head
        if head is None:
            if message["type"] == "http.response.start" and not self.response_started:
                self._head = message
            else:
                await super().send(message)
            return
        self._head = None
        if message["type"] == "http.response.body" and not message.get("more_body") and not self._must_wait():
            self._write(head["status"], head["headers"], message.get("body", b""))
            return
        await super().send(head)
        await super().send(message)

    def _must_wait(self) -> bool:
        return self.disconnected or self.flow.write_paused or self.access_log

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        lines = [STATUS_LINE[status]]
        has_length = status in (204, 304) or self.scope["method"] == "HEAD"
        for name, value in (*self.default_headers, *headers):
            if b"\n" in value or b"\r" in value or b"\0" in value:
                raise RuntimeError("Invalid HTTP header value.")
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                has_length = True
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive = False
        if not has_length:
            lines.append(b"content-length: %d\r\n" % len(body))
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self.scope["method"] != "HEAD":
            lines.append(body)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(lines))
        self.message_event.set()
        if not self.keep_alive:
            self.on_response.__self__.finish()  # type: ignore[attr-defined]  # the protocol's bound method
        self.on_response()


class Soon:
    """Stands where a connection has its cycle, while an answer is on its way that no application gives."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "response_complete")
    more_body = response_started = waiting_for_100_continue = False
    scope = None

    def __init__(self, protocol: "FastHttpProtocol") -> None:
        self._protocol = protocol
        self.keep_alive = True
        self.disconnected = self.response_complete = False

    @property
    def message_event(self) -> "Soon":
        return self

    def set(self) -> None:
        """Nobody waits for messages here."""

    def tell(self, status: int, rest: bytes) -> None:
        self.response_complete = True
        if self.disconnected:
            return
        protocol = self._protocol
        if self.keep_alive:
            protocol.say(status, rest)
        else:
            protocol.say(status, b"connection: close\r\n" + rest)
            protocol.finish()
        protocol.on_response_complete()


_said: tuple[Any, bytes] = ([], b"")


def _lines(state: ServerState) -> bytes:
    """The headers of every answer (the date), as lines. uvicorn makes a new list of them each second."""
    global _said
    headers = state.default_headers
    if headers is not _said[0]:
        _said = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
    return _said[1]


class FastHttpProtocol(LimitedHttpProtocol):
    """Pass to uvicorn as ``http=``."""

    eager: ClassVar[Container[bytes]] = frozenset((b"/ads", b"/ads/", b"/render", b"/i/", b"/m/", b"/v/", b"/c/"))
    """Whole paths, or the first part of one with both its slashes."""
    collecting: ClassVar[Container[bytes]] = frozenset((b"/render",))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = dict(self.app_state)  # each request copies it into its scope
        self._at_once: AtOnce | None = self.app_state.pop(AT_ONCE, None)
        self._outbox = self._at_once.outbox if self._at_once else Outbox()

    _held: tuple[RequestResponseCycle, Any] | None = None
    _parts: list[bytes] | None = None  # of a body that is collected
    _unsent = b""

    def _answers(self, target: bytes) -> bool:
        at_once = self._at_once
        if at_once is None or self.flow.write_paused or self.parser.get_method() != b"GET":
            return False
        answer = at_once.get(target)
        if answer is not None:
            self.scope = None  # type: ignore[assignment]  # nothing is being read any more
            self.say(*answer)
            self.on_response_complete()
            return True
        before, soon = self.cycle, Soon(self)
        self.cycle = soon  # type: ignore[assignment]  # it has all that is asked of one
        if not at_once.soon(target, self.headers, self.client, soon.tell) and not soon.response_complete:
            self.cycle = before
            soon.disconnected = True  # whatever is told to it now, another answers
            return False
        self.scope = None  # type: ignore[assignment]
        return True

    def say(self, status: int, rest: bytes) -> None:
        """Give an answer, which leaves in a moment; *rest* is all that follows the date in it."""
        answer = b"%b%b%b" % (STATUS_LINE[status], _lines(self.server_state), rest)
        if self._unsent:
            self._unsent += answer
        else:
            self._unsent = answer
            self._outbox.add(self)

    def send_unsent(self) -> None:
        """Write what was said so far; before anything else is written to this connection, or it is closed."""
        if self._unsent:
            answers, self._unsent = self._unsent, b""
            if not self.transport.is_closing():
                self.transport.write(answers)

    def eof_received(self) -> None:
        self.send_unsent()  # the peer may still read, and the transport closes next
        super().eof_received()

    def shutdown(self) -> None:
        self.send_unsent()
        super().shutdown()

    def finish(self) -> None:
        self.send_unsent()
        super().finish()

    def _answer(self, reason: str) -> None:
        self.send_unsent()
        super()._answer(reason)

    def _close(self) -> None:
        self.send_unsent()
        super()._close()

    def _collects(self, target: bytes, special: dict[bytes, bytes] | None) -> bool:
        if target not in self.collecting or self._at_once is None or self.flow.write_paused:
            return False
        if special is None or not special.keys() <= _PLAIN_POST or special.get(b"connection", _STAYS) != _STAYS:
            return False
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        self._parts = []
        return True

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parts is not None and self._at_once is not None:
            answer = self._at_once.post(self.headers, b"".join(self._parts))
            if answer is None:
                self._begin_after_all()
            else:
                self._parts = self.scope = None  # type: ignore[assignment]
                self.say(*answer)
                super().on_message_complete()
                self.on_response_complete()
                return
        super().on_message_complete()

    def _begin_after_all(self) -> None:
        """Let the application have the request that was being collected, and what there is of its body."""
        parts, self._parts = self._parts or [], None
        self._begin(self.cycle)
        for part in parts:
            super().on_body(part)

    def feed(self, data: bytes) -> None:
        super().feed(data)
        if self._parts is not None:  # more of the body is to come
            self._begin_after_all()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:
            self._start_held()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.send_unsent()
        cycle.__class__ = JoinedAnswer  # uvicorn has no hook for the class of its cycles
        path = cycle.scope["raw_path"]
        if path in self.eager or path[: path.find(b"/", 1) + 1] in self.eager:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held is not None:  # the next of a pipeline, of which all has been read
            self.loop.call_soon(self._start_held)

    def _start_held(self) -> None:
        if self._held is None:
            return
        (cycle, app), self._held = self._held, None
        if cycle.disconnected:
            return
        running = cycle.run_asgi(app)
        try:
            waiting_for = running.send(None)
        except StopIteration:
            return
        task = self.loop.create_task(_go_on(running, waiting_for))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)


@coroutine
def _go_on(running: Coroutine[Any, Any, None], waiting_for: Any) -> Generator[Any, Any, None]:
    """Finish in a task what was started without one and now waits for something."""
    while True:
        try:
            try:
                value = yield waiting_for
            except BaseException as error:  # a cancellation is the coroutine's to handle
                waiting_for = running.throw(error)
            else:
                waiting_for = running.send(value)
        except StopIteration:
            return
