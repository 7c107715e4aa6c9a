"""The places on pages: what shows in each now and next and why, what is booked there, and how the place itself is."""

import math
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs
from starlette.responses import Response

from adserver import report
from adserver.catalog import PRIORITIES, Catalog
from adserver.checks import check
from adserver.console import complaints, drafts
from adserver.console.booking import parse_local
from adserver.console.bookings import Desk, Listed, find_seen, keep, page_of, put_seen, read_desk, state_of
from adserver.console.drafts import find
from adserver.console.today import Resting, Showing, resting_at, showing_at
from adserver.console.web import Call, Refused
from adserver.days import Days
from adserver.decide import Page
from adserver.documents import Document, Known, read_entry
from adserver.explain import Candidate
from adserver.fields import read_digits
from adserver.model import DEVICES, Slot, SlotId, WhenEmpty
from adserver.pacer import read_pace
from adserver.previews import narrow
from adserver.report import Row
from adserver.targeting import know
from adserver.versions import read_version_at

_A_PAGE = 50
_NEXT = 3
"""How many of the coming changes are told."""
_NOW_S = 60
_FARTHEST_S = 400 * 86_400
_FIRST_ID = 100_000
_STRONG = re.compile(r"\*(.+?)\*")
_TIMES = re.compile(r"\s*[x×*]\s*", re.IGNORECASE)
_STATES = {"live": 0, "coming": 1, "ended": 2}


class Place(Struct, frozen=True):
    """A slot in the list. *showing* is None while it is only in somebody's draft; *resting* is what is paused."""

    slot: Slot
    showing: tuple[Showing, ...] | None
    resting: tuple[Resting, ...]
    until: float | None
    booked: int
    drafted: bool


class Then(Struct, frozen=True):
    """What shows from one change to the next."""

    at: float
    showing: tuple[Showing, ...]
    until: float | None


class Why(Struct, frozen=True):
    """An explanation to read: its sentence in pieces, every other a name; or what is *wrong* with the question."""

    at: float
    version: int
    sentence: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    wrong: str = ""


async def listing(call: Call) -> Response:
    desk = await read_desk(call)
    catalog = call.tools.live.current
    text = call.query("q").lower()
    drafted = {id_ for table, id_ in desk.draft.places if table == "slots"}
    found = [one for one in desk.document.slots if text in f"{one.id} {one.name} {_sizes(one)}".lower()]
    number, last = page_of(call, len(found))
    shown = found[(number - 1) * _A_PAGE : number * _A_PAGE]
    booked = dict.fromkeys((one.id for one in shown), 0)
    for line_item in desk.document.line_items:
        for slot in line_item.slots:
            if slot in booked and state_of(line_item, call.now) != "ended":
                booked[slot] += 1
    rows = []
    for one in shown:
        live = catalog.slots.get(one.id)
        showing, until = showing_at(catalog, live, call.now) if live else (None, None)
        resting = resting_at(catalog, live, call.now) if live else ()
        rows.append(Place(one, showing, resting, until, booked[one.id], one.id in drafted))
    return await call.page("slots.html", rows=rows, count=len(found), number=number, last=last, q=call.query("q"))


async def page(call: Call) -> Response:
    desk = await read_desk(call)
    slot = _find(call, desk.document)
    assert slot
    return await _show(call, desk, slot, _fields(slot), {})


async def form(call: Call) -> Response:
    """An empty form, with the next number that is free."""
    desk = await read_desk(call)
    number = max((one.id for one in desk.document.slots), default=_FIRST_ID - 1) + 1
    fields = {**_fields(None), "id": str(number)}
    return await call.page("slot_new.html", fields=fields, wrong={}, empties=_EMPTIES)


async def save(call: Call) -> Response:
    """Put the slot into the draft."""
    desk = await read_desk(call)
    before = await _find_seen(call, desk)
    fields = {name: call.text(name) for name in _fields(None)}
    slot, wrong = parse(fields, before, desk.document)
    if slot is not None and before is not None:
        wrong |= breaks(slot, desk.document)
    if slot is None or wrong:
        if before is None:
            return await call.page("slot_new.html", 422, fields=fields, wrong=wrong, empties=_EMPTIES)
        return await _show(call, desk, before, fields, wrong, status=422)
    await keep(call, desk, await put_seen(call, desk, desk.draft, "slots", slot))
    return call.go("/console/draft", said=f"{slot.id} {slot.name} is in your draft.")


async def _find_seen(call: Call, desk: Desk) -> Slot | None:
    """The slot that a form changes, also where it is gone since."""
    text = call.request.path_params.get("id")
    found: Slot | None = None if text is None else await find_seen(call, desk, "slots", read_digits(text) or 0)
    if text is not None and found is None:
        raise Refused(404, "There is no such slot.")
    return found


def _find(call: Call, document: Document) -> Slot | None:
    text = call.request.path_params.get("id")
    if text is None:
        return None
    number = read_digits(text)
    found: Slot | None = None if number is None else find(document, "slots", number)
    if found is None:
        raise Refused(404, "There is no such slot.")
    return found


# The form

_EMPTIES = [
    (WhenEmpty.COLLAPSE.value, "close up, so that no gap is left"),
    (WhenEmpty.KEEP.value, "keep the room free, so that nothing moves"),
    (WhenEmpty.PASSBACK.value, "ask another ad server"),
]


def _sizes(slot: Slot) -> str:
    return ", ".join(f"{width}x{height}" for width, height in slot.sizes)


def _fields(slot: Slot | None) -> dict[str, str]:
    """The form's fields as they are before anybody types."""
    if slot is None:
        empty = dict.fromkeys(("id", "name", "sizes", "passback", "refresh_s"), "")
        return {**empty, "label": "Advertisement", "when_empty": WhenEmpty.COLLAPSE.value, "lazy": "1"}
    return {
        "id": str(slot.id),
        "name": slot.name,
        "sizes": _sizes(slot),
        "label": slot.label,
        "when_empty": slot.when_empty.value,
        "passback": slot.passback or "",
        "lazy": "1" if slot.lazy else "",
        "refresh_s": str(slot.refresh_s or ""),
    }


def parse(fields: Mapping[str, str], before: Slot | None, document: Document) -> tuple[Slot | None, dict[str, str]]:
    """The slot that a form asks for, or what is wrong by the name of the input. *before* is the one it changes."""
    raw: dict[str, Any] = {name: fields[name] for name in ("name", "label", "when_empty") if fields[name]}
    wrong: dict[str, str] = {}
    sizes = _TIMES.sub("x", fields["sizes"])
    raw["sizes"] = [size for size in re.split(r"[,;\s]+", sizes) if size]
    raw["lazy"] = bool(fields["lazy"])
    if fields["when_empty"] == WhenEmpty.PASSBACK.value:
        raw["passback"] = fields["passback"]
        if not fields["passback"]:
            wrong["passback"] = "Give the other ad server's markup, or choose something else for an empty place"
    number = str(before.id) if before else fields["id"]
    for name, text in (("id", number), ("refresh_s", fields["refresh_s"])):
        if (n := read_digits(text)) is not None:
            raw[name] = n
        elif text or name == "id":
            wrong[name] = "This is no whole number"
    if before:
        raw["counts"] = before.counts.value
    elif find(document, "slots", raw.get("id", 0)) is not None:
        wrong["id"] = "This number is taken by another slot"
    found, problems = read_entry("slot", {**raw, "id": raw.get("id", 1)})
    for name, what in problems.items():
        wrong.setdefault(name, complaints.of_field(name, what))
    return (found, wrong) if isinstance(found, Slot) and not wrong else (None, wrong)


def breaks(slot: Slot, document: Document) -> dict[str, str]:
    """What the slot's change does to its bookings, that may not be."""
    mine = [structs.replace(one, slots=(slot.id,)) for one in document.line_items if slot.id in one.slots]
    shown = {name for one in mine for name in one.creatives}
    creatives = tuple(one for one in document.creatives if one.id in shown and one.size)
    sized = {one.id for one in creatives}
    alone = Document(
        site=document.site,
        slots=(slot,),
        advertisers=document.advertisers,
        campaigns=document.campaigns,
        creatives=creatives,
        line_items=tuple(one for one in mine if sized.issuperset(one.creatives)),
    )
    tables = ("slots", "advertisers", "campaigns", "creatives", "line_items")
    places = {(table.removesuffix("s"), one.id): "" for table in tables for one in drafts.entries(document, table)}
    found = [one for one in check(alone, Known(places)) if "fits slot" in one.what]
    if not found:
        return {}
    more = f", and {len(found) - 1} more like it" if len(found) > 1 else ""
    told = complaints.tell(found[0], complaints.names_of(alone))
    return {"sizes": f"{told.where}: {told.what}{more}"}


# The page


async def _show(
    call: Call, desk: Desk, slot: Slot, fields: Mapping[str, str], wrong: Mapping[str, str], status: int = 200
) -> Response:
    catalog = call.tools.live.current
    live = catalog.slots.get(slot.id)
    found = _bookings(call, desk, slot)
    number, last = page_of(call, len(found))
    asked = {name: call.query(name) for name in ("at", "section", "url", "tag", "device")}
    return await call.page(
        "slot.html",
        status,
        slot=slot,
        published=live is not None,
        thens=_thens(catalog, live, call.now) if live else (),
        resting=resting_at(catalog, live, call.now) if live else (),
        row=await _today(call, slot.id),
        why=await _explain(call, catalog, slot.id, asked) if live else None,
        asked=asked,
        rows=found[(number - 1) * _A_PAGE : number * _A_PAGE],
        count=len(found),
        number=number,
        last=last,
        drafted=("slots", slot.id) in desk.draft.places,
        fields=fields,
        wrong=wrong,
        empties=_EMPTIES,
    )


def _bookings(call: Call, desk: Desk, slot: Slot) -> list[Listed]:
    """Everything booked there, in the order it is asked in; what is over comes last."""
    owners = {one.id: one.advertiser for one in desk.document.campaigns}
    names = {one.id: one.name for one in desk.document.advertisers}
    drafted = {id_ for table, id_ in desk.draft.places if table == "line_items"}

    def order(one: Listed) -> tuple[bool, int, int, float, str]:
        item = one.line_item
        over = one.state == "ended"
        return over, PRIORITIES.index(item.priority), _STATES[one.state], item.starts or -math.inf, item.name

    listed = [
        Listed(
            one,
            names.get(owners.get(one.campaign, ""), ""),
            state_of(one, call.now),
            one.id in drafted,
            call.paused(one.id),
        )
        for one in desk.document.line_items
        if slot.id in one.slots
    ]
    return sorted(listed, key=order)


def _thens(catalog: Catalog, slot: Slot, now: float) -> list[Then]:
    """What shows now, and after each of the next changes that change it."""
    showing, until = showing_at(catalog, slot, now)
    found = [Then(now, showing, until)]
    for _ in range(_NEXT * 40):  # hours of the week are looked at each quarter of an hour, whether they change or not
        if until is None or len(found) > _NEXT:
            break
        at = until
        showing, until = showing_at(catalog, slot, at)
        if showing != found[-1].showing:
            found[-1] = structs.replace(found[-1], until=at)
            found.append(Then(at, showing, until))
        else:
            found[-1] = structs.replace(found[-1], until=until)
    return found


async def _today(call: Call, slot: SlotId) -> Row:
    """The slot's figures so far today."""
    days = Days(call.zone)
    day, _ = days.locate(call.now)
    counts, names = {day: await call.store.counts(day)}, await call.store.ad_names()
    rows = await call.aside(report.rows, counts, names, "slot", days)
    return next((row for row in rows if row.name == slot), Row(name=slot))


async def _explain(call: Call, catalog: Catalog, slot: SlotId, asked: Mapping[str, str]) -> Why:
    """Why the next view of such a page, at such an instant, shows what it does; asked for a reader who is new here."""
    at = call.now
    if asked["at"]:
        try:
            at = parse_local(asked["at"], call.zone).timestamp()
        except (ValueError, OverflowError) as error:
            return Why(call.now, catalog.version, wrong=f"The instant {error}.")
    if abs(at - call.now) > _FARTHEST_S:
        return Why(at, catalog.version, wrong="That instant is more than 400 days away.")
    answering = call.tools.answering
    pace = answering.pacer.planner.pace
    if abs(at - call.now) > _NOW_S:
        if at < call.now:
            old = await read_version_at(call.store, at)
            if old is None or all(one.id != slot for one in old.document.slots):
                return Why(at, catalog.version, wrong="The slot was not there then.")
            catalog = await call.aside(narrow, old.document, old.number, (slot,))
        else:
            catalog = await call.aside(narrow, catalog.document, catalog.version, (slot,))
        pace = await read_pace(call.store, catalog, call.now, at, answering.pacer.known, answering.pacer.book)
    device = asked["device"] if asked["device"] in DEVICES else ""
    context = know(section=asked["section"], tags=[asked["tag"]], url=asked["url"], device=device)
    [found] = answering.explain_at(catalog, at, Page((slot,), context=context, held={}), pace)
    return Why(at, found.version, tuple(_STRONG.split(found.sentence)), found.candidates)
