"""A forecast for people: the live bookings, or with a change; whom it hurts; and what helps a booking that falls short.

Each answer is a replay (see `forecast`): a remedy is told only when a replay with it reached the goal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct, structs

from adserver.catalog import Catalog, check, fits
from adserver.documents import Document, Entry, read_tables
from adserver.errors import Problem
from adserver.forecast import Before, Forecast, View, replay
from adserver.model import LineItem, Priority, SlotId
from adserver.traffic import Outlook

_HIGHER = {Priority.BULK: Priority.STANDARD, Priority.HOUSE: Priority.BULK}
_LONGER = (0.25, 0.5, 1.0, 2.0)
_MOST_SHORT = 5
_HURT = 0.01
_REACHED = 0.995
_LATER = 1
"""Kept of the progress for remedies, until it is known how many there are to try."""

Say = Callable[[float], None]


class World(Struct, frozen=True):
    """What a forecast begins with. *rate* is how much of what is served comes to count."""

    outlook: Outlook
    views: Sequence[View]
    before: Mapping[str, Before]
    begins: float
    ends: float
    rate: float = 1.0


class Hurt(Struct, frozen=True):
    """A booking that a change costs something: what it delivers without and with it."""

    line_item: str
    without: float
    having: float


class Answer(Struct, frozen=True):
    """*line_items* with the change where there is one; *remedies* are sentences by the line item that falls short."""

    line_items: list[Forecast]
    hurts: list[Hurt]
    remedies: dict[str, list[str]]


def change(document: Document, rows: Mapping[str, list[dict[str, Any]]], tables: Mapping[str, Any], file: str) -> Any:
    """*document* (whose entries are *rows*) with the entries of *tables* added, or in place of those of the same id.

    Returns the new document and every problem with it.
    """
    given = {table: value if isinstance(value, list) else [value] for table, value in tables.items()}
    entries: list[Entry] = []
    problems = [Problem(file, f"there is no table [[{table}]] to change") for table in given if table not in rows]
    for table, known in rows.items():
        new = {row.get("id") for row in given.get(table, ()) if isinstance(row, dict)}
        entries += [Entry("the live version", table, row) for row in known if row["id"] not in new]
        entries += [Entry(file, table, row) for row in given.get(table, ())]
    found, names, wrong = read_tables(entries)
    found = structs.replace(found, site=document.site)
    return found, [*problems, *wrong, *check(found, names)]


def ask(world: World, document: Document, changed: Document | None, say: Say) -> Answer:
    """The answer for *changed*, compared with *document*; or for *document* alone. *say* hears how far it is."""
    told = _Told(say, (2 if changed else 1) + _LATER)
    now = told.run(partial(_replay, world, document))
    if changed is None:
        found, hurts = now, []
    else:
        found = told.run(partial(_replay, world, changed))
        hurts = list(_hurts(now, found))
    live = changed or document
    short = [one for one in found if one.short][:_MOST_SHORT]
    told.add(sum(len(list(_ideas(live, one.line_item))) for one in short) - _LATER)
    remedies = {one.line_item: list(_remedies(world, live, one.line_item, told)) for one in short}
    say(1.0)
    return Answer(found, hurts, remedies)


class _Told:
    """Adds replays up to one progress, which never goes back: what turns up later makes the rest go slower."""

    def __init__(self, say: Say, replays: int) -> None:
        self._say = say
        self._left = replays
        self._base = 0.0

    def add(self, replays: int) -> None:
        self._left += replays

    def run(self, replays: Callable[[Callable[[float], None]], Any]) -> Any:
        base, each = self._base, (1 - self._base) / max(1, self._left)
        found = replays(lambda part: self._say(base + part * each))
        self._base += each
        self._left -= 1
        return found

    def skip(self) -> None:
        self._left -= 1


def _replay(world: World, document: Document, told: Callable[[float], None]) -> list[Forecast]:
    catalog = Catalog(document, 0)
    return replay(
        catalog, world.outlook, world.views, world.before, world.begins, world.ends, rate=world.rate, told=told
    )


def _hurts(without: Iterable[Forecast], having: Iterable[Forecast]) -> Iterable[Hurt]:
    after = {one.line_item: one for one in having}
    for one in without:
        other = after.get(one.line_item)
        delivers = one.counted - one.before
        if other and delivers > 0 and other.counted - one.before < delivers * (1 - _HURT):
            yield Hurt(one.line_item, delivers, other.counted - other.before)


class _Idea(Struct, frozen=True):
    """A change of one line item, and the sentence that names it."""

    changed: Document
    sentence: str
    kind: str
    longer_s: float = 0.0


def _remedies(world: World, document: Document, name: str, told: _Told) -> Iterable[str]:
    """The smallest change of each kind that works."""
    works: set[str] = set()
    for idea in _ideas(document, name):
        if idea.kind in works:
            told.skip()
            continue
        longer = structs.replace(world, ends=world.ends + idea.longer_s)
        found = told.run(partial(_replay, longer, idea.changed))
        mine = next(one for one in found if one.line_item == name)
        if mine.goal is not None and mine.counted >= mine.goal * _REACHED:
            works.add(idea.kind)
            yield idea.sentence


def _ideas(document: Document, name: str) -> Iterable[_Idea]:
    item = next(one for one in document.line_items if one.id == name)
    if item.starts is not None and item.ends is not None:
        for part in _LONGER:
            longer_s = max(86_400.0, round((item.ends - item.starts) * part / 86_400) * 86_400.0)
            days = round(longer_s / 86_400)
            changed = _with(document, structs.replace(item, ends=item.ends + longer_s))
            yield _Idea(changed, f"a flight {days} day{'s' if days > 1 else ''} longer", "flight", longer_s)
    for slot in _other_slots(document, item):
        changed = _with(document, structs.replace(item, slots=(*item.slots, SlotId(slot))))
        yield _Idea(changed, f"slot {slot} added", "slot")
    if item.priority in _HIGHER:
        higher = _HIGHER[item.priority]
        yield _Idea(_with(document, structs.replace(item, priority=higher)), f"priority {higher.value}", "priority")


def _other_slots(document: Document, item: LineItem) -> list[int]:
    """Up to three slots that one of its creatives fits and that it does not have; those with its own sizes first."""
    creatives = [one for one in document.creatives if one.id in item.creatives and one.weight]
    mine = {size for slot in document.slots if slot.id in item.slots for size in slot.sizes}
    found = [one for one in document.slots if one.id not in item.slots and any(fits(each, one) for each in creatives)]
    found.sort(key=lambda slot: not mine & set(slot.sizes))
    return [int(one.id) for one in found[:3]]


def _with(document: Document, item: LineItem) -> Document:
    items = tuple(item if one.id == item.id else one for one in document.line_items)
    return structs.replace(document, line_items=items)
