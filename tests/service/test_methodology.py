"""The page that says how this service counts."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adserver.events import REASONS
from tests.service.live import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environ = {
        "ADSERVER_RATE_PER_MINUTE": "1234",
        "ADSERVER_STAFF_ADDRESSES": "198.51.100.0/24",
        "ADSERVER_SEAL_AFTER_H": "7.5",
        "ADSERVER_KEEP_COUNTS_DAYS": "77",
    }
    one = Service(tmp_path_factory.mktemp("m"), workers=1, environ=environ)
    one.start()
    yield one
    one.stop()


def test_it_is_made_of_the_running_settings(service: Service) -> None:
    """
    Windows, limits, lists and every reason are there as they are in force, and no address is.
    """
    answer = service.http.get("/methodology")
    assert answer.status_code == 200
    for fact in ("1,234 events a minute", "7.5 hours", "77 days", "Europe/", *REASONS, "staff", "ua-parser"):
        assert fact in answer.text
    assert "198.51.100" not in answer.text
    assert str(service.data) not in answer.text


def test_it_runs_nothing_and_embeds_nothing(service: Service) -> None:
    """
    Its policy allows its own style and nothing else, and it has no script.
    """
    answer = service.http.get("/methodology")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<img|<iframe| on[a-z]+=| style=", answer.text)


@pytest.mark.skipif(not shutil.which("chromium"), reason="the page tests need Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [360, 1280])
def test_it_can_be_read_on_every_screen(service: Service, width: int, tmp_path: Path) -> None:
    """
    Nothing is cut off or scrolls sideways, its style is applied, and the browser has nothing to complain about.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        page = browser.new_page(viewport={"width": width, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{service.url}/methodology")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.querySelector('dt')).fontWeight") == "600"
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        assert said == []
        browser.close()
