"""Reports: what slots, bookings, advertisers and creatives delivered; over time, with how sure a rate is, as files."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from msgspec import Struct
from starlette.responses import Response

from adserver.archive import ArchiveUnavailable
from adserver.console import downloads, figures
from adserver.console.bookings import page_of
from adserver.console.figures import (
    KINDS,
    Chart,
    Day,
    Point,
    Standing,
    Sum,
    Verdict,
    add_all,
    click_rate,
    draw,
    judge,
    say_points,
    viewability,
)
from adserver.console.sums import NotYet
from adserver.console.web import Call, Refused
from adserver.days import Days
from adserver.documents import Document
from adserver.model import Creative, LineItem
from adserver.pacing import Figures
from adserver.pauses import gaps_of
from adserver.report import EVENT_FIGURES, FIGURES
from adserver.reporting import BadRange, parse_request

A_PAGE = 50
USUAL_DAYS = 30
MOST_DAYS = 366
_HOURLY_DAYS = 2
_WIDE, _MIDDLE, _SLIM = (1100, 270), (700, 240), (330, 210)
"""How large a chart is drawn for a desk, for a tablet or paper, and for a phone: its letters are not scaled."""


class Asked(Struct, frozen=True):
    """What to report on: everything *by* a kind, or the one of it called *id*; and which days."""

    by: str
    id: str
    first: date
    last: date
    today: date

    @property
    def query(self) -> str:
        """The same as the query of an address."""
        one = f"&id={self.id}" if self.id else ""
        return f"by={self.by}{one}&{self.dates}"

    @property
    def dates(self) -> str:
        return f"from={self.first}&to={self.last}"

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def is_hourly(self) -> bool:
        return self.days <= _HOURLY_DAYS


class Line(Struct, frozen=True):
    """One line of a table: what it is about, and its figures. *more* is a word or two beside the name."""

    id: str
    name: str
    sum: Sum
    more: str = ""
    standing: Standing | None = None
    creative: Creative | None = None


class Over(Struct, frozen=True):
    """Figures over time: *points* by *each* day or hour, drawn for some widths, and said in one sentence."""

    points: tuple[Point, ...]
    each: str
    wide: Chart | None
    middle: Chart
    slim: Chart
    sentence: str
    sum: Sum


class Names(Struct, frozen=True):
    """What the entries of a document are called, by kind and id, and to whom line items belong."""

    of: Mapping[str, Mapping[str, str]]
    owners: Mapping[str, str]
    line_items: Mapping[str, LineItem]
    creatives: Mapping[str, Creative]


def names_of(document: Document) -> Names:
    campaigns = {one.id: one.advertiser for one in document.campaigns}
    return Names(
        of={
            "slot": {str(one.id): one.name for one in document.slots},
            "line_item": {one.id: one.name for one in document.line_items},
            "advertiser": {one.id: one.name for one in document.advertisers},
            "creative": {one.id: one.title or one.alt or one.id for one in document.creatives},
        },
        owners={one.id: campaigns.get(one.campaign, "") for one in document.line_items},
        line_items={one.id: one for one in document.line_items},
        creatives={one.id: one for one in document.creatives},
    )


# Asking


def parse_dates(call: Call, usual: int = USUAL_DAYS) -> tuple[date, date, date]:
    """First and last day asked for, and today. Raises BadRange."""
    days = Days(call.zone)
    today = days.date(days.locate(call.now)[0])
    request = parse_request(call.query("from"), call.query("to"), "day")
    last = request.last or today
    first = request.first or last - timedelta(days=usual - 1)
    if first > last:
        raise BadRange("The first day lies after the last; exchange them.")
    if (last - first).days >= MOST_DAYS:
        raise BadRange(f"That is {(last - first).days + 1} days; at most {MOST_DAYS} are shown at once.")
    return first, min(last, max(today, first)), today


def parse_asked(call: Call) -> Asked:
    """Raises BadRange."""
    by = call.query("by", "line_item")
    return Asked(by if by in KINDS else "line_item", call.query("id"), *parse_dates(call))


async def read_days(call: Call, first: date, last: date) -> list[Day]:
    """Raises Refused, StoreUnavailable or StoreRefused."""
    try:
        return await call.tools.sums.read(call.store, Days(call.zone), call.now, Days.number(first), Days.number(last))
    except NotYet as error:
        raise Refused(503, f"This is added up for the first time: {error}. Load the page again in a minute.") from None
    except ArchiveUnavailable as error:
        raise Refused(503, f"The closed days cannot be read now: {error}.") from None


def ads_of(call: Call, names: Names, by: str, id_: str) -> list[str]:
    """The ads of one entry; of a slot, also its requests that no ad answered."""
    ads = call.tools.sums.ads
    if by == "advertiser":
        return [
            ad for line_item, owner in names.owners.items() if owner == id_ for ad in ads.of("line_item", line_item)
        ]
    return ads.of(by, id_)


async def over_time(
    call: Call, days: Sequence[Day], ads: Sequence[str], *, slot: str | None = None, wide: bool = True
) -> Over:
    """The figures of some *ads* by day; of one or two days, by hour. *slot* is the slot whose they are, "" is all."""
    zone, read_hours = Days(call.zone), call.tools.sums.read_hours
    hourly = len(days) <= _HOURLY_DAYS
    points: list[Point] = []
    if hourly:
        now = call.now
        for day in days:
            hours = day.of_slot(slot or None) if slot is not None else await read_hours(call.store, day, ads)
            begin, end = zone.start(day.number), zone.start(day.number + 1)
            on = zone.date(day.number)
            for hour in range(round((end - begin) / 3600)):
                if begin + hour * 3600 > now:
                    break
                clock = zone.describe(day.number, hour)[11:16]
                short = clock if hour or len(days) == 1 else f"{on:%-d %b}"
                iso = zone.describe(day.number, hour)
                points.append(Point(short, f"{on:%-d %b} {clock}", iso, hours.get(hour, Sum())))
    else:
        sums = await call.aside(_by_day, days, None if slot == "" else ads)
        for day, one in zip(days, sums, strict=True):
            on = zone.date(day.number)
            points.append(Point(f"{on:%-d %b}", f"{on:%-d %b %Y}", on.isoformat(), one))
    each = "each hour" if hourly else "each day"
    return Over(
        points=tuple(points),
        each=each,
        wide=draw(points, *_WIDE) if wide else None,
        middle=draw(points, *_MIDDLE),
        slim=draw(points, *_SLIM),
        sentence=say_points(points, lambda one: one.impressions, "impressions", each),
        sum=await call.aside(add_all, [one.sum for one in points]),
    )


def _by_day(days: Iterable[Day], ads: Sequence[str] | None) -> list[Sum]:
    if ads is None:
        return [day.total for day in days]
    return [add_all(day.by_ad.get(ad) for ad in ads) for day in days]


def standing_of(call: Call, line_item: LineItem) -> Standing | None:
    """How the goal of *line_item* does, as far as this worker has heard; None without a goal, or before that."""
    pacer = call.tools.answering.pacer
    if line_item.goal is None or pacer.heard is None:
        return None
    days = Days(call.zone)
    today = days.locate(call.now)[0]
    day = days.start(today), days.start(today + 1)
    heard = pacer.heard.today if line_item.goal.daily else pacer.heard.whole
    done = heard.get(line_item.id, Figures()).of(line_item.goal.of)
    gaps = gaps_of(call.tools.live.current.pauses.get(line_item.id, ()))
    passed = figures.passed(line_item, pacer.outlook, call.now, day, gaps)
    return figures.standing(line_item, done, passed, call.now)


# Pages


async def page(call: Call) -> Response:
    """Everything by one kind, or one thing over time."""
    wrong = ""
    try:
        asked = parse_asked(call)
    except BadRange as error:
        wrong = str(error)
        today = Days.date(Days(call.zone).locate(call.now)[0])
        by = call.query("by", "line_item")
        by = by if by in KINDS else "line_item"
        asked = Asked(by, call.query("id"), today - timedelta(days=USUAL_DAYS - 1), today, today)
    names = await call.aside(names_of, call.tools.live.current.document)
    days = await read_days(call, asked.first, asked.last)
    if asked.id:
        return await _one(call, asked, names, days, wrong)
    return await _many(call, asked, names, days, wrong)


async def _many(call: Call, asked: Asked, names: Names, days: list[Day], wrong: str) -> Response:
    whole = await call.tools.sums.whole(days)
    lines = await call.aside(lines_of, call, asked, names, whole, call.query("q").lower())
    over = await over_time(call, days, (), slot="")
    number, last = page_of(call, len(lines))
    shown = lines[(number - 1) * A_PAGE : number * A_PAGE]
    if asked.by == "line_item":
        shown = [with_standing(call, one, names) for one in shown]
    return await call.page(
        "reports.html",
        400 if wrong else 200,
        asked=asked,
        kinds=KINDS,
        over=over,
        lines=shown,
        count=len(lines),
        number=number,
        last=last,
        q=call.query("q"),
        wrong=wrong,
        presets=presets(asked.today),
        **RATES,
    )


async def _one(call: Call, asked: Asked, names: Names, days: list[Day], wrong: str) -> Response:
    ads = ads_of(call, names, asked.by, asked.id)
    known = names.of[asked.by].get(asked.id)
    if known is None and not ads:
        raise Refused(404, "There is nothing of that name to report on.")
    over = await over_time(call, days, ads, slot=asked.id if asked.by == "slot" else None)
    parts, verdict = await call.aside(_parts, call, asked, names, days, ads)
    line_item = names.line_items.get(asked.id) if asked.by == "line_item" else None
    owner = names.owners.get(asked.id, "") if line_item else ""
    return await call.page(
        "report.html",
        400 if wrong else 200,
        asked=asked,
        kinds=KINDS,
        name=known or asked.id,
        gone=known is None,
        over=over,
        parts_of=parts,
        verdict=verdict,
        best=names.of["creative"].get(verdict.best or "", "") if verdict else "",
        standing=standing_of(call, line_item) if line_item else None,
        line_item=line_item,
        owner=(owner, names.of["advertiser"].get(owner, owner)) if owner else None,
        wrong=wrong,
        presets=presets(asked.today),
        **RATES,
    )


RATES = {"click_rate": click_rate, "viewability": viewability, "EVENTS": EVENT_FIGURES}


def presets(today: date) -> list[tuple[str, str]]:
    """Usual stretches of time: what they are called, and the query."""
    return [
        (f"{name}", f"from={today - timedelta(days=n - 1)}&to={today}")
        for name, n in (("Today", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90))
    ]


def lines_of(call: Call, asked: Asked, names: Names, whole: Mapping[str, Sum], text: str = "") -> list[Line]:
    """A line for each entry of a kind, what was shown most first."""
    sums = call.tools.sums.ads.group(whole, asked.by, names.owners)
    called = names.of[asked.by]
    found = []
    for id_ in (*called, *(one for one in sums if one not in called)):
        name = called.get(id_, id_)
        owner = ""
        if asked.by == "line_item":
            advertiser = names.owners.get(id_, "")
            owner = names.of["advertiser"].get(advertiser, advertiser)
        elif asked.by == "creative" and id_ in names.creatives:
            owner = names.of["advertiser"].get(names.creatives[id_].advertiser, "")
        if text and text not in f"{id_} {name} {owner}".lower():
            continue
        found.append(Line(id_, name, sums.get(id_) or Sum(), owner if id_ in called else "removed"))
    found.sort(key=lambda one: (-one.sum.impressions, -one.sum.requests, one.name.lower()))
    return found


def with_standing(call: Call, line: Line, names: Names) -> Line:
    line_item = names.line_items.get(line.id)
    standing = standing_of(call, line_item) if line_item else None
    return Line(line.id, line.name, line.sum, line.more, standing, line.creative)


def _parts(
    call: Call, asked: Asked, names: Names, days: Sequence[Day], ads: Sequence[str]
) -> tuple[list[tuple[str, str, list[Line]]], Verdict | None]:
    """What an entry is made of, by the kinds that tell something; and of a booking, which creative does best."""
    whole = {ad: add_all(day.by_ad.get(ad) for day in days) for ad in ads}
    kinds = {
        "slot": ["line_item"],
        "line_item": ["creative", "slot"],
        "advertiser": ["line_item", "creative"],
        "creative": ["line_item", "slot"],
    }[asked.by]
    verdict, found = None, []
    for kind in kinds:
        sums = call.tools.sums.ads.group(whole, kind, names.owners)
        called = names.of[kind]
        lines = [
            Line(id_, called.get(id_, id_), one, "", None, names.creatives.get(id_) if kind == "creative" else None)
            for id_, one in sums.items()
            if one
        ]
        lines.sort(key=lambda one: (-one.sum.impressions, one.name.lower()))
        found.append((kind, KINDS[kind], lines[:A_PAGE]))
        if asked.by == "line_item" and kind == "creative":
            verdict = judge({one.id: click_rate(one.sum) for one in lines})
    return found, verdict


# Files

_HEAD = (
    "Requests", "Served", "Impressions", "Measured", "Viewable", "Clicks", "Loads",
    "Viewability", "Viewability from", "Viewability to", "Click rate", "Click rate from", "Click rate to",
    "Suspect impressions", "Gross impressions", "Gross measured", "Gross viewable", "Gross clicks",
)  # fmt: skip


def table(
    first: Sequence[str], rows: Sequence[tuple[Sequence[str], Sum]]
) -> tuple[list[str], list[list[downloads.Cell]]]:
    """Head and rows of a file: names, figures, rates with their bounds, and what was taken off by reason."""
    reasons = sorted({reason for _, one in rows for reason in one.reasons})
    head = [*first, *_HEAD, *(f"Invalid: {reason}" for reason in reasons)]
    found = []
    for names, one in rows:
        cells: list[downloads.Cell] = [*names, *(getattr(one, figure) for figure in FIGURES)]
        for rate in (viewability(one), click_rate(one)):
            cells += (round(rate.value, 6), round(rate.low, 6), round(rate.high, 6)) if rate.of else (None, None, None)
        cells += [one.suspect("impressions"), *(one.gross(figure) for figure in EVENT_FIGURES)]
        cells += [sum(one.invalid(figure).get(reason, 0) for figure in EVENT_FIGURES) for reason in reasons]
        found.append(cells)
    return head, found


async def as_csv(call: Call) -> Response:
    return await _download(call, "csv")


async def as_xlsx(call: Call) -> Response:
    return await _download(call, "xlsx")


async def _download(call: Call, form: str) -> Response:
    """The lines of a kind; or of one entry its days, or hours."""
    try:
        asked = parse_asked(call)
    except BadRange as error:
        raise Refused(400, str(error)) from None
    names = await call.aside(names_of, call.tools.live.current.document)
    days = await read_days(call, asked.first, asked.last)
    rows: list[tuple[Sequence[str], Sum]]
    if asked.id:
        ads = ads_of(call, names, asked.by, asked.id)
        name = names.of[asked.by].get(asked.id)
        if name is None and not ads:
            raise Refused(404, "There is nothing of that name to report on.")
        over = await over_time(call, days, ads, slot=asked.id if asked.by == "slot" else None)
        first = ["Id", "Name", "Hour" if asked.is_hourly else "Day"]
        rows = [((asked.id, name or asked.id, point.iso), point.sum) for point in over.points]
    else:
        whole = await call.tools.sums.whole(days)
        lines = await call.aside(lines_of, call, asked, names, whole, call.query("q").lower())
        first = ["Id", "Name", "Advertiser"] if asked.by in ("line_item", "creative") else ["Id", "Name"]
        rows = [((one.id, one.name, one.more)[: len(first)], one.sum) for one in lines]
    head, cells = await call.aside(table, first, rows)
    if form == "csv":
        data, media = await call.work(len(cells), downloads.write_csv, head, cells), downloads.CSV
    else:
        data, media = await call.work(len(cells), downloads.write_xlsx, KINDS[asked.by], head, cells), downloads.XLSX
    name = f"report-{asked.by}-{asked.first}-{asked.last}.{form}"
    return Response(data, headers={**call.headers(), **attached(name)}, media_type=media)


def attached(name: str) -> dict[str, str]:
    """The header that has a browser keep an answer as a file. *name* is made of our own words."""
    return {"content-disposition": f'attachment; filename="{name}"'}
