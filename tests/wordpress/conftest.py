"""A real WordPress and the real service, shared by the tests of one run; each test begins with fresh settings."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.page.conftest import chromium
from tests.service.live import Service, free_port
from tests.wordpress.site import WordPress, wordpress

EMPTY = 700003


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WordPress]:
    with wordpress(tmp_path_factory.mktemp("w")) as found:
        yield found


@pytest.fixture(autouse=True)
def clean_log(site: WordPress) -> Iterator[None]:
    """Nothing that the plugin does makes PHP complain. (What WordPress 6.1 itself does is out of date for PHP 8.2.)"""
    site.forget_log()
    yield
    complaints = [line for line in site.log().splitlines() if "PHP " in line]
    assert [line for line in complaints if not ("PHP Deprecated:" in line and f"{site.wp}/wp-" in line)] == []


def configure(site: WordPress) -> Callable[[Path], None]:
    def write(config: Path) -> None:
        with (config / "slots.toml").open("a") as slots:
            slots.write(f'[[slot]]\nid = {EMPTY}\nname = "Nothing is sold here"\nsize = "300x250"\n')
        with (config / "house.toml").open("a") as house:
            house.write(
                """
                [[line_item]]
                id = "of-sport"
                name = "For sports pages"
                campaign = "house"
                priority = "sponsorship"
                share = 100
                slots = [889988]
                starts = 2026-01-01T00:00:00Z
                ends = 2036-01-01T00:00:00Z
                creatives = ["house-gift"]
                targeting.all = { section = ["sport"], tag = ["football"], lang = ["en"], device = ["mobile"] }
                """
            )

    return write


@pytest.fixture(scope="session")
def service(site: WordPress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, which lets the site's pages read its answers."""
    made = Service(
        tmp_path_factory.mktemp("s"),
        workers=1,
        port=free_port(),
        environ={"ADSERVER_ALLOWED_ORIGINS": site.url},
        configure=configure(site),
    )
    made.start()
    yield made
    with suppress(ProcessLookupError):
        made.stop()


@pytest.fixture
def stoppable(service: Service) -> Iterator[Service]:
    """The same, for a test that stops it."""
    yield service
    if service.process.poll() is not None:
        service.start()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def calls(service: Service) -> float:
    """How often articles were sent to it, and slots asked for."""
    series = service.series()
    return sum(
        value
        for name, value in series.items()
        if name.startswith("adserver_http_responses_total")
        and ('"render"' in name or '"ad"' in name or '"ads"' in name)
    )
