"""What a browser sees besides ads: creative files, the API description, and the sample page of the sample catalog."""

import asyncio
import re
from contextlib import suppress
from functools import partial
from importlib.resources import files

import msgspec
from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response

from adserver import repair
from adserver.answers import problem_response
from adserver.articles import Articles, prepare, slots_asked
from adserver.context import MOST_IDS, BadQuery, parse_query
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.model import Format
from adserver.openapi import describe
from adserver.previews import CHALLENGE, Previews
from adserver.reload import LiveCatalog
from adserver.settings import Settings
from adserver.store import open_store
from adserver.targeting import know
from adserver.versions import read_asset

_ASSET = re.compile(r"[0-9a-f]{32}\.(png|jpg|gif|webp|avif)", re.ASCII)
_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif"}
_SAMPLE = {"page.css": "text/css", "page.js": "text/javascript"}
_IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


SAMPLE_CONTEXT = know(section="town", tags=["library"], lang="en")
"""What the sample page says of itself."""


class Site(Struct):
    """The routes of one worker."""

    settings: Settings
    live: LiveCatalog
    articles: Articles
    previews: Previews

    async def asset(self, request: Request) -> Response:
        """A creative's file. Its name is a hash of its bytes, so it may be kept for ever."""
        name = request.path_params["name"]
        match = _ASSET.fullmatch(name)
        if not match:
            return problem_response(404, "There is no such file.")
        headers = {**_IMMUTABLE, "etag": f'"{name}"', "cross-origin-resource-policy": "cross-origin"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(None, 304, headers)
        data = self.live.assets.get(name)
        if data is not None:
            return Response(data, headers=headers, media_type=_MEDIA[match[1]])
        path = self.settings.data / "assets" / name  # of an earlier version
        if path.is_file():
            return Response(await asyncio.to_thread(path.read_bytes), headers=headers, media_type=_MEDIA[match[1]])
        if (data := await self._read_drafted(name)) is not None:
            return Response(data, headers=headers, media_type=_MEDIA[match[1]])
        return problem_response(404, "There is no such file.")

    async def _read_drafted(self, name: str) -> bytes | None:
        """An image that was uploaded and is not published: previews show it."""
        await asyncio.sleep(0)  # requests begin without a task (see `http_speed`); from here on this one has its own
        with suppress(StoreUnavailable, StoreRefused):
            async with open_store(self.settings.store_url) as store:
                return await read_asset(store, name)
        return None

    async def openapi(self, _: Request) -> Response:
        body = msgspec.json.encode(describe(self.settings.base_url))
        return Response(body, headers=_NO_STORE, media_type="application/json")

    async def favicon(self, _: Request) -> Response:
        return Response(None, 204, {"cache-control": "public, max-age=86400"})

    async def sample_page(self, request: Request) -> Response:
        """The sample article, filled in the very way `/render` fills one; with `at=` as it is at another instant, with
        `format=placeholder` as a page cache would keep it, for `/loader.js` to fill.
        """
        if not self.live.current.document.site.sample:
            return problem_response(404, "This is an ad server; its addresses are described in /openapi.json.")
        article = prepare(repair.read(sample_text("page.html"), MOST_IDS))
        extra: dict[str, str] = {}
        if "at" in request.query_params:
            try:
                query = structs.replace(parse_query(request.scope["query_string"]), context=SAMPLE_CONTEXT)
                moment = await self.previews.moment(query.at, request.scope["headers"], partial(slots_asked, article))
            except BadQuery as error:
                status = 401 if error.status == 403 else error.status  # so that a browser asks for it
                challenge = dict([CHALLENGE]) if status == 401 else {}
                named = {name.decode(): value.decode() for name, value in challenge.items()}
                return problem_response(status, str(error), named)
            body = await self.articles.preview(moment, article, query, request.scope)
            extra = {name.decode(): value.decode() for name, value in [moment.header]}
        else:
            form = Format.PLACEHOLDER if request.query_params.get("format") == "placeholder" else Format.HTML
            body = self.articles.fill(article, form, self.articles.page(article, SAMPLE_CONTEXT)).body
        policy = (
            f"default-src 'self'; img-src 'self' {self.settings.base_url}; "
            "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )
        headers = {**_NO_STORE, "content-security-policy": policy, **extra}
        return Response(body, headers=headers, media_type="text/html")

    async def sample_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _SAMPLE or not self.live.current.document.site.sample:
            return problem_response(404, "There is no such file.")
        return Response(sample_text(name), headers=_NO_STORE, media_type=_SAMPLE[name])


def sample_text(name: str) -> str:
    """A file of the sample article."""
    return files("adserver").joinpath("sample", name).read_text(encoding="utf-8")
