"""Pause now: one button stops a line item, an advertiser, a category or a section for a while; it comes back by itself.

A pause is published at once, on top of whatever is live: it is an entry of its own, so it meets nobody's changes.
"""

import secrets
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import structs
from starlette.responses import Response

from adserver.catalog import is_live
from adserver.console import complaints, drafts, words
from adserver.console import desk as desks
from adserver.console.booking import parse_local
from adserver.console.bookings import held_by
from adserver.console.drafts import Draft, find
from adserver.console.web import Call, Refused
from adserver.curves import read_pages
from adserver.days import Days
from adserver.documents import Document, read_entry
from adserver.errors import ConfigError, Conflict
from adserver.model import LineItem, Pause, Priority, Targeting, Terms
from adserver.pauses import find_pauses

TARGETS = {"line_item": "A booking", "advertiser": "An advertiser", "category": "A category", "section": "A section"}
_FOR = {"1h": "one hour", "4h": "four hours", "morning": "until tomorrow 08:00", "day": "24 hours", "week": "a week"}
_TRIES = 5
_MOST_NAMED = 5


async def page(call: Call) -> Response:
    live = await desks.read_live(call.store, held_by(call))
    kind = next((one for one in TARGETS if call.query(one)), "category")
    asked = {one: call.query(one) for one in TARGETS}
    return await _show(call, live.document, {**asked, "kind": kind, "for": "4h", "until": "", "reason": ""}, {})


async def pause(call: Call) -> Response:
    """Publish a pause that begins now."""
    live = await desks.read_live(call.store)
    fields = {name: call.text(name) for name in ("kind", "for", "until", "reason", *TARGETS)}
    kind, wrong = fields["kind"], dict[str, str]()
    if kind not in TARGETS:
        raise Refused(400, "Say what to pause.")
    if kind == "line_item":
        fields[kind], said = _booking(live.document, fields[kind])
        wrong |= {kind: said} if said else {}
    begins = datetime.fromtimestamp(int(call.now), ZoneInfo(call.zone))
    try:
        ends = _ends(fields, call.now, call.zone)
        if ends <= begins:
            raise ValueError("is past; choose an instant to come")
    except ValueError as error:
        wrong["until"] = f"This {error}"
        ends = datetime.fromtimestamp(call.now + 3600, ZoneInfo(call.zone))
    raw: dict[str, Any] = {
        "id": new_id(begins),
        kind: fields[kind].lower() if kind in ("category", "section") else fields[kind],
        "starts": begins,
        "ends": ends,
        "by": call.who,
    }
    if fields["reason"]:
        raw["reason"] = fields["reason"]
    entry, problems = read_entry("pause", raw)
    for name, what in problems.items():
        wrong["until" if name == "ends" else name] = complaints.of_field(name, what)
    tables = {"line_item": "line_items", "advertiser": "advertisers"}
    if kind in tables and find(live.document, tables[kind], fields[kind]) is None:
        wrong.setdefault(kind, "Choose one of the list")
    if wrong or not isinstance(entry, Pause):
        return await _show(call, live.document, fields, wrong, status=422)
    target = str(getattr(entry, kind))
    if call.text("anyway") != f"{kind}:{target}" and (unknown := await _unknown(call, live.document, kind, target)):
        return await _show(call, live.document, fields, {kind: unknown}, 422, anyway=f"{kind}:{target}")
    stops = stopped_by(live.document, entry, call.now)
    number = await publish(call, entry, tell(live.document, entry, call.zone))
    back = f"It comes back by itself on {words.say_instant(entry.ends, call.zone)}, or when you say so below."
    if not stops:
        nothing = f"Paused, in version {number}, but no booking stops now: nothing of it is running."
        return call.go("/console/pauses", warned=f"{nothing} {back}")
    where = " on its pages" if kind == "section" else ""
    return call.go("/console/pauses", said=f"Paused, in version {number}. {_say_stops(stops)} now{where}. {back}")


def stopped_by(document: Document, pause: Pause, now: float) -> list[LineItem]:
    """The line items that run now and do not any more while *pause* is in force; of a section, on its pages."""
    if pause.section is None:
        held = find_pauses(structs.replace(document, pauses=(pause,)))
        return [one for one in document.line_items if one.id in held and is_live(one, now)]
    return [
        one
        for one in document.line_items
        if one.priority is not Priority.HOUSE and is_live(one, now) and _shows_on(one.targeting, pause.section.lower())
    ]


def _shows_on(targeting: Targeting | None, section: str) -> bool:
    """Whether a page of that section may be one of its pages, whatever else the page is."""
    if targeting is None:
        return True
    here = {section}
    of_none, of_any, of_all = (
        set(map(str.lower, terms.section)) if terms else set()
        for terms in (targeting.none, targeting.any, targeting.all)
    )
    only_sections = targeting.any is not None and structs.replace(targeting.any, section=()) == Terms()
    return not (here & of_none or (only_sections and not here & of_any) or (of_all and not here & of_all))


def _say_stops(stops: list[LineItem]) -> str:
    more = f" and {len(stops) - _MOST_NAMED} more" if len(stops) > _MOST_NAMED else ""
    names = ", ".join(one.name for one in stops[:_MOST_NAMED])
    return f"{len(stops)} {'booking stops' if len(stops) == 1 else 'bookings stop'} ({names}{more})"


async def _unknown(call: Call, document: Document, kind: str, target: str) -> str:
    """What to say of a category or section that nothing here is of; empty for one that something is of."""
    if kind == "category":
        known = {name.lower() for one in document.advertisers for name in one.categories}
        nothing = "No advertiser is of this category, so nothing would stop"
    elif kind == "section":
        known = await _sections(call, document)
        nothing = "No page has said that it is of this section, and no booking names it"
    else:
        return ""
    if target.lower() in known:
        return ""
    close = get_close_matches(target.lower(), sorted(known), 3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{nothing}.{meant} To pause it all the same, press the button once more."


async def _sections(call: Call, document: Document) -> set[str]:
    """Those that bookings name, and that pages of this week have said they are of."""
    targetings = [one.targeting for one in document.line_items if one.targeting]
    terms = [part for one in targetings for part in (one.any, one.all, one.none, one.prefer) if part]
    named = {name.lower() for one in terms for name in one.section}
    today, _ = Days(call.zone).locate(call.now)
    pages = await read_pages(call.store, range(today - 7, today + 1))
    facts = {fact for page in pages for fact in page.facts}
    return named | {fact.removeprefix("section=") for fact in facts if fact.startswith("section=")}


def _booking(document: Document, text: str) -> tuple[str, str]:
    """The id of the booking that *text* names: its id, its name, or a part of that which no other has; or what is wrong
    with it.
    """
    asked = text.casefold()
    same = [one for one in document.line_items if asked in (one.id, one.name.casefold())]
    found = same or [one for one in document.line_items if asked and asked in one.name.casefold()]
    if len(found) == 1:
        return found[0].id, ""
    if not found:
        return text, "No booking is called so; type its name or a part of it"
    names = "; ".join(f"{one.name} ({one.id})" for one in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return text, f"Several bookings are called so, type the id of one: {names}{more}"


def new_id(begins: datetime) -> str:
    return f"pause-{begins:%Y%m%d-%H%M}-{secrets.token_hex(3)}"


async def lift(call: Call) -> Response:
    """End a pause at once."""
    live = await desks.read_live(call.store)
    found = find(live.document, "pauses", call.request.path_params["id"])
    if found is None:
        raise Refused(404, "There is no such pause; it may have ended.")
    number = await publish(call, found.id, f"lifts the pause: {tell(live.document, found, call.zone)}")
    return call.go("/console/pauses", said=f"It shows again, from version {number} on.")


async def publish(call: Call, change: Pause | str, what: str) -> int:
    """Put a pause in force, or take one away, whoever else publishes at the same time."""
    for left in reversed(range(_TRIES)):
        live = await desks.read_live(call.store)
        over = [one.id for one in live.document.pauses if one.ends <= call.now - 7 * 86_400]
        draft = drafts.remove(Draft(live.number), live.document, "pauses", *over)
        if isinstance(change, Pause):
            draft = drafts.put(draft, live.document, "pauses", change)
        else:
            draft = drafts.remove(draft, live.document, "pauses", change)
        try:
            version, _ = await desks.publish(
                call.store, draft, author=call.who, note=what, expected=live.number, now=call.now
            )
        except ConfigError as error:
            raise Refused(409, f"It cannot be published: {error.problems[0]}") from None
        except Conflict:
            if not left:
                raise
            continue
        verb = "pauses" if isinstance(change, Pause) else "lifts a pause"
        await call.note(verb, f"version {version.number}", what)
        return version.number
    raise AssertionError


def _ends(fields: dict[str, str], now: float, zone: str) -> datetime:
    """When the pause ends. Raises ValueError."""
    here = datetime.fromtimestamp(int(now), ZoneInfo(zone))
    match fields["for"]:
        case "1h":
            return datetime.fromtimestamp(int(now) + 3600, ZoneInfo(zone))
        case "4h":
            return datetime.fromtimestamp(int(now) + 4 * 3600, ZoneInfo(zone))
        case "day":
            return datetime.fromtimestamp(int(now) + 86_400, ZoneInfo(zone))
        case "week":
            return datetime.fromtimestamp(int(now) + 7 * 86_400, ZoneInfo(zone))
        case "morning":
            return (here + timedelta(days=1)).replace(hour=8, minute=0, second=0)
    return parse_local(fields["until"], zone)


async def _show(
    call: Call,
    document: Document,
    fields: dict[str, str],
    wrong: dict[str, str],
    status: int = 200,
    anyway: str = "",
) -> Response:
    """*anyway* is what is paused although nothing is of it, once the form is sent again."""
    now = [one for one in document.pauses if one.ends > call.now]
    return await call.page(
        "pauses.html",
        status,
        pauses=sorted(now, key=lambda one: one.ends),
        past=sorted((one for one in document.pauses if one.ends <= call.now), key=lambda one: -one.ends)[:20],
        what={one.id: _say(document, one) for one in document.pauses},
        fields=fields,
        wrong=wrong,
        targets=TARGETS,
        spans=_FOR,
        advertisers=[(one.id, one.name) for one in document.advertisers],
        line_items=[(one.id, one.name) for one in document.line_items],
        categories=sorted({word for one in document.advertisers for word in one.categories}),
        anyway=anyway,
        said=call.told("said"),
        warned=call.told("warned"),
    )


def tell(document: Document, pause_: Pause, zone: str) -> str:
    """A pause on one line, for the history and the audit log: of what, until when, and why."""
    until = words.say_instant(pause_.ends, zone)
    return f"pauses {_say(document, pause_)} until {until}" + (f": {pause_.reason}" if pause_.reason else "")


def _say(document: Document, pause_: Pause) -> str:
    if pause_.line_item:
        found = find(document, "line_items", pause_.line_item)
        return f"the booking {found.name if found else pause_.line_item}"
    if pause_.advertiser:
        found = find(document, "advertisers", pause_.advertiser)
        return f"everything of {found.name if found else pause_.advertiser}"
    return f"category {pause_.category}" if pause_.category else f"everything on section {pause_.section}"
