"""Fills a response's marks by one call, in WSGI and ASGI alike.

What is said of the page: its address without query, its language, the reader's User-Agent, `Sec-GPC` and `DNT`; over
that what the site's function `about` says; over that what a view puts into `request.adserver`, a dict.
Put it behind whatever compresses pages and before what keeps them: a kept page has its marks then, and each view of it
ads of its own. A page with ads says `private, no-cache`, because its tokens count once, and has no `ETag` and no
`Last-Modified`, by which a browser would be told to show it again. It does not say `no-store`: with that a browser
loads the page anew for a reader who comes back to it, and one view counts twice. A page with placeholders says nothing,
because a cache may keep it. Streamed responses are left as they are, with the marks, which no reader sees; a HEAD
request asks for no ads.
"""

from collections.abc import Callable, Mapping
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.cache import patch_cache_control
from django.utils.decorators import sync_and_async_middleware
from django.utils.translation import get_language

from adserver import client
from adserver.client import marks
from adserver.client.django.sites import read_settings

_KINDS = ("text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/rss+xml")


@sync_and_async_middleware  # type: ignore[untyped-decorator]
def ads(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The middleware."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: Any) -> Any:
            response = await get_response(request)
            page = _page(response)
            if page is not None:
                found = _client(request)
                filled = await found[0].fill_async(page, found[1]) if found else marks.fill(page, ())
                _put(response, filled, counted=_is_counted(page, found))
            return response

        return answer_async

    def answer(request: Any) -> Any:
        response = get_response(request)
        page = _page(response)
        if page is not None:
            found = _client(request)
            filled = found[0].fill(page, found[1]) if found else marks.fill(page, ())
            _put(response, filled, counted=_is_counted(page, found))
        return response

    return answer


def _client(request: Any) -> tuple[client.Client, dict[str, Any]] | None:
    """Whom to ask and what to say; None where nobody is to be asked."""
    if request.method == "HEAD":
        return None
    try:
        ads, tell = read_settings()
    except ValueError as error:
        client.tell_once(f"ADSERVER: {error}")
        return None
    facts: dict[str, Any] = {}
    for one in (_of_request, tell, _of_view):
        try:
            said = one(request) if one else None
            facts |= said if isinstance(said, Mapping) else {}
        except Exception as error:
            client.tell_once(f"what is said of a page: {type(error).__name__}: {error}")
    return ads, facts


def _is_counted(page: str, found: tuple[client.Client, dict[str, Any]] | None) -> bool:
    """Whether the page's ads count its one view; without an answer it is none to keep either."""
    return bool(marks.find_asks(page)) and (found is None or found[1].get("format", found[0].form) == "html")


def _of_request(request: Any) -> dict[str, Any]:
    headers = request.headers
    return {
        "lang": get_language() or "",
        "ua": headers.get("User-Agent", ""),
        "gpc": "1" in (headers.get("Sec-GPC"), headers.get("DNT")),
        "url": request.build_absolute_uri(request.path),
    }


def _of_view(request: Any) -> Any:
    return getattr(request, "adserver", None)


def _page(response: Any) -> str | None:
    """The response's text where it holds marks to be filled."""
    try:
        kind = response.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.streaming or kind not in _KINDS or b"<!" not in response.content:
            return None
        page = str(response.content.decode(response.charset))
        return page if marks.has_marks(page) else None
    except Exception as error:
        if b"<!--adserver " in getattr(response, "content", b""):
            client.tell_once(f"a response could not be read: {type(error).__name__}: {error}")
        return None


def _put(response: Any, page: str, *, counted: bool) -> None:
    try:
        if counted:
            patch_cache_control(response, private=True, no_cache=True)
            del response["ETag"], response["Last-Modified"]
        response.content = page.encode(response.charset, "xmlcharrefreplace")
        if response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
    except Exception as error:
        client.tell_once(f"a response could not be changed: {type(error).__name__}: {error}")
