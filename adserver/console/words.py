"""What changes between two documents, in the words of the people who sell ads: names, labels and newsroom time."""

from datetime import datetime
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from adserver.console.drafts import TABLES, entries, index
from adserver.documents import Document
from adserver.fields import CAP_UNITS_S
from adserver.model import Cap, Goal

LABELS = {
    "name": "Name",
    "campaign": "Campaign",
    "advertiser": "Advertiser",
    "priority": "Priority",
    "slots": "Where",
    "creatives": "Creatives",
    "starts": "Starts",
    "ends": "Ends",
    "share": "Share",
    "weight": "Weight",
    "rotation": "Rotation",
    "hours": "Hours",
    "targeting": "Targeting",
    "page": "On one page",
    "goal": "Goal",
    "pacing": "Pacing",
    "on_shortfall": "If the goal is missed",
    "frequency": "Frequency cap",
    "categories": "Categories",
    "several": "Several on one page",
    "contact": "Contact",
    "count_level": "Counting level",
    "kind": "Kind",
    "click_url": "Leads to",
    "size": "Size",
    "sizes": "Sizes",
    "image": "Image",
    "image_size": "Pixels",
    "alt": "Alternative text",
    "title": "Title",
    "text": "Text",
    "sponsor": "Sponsor",
    "html": "HTML",
    "political": "Political",
    "label": "Label",
    "when_empty": "When empty",
    "passback": "Passback",
    "counts": "Counts",
    "lazy": "Loads late",
    "refresh_s": "Refresh",
    "slot": "Slot",
    "group": "Group",
    "time_zone": "Time zone",
    "home_url": "Home page",
    "tags": "Third-party tags",
    "sample": "Sample page",
    "line_item": "Line item",
    "category": "Category",
    "section": "Section",
    "reason": "Reason",
    "by": "By",
}
_NOT_TOLD = {"id", "image_size", "still"}
_LONGEST = 160
_LONGEST_FIELDS = 400
_MOST_IN_LINE = 10


class Turn(Struct, frozen=True):
    """One field's change, as people read it; None where there was or is nothing."""

    label: str
    before: str | None
    after: str | None


class Change(Struct, frozen=True):
    """What became of one entry: added, changed or removed. *noun* is what such an entry is called."""

    what: str
    noun: str
    table: str
    id: str | int
    name: str
    turns: tuple[Turn, ...] = ()


def say(value: Any, zone: str, field: str = "") -> str | None:
    """A field's value as people read it; None for nothing."""
    match value:
        case None | "" | () | []:
            return None
        case bool():
            return "yes" if value else "no"
        case Enum():
            return str(value.value).replace("_", " ")
        case Goal():
            return f"{value.n:,} {value.of.value}" + (" a day" if value.daily else "")
        case Cap():
            unit, seconds = next((unit, s) for unit, s in reversed(CAP_UNITS_S.items()) if value.within_s % s == 0)
            n = value.within_s // seconds
            return f"{value.most} per {unit}" if n == 1 else f"{value.most} per {n} {unit}s"
        case float() if field in ("starts", "ends"):
            return say_instant(value, zone)
        case int() | float() if field == "share":
            return f"{exact(value)} %"
        case float():
            return exact(value)
        case (int(), int()) if field in ("size", "sizes", "image_size"):
            return f"{value[0]} × {value[1]}"
        case Struct():
            pairs = ((name, say(getattr(value, name), zone, name)) for name in value.__struct_fields__)
            return "; ".join(f"{name}: {said}" for name, said in pairs if said is not None) or None
        case dict():
            return "; ".join(f"{name}: {say(one, zone)}" for name, one in value.items()) or None
        case tuple() | list():
            return ", ".join(filter(None, (say(one, zone, field) for one in value)))
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def exact(number: float) -> str:
    """`1000000` or `33.3333333`: what is read as the same number again."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))


def say_instant(at: float, zone: str) -> str:
    """`Tue 24 Nov 2026 09:00`, in newsroom time."""
    return datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%a %-d %b %Y %H:%M")


def name_of(table: str, entry: Any) -> str:
    """What people call an entry."""
    if table == "slots":
        return f"{entry.id} {entry.name}"
    if table == "creatives":
        return str(entry.title or entry.alt or entry.id)
    if table == "pauses":
        return str(entry.reason or entry.id)
    return str(entry.name)


MOST_TURNS = 500
"""Changes that are told field by field; of more, it is only said which entries they are."""


def changes(before: Document, after: Document, zone: str) -> list[Change]:
    """What changes from *before* to *after*, entry by entry."""
    found: list[Change] = []

    def tell(was: Any, one: Any) -> tuple[Turn, ...]:
        return turns(was, one, zone) if len(found) < MOST_TURNS else ()

    if before.site != after.site:
        found.append(Change("changed", "site", "site", "", after.site.name, turns(before.site, after.site, zone)))
    for table, noun in TABLES.items():
        if entries(before, table) is entries(after, table):
            continue
        old, new = index(before, table), index(after, table)
        for id_, one in new.items():
            was = old.get(id_)
            if was is None:
                found.append(Change("added", noun, table, id_, name_of(table, one), tell(None, one)))
            elif was != one:
                found.append(Change("changed", noun, table, id_, name_of(table, one), tell(was, one)))
        found += [
            Change("removed", noun, table, id_, name_of(table, one)) for id_, one in old.items() if id_ not in new
        ]
    return found


def line(told: list[Change], note: str = "") -> str:
    """Changes on one line, after what was noted of them, as the audit log tells them."""
    said = []
    for one in told[:_MOST_IN_LINE]:
        fields = "; ".join(f"{turn.label}: {turn.before or '–'} → {turn.after or '–'}" for turn in one.turns)
        fields = fields if len(fields) <= _LONGEST_FIELDS else f"{fields[: _LONGEST_FIELDS - 1]}…"
        said.append(f"{one.what} {one.noun} {one.name}" + (f" ({fields})" if fields else ""))
    more = f"; and {len(told) - _MOST_IN_LINE} more" if len(told) > _MOST_IN_LINE else ""
    return (f"{note}: " if note else "") + "; ".join(said) + more


def turns(before: Any, after: Any, zone: str) -> tuple[Turn, ...]:
    """What differs between two states of an entry, field by field; of a new one, all that is not as usual."""
    found = []
    for field in after.__struct_fields__:
        if field in _NOT_TOLD:
            continue
        new = getattr(after, field)
        old = getattr(before, field) if before is not None else None
        if before is not None and old == new:
            continue
        said = say(old, zone, field), say(new, zone, field)
        if said != (None, None) and (before is not None or not _is_default(after, field)):
            found.append(Turn(LABELS.get(field, field), *said))
    return tuple(found)


def _is_default(entry: Struct, field: str) -> bool:
    names = entry.__struct_fields__
    defaults = entry.__struct_defaults__
    at = names.index(field) - (len(names) - len(defaults))
    return at >= 0 and getattr(entry, field) == defaults[at]
