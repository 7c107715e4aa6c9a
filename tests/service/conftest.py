"""Fixtures of the service tests: the real service, shared by a module where the test allows it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service.live import Service

Configure = Callable[[Path], object]


@pytest.fixture(scope="module")
def new_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Makes services, each with a home of its own; whichever still runs at the module's end is stopped."""
    made: list[Service] = []

    def make(*flags: str, **options: object) -> Service:
        service = Service(tmp_path_factory.mktemp("s"), *flags, **options)  # type: ignore[arg-type]
        made.append(service)
        return service

    yield make
    for service in made:
        service.http.close()
        with suppress(AttributeError):  # never launched
            if service.process.poll() is None:
                service.stop()


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """A running service of two workers on the sample configuration, stopped and looked after at the module's end."""
    service = new_service()
    service.start()
    return service
