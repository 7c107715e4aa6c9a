"""What Django alone brings: its settings, its check, its responses."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from django.core.cache import cache
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.middleware.http import ConditionalGetMiddleware
from django.test import RequestFactory, override_settings
from playwright.sync_api import BrowserContext

from adserver import client
from adserver.client.django.apps import MIDDLEWARE
from adserver.client.django.middleware import ads
from adserver.client.django.sites import read_settings
from tests.client import sites  # noqa: F401 - configures Django
from tests.client.browsers import browser, context, views_of_a_page_that_is_come_back_to
from tests.page.site import Site
from tests.service.live import Service, tokens

__all__ = ["browser", "context"]

KEEP = "django.middleware.cache.UpdateCacheMiddleware"


@pytest.fixture
def answer(service: Service) -> Any:
    """Passes a response through the middleware; a view's words about its page go with it."""

    def through(response: HttpResponse, method: str = "GET", **about: Any) -> HttpResponse:
        request = RequestFactory(headers={"host": "news.example.com"}).generic(method, "/article")
        request.adserver = about
        return ads(lambda _: response)(request)

    with override_settings(ADSERVER={"url": service.url, "budget_s": 20}), closing(read_settings()[0]):
        yield through


def test_a_good_site_passes_the_check() -> None:
    """
    `manage.py check` has nothing to say of the settings in the documentation.
    """
    with override_settings(ADSERVER={"url": "http://127.0.0.1:8000"}):
        assert run_checks() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ADSERVER": None}, "expected such as {'url'"),
        ({"ADSERVER": {"url": "127.0.0.1:8000"}}, "is not the address of a service"),
        ({"ADSERVER": {"url": "http://a", "budget": 1}}, "expected such as {'url'"),
        ({"ADSERVER": {"url": "http://a", "about": "no.such.module"}}, "No module named 'no'"),
        ({"ADSERVER": {"url": "http://a"}, "MIDDLEWARE": []}, "No middleware fills"),
        ({"ADSERVER": {"url": "http://a"}, "MIDDLEWARE": [KEEP, MIDDLEWARE]}, "Pages with ads are not cached"),
    ],
)
def test_the_check_says_what_is_wrong(settings: dict[str, Any], said: str) -> None:
    """
    What would show as pages without ads is told by `manage.py check`.
    """
    with override_settings(**settings):
        [problem] = run_checks()
    assert said in problem.msg


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("html", {}, {"private", "no-cache"}),
        ("html", {"Cache-Control": "public, max-age=60"}, {"private", "no-cache", "max-age=60"}),
        ("placeholder", {"Cache-Control": "public, max-age=60"}, {"public", "max-age=60"}),
        ("placeholder", {}, set()),
    ],
)
def test_a_page_whose_ads_count_one_view_is_kept_by_nobody(
    answer: Callable[..., HttpResponse], form: str, before: dict[str, str], after: set[str]
) -> None:
    """
    What was to be kept for all is for one reader once there are tokens in it; placeholders are for all.
    """
    answered = answer(HttpResponse(str(client.ad(889990)), headers=before), format=form)
    assert b"889990" in answered.content
    assert {one.strip() for one in answered.get("Cache-Control", "").split(",") if one} == after
    assert "Cache-Control" not in answer(HttpResponse("<p>No ads here"))


def test_a_page_that_the_site_keeps_has_ads_of_its_own_for_each_view(service: Service) -> None:
    """
    In the documented order the cache holds marks; in the other order it holds nothing rather than one reader's tokens.
    """
    made: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        made.append(request.path)
        return HttpResponse(str(client.ad(889990)))

    def ask(*order: Callable[[Any], Any]) -> list[str]:
        through: Any = FetchFromCacheMiddleware(view)
        for one in reversed(order):
            through = one(through)
        requests = (RequestFactory(headers={"host": "news.example.com"}).get("/article") for _ in range(5))
        return [str(through(request).content.decode()) for request in requests]

    with override_settings(ADSERVER={"url": service.url, "budget_s": 20}), closing(read_settings()[0]):
        for order, times in (((ads, UpdateCacheMiddleware), 1), ((UpdateCacheMiddleware, ads), 5)):
            cache.clear()
            made.clear()
            pages = ask(*order)
            assert len(made) == times
            assert len({token for page in pages for token in tokens(page)}) == 5


@pytest.mark.system
def test_a_reader_who_comes_back_is_one_view(
    answer: Callable[..., HttpResponse],
    service: Service,
    context: BrowserContext,
) -> None:
    """
    The browser's Back button shows the page that it still has: nothing is loaded again, and nothing counted.
    """

    def page() -> tuple[str, dict[str, str]]:
        answered = answer(HttpResponse(f"<!doctype html><title>News</title>{client.ad(889990)}<script>{asks}</script>"))
        return str(answered.content.decode()), {name.lower(): value for name, value in answered.items()}

    asks = "fetch('/weather')"  # with that, Chromium is as strict as others about pages that nobody may store
    with closing(Site()) as site:
        site.pages |= {"/article": page, "/weather": ("Rain", {"cache-control": "no-store"})}
        views = views_of_a_page_that_is_come_back_to(context, f"{site.url}/article", f"{service.url}/healthz")
    assert len(views) == 1


@pytest.mark.parametrize("order", [(ConditionalGetMiddleware, ads), (ads, ConditionalGetMiddleware)])
def test_no_browser_is_told_that_its_ads_are_still_good(service: Service, order: tuple[Any, Any]) -> None:
    """
    A page that has not changed has new ads all the same: it is sent again, in whichever order the middlewares stand.
    """

    def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse(str(client.ad(889990)), headers={"Last-Modified": "Mon, 02 Mar 2026 00:00:00 GMT"})

    through = order[0](order[1](view))
    with override_settings(ADSERVER={"url": service.url, "budget_s": 20}), closing(read_settings()[0]):
        first = through(RequestFactory(headers={"host": "news.example.com"}).get("/article"))
        asked = {"If-None-Match": first.get("ETag", '"x"'), "If-Modified-Since": first.get("Last-Modified", "x")}
        again = through(RequestFactory(headers={"host": "news.example.com", **asked}).get("/article"))
    assert not first.has_header("Last-Modified")
    assert again.status_code == 200
    assert len({*tokens(first.content.decode()), *tokens(again.content.decode())}) == 2


def test_a_length_that_was_said_stays_true(answer: Callable[..., HttpResponse]) -> None:
    """
    A response that another middleware measured is measured again.
    """
    response = HttpResponse(str(client.ad(889990)), headers={"Content-Length": "31"})
    answered = answer(response)
    assert b"<aside" in answered.content
    assert int(answered["Content-Length"]) == len(answered.content)


def test_a_charset_without_some_letters_gets_them_as_references(answer: Callable[..., HttpResponse]) -> None:
    """
    A page in Latin-1 stays in Latin-1, whatever letters an ad has.
    """
    page = "caf\u00e9" + str(client.ad(889990))
    answered = answer(HttpResponse(page.encode("latin-1"), content_type="text/html; charset=iso-8859-1"))
    assert answered.content.decode("latin-1").startswith("caf\u00e9<aside")


def test_head_asks_for_no_ads(answer: Callable[..., HttpResponse]) -> None:
    """
    A request without a body decides and counts nothing.
    """
    assert answer(HttpResponse(f"a{client.ad(889990)}b"), "HEAD").content == b"ab"


@pytest.mark.parametrize(
    "response",
    [JsonResponse({"a": str(client.ad(889990))}), HttpResponse(b"\x89PNG<!--adserver ", content_type="image/png")],
)
def test_what_is_no_page_is_left_alone(answer: Callable[..., HttpResponse], response: HttpResponse) -> None:
    """
    JSON, pictures and downloads pass byte for byte.
    """
    before = response.content
    assert answer(response).content == before


def test_a_stream_is_left_alone(answer: Callable[..., HttpResponse]) -> None:
    """
    What leaves piece by piece keeps its marks, which no reader sees.
    """
    streamed = answer(StreamingHttpResponse([str(client.ad(889990))]))
    assert b"".join(streamed) == b"<!--adserver the_ad 889990-->"


def test_a_function_of_the_site_that_raises_harms_no_page(service: Service) -> None:
    """
    What a site says of its pages may fail; the page has its ads all the same.
    """
    with (
        override_settings(ADSERVER={"url": service.url, "budget_s": 20, "about": "tests.client.test_django.fails"}),
        closing(read_settings()[0]),
    ):
        request = RequestFactory(headers={"host": "nowhere.example.com"}).get("/article")
        assert b"<aside" in ads(lambda _: HttpResponse(str(client.ad(889990))))(request).content


def fails(request: HttpRequest) -> dict[str, Any]:
    raise RuntimeError("no such page")
