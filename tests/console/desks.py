"""The console on a running service: people of each role, their browsers' sessions, and what a form needs."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import pytest

from adserver.console import people, sessions
from adserver.console.audit import Actor
from adserver.console.people import Role
from adserver.console.web import COOKIE
from adserver.store import Store, open_store
from tests.service.live import Service

T = TypeVar("T")
PASSWORD = "a few words to remember"
TEST = Actor("test")


class Desk:
    """The console of a running service, as browsers of several people see it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=30)

    def ask(self, body: Callable[[Store], Awaitable[T]]) -> T:
        """Run *body* on the service's own store."""

        async def main() -> T:
            async with open_store(self.service.settings.store_url) as store:
                return await body(store)

        with ThreadPoolExecutor(1) as thread:  # where a browser is driven, this thread has a loop of its own
            return thread.submit(lambda: asyncio.run(main())).result()

    def add(self, name: str, role: str, password: str | None = None) -> str:
        with suppress(people.PersonExists):
            self.ask(lambda store: people.add_person(store, name, Role(role), TEST, time.time(), password))
        return name

    def sign_in(self, name: str) -> "Browser":
        """A browser with a new session of *name*."""

        async def body(store: Store) -> str:
            person = await people.read_person(store, name)
            assert person is not None
            return await sessions.open_session(store, person, time.time(), "127.0.0.1")

        return self.stranger(self.ask(body))

    def stranger(self, token: str = "") -> "Browser":
        """A browser that nobody has signed in with, or with a cookie of its own making."""
        return Browser(self.http, self.service.url, token)

    def browser(self, role: str) -> "Browser":
        return self.sign_in(self.add(f"{role}@desk.example", role))


class Browser:
    """Calls the console as a browser does: with its cookie, and its own Origin on what it sends."""

    def __init__(self, http: httpx.Client, url: str, token: str = "") -> None:
        self.http = http
        self.url = url
        self.token = token
        self.headers = {"cookie": f"{COOKIE}={token}"} if token else {}

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, headers=self.headers, **options)

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/console/me").text)
        return found[1] if found else ""

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
        body = {"csrf": self.csrf, **self._made_from(path), **(data or {})}
        return self.http.post(path, data=body, headers={**self.headers, "origin": self.url}, **options)

    def _made_from(self, path: str) -> dict[str, str]:
        """What the form's page says it is made from."""
        if not path.startswith(("/console/line-items", "/console/book", "/console/creatives", "/console/slots",
                                "/console/advertisers", "/console/draft", "/console/sheet/take")):  # fmt: skip
            return {}
        page = self.get(_ACTION.sub("", path)).text
        found = {name: re.search(rf'name="{name}" value="([^"]*)"', page) for name in ("since", "draft", "sheet")}
        return {name: match[1] for name, match in found.items() if match}


_ACTION = re.compile(r"/(remove|check|links|links/revoke|drop|settle|publish|take)$")


@pytest.fixture(scope="module")
def desk(desk_service: Service) -> Iterator[Desk]:
    desk = Desk(desk_service)
    yield desk
    desk.http.close()


@pytest.fixture(scope="module")
def desk_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service of two workers on the sample configuration."""
    service = Service(tmp_path_factory.mktemp("s"))
    service.start()
    yield service
    service.http.close()
    service.stop()
