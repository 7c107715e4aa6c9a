"""One builder per noun, with quiet defaults: a test names only what it is about.

`catalog(line_item(...), ...)` completes itself: slots, creatives, campaigns and advertisers that are named and not
given are made with their defaults.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import structs

from adserver.catalog import Ad, Catalog
from adserver.checks import check
from adserver.documents import Document, Entry, read_tables
from adserver.errors import Problem
from adserver.model import (
    PAUSED,
    Advertiser,
    Campaign,
    Creative,
    Group,
    Kind,
    LineItem,
    Member,
    PageRule,
    Pause,
    Political,
    Priority,
    Site,
    Slot,
    SlotId,
)


def instant(text: str) -> float:
    """Unix seconds of an ISO instant with an offset."""
    at = datetime.fromisoformat(text)
    assert at.tzinfo is not None
    return at.timestamp()


NOON = instant("2026-03-02T12:00:00+00:00")
SLOT = SlotId(889990)
IMAGE = "0123456789abcdef0123456789abcdef.png"


def site(**fields: Any) -> Site:
    return Site(**{"name": "The Courier", "time_zone": "Europe/Amsterdam", **fields})


def slot(id: int = SLOT, **fields: Any) -> Slot:  # noqa: A002 - the field's own name
    return Slot(**{"id": SlotId(id), "name": f"Slot {id}", "sizes": ((300, 250),), **fields})


def group(*members: int | tuple[int, float], id: str = "sidebar") -> Group:  # noqa: A002
    """A group of slots; a member given as a pair brings its weight."""
    pairs = [(one, 1.0) if isinstance(one, int) else one for one in members]
    return Group(id=id, name=id, slots=tuple(Member(slot=SlotId(one), weight=weight) for one, weight in pairs))


def advertiser(id: str = "acme", **fields: Any) -> Advertiser:  # noqa: A002
    return Advertiser(**{"id": id, "name": id.title(), "several": True, **fields})


def campaign(id: str = "spring", **fields: Any) -> Campaign:  # noqa: A002
    return Campaign(**{"id": id, "name": id, "advertiser": "acme", **fields})


_OF_KIND: dict[Kind, dict[str, Any]] = {
    Kind.IMAGE: {"image": IMAGE, "size": (300, 250), "image_size": (600, 500), "alt": "A loaf of bread"},
    Kind.TEXT: {"title": "Fresh bread", "text": "Baked this morning"},
    Kind.NATIVE: {"title": "Fresh bread", "text": "Baked this morning", "sponsor": "Acme"},
    Kind.HTML: {"html": '<p><a href="{click_url}">Fresh bread</a></p>', "size": (300, 250)},
    Kind.TAG: {"html": '<script src="https://tags.example/t.js"></script>', "size": (300, 250)},
}


def creative(id: str = "loaf", kind: Kind = Kind.IMAGE, **fields: Any) -> Creative:  # noqa: A002
    quiet = {"id": id, "advertiser": "acme", "kind": kind, "click_url": "https://acme.example/bread"}
    return Creative(**{**quiet, **_OF_KIND[kind], **fields})


def political(**fields: Any) -> Political:
    quiet = {
        "sponsor": "Party for Bread",
        "controlled_by": "Bread Holding",
        "paid_by": "Friends of Bread",
        "election": "Town council 2026",
        "targeted": False,
        "notice_url": "https://party.example/notice",
    }
    return Political(**{**quiet, **fields})


def line_item(id: str = "spring-sale", **fields: Any) -> LineItem:  # noqa: A002
    """A standard booking of one slot, open at both ends, with one creative of its own."""
    quiet = {
        "id": id,
        "name": id,
        "campaign": "spring",
        "priority": Priority.STANDARD,
        "slots": (SLOT,),
        "creatives": (f"{id}-loaf",),
        "page": PageRule.ROADBLOCK_ANY,
    }
    return LineItem(**{**quiet, **fields})


def sponsorship(id: str, share: float, **fields: Any) -> LineItem:  # noqa: A002
    return line_item(id, priority=Priority.SPONSORSHIP, share=share, **fields)


def pause(id: str = "crash", **fields: Any) -> Pause:  # noqa: A002
    """A pause of the line item `spring-sale`, or of what *fields* name, in the hour from noon on."""
    target = {} if fields.keys() & set(PAUSED) else {"line_item": "spring-sale"}
    return Pause(**{"id": id, "starts": NOON, "ends": NOON + 3600, **target, **fields})


def paused(made: Catalog, *pauses: Pause) -> Catalog:
    """The catalog with these pauses and no others."""
    return Catalog(structs.replace(made.document, pauses=pauses), made.version)


def document(
    *line_items: LineItem, slots: Iterable[Slot] = (), creatives: Iterable[Creative] = (), groups: Iterable[Group] = ()
) -> Document:
    """The line items, and everything they and the groups name."""
    given_slots = {one.id: one for one in slots}
    given_creatives = {one.id: one for one in creatives}
    for one in line_items:
        for slot_id in one.slots:
            given_slots.setdefault(slot_id, slot(slot_id))
        for name in one.creatives:
            given_creatives.setdefault(name, creative(name))
    for each in groups:
        for member in each.slots:
            given_slots.setdefault(member.slot, slot(member.slot))
    return Document(
        site=site(),
        slots=tuple(given_slots.values()),
        groups=tuple(groups),
        advertisers=tuple(advertiser(name) for name in sorted({one.advertiser for one in given_creatives.values()})),
        campaigns=tuple(campaign(name) for name in sorted({one.campaign for one in line_items})),
        line_items=line_items,
        creatives=tuple(given_creatives.values()),
    )


def catalog(
    *line_items: LineItem,
    slots: Iterable[Slot] = (),
    creatives: Iterable[Creative] = (),
    groups: Iterable[Group] = (),
    version: int = 7,
) -> Catalog:
    return Catalog(document(*line_items, slots=slots, creatives=creatives, groups=groups), version)


def ad(of: Creative, *, within: Slot | None = None) -> tuple[Catalog, Ad]:
    """A catalog that shows nothing but *of*, and the ad it makes."""
    made = catalog(line_item(creatives=(of.id,)), slots=[within or slot()], creatives=[of])
    return made, next(iter(made.by_key.values()))


def draws(n: int = 0) -> Mapping[int | str, int]:
    """Every slot and group is at its draw number *n*."""
    return defaultdict(lambda: n)


def entries(tables: Mapping[str, Any], file: str = "config/spring.toml") -> list[Entry]:
    """Raw tables, as a TOML file gives them."""
    rows = [(table, row) for table, value in tables.items() for row in (value if isinstance(value, list) else [value])]
    return [Entry(file, table, row) for table, row in rows]


def problems(tables: Mapping[str, Any]) -> list[Problem]:
    """Every problem of raw tables, within single entries and between them."""
    found, known, wrong = read_tables(entries(tables))
    return [*wrong, *check(found, known)]
