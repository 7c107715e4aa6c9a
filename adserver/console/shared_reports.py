"""What an advertiser sees by their report link: their own campaigns and nothing of anybody else's.

Rules: everything on the page is of the one advertiser the link is for. A link that is unknown, expired or revoked, and
one whose advertiser is gone, get the very same answer. No page leads anywhere else, is kept by a cache, found by a
search engine or told to another site.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from adserver.catalog import is_live, last_instant
from adserver.console import downloads
from adserver.console.figures import Day, Standing, Sum, Verdict, add_all, click_rate, judge, restrict
from adserver.console.report_links import ReportLink, find_report_link
from adserver.console.reports import (
    RATES,
    USUAL_DAYS,
    Names,
    ads_of,
    attached,
    names_of,
    over_time,
    parse_dates,
    presets,
    read_days,
    standing_of,
    table,
)
from adserver.console.web import Call, Refused
from adserver.days import Days
from adserver.documents import Document
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.model import Advertiser, Creative, Kind, LineItem
from adserver.reporting import BadRange

_MOST_SHOWN = 60
_GONE = "This report link is not good any more, or never was. Ask the newsroom for a new one."
_AWAY = "The figures cannot be read right now. Please try again in a few minutes."
_WORDS = {Kind.IMAGE: "An image", Kind.TEXT: "A text", Kind.NATIVE: "A native ad"}


class Shown(Struct, frozen=True):
    """A creative and what readers made of it in one booking."""

    name: str
    creative: Creative | None
    sum: Sum


class Booked(Struct, frozen=True):
    """One booking: how its goal does, its figures in the time chosen, and its creatives."""

    line_item: LineItem
    state: str
    standing: Standing | None
    sum: Sum
    creatives: tuple[Shown, ...]
    verdict: Verdict | None
    best: str


class Within(Struct, frozen=True):
    """The days that may be chosen, and those that were."""

    least: date | None
    most: date
    first: date
    last: date
    today: date

    @property
    def dates(self) -> str:
        return f"from={self.first}&to={self.last}"


async def page(call: Call) -> Response:
    return await _answer(call, _page)


async def as_csv(call: Call) -> Response:
    return await _answer(call, _csv)


async def _answer(call: Call, make: Any) -> Response:
    """What *make* says of the advertiser whose link it is."""
    try:
        link = await find_report_link(call.store, call.request.path_params["token"], call.now)
        document = call.tools.live.current.document
        advertiser = next((one for one in document.advertisers if link and one.id == link.advertiser), None)
        if link is None or advertiser is None:
            return await _say(call, 404, "This report is not here", _GONE)
        answer: Response = await make(call, link, advertiser, document)
        return answer
    except (StoreUnavailable, StoreRefused, Refused):  # whose words are for the newsroom
        return await _say(call, 503, "Not now", _AWAY)


async def _page(call: Call, link: ReportLink, advertiser: Advertiser, document: Document) -> Response:
    names = await call.aside(names_of, document)
    mine = [one for one in document.line_items if names.owners[one.id] == advertiser.id]
    wrong = ""
    try:
        asked = _within(call, mine)
    except BadRange as error:
        wrong = str(error)
        asked = _within(call, mine, usual=True)
    days = await read_days(call, asked.first, asked.last)
    ads = ads_of(call, names, "advertiser", advertiser.id)
    over = await over_time(call, days, ads, wide=False)
    booked = await call.aside(_book, call, names, mine, days, ads)
    campaigns: dict[str, list[Booked]] = {}
    for one in booked[:_MOST_SHOWN]:
        campaigns.setdefault(one.line_item.campaign, []).append(one)
    called = {one.id: one.name for one in document.campaigns}
    return await _show(
        call,
        200 if not wrong else 400,
        "shared_report.html",
        advertiser=advertiser,
        link=link,
        asked=asked,
        over=over,
        campaigns=[(called.get(id_, ""), rows) for id_, rows in campaigns.items()],
        more=max(0, len(booked) - _MOST_SHOWN),
        wrong=wrong,
        presets=[] if not mine else _presets(asked),
        **RATES,
    )


async def _csv(call: Call, _: ReportLink, advertiser: Advertiser, document: Document) -> Response:
    """A row for each day and booking on which anything was shown."""
    names = await call.aside(names_of, document)
    mine = [one for one in document.line_items if names.owners[one.id] == advertiser.id]
    try:
        asked = _within(call, mine)
    except BadRange as error:
        return await _say(call, 400, "Other dates, please", str(error))
    days = await read_days(call, asked.first, asked.last)
    called = {one.id: one.name for one in document.campaigns}
    data = await call.aside(_write, call, called, mine, days)
    name = f"report-{asked.first}-{asked.last}.csv"
    return Response(data, headers={**_headers(call), **attached(name)}, media_type=downloads.CSV)


def _write(call: Call, called: dict[str, str], mine: Sequence[LineItem], days: Sequence[Day]) -> bytes:
    rows: list[tuple[Sequence[str], Sum]] = []
    for day in days:
        for one in mine:
            found = add_all(day.by_ad.get(ad) for ad in call.tools.sums.ads.of("line_item", one.id))
            if found:
                rows.append(((Days.date(day.number).isoformat(), called.get(one.campaign, ""), one.name), found))
    head, cells = table(["Day", "Campaign", "Booking"], rows)
    wanted = [at for at, name in enumerate(head) if name not in ("Requests", "Served")]
    return downloads.write_csv([head[at] for at in wanted], [[row[at] for at in wanted] for row in cells])


def _within(call: Call, mine: Sequence[LineItem], *, usual: bool = False) -> Within:
    """The days asked for, kept within the flights of the bookings. Raises BadRange, unless the *usual* ones are wanted.

    Open ends are today's.
    """
    zone = Days(call.zone)
    today = zone.date(zone.locate(call.now)[0])
    begins = [one.starts for one in mine]
    known = [at for at in begins if at is not None]
    least = zone.date(zone.locate(min(known))[0]) if known and None not in begins else None
    ends = [last_instant(one) for one in mine]
    last = max((at for at in ends if at is not None), default=call.now) if None not in ends else call.now
    most = min(today, zone.date(zone.locate(min(last, call.now))[0]))
    first, until = (most - timedelta(days=USUAL_DAYS - 1), most) if usual or not _asks(call) else parse_dates(call)[:2]
    until = min(until, most)
    first = min(first, until)
    if least is not None and least <= most:
        first, until = max(first, least), max(until, least)
    return Within(least, most, first, until, today)


def _asks(call: Call) -> bool:
    return bool(call.query("from") or call.query("to"))


def _presets(asked: Within) -> list[tuple[str, str]]:
    found = presets(asked.most)[1:]
    whole = asked.least and (asked.most - asked.least).days < 366
    return [*found, ("All of it", f"from={asked.least}&to={asked.most}")] if whole else found


def _book(call: Call, names: Names, mine: Sequence[LineItem], days: Sequence[Day], ads: Sequence[str]) -> list[Booked]:
    """The bookings that showed anything in these days, or run now; those that run come first."""
    whole = {ad: add_all(day.by_ad.get(ad) for day in days) for ad in ads}
    index = call.tools.sums.ads
    found = []
    for one in mine:
        sums = restrict(whole, index.of("line_item", one.id))
        whole_of_it = add_all(sums.values())
        ends = last_instant(one)
        state = "running" if is_live(one, call.now) else "over" if ends is not None and ends <= call.now else "to come"
        if not whole_of_it and state == "over":
            continue
        by_creative = index.group(sums, "creative", names.owners)
        shown = [
            Shown(_call(names.creatives.get(id_)), names.creatives.get(id_), n) for id_, n in by_creative.items() if n
        ]
        shown.sort(key=lambda each: (-each.sum.impressions, each.name))
        verdict = judge({str(at): click_rate(each.sum) for at, each in enumerate(shown)})
        best = shown[int(verdict.best)].name if verdict and verdict.best else ""
        found.append(Booked(one, state, standing_of(call, one), whole_of_it, tuple(shown), verdict, best))
    order = {"running": 0, "to come": 2, "over": 1}
    return sorted(found, key=lambda each: (order[each.state], -each.sum.impressions, each.line_item.name))


def _call(creative: Creative | None) -> str:
    """What a creative is called where its id says nothing."""
    if creative is None:
        return "An earlier creative"
    return creative.title or creative.alt or _WORDS.get(creative.kind, "A creative")


async def _say(call: Call, status: int, title: str, sentence: str) -> Response:
    return await _show(call, status, "shared_gone.html", title=title, sentence=sentence)


async def _show(call: Call, status: int, template: str, **values: Any) -> Response:
    body = await call.aside(call.render, template, values)
    return Response(body, status, _headers(call), media_type="text/html")


def _headers(call: Call) -> dict[str, str]:
    return {**call.headers(), "referrer-policy": "no-referrer", "x-robots-tag": "noindex, nofollow"}
