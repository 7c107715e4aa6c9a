"""Creatives: what is shown. Images are looked at before they are kept, markup is cleaned and the difference shown."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs
from starlette.responses import Response

from adserver.catalog import Ad, Catalog, ad_key, ad_name, fits
from adserver.checks import check
from adserver.console import complaints
from adserver.console.booking import make_id, size_of
from adserver.console.bookings import Desk, keep, page_of, put_seen, read_desk
from adserver.console.drafts import find
from adserver.console.framing import headers_of
from adserver.console.markup import clean
from adserver.console.pictures import Kept
from adserver.console.uploads import read_upload, sizes_of
from adserver.console.web import Call, Refused
from adserver.console.words import exact
from adserver.documents import Document, Known, read_entry
from adserver.errors import BadPicture
from adserver.model import Creative, Format, Kind
from adserver.render import render_preview
from adserver.versions import read_asset

_A_PAGE = 50
_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif"}
_TEXTS = ("alt", "title", "text", "sponsor", "html", "click_url", "weight", "size")
_OF_KIND = {
    Kind.IMAGE.value: ("image", "alt", "click_url", "weight"),
    Kind.TEXT.value: ("title", "text", "sponsor", "click_url", "weight"),
    Kind.NATIVE.value: ("title", "text", "image", "alt", "sponsor", "click_url", "weight"),
    Kind.HTML.value: ("html", "click_url", "size", "weight"),
    Kind.TAG.value: ("html", "click_url", "size", "weight"),
}
"""The inputs that a kind of creative has; what stands in another one is not looked at."""
_LABELS = {
    "advertiser": "Whose it is", "kind": "What it is", "image": "Image", "alt": "What the image shows, in words",
    "title": "Title", "text": "Text", "sponsor": "Sponsor", "click_url": "Where a click leads", "html": "HTML or tag",
    "size": "Size", "weight": "Weight",
}  # fmt: skip
"""What the form calls its inputs."""


async def listing(call: Call) -> Response:
    desk = await read_desk(call)
    text = call.query("q").lower()
    names = {one.id: one.name for one in desk.document.advertisers}
    found = [
        one
        for one in desk.document.creatives
        if text in f"{one.id} {one.alt} {one.title} {names.get(one.advertiser, '')} {one.kind.value}".lower()
    ]
    number, last = page_of(call, len(found))
    return await call.page(
        "creatives.html",
        rows=found[(number - 1) * _A_PAGE : number * _A_PAGE],
        names=names,
        count=len(found),
        number=number,
        last=last,
        q=call.query("q"),
    )


async def form(call: Call) -> Response:
    desk = await read_desk(call)
    creative = _find(call, desk.document)
    return await _show(call, desk, creative, _fields(creative), {})


async def save(call: Call) -> Response:
    """Put the creative into the draft; with a problem, show the form again with everything it came with."""
    desk = await read_desk(call)
    before = _find(call, desk.document)
    fields = {name: call.text(name) for name in ("advertiser", "kind", "name", *_TEXTS)}
    fields["kind"] = kind = before.kind.value if before else fields["kind"]
    advertiser = find(desk.document, "advertisers", before.advertiser if before else fields["advertiser"])
    inputs = _OF_KIND.get(kind, _TEXTS)
    raw: dict[str, Any] = {
        name: _unless_same(before, name, fields[name]) for name in _TEXTS if fields[name] and name in inputs
    }
    wrong: dict[str, str] = {} if advertiser else {"advertiser": "Choose whose creative it is"}
    if "weight" in raw:
        try:
            raw["weight"] = float(raw["weight"].replace(",", "."))
        except ValueError:
            wrong["weight"] = "This is no number, such as 1"
    picture = None
    if "image" in inputs:
        try:
            picture = await read_upload(call, sizes_of(desk.document) if kind == Kind.IMAGE.value else ())
        except BadPicture as error:
            wrong["image"] = str(error)
        raw |= _image(desk.document, kind, before, picture)
    name = raw.get("title") or raw.get("alt") or fields["name"] or kind
    owner = advertiser.id if advertiser else "nobody"
    raw |= {
        "id": before.id if before else make_id(f"{owner}-{name}", {one.id for one in desk.document.creatives}),
        "advertiser": owner,
        "kind": kind,
    }
    found, problems = read_entry("creative", raw)
    wrong |= {field: complaints.of_field(field, what) for field, what in problems.items() if field not in wrong}
    if found is None:
        found, _ = read_entry("creative", {field: value for field, value in raw.items() if field not in problems})
    if isinstance(found, Creative):
        wrong = {**_problems(desk.document, found), **wrong}
    if wrong or not isinstance(found, Creative):
        return await _show(call, desk, before, fields, wrong, 422, picture)
    found = structs.replace(
        found,
        image_size=picture.size if picture else before.image_size if before else None,
        still=picture.still_name if picture else before.still if before else None,
        political=before.political if before else None,
    )
    await keep(call, desk, await put_seen(call, desk, desk.draft, "creatives", found))
    advice = " ".join(picture.notes) + " " if picture and picture.notes else ""
    return call.go(f"/console/creatives/{found.id}", said=f"It is in your draft. {advice}This is how it looks:")


def _image(document: Document, kind: str, before: Creative | None, picture: Kept | None) -> dict[str, str]:
    """Which image the creative has, and for an image by itself the size of the places it is for."""
    if picture is None:
        kept = {"image": before.image} if before and before.image else {}
        size = before.size if before else None
    else:
        kept, size = {"image": picture.name}, size_of(picture.size, sizes_of(document)) or picture.size
    return kept | ({"size": f"{size[0]}x{size[1]}"} if size and kind == Kind.IMAGE.value else {})


def _unless_same(before: Creative | None, name: str, given: str) -> str:
    """What was there where *given* is that without what a browser changes of it: ends of lines, space around it."""
    was = getattr(before, name, None)
    return was if isinstance(was, str) and was.replace("\r\n", "\n").strip() == given.replace("\r\n", "\n") else given


def _problems(document: Document, creative: Creative) -> dict[str, str]:
    alone = Document(site=document.site, advertisers=document.advertisers, creatives=(creative,))
    known = Known({("creative", creative.id): "", **{("advertiser", one.id): "" for one in document.advertisers}})
    found: dict[str, str] = {}
    for problem in check(alone, known):
        said = complaints.of_entry(problem.what, {})
        found.setdefault(said.field, said.sentence)
    return found


def _find(call: Call, document: Document) -> Creative | None:
    id_ = call.request.path_params.get("id")
    if id_ is None:
        return None
    found: Creative | None = find(document, "creatives", id_)
    if found is None:
        raise Refused(404, "There is no such creative.")
    return found


def _fields(creative: Creative | None) -> dict[str, str]:
    if creative is None:
        return {**dict.fromkeys(("advertiser", *_TEXTS), ""), "kind": "image"}
    return {
        "advertiser": creative.advertiser,
        "kind": creative.kind.value,
        "alt": creative.alt,
        "title": creative.title,
        "text": creative.text,
        "sponsor": creative.sponsor,
        "html": creative.html,
        "click_url": creative.click_url or "",
        "weight": exact(creative.weight),
        "size": f"{creative.size[0]}x{creative.size[1]}" if creative.size else "",
    }


async def _show(
    call: Call,
    desk: Desk,
    creative: Creative | None,
    fields: Mapping[str, str],
    wrong: Mapping[str, str],
    status: int = 200,
    picture: Kept | None = None,
) -> Response:
    document, cleaned = desk.document, None
    if fields.get("kind") == Kind.HTML.value and fields.get("html") and not wrong.get("html"):
        try:
            cleaned = await call.aside(clean, fields["html"])
        except ValueError as error:
            wrong, status = {**wrong, "html": complaints.of_field("html", str(error))}, 422
    by_size = {slot.sizes: slot for slot in reversed(document.slots) if creative and fits(creative, slot)}
    used = [one for one in document.line_items if creative and creative.id in one.creatives]
    return await call.page(
        "creative.html",
        status,
        creative=creative,
        fields=fields,
        wrong=wrong,
        labels=_LABELS,
        picture=picture,
        drafted=creative is not None and ("creatives", creative.id) in desk.draft.places,
        inputs={name: "|".join(kind for kind in _OF_KIND if name in _OF_KIND[kind]) for name in ("image", *_TEXTS)},
        cleaned=cleaned,
        slots=list(by_size.values()),
        used=used[:50],
        advertisers=[(one.id, one.name) for one in document.advertisers],
        kinds=[(kind.value, _KINDS[kind]) for kind in Kind],
        said=call.told("said"),
    )


_KINDS = {
    Kind.IMAGE: "an image",
    Kind.TEXT: "a text",
    Kind.NATIVE: "a native ad: title, text, image, sponsor",
    Kind.HTML: "HTML, cleaned",
    Kind.TAG: "a third party's tag, in a box",
}


async def framed(call: Call) -> Response:
    """One creative as it will look in one slot: in a frame of the console's page, light or dark."""
    desk = await read_desk(call)
    creative = _find(call, desk.document)
    slot = next((one for one in desk.document.slots if str(one.id) == call.query("slot")), None)
    if creative is None or slot is None:
        raise Refused(404, "There is no such creative or slot.")
    using = next((one for one in desk.document.line_items if creative.id in one.creatives), None)
    line_item = using or next(iter(desk.document.line_items), None)
    if line_item is None:
        raise Refused(404, "Book something first; then it can be shown as it will look.")
    if find(desk.document, "advertisers", creative.advertiser) is None:
        raise Refused(404, "Its advertiser is not there any more.")
    # Bookings that are not right yet must not be in the way of a look at what they show.
    alone = Document(site=desk.document.site, slots=(slot,), advertisers=desk.document.advertisers)
    catalog = await call.aside(Catalog, alone, desk.number)
    name = ad_name(slot.id, line_item.id, creative.id)
    ad = Ad(key=ad_key(name), slot=slot, line_item=line_item, creative=creative)
    html = render_preview(catalog, ad, Format.HTML, call.tools.settings.base_url, eager=True).decode()
    dark = call.query("scheme") == "dark"
    body = await call.aside(call.render, "framed.html", {"html": html, "dark": dark})
    headers = headers_of(html, call.headers(), call.tools.settings.base_url)
    return Response(body, headers=headers, media_type="text/html")


async def file(call: Call) -> Response:
    """An image that is uploaded and maybe not published."""
    name = call.request.path_params["name"]
    kind = name.rpartition(".")[2]
    data = await read_asset(call.store, name) if kind in _MEDIA else None
    if data is None:
        raise Refused(404, "There is no such file.")
    headers = {"cache-control": "private, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    return Response(data, headers=headers, media_type=_MEDIA[kind])
