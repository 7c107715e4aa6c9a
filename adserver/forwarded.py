"""Who sent a request that came through trusted proxies: uvicorn's own rule, with the proxy not forgotten."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from adserver.answers import Client, Headers, Receive, Scope, Send


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


class Behind:
    """*app* behind trusted proxies: `scope["client"]` is the reader's address, `scope["proxied"]` if by their word."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], forwarded: Forwarded) -> None:
        self._app = app
        self._forwarded = forwarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = scope["client"]
            client = self._forwarded.client(peer, scope["headers"])
            scope = {**scope, "client": client, "proxied": client is not peer}
        await self._app(scope, receive, send)
