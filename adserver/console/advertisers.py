"""Advertisers: who buys, what they have booked, and the links by which they see their own figures."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from adserver.catalog import is_live
from adserver.console import complaints
from adserver.console.bookings import Desk, find_seen, keep, page_of, put_seen, read_desk, state_of
from adserver.console.drafts import find
from adserver.console.report_links import (
    DAYS,
    DEFAULT_DAYS,
    BadLink,
    address,
    list_report_links,
    make_report_link,
    revoke_report_link,
)
from adserver.console.web import Call, Refused
from adserver.console.words import say
from adserver.documents import Document, read_entry
from adserver.model import Advertiser, LineItem

_A_PAGE = 50
_MOST_BOOKINGS = 50
_ORDER = {"live": 0, "coming": 1, "ended": 2}


class Listed(Struct, frozen=True):
    """An advertiser in the list; *running* is how many of their bookings run now."""

    advertiser: Advertiser
    running: int
    booked: int
    drafted: bool


async def listing(call: Call) -> Response:
    desk = await read_desk(call)
    rows = await call.aside(_rows, desk, call.query("q").lower(), call.now)
    number, last = page_of(call, len(rows))
    return await call.page(
        "advertisers.html",
        rows=rows[(number - 1) * _A_PAGE : number * _A_PAGE],
        count=len(rows),
        number=number,
        last=last,
        q=call.query("q"),
    )


def _rows(desk: Desk, text: str, now: float) -> list[Listed]:
    document = desk.document
    owners = {one.id: one.advertiser for one in document.campaigns}
    booked = Counter(owners.get(one.campaign, "") for one in document.line_items)
    running = Counter(owners.get(one.campaign, "") for one in document.line_items if is_live(one, now))
    drafted = {id_ for table, id_ in desk.draft.places if table == "advertisers"}
    found = [
        Listed(one, running[one.id], booked[one.id], one.id in drafted)
        for one in document.advertisers
        if text in f"{one.id} {one.name} {' '.join(one.categories)}".lower()
    ]
    return sorted(found, key=lambda one: one.advertiser.name.lower())


async def form(call: Call) -> Response:
    desk = await read_desk(call)
    return await _show(call, desk, _find(call, desk.document))


async def save(call: Call) -> Response:
    """Put the advertiser into the draft."""
    desk = await read_desk(call)
    before: Advertiser | None = await find_seen(call, desk, "advertisers", call.request.path_params["id"])
    if before is None:
        raise Refused(404, "There is no such advertiser.")
    fields = {name: call.text(name) for name in ("name", "categories", "contact", "frequency", "several")}
    raw: dict[str, Any] = {
        "id": before.id,
        "name": fields["name"],
        "categories": _words(fields["categories"]),
        "several": bool(fields["several"]),
        "count_level": before.count_level,
    }
    if caps := [line.strip() for line in fields["frequency"].splitlines() if line.strip()]:
        raw["frequency"] = caps
    if fields["contact"]:
        raw["contact"] = fields["contact"]
    found, problems = read_entry("advertiser", raw)
    if problems or not isinstance(found, Advertiser):
        wrong = {name: complaints.of_field(name, what) for name, what in problems.items()}
        return await _show(call, desk, before, 422, fields=fields, wrong=wrong)
    await keep(call, desk, await put_seen(call, desk, desk.draft, "advertisers", found))
    return call.go(f"/console/advertisers/{found.id}", said="It is in your draft.")


async def make_link(call: Call) -> Response:
    """Make a report link and show it, this once."""
    desk = await read_desk(call)
    advertiser = _find(call, desk.document)
    if find(desk.live, "advertisers", advertiser.id) is None:
        raise Refused(409, f"{advertiser.name} is only in your draft; publish it first.")
    days = call.text("days")
    try:
        token = await make_report_link(
            call.store,
            advertiser.id,
            call.text("label"),
            int(days) if days.isascii() and days.isdigit() and len(days) < 5 else 0,
            call.actor,
            call.now,
        )
    except BadLink as error:
        sentence = str(error)
        return await _show(call, desk, advertiser, 422, wrong={"label": f"{sentence[0].upper()}{sentence[1:]}."})
    return await _show(call, desk, advertiser, new=address(call.tools.settings.base_url, token))


async def revoke_link(call: Call) -> Response:
    """End a report link at once."""
    advertiser = call.request.path_params["id"]
    if not await revoke_report_link(call.store, advertiser, call.text("link"), call.actor, call.now):
        raise Refused(404, "There is no such report link; it may have been revoked already.")
    return call.go(
        f"/console/advertisers/{advertiser}", said="The link is revoked: its address shows nothing any more."
    )


def _find(call: Call, document: Document) -> Advertiser:
    found: Advertiser | None = find(document, "advertisers", call.request.path_params["id"])
    if found is None:
        raise Refused(404, "There is no such advertiser.")
    return found


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _fields(one: Advertiser, zone: str) -> dict[str, str]:
    return {
        "name": one.name,
        "categories": ", ".join(one.categories),
        "contact": one.contact or "",
        "several": "1" if one.several else "",
        "frequency": "\n".join(say(cap, zone) or "" for cap in one.frequency),
    }


async def _show(
    call: Call,
    desk: Desk,
    advertiser: Advertiser,
    status: int = 200,
    *,
    fields: Mapping[str, str] | None = None,
    wrong: Mapping[str, str] | None = None,
    new: str = "",
) -> Response:
    campaigns = {one.id for one in desk.document.campaigns if one.advertiser == advertiser.id}
    booked: list[tuple[LineItem, str]] = [
        (one, state_of(one, call.now)) for one in desk.document.line_items if one.campaign in campaigns
    ]
    booked.sort(key=lambda pair: (_ORDER[pair[1]], pair[0].ends or 0.0, pair[0].name))
    return await call.page(
        "advertiser.html",
        status,
        advertiser=advertiser,
        fields=fields or _fields(advertiser, call.zone),
        wrong=wrong or {},
        rows=booked[:_MOST_BOOKINGS],
        more=max(0, len(booked) - _MOST_BOOKINGS),
        links=await list_report_links(call.store, advertiser.id),
        new=new,
        spans=[(str(days), f"{days} days" if days < 365 else "a year") for days in DAYS],
        usual=str(DEFAULT_DAYS),
        published=find(desk.live, "advertisers", advertiser.id) is not None,
        said=call.told("said"),
    )
