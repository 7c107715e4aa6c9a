"""The Django app, and the check that says at start what would otherwise show as a page without ads."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from adserver.client.django.sites import read_settings

MIDDLEWARE = "adserver.client.django.middleware.ads"
_KEEPS = "django.middleware.cache.UpdateCacheMiddleware"


class AdserverConfig(AppConfig):  # type: ignore[misc]
    name = "adserver.client.django"
    label = "adserver"

    def ready(self) -> None:
        register(check)


def check(*_: Any, **__: Any) -> list[CheckMessage]:
    """What is wrong with the settings, for `manage.py check`."""
    problems = []
    try:
        read_settings()
    except ValueError as error:
        problems.append(Error(f"ADSERVER: {error}", id="adserver.E001"))
    order = list(settings.MIDDLEWARE)
    if MIDDLEWARE not in order:
        hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, behind whatever compresses pages and before what caches them."
        problems.append(Error("No middleware fills the ads that tags leave marks for.", hint, id="adserver.E002"))
    elif _KEEPS in order and order.index(_KEEPS) < order.index(MIDDLEWARE):
        hint = f"Put {MIDDLEWARE!r} before {_KEEPS!r}: pages are kept with their marks then."
        problems.append(Caution("Pages with ads are not cached by this site.", hint, id="adserver.W003"))
    return problems
