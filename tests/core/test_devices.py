"""Devices by client hints and by name."""

import pytest

from adserver.devices import device_of

_ANDROID = "Mozilla/5.0 (Linux; Android 14; {}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 {}Safari/537.36"


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "desktop"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36", "desktop"),
        (_ANDROID.format("Pixel 9", "Mobile "), "mobile"),
        (_ANDROID.format("SM-X810", ""), "tablet"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", "mobile"),
        ("Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148", "tablet"),
        ("Mozilla/5.0 (Android 14; Tablet; rv:140.0) Gecko/140.0 Firefox/140.0", "tablet"),
        ("python-httpx/0.28", ""),
        ("Mozilla/5.0", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_browser_says_what_it_runs_on(name: str, device: str) -> None:
    """
    A template's HTTP client says nothing, and nothing is guessed.
    """
    assert device_of(name) == device


@pytest.mark.parametrize(
    ("mobile", "platform", "device"),
    [
        ("?1", '"Android"', "mobile"),
        ("?0", '"Android"', "tablet"),
        ("?0", '"Windows"', "desktop"),
        ("?0", "", "desktop"),
    ],
)
def test_client_hints_come_first(mobile: str, platform: str, device: str) -> None:
    """
    Whatever the name says.
    """
    assert device_of(_ANDROID.format("SM-X810", ""), mobile, platform) == device
