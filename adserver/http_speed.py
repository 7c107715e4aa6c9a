"""Answers with one write, and without a task where nothing is waited for: what uvicorn's protocol leaves to gain.

uvicorn writes an answer's head and body apart and runs every request in a task of its own; together that is about
half of a small answer's time. Rules: the application sees plain ASGI and nothing else; an answer sent in one piece
leaves in one write, any other goes uvicorn's way; only paths in EAGER may be started without a task, because they
wait for nothing but a reader who is slow to take the answer.
"""

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from adserver.http_limits import LimitedHttpProtocol

EAGER = b"/ads/"


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
            self.transport.close()
        self.on_response()


class FastHttpProtocol(LimitedHttpProtocol):
    """Pass to uvicorn as ``http=``."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = JoinedAnswer  # uvicorn has no hook for the class of its cycles
        if not cycle.scope["raw_path"].startswith(EAGER):
            super()._start_asgi_task(cycle, app)
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
