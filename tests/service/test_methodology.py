"""The page that says how this service counts."""

import os
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from adserver.events import REASONS
from adserver.settings import Settings
from tests.service.live import Service


def started(directory: Path, **environ: str) -> Service:
    one = Service(directory, workers=1, environ={f"ADSERVER_{name}": value for name, value in environ.items()})
    one.start()
    return one


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that has everything set that can be."""
    directory = tmp_path_factory.mktemp("m")
    (directory / "list").write_text("203.0.113.0/24\n2001:db8::/32\n")
    one = started(
        directory,
        RATE_PER_MINUTE="1234",
        STAFF_ADDRESSES="198.51.100.0/24",
        ADDRESS_LIST_FILE=str(directory / "list"),
        SEAL_AFTER_H="7.5",
        SEAL_WAIT_H="1",
        KEEP_COUNTS_DAYS="77",
        KEEP_JOURNAL_H="49",
        QUARANTINE_DAYS="35.5",
    )
    yield one
    one.stop()


def facts(service: Service) -> dict[str, str]:
    """What the page says, by the name it says it under."""
    text = service.http.get("/methodology").text
    return {unescape(name): unescape(said) for name, said in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)}


def test_it_is_made_of_the_running_settings(service: Service) -> None:
    """
    Each window, limit and list is there as it is in force, every reason has its words, and no address is shown.
    """
    found = facts(service)
    expected = {
        "Time zone": r"Europe/\w+",
        "A day closes": r"7\.5 hours after .*",
        "A missing machine is waited for": r"1 hour",
        "Figures are kept": r"77 days, .*",
        "Journals are kept": r"49 hours at least, .*",
        "A journal that turns up late": r".* 35\.5 days old; .*",
        "bot": r"ua-parser [0-9.]+, .*; rules of [A-Z][a-z]+ 20[0-9]{2}",
        "staff": r"ADSERVER_STAFF_ADDRESSES; as set; 1 entry",
        "address-list": r"ADSERVER_ADDRESS_LIST_FILE; 20\S+; 2 entries",
        "rate": r"1,234 events a minute, .*",
        "Level 3": r".* by 0 advertisers here",
    }
    assert {
        name: said for name, said in found.items() if name in expected and not re.fullmatch(expected[name], said)
    } == {}
    assert {*REASONS} <= found.keys()
    text = service.http.get("/methodology").text
    assert not [secret for secret in ("198.51.100", "203.0.113", "2001:db8", str(service.data)) if secret in text]


def test_what_is_not_set_is_said_to_be_none(tmp_path: Path) -> None:
    """
    Lists and limits that nobody set are named as such and not left out; windows show what they are by default.
    """
    one = started(tmp_path)
    try:
        found = facts(one)
    finally:
        one.stop()
    assert [found[name] for name in ("staff", "address-list", "rate")] == ["none set"] * 3
    defaults = Settings()
    assert found["A day closes"].startswith(f"{defaults.seal_after_h:g} hours ")
    assert f" {defaults.quarantine_days:g} days " in found["A journal that turns up late"]


def test_it_runs_nothing_and_embeds_nothing(service: Service) -> None:
    """
    Its policy allows its own style and nothing else, and it has no script.
    """
    answer = service.http.get("/methodology")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<img|<iframe| on[a-z]+=| style=", answer.text)


@pytest.mark.system
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
