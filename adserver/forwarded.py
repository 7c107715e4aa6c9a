"""Who sent a request that came through trusted proxies: uvicorn's own rule, for requests it makes no scope for."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from adserver.answers import Client, Headers


async def _take(_: Any, __: Any, ___: Any) -> None:
    """The application behind the middleware: it waits for nothing."""


class Forwarded:
    """Reads `X-Forwarded-For` where it is believed; *trusted* are addresses and networks of proxies, or "*"."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._middleware = ProxyHeadersMiddleware(_take, list(trusted)) if trusted else None

    def client(self, peer: Client, headers: Headers) -> Client:
        """The reader's address, where a trusted *peer* says it; else the peer's own."""
        if self._middleware is None:
            return peer
        scope: Any = {"type": "http", "client": peer, "headers": headers, "scheme": "http"}
        passing: Any = self._middleware(scope, None, None)  # type: ignore[arg-type]
        with suppress(StopIteration):
            passing.send(None)  # it never waits, so it ends here
        found: Client = scope["client"]
        return found
