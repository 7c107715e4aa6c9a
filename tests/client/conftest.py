"""The real service for the sites of these tests."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import adserver.client
from tests.service.conftest import new_service
from tests.service.live import Service, free_port

__all__ = ["new_service"]

BUSINESS = 889988
"""The slot that a booking for business pages takes there."""


def _for_business(config: Path) -> None:
    with (config / "house.toml").open("a") as house:
        house.write(
            f"""
            [[line_item]]
            id = "of-business"
            name = "For business pages"
            campaign = "house"
            priority = "sponsorship"
            share = 100
            slots = [{BUSINESS}]
            starts = 2026-01-01T00:00:00Z
            ends = 2036-01-01T00:00:00Z
            creatives = ["house-gift"]
            targeting.any = {{ section = ["business"] }}
            """
        )


def _without_hours(config: Path) -> None:
    """Nothing changes on the quarter of an hour, when answers end that are kept until the next change."""
    file = config / "advertiser-lindemeer.toml"
    text = file.read_text("utf-8")
    assert "\nhours = " in text
    file.write_text(re.sub(r"\nhours = .*", "", text), "utf-8")


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """A running service with a booking for business pages, shared by a module."""
    found = new_service(configure=_for_business)
    found.start()
    return found


@pytest.fixture(scope="module")
def stoppable(new_service: Callable[..., Service]) -> Service:
    """A running service that tests may stop, and start again on the same port."""
    found = new_service(port=free_port(), workers=1, configure=_without_hours)
    found.start()
    return found


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """What a site does wrong is told once a process; each test begins anew."""
    adserver.client._failures.clear()
