"""The console is loaded in a worker when somebody first asks for it."""

import asyncio
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from adserver.console.opening import Console


def test_a_worker_starts_without_the_console_and_its_libraries() -> None:
    """
    Whoever only answers readers does without templates, spreadsheets, pictures and sign-in.
    """
    heavy = ("adserver.console.routes", "jinja2", "openpyxl", "authlib", "joserfc", "argon2", "PIL", "httpx")
    code = f"import sys, adserver.app; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture
def opened() -> list[str]:
    return []


def make_app(opened: list[str]) -> Starlette:
    async def page(_: Request) -> Response:
        return PlainTextResponse("the console")

    def read() -> list[Route]:
        opened.append("opened")
        return [Route("/console", page), Route("/report/{token}", page)]

    app = Starlette()
    app.router.default = Console(read, app.router.not_found)
    return app


def test_it_is_opened_once_by_whoever_asks_first(opened: list[str]) -> None:
    """
    Readers do not open it, and who comes later finds it open.
    """

    async def body() -> None:
        app = make_app(opened)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ads.example") as http:
            assert (await http.get("/nothing")).status_code == 404
            assert opened == []
            assert (await http.get("/report/x")).text == "the console"
            assert (await http.get("/console")).text == "the console"
            assert (await http.get("/console/nothing")).status_code == 404

    asyncio.run(body())
    assert opened == ["opened"]


def test_many_at_once_wait_for_one_opening(opened: list[str]) -> None:
    """
    The second who asks while it is being loaded does not load it again.
    """

    async def body() -> None:
        app = make_app(opened)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ads.example") as http:
            answers = await asyncio.gather(*(http.get("/console") for _ in range(5)))
        assert {answer.text for answer in answers} == {"the console"}

    asyncio.run(body())
    assert opened == ["opened"]
