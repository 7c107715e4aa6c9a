"""Answers and request bodies, as raw ASGI messages: what every delivery and tracking route shares."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from adserver import metrics
from adserver.context import BadQuery
from adserver.metrics import Meter

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Client = tuple[str, int] | None
"""The peer's address and port."""

NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
HTML = (b"content-type", b"text/html; charset=utf-8")
JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")


def length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


def keep_for(seconds: int) -> tuple[bytes, bytes]:
    """Lets every cache on the way keep the answer."""
    return b"cache-control", b"public, max-age=%d" % seconds


TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    422: "Unprocessable content",
    428: "Precondition required",
    500: "Internal error",
    503: "Try again",
}


class Responses:
    """Sends answers and counts them by route and status."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._series = {
            (route, status): metrics.RESPONSES.labels(route, str(status))
            for route in metrics.ROUTES
            for status in metrics.STATUSES
        }

    def note(self, route: str, status: int) -> None:
        """Count an answer; `send` does it by itself."""
        self._meter.add(self._series[route, status])

    async def send(self, send: Send, route: str, status: int, headers: Headers, body: bytes) -> None:
        self._meter.add(self._series[route, status])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def problem(self, send: Send, route: str, status: int, detail: str, extra: Headers | None = None) -> None:
        """A problem answer, see `problem_answer`."""
        await self.send(send, route, status, *problem_answer(status, detail, extra))

    async def method_not_allowed(self, send: Send, route: str, allow: bytes) -> None:
        detail = f"This address answers {allow.decode()} only."
        await self.problem(send, route, 405, detail, [(b"allow", allow)])


def problem_answer(status: int, detail: str, extra: Headers | None = None) -> tuple[Headers, bytes]:
    """The headers and body of an RFC 9457 problem answer; *detail* is for a person and holds nothing of the request."""
    body = msgspec.json.encode({"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail})
    return [PROBLEM, NO_STORE, NOSNIFF, length(body), *(extra or [])], body


def wire(headers: Headers, body: bytes) -> bytes:
    """All of an answer that follows its status and date."""
    return b"%b\r\n%b" % (b"".join([b"%b: %b\r\n" % header for header in headers]), body)


async def read_body(receive: Receive, headers: Headers, most: int) -> bytes:
    """The request's body. Raises BadQuery as soon as it is known to be larger than *most* bytes."""
    too_large = BadQuery(f"The article is larger than {most:,} bytes.", 413)
    for name, value in headers:
        if name == b"content-length" and int(value) > most:
            raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadQuery("The article did not arrive whole.")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None, more: Mapping[str, Any] | None = None
) -> Response:
    """The same problem answer for routes that Starlette serves. *more* is what programs may want beside the words."""
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    body |= more or {}
    plain = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(body), status, plain, media_type="application/problem+json")
