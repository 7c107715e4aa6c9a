"""Django's setting `ADSERVER`, and the client made of it.

ADSERVER = {
    "url": "http://127.0.0.1:8000",       # the only one that must be there
    "budget_s": 0.3,                      # how long a page may wait, in seconds
    "pause_s": 30,                        # how long nothing is asked after a failure, in seconds
    "form": "html",                       # or "placeholder", for pages that a cache keeps
    "about": "news.ads.about",            # a function of the request: what is said of its page
}
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from adserver import client

_NAMES = {"url", "budget_s", "pause_s", "form", "about"}
_Tell = Callable[[Any], Mapping[str, Any]]


@cache
def read_settings() -> tuple[client.Client, _Tell | None]:
    """The client, for both kinds of views, and the site's own function. Raises ValueError."""
    given = getattr(settings, "ADSERVER", None)
    if not isinstance(given, Mapping) or "url" not in given or not given.keys() <= _NAMES:
        raise ValueError(f"it is {given!r:.200}; expected such as {{'url': 'http://127.0.0.1:8000'}}, and of {_NAMES}")
    options = {name: value for name, value in given.items() if name != "about"}
    try:
        tell = import_string(given["about"]) if "about" in given else None
        return client.Client(**options), tell
    except (ImportError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "ADSERVER":
        read_settings.cache_clear()


setting_changed.connect(_forget)
