"""The line to the service: one call for a page, within its budget, and none while the service is away.

One thread with an event loop of its own does all calls of a client, whoever asks: any thread, any event loop, and after
a fork a new one. So the budget is a hard one also where a server sends a byte now and then or a name is slow to be
found, connections are kept for the next page, and all state is one thread's alone.
"""

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from secrets import token_hex
from urllib.parse import urlsplit

import httpx

from adserver.client.about import About
from adserver.client.marks import Ask
from adserver.client.outage import Kept, Outage

log = logging.getLogger("adserver.client")

_MOST_BYTES = 8 * 1024 * 1024
_SLACK_S = 0.2
"""How much later than the budget a caller stops waiting for the thread itself, should that be held up."""
_IDLE_S = 3.0
"""Connections are kept for so long; the service, and proxies before it, keep them for 5 s and more."""
_MOST_TOLD = 100


class BadAnswer(Exception):
    """What came was no answer of adserver's."""


class Line:
    """To the service at *url*, such as `http://127.0.0.1:8000`. Raises ValueError where that is no such address.

    *budget_s* is how long one page may wait; after a failure nothing is asked for *pause_s*. Both in seconds.
    """

    def __init__(self, url: str, budget_s: float, pause_s: float) -> None:
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.hostname or split.query or split.fragment:
            raise ValueError(f"{url!r} is not the address of a service: expected such as 'http://127.0.0.1:8000'")
        if not (0 < budget_s < 60 and pause_s >= 0):
            raise ValueError(f"budget_s {budget_s!r}, pause_s {pause_s!r}: expected seconds, such as 0.3 and 30")
        self.url = url.rstrip("/")
        self.budget_s = budget_s
        self._pause_s = pause_s
        # Reading the root certificates takes 30 ms, which is no page's to wait for.
        self._tls = ssl.create_default_context() if split.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._starting = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._separator = f"\n{token_hex(12)}\n"

    def __repr__(self) -> str:
        return f"<Line to {self.url}, {self._outage if self._loop else 'not used yet'}>"

    # For any thread

    def ask(self, asks: tuple[Ask, ...], about: About) -> Sequence[str]:
        """The HTML for each of *asks*, or none at all. Waits at most the budget; never raises."""
        try:
            future = self._submit(asks, about)
            try:
                return future.result(self.budget_s + _SLACK_S)
            finally:
                future.cancel()
        except Exception:
            return ()

    async def ask_async(self, asks: tuple[Ask, ...], about: About) -> Sequence[str]:
        """As `ask`, for a task of whichever event loop."""
        try:
            future = self._submit(asks, about)
            return await asyncio.wait_for(asyncio.wrap_future(future), self.budget_s + _SLACK_S)
        except Exception:
            return ()

    def close(self) -> None:
        """Close the connections and end the thread; the next call begins anew."""
        with self._starting:
            loop, thread, self._loop = self._loop, self._thread if self._loop else None, None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(self._http.aclose(), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()

    def _submit(self, asks: tuple[Ask, ...], about: About) -> "Future[Sequence[str]]":
        began = time.monotonic()
        with self._starting:
            if self._loop is None or self._pid != os.getpid():
                self._start()
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(self._answer(asks, about, began), self._loop)

    def _start(self) -> None:
        """A thread does not survive a fork, and what was under way before it never ends: all begins anew."""
        self._outage, self._kept = Outage(self._pause_s), Kept()
        self._told: set[str] = set()
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=20, keepalive_expiry=_IDLE_S)
        headers = {"accept": "text/html", "accept-encoding": "identity", "content-type": "text/html; charset=utf-8"}
        self._http = httpx.AsyncClient(
            headers=headers, limits=limits, timeout=self.budget_s, verify=self._tls, trust_env=False
        )
        self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="adserver-client", daemon=True)
        self._thread.start()

    # In its own thread

    async def _answer(self, asks: tuple[Ask, ...], about: About, began: float) -> Sequence[str]:
        page = (asks, about.query, about.gpc)
        if not self._outage.may_call(time.monotonic()):
            return self._kept.find(page, time.monotonic())
        called = time.monotonic()
        try:
            async with asyncio.timeout(began + self.budget_s - called):
                answers, age_s = await self._call(asks, about)
        except asyncio.CancelledError:  # whoever asked is gone, which says nothing of the service
            self._outage.left_open()
            raise
        except TimeoutError:
            self._note_failure(f"no answer within {self.budget_s:g} s")
        except Exception as error:
            self._note_failure(f"{type(error).__name__}: {error}")
        else:
            if (since := self._outage.answered(called)) is not None:
                log.info("%s: answers again, after %.0f s", self.url, time.monotonic() - since)
            if not about.personal:
                self._kept.keep(page, answers, time.monotonic() + age_s)
            return answers
        return self._kept.find(page, time.monotonic())

    def _note_failure(self, what: str) -> None:
        if self._outage.failed(time.monotonic()):
            log.warning(
                "%s: %s; pages are shown with their last good ads or without, and it is tried again every %g s",
                self.url,
                what,
                self._pause_s,
            )

    async def _call(self, asks: tuple[Ask, ...], about: About) -> tuple[Sequence[str], float]:
        """The HTML for each of *asks*, and for how many seconds it may be shown again. Raises for anything else."""
        article = self._separator.join(f'[{name} id="{one}"]' for name, one in asks).encode()
        headers = {"sec-gpc": "1"} if about.gpc else {}
        request = self._http.build_request("POST", f"{self.url}/render{about.query}", content=article, headers=headers)
        # Never twice: whether somebody read the request cannot be told. A kept connection that the service closed while
        # nothing was asked is noticed before it is used, and a new one opened.
        answer = await self._http.send(request, stream=True)
        try:
            if answer.status_code != 200:
                raise BadAnswer(f"it answered {answer.status_code} instead of 200")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > _MOST_BYTES:
                    raise BadAnswer(f"its answer is larger than {_MOST_BYTES:,} bytes")
        finally:
            await answer.aclose()
        answers = body.decode().split(self._separator)
        if "adserver-filled" not in answer.headers or len(answers) != len(asks):
            raise BadAnswer("its answer is not adserver's; is this the right address?")
        self._tell_unknown(answer.headers.get("adserver-unknown", ""))
        age = answer.headers.get("adserver-max-age", "")
        return answers, float(age) if age.isascii() and age.isdigit() else 0.0

    def _tell_unknown(self, ids: str) -> None:
        for one in ids.split(", "):
            if one and one not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(one)
                log.warning("%s: there is no slot, group or placement %s; nothing is shown for it", self.url, one)
