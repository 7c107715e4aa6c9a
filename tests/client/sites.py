"""The same site four times: in Jinja2 and in Django, for code that waits and for coroutines."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import django
import jinja2
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.test import AsyncClient as DjangoAsyncClient
from django.test import Client as DjangoClient
from django.test import override_settings
from django.urls import path

from adserver.client import AsyncClient, Client
from adserver.client.django.apps import MIDDLEWARE
from adserver.client.django.sites import read_settings

PAGES = {
    "base.html": '<!doctype html><title>{{ title }}</title>{% ad 889978 %}<main>{% block main %}{% endblock %}</main>'
    '{% ad_group "side-rail" %}',
    "article.html": '{% extends "base.html" %}{% block main %}<h1>{{ title }}</h1>{{ body|safe|ads }}'
    '{% include "foot.html" %}{% endblock %}',
    "foot.html": '<footer>{% ad_placement place %}{% ad missing %}</footer>',
    "comment.html": "{{ body|ads }}",
    "beginning.html": "<p>{{ body|safe|ads|truncate(40, true, '\u2026', 0) }}</p>Last.",
}  # fmt: skip
PLACE = "article-middle"
GZIP = "django.middleware.gzip.GZipMiddleware"

Show = Callable[..., str]
"""Renders the article *body*; keyword arguments are what the site says of the page."""


def _load(source: str) -> str:
    """A template for Django: it names its library, behind what it extends."""
    head, extends, rest = re.sub(r"truncate\(40, .*?\)", "truncatechars:40", source).rpartition('"base.html" %}')
    return f"{head}{extends}{{% load adserver %}}{rest}"


def _configure() -> None:
    loader = "django.template.loaders.locmem.Loader", {name: _load(source) for name, source in PAGES.items()}
    settings.configure(
        ALLOWED_HOSTS=["news.example.com", "testserver"],
        INSTALLED_APPS=["adserver.client.django"],
        MIDDLEWARE=[GZIP, MIDDLEWARE],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a test",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": [loader]}}],
        USE_TZ=True,
    )
    django.setup()


_shown: dict[str, Any] = {}
"""What the views show: the test and they are one process."""


def article(request: HttpRequest) -> HttpResponse:
    return _article(request)


async def article_async(request: HttpRequest) -> HttpResponse:
    return _article(request)


def _article(request: HttpRequest) -> HttpResponse:
    request.adserver = _shown["about"]
    return render(request, _shown["template"], _shown["context"])


urlpatterns = [path("article", article), path("article-async", article_async)]


if not settings.configured:
    _configure()


def jinja(ads: Client | AsyncClient | None, **options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, extensions=["adserver.client.jinja.Ads"], loader=jinja2.DictLoader(PAGES), **options
    )
    environment.adserver = ads  # type: ignore[attr-defined]
    return environment


@contextmanager
def jinja_site(url: str, **options: Any) -> Iterator[Show]:
    with closing(Client(url, **options)) as ads:
        environment = jinja(ads)

        def show(body: str, template: str = "article.html", **about: Any) -> str:
            return environment.get_template(template).render(**context(body), adserver=about)

        yield show


@contextmanager
def jinja_async_site(url: str, **options: Any) -> Iterator[Show]:
    with closing(AsyncClient(url, **options)) as ads:
        environment = jinja(ads, enable_async=True)

        def show(body: str, template: str = "article.html", **about: Any) -> str:
            return asyncio.run(environment.get_template(template).render_async(**context(body), adserver=about))

        yield show


@contextmanager
def django_site(url: str, **options: Any) -> Iterator[Show]:
    http = DjangoClient(headers={"host": "news.example.com", "user-agent": "Mozilla/5.0"})

    def show(body: str, template: str = "article.html", **about: Any) -> str:
        _shown.update(template=template, context=context(body), about=about)
        return str(http.get("/article").content.decode())

    with override_settings(ADSERVER={"url": url, **options}), closing(read_settings()[0]):
        yield show


@contextmanager
def django_async_site(url: str, **options: Any) -> Iterator[Show]:
    http = DjangoAsyncClient(headers={"host": "news.example.com", "user-agent": "Mozilla/5.0"})

    def show(body: str, template: str = "article.html", **about: Any) -> str:
        _shown.update(template=template, context=context(body), about=about)
        return str(asyncio.run(http.get("/article-async")).content.decode())

    with override_settings(ADSERVER={"url": url, **options}), closing(read_settings()[0]):
        yield show


SITES = {
    "jinja": jinja_site,
    "jinja-async": jinja_async_site,
    "django": django_site,
    "django-async": django_async_site,
}


def context(body: str) -> dict[str, str]:
    return {"title": "Tide & time", "body": body, "place": PLACE}
