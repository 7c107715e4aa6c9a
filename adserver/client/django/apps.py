"""The Django app, and the check that says at start what would otherwise show as a page without ads."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from adserver.client.django.sites import read_settings

MIDDLEWARE = "adserver.client.django.middleware.ads"


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
    if MIDDLEWARE not in settings.MIDDLEWARE:
        hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, behind whatever compresses or caches pages."
        problems.append(Error("No middleware fills the ads that tags leave marks for.", hint, id="adserver.E002"))
    return problems
