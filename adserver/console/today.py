"""Today: what shows in every slot, until when, and how it goes; what wants somebody's attention comes first."""

import heapq
import math
from collections.abc import Iterable, Mapping

from msgspec import Struct
from starlette.responses import Response

from adserver import pacing, report
from adserver.catalog import Booking, Catalog, is_live
from adserver.console import words
from adserver.console.bookings import page_of
from adserver.console.reports import standing_of
from adserver.console.web import Call
from adserver.days import Days
from adserver.fields import read_digits
from adserver.model import LineItem, Priority, Slot
from adserver.pacing import Figures
from adserver.pauses import paused_until
from adserver.report import Row

_WEEK_S = 7 * 86_400
_MOST = 60
_MOST_WEIGHED = 200
"""So many goals are held against their curve of traffic."""
_SILENT_AFTER = 50
"""Requests of a slot without a single impression after which it counts as silent."""


class Showing(Struct, frozen=True):
    """One of the bookings that answer a slot now. *part* is how much of it they get, in words."""

    line_item: LineItem
    advertiser: str
    part: str


class Resting(Struct, frozen=True):
    """A booking whose flight is on and that a pause holds back, and until when."""

    line_item: LineItem
    until: float


class Board(Struct, frozen=True):
    """A slot on the board. *until* is when something else may show; infinity when nothing is planned."""

    slot: Slot
    showing: tuple[Showing, ...]
    resting: tuple[Resting, ...]
    until: float | None
    row: Row


class Alarm(Struct, frozen=True, order=True):
    """Something to look at, the most pressing first: within a rank, what has the least *turn*."""

    rank: int
    turn: float
    name: str
    sentence: str
    path: str
    tone: str


async def page(call: Call) -> Response:
    catalog = call.tools.live.current
    days = Days(catalog.document.site.time_zone)
    day, _ = days.locate(call.now)
    counts = {day: await call.store.counts(day)}
    names = await call.store.ad_names()
    by_slot = {row.name: row for row in report.rows(counts, names, "slot", days, list(catalog.slots))}
    text = call.query("q").lower()
    slots = [slot for slot in catalog.slots.values() if text in f"{slot.id} {slot.name}".lower()]
    number, last = page_of(call, len(slots), _MOST)
    shown = slots[(number - 1) * _MOST : number * _MOST]
    boards = [_board(catalog, slot, call.now, by_slot.get(slot.id) or Row(name=slot.id)) for slot in shown]
    alarms = sorted([*await call.aside(_behind, call), *_alarms(catalog, call.now, by_slot)])
    look = min(max(1, read_digits(call.query("look")) or 1), max(1, math.ceil(len(alarms) / _MOST)))
    return await call.page(
        "today.html",
        boards=boards,
        alarms=alarms[(look - 1) * _MOST : look * _MOST],
        look=look,
        more=max(0, len(alarms) - look * _MOST),
        q=call.query("q"),
        number=number,
        last=last,
        total=_sum(by_slot.values()),
        booked=bool(catalog.document.line_items),
    )


def _board(catalog: Catalog, slot: Slot, now: float, row: Row) -> Board:
    showing, until = showing_at(catalog, slot, now)
    return Board(slot, showing, resting_at(catalog, slot, now), until, row)


def resting_at(catalog: Catalog, slot: Slot, at: float) -> tuple[Resting, ...]:
    """Whom a pause keeps from answering *slot* then, wherever it is asked for."""
    on = (one for one in catalog.bookings[slot.id].all if one.pauses and is_live(one.line_item, at))
    found = ((one.line_item, paused_until(one.pauses, at)) for one in on)
    return tuple(Resting(line_item, until) for line_item, until in found if until is not None)


def showing_at(catalog: Catalog, slot: Slot, at: float) -> tuple[tuple[Showing, ...], float | None]:
    """Who answers *slot* then, and until when; None where no change is planned."""
    live = catalog.bookings[slot.id].at(at)
    showing: list[Showing] = []
    for tier in live.tiers:
        if tier is None:
            continue
        showing += [_say_part(one, tier.everyone) for one in tier.everyone]
        sold = sum(one.line_item.share or 0.0 for one in tier.everyone)
        if not sold and tier.bookings:
            break  # what comes behind shows only where these cannot
        if sold >= 100:
            break
    return tuple(showing), None if live.until == math.inf else live.until


def _say_part(booking: Booking, among: tuple[Booking, ...]) -> Showing:
    line_item = booking.line_item
    if line_item.share is not None:
        part = f"{line_item.share:g} %"
    elif line_item.goal:
        part = f"{line_item.goal.n:,} {line_item.goal.of.value}" + (" a day" if line_item.goal.daily else "")
    elif line_item.priority is Priority.HOUSE:
        part = "house ad"
    else:
        total = sum(one.weight for one in among if one.line_item.share is None and not one.line_item.goal)
        part = f"{100 * booking.weight / total:.0f} % of the rest" if total else "resting"
    return Showing(line_item, booking.advertiser.name, part)


def _behind(call: Call) -> list[Alarm]:
    """Goals of which less is delivered than is due by now; of many, those furthest back by the clock are looked at."""
    catalog, pacer, days = call.tools.live.current, call.tools.answering.pacer, Days(call.zone)
    if pacer.heard is None:
        return []
    today = days.locate(call.now)[0]
    day = days.start(today), days.start(today + 1)

    def lag(line_item: LineItem) -> float:
        goal = line_item.goal
        assert goal is not None
        begins, ends = pacing.span(line_item, day)
        heard = pacer.heard.today if goal.daily else pacer.heard.whole  # type: ignore[union-attr]
        done = heard.get(line_item.id, Figures()).of(goal.of) / goal.n
        return (call.now - begins) / (ends - begins) - done if math.isfinite(ends - begins) else -math.inf

    live = (one for one in catalog.goals if is_live(one, call.now))
    found = []
    for one in heapq.nlargest(_MOST_WEIGHED, live, key=lag):
        standing = standing_of(call, one)
        if standing and standing.word == "behind":
            rest = " The traffic expected is too small for the rest." if one.id in pacer.planner.behind else ""
            lacks = ((standing.due or 0) - standing.done) / standing.goal  # of what was sold, the larger part first
            path = f"/console/line-items/{one.id}"
            found.append(Alarm(0, -lacks, one.name, standing.sentence + rest, path, "bad"))
    return found


def _alarms(catalog: Catalog, now: float, by_slot: Mapping[int | str | None, Row]) -> list[Alarm]:
    found = []
    zone = catalog.document.site.time_zone
    for one in catalog.document.line_items:
        path = f"/console/line-items/{one.id}"
        ends_soon = one.ends is not None and now < one.ends <= now + _WEEK_S and is_live(one, now)
        if one.ends is not None and ends_soon and one.priority is not Priority.HOUSE:
            found.append(Alarm(2, one.ends, one.name, f"ends {words.say_instant(one.ends, zone)}", path, "warn"))
    for slot in catalog.slots.values():
        row = by_slot.get(slot.id)
        if row and row.requests >= _SILENT_AFTER and not row.impressions:
            sentence = f"is silent: asked for {row.requests:,} times today, and nothing was seen"
            found.append(
                Alarm(1, -row.requests, f"{slot.id} {slot.name}", sentence, f"/console/slots/{slot.id}", "bad")
            )
    return found


def _sum(rows: Iterable[Row]) -> Row:
    total = Row(name=None)
    for row in rows:
        for figure in report.FIGURES:
            setattr(total, figure, getattr(total, figure) + getattr(row, figure))
    return total
