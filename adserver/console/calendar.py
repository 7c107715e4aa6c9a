"""The calendar: what is booked in every slot over some weeks, and what is free."""

from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from msgspec import Struct
from starlette.responses import Response

from adserver.console import words
from adserver.console.bookings import Desk, page_of, read_desk
from adserver.console.drafts import find
from adserver.console.web import Call
from adserver.console.weeks import Bar, Free, Rows, Window, alike, find_slots, lay_out, look_at, takes_by
from adserver.model import LineItem, Priority

WEEKS = (1, 4, 13)
_USUAL_WEEKS = 4
_A_PAGE = 20
_FARTHEST = timedelta(days=3653)


async def page(call: Call) -> Response:
    weeks = next((one for one in WEEKS if str(one) == call.query("weeks")), _USUAL_WEEKS)
    today = datetime.fromtimestamp(call.now, ZoneInfo(call.zone)).date()
    asked, wrong = _read_day(call.query("from"), today)
    window = look_at(asked, weeks, call.zone, call.now)
    desk = await read_desk(call)
    text = call.query("q")
    slots = await call.aside(find_slots, desk.document, window, text)
    number, last = page_of(call, len(slots), _A_PAGE)
    shown = slots[(number - 1) * _A_PAGE : number * _A_PAGE]
    pacer = call.tools.answering.pacer
    takes = takes_by(pacer.outlook, pacer.heard.whole if pacer.heard else {}, call.now)
    marks, gone = _drafted(desk)
    rows = await call.aside(lay_out, shown, desk.document, window, takes, marks, text, gone)

    def at(first: date) -> str:
        return "/console/calendar?" + urlencode({"from": first.isoformat(), "weeks": weeks, "q": text})

    begins, span = window.days[0], timedelta(weeks=weeks)
    return await call.page(
        "calendar.html",
        window=window,
        weeks=weeks,
        choices=WEEKS,
        rows=[(row, _frees(row, weeks)) for row in rows],
        tell=lambda bar: _tell(bar, call),
        count=len(slots),
        starts=lambda free: _starts(window, free, call),
        says=_say,
        number=number,
        last=last,
        q=text,
        wrong=wrong,
        asked=call.query("from") or begins.isoformat(),
        earlier=at(begins - span),
        later=at(begins + span),
        today=at(today),
        query=urlencode({"from": begins.isoformat(), "weeks": weeks, "q": text}),
        drafted=bool(marks or gone),
    )


def _read_day(text: str, today: date) -> tuple[date, str]:
    """The day to begin with, and what is wrong with the one that was asked for."""
    if not text:
        return today, ""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return today, f"{text!r:.40} is no day; write it like {today.isoformat()}."
    if abs(day - today) > _FARTHEST:
        return today, f"{day} is more than ten years away."
    return day, ""


def _drafted(desk: Desk) -> tuple[dict[str, str], list[LineItem]]:
    """The line items that the draft changes, and those it takes away."""
    marks = {one.id: "draft" for one in desk.draft.puts.line_items}
    removed = [find(desk.live, "line_items", id_) for table, id_ in desk.draft.removes if table == "line_items"]
    return marks, [one for one in removed if one is not None]


def _frees(row: Rows, weeks: int) -> list[tuple[Free, bool]]:
    """Day by day, and whether it is unlike the day before: only then does the tabulator key stop there.

    Over a quarter there is no room to say it of each day, so days alike are told together.
    """
    found = alike(row.free) if weeks == WEEKS[-1] else row.free
    said = [_say(one) if one.percent is not None else "" for one in found]
    return [(one, at == 0 or said[at] != said[at - 1]) for at, one in enumerate(found)]


class Told(Struct, frozen=True):
    """A bar in words: its *kind* for the eye, what stands in it, and what only ears and pointers get as well."""

    kind: str
    paused: str
    how: str
    rest: str


def _tell(bar: Bar, call: Call) -> Told:
    one, zone = bar.line_item, call.zone
    until = call.paused(one.id)
    paused = "" if until is None else f"paused until {words.say_instant(until, zone)}"
    if one.share is not None:
        kind, how = "share", words.say(one.share, zone, "share") or ""
    elif one.goal:
        kind, how = "goal", words.say(one.goal, zone) or ""
    else:
        kind = "house" if one.priority is Priority.HOUSE else "rest"
        how = "house ad" if kind == "house" else "the rest"
    begins = f"from {words.say_instant(one.starts, zone)}" if one.starts is not None else "from the beginning"
    ends = f"until {words.say_instant(one.ends, zone)}" if one.ends is not None else "with no end"
    mark = {"draft": ", in your draft", "removed": ", removed in your draft"}.get(bar.mark, "")
    return Told(kind, paused, how, f", {bar.advertiser}, {begins} {ends}{mark}")


def _starts(window: Window, free: Free, call: Call) -> str:
    """When a booking of that free space would begin, as the form takes it: a day's midnight, or now."""
    at = max(window.edges[free.at], call.now)
    return datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(call.zone)).strftime("%Y-%m-%dT%H:%M")


def _say(free: Free) -> str:
    """`free`, `40 %`, `≤40 %`, `part` or `full`: short enough for a narrow day."""
    if not free.sold:
        return "free"
    if not free.percent:
        return "full"
    if not free.sure and free.percent == 100:
        return "part"
    return f"{'' if free.sure else '≤'}{free.percent}\u202f%"
