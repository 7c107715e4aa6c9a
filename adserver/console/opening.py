"""The console, opened in a worker when somebody first asks for it.

What it is made of takes 23 MB and a third of a second to load: a worker that only answers readers does without, and
while one opens it, readers are answered in between.
"""

import asyncio
from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

OWN = ("/console", "/api/", "/report/")
"""How its paths begin. For any other it is not opened, whoever tries them."""


class Console:
    """Answers what is the console's, and hands everything else to *otherwise*. *read* loads and makes its routes."""

    def __init__(self, read: Callable[[], Sequence[BaseRoute]], otherwise: ASGIApp) -> None:
        self._read = read
        self._otherwise = otherwise
        self._opening = asyncio.Lock()
        self._router: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(OWN):
            await self._otherwise(scope, receive, send)
            return
        router = self._router or await self.open()
        await router(scope, receive, send)

    async def open(self) -> Router:
        async with self._opening:
            if self._router is None:
                self._router = Router(await asyncio.to_thread(self._read), redirect_slashes=False)
            return self._router
