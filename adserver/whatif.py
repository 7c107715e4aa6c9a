"""A forecast for people: the live bookings, or with a change; whom it hurts; and what helps a booking that falls short.

Each answer is a replay (see `forecast`): a remedy is told only when `check` would let it be published and a replay with
it reached the goal. The replays for
remedies go by longer steps, and by the pages that have a say in the line item's slots alone; what could not be made
good by all the requests there are is not replayed. When the caller has no more time, the remedies left are told as not
tried.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Any

from msgspec import Struct, field, structs

from adserver.catalog import Catalog, fits, last_instant
from adserver.checks import check
from adserver.documents import Document, Entry, Known, read_tables
from adserver.errors import Problem
from adserver.forecast import SURE, Asked, Before, Forecast, View, gather, replay, replay_asked
from adserver.hours import spans_of
from adserver.model import LineItem, Measure, Priority, SlotId
from adserver.pacing import USUAL
from adserver.traffic import Outlook

_HIGHER = {Priority.BULK: Priority.STANDARD, Priority.HOUSE: Priority.BULK}
_LONGER = (0.25, 0.5, 1.0, 2.0)
_LONGEST_S = 400 * 86_400.0
_SLOTS = 3
"""So many slots are tried."""
_HURT = 0.02
"""A change must cost more than a forecast may be wrong."""
_REACHED = 0.995
DECISIONS = 3_000
"""Pages decided to try one remedy, in steps of `STEP_H`: within 2 % of a full replay, too, for the line item tried."""
STEP_H = 4
_LATER = 1
"""Kept of the progress for remedies, until it is known how many there are to try."""

Say = Callable[[float], None]


class World(Struct, frozen=True):
    """What a forecast begins with. *usual* is how many events a snippet of any line item brings."""

    outlook: Outlook
    views: Sequence[View]
    before: Mapping[str, Before]
    begins: float
    ends: float
    usual: Mapping[Measure, float] = field(default_factory=lambda: USUAL)


class Hurt(Struct, frozen=True):
    """A booking that a change costs something: what it delivers without and with it."""

    line_item: str
    without: float
    having: float


class Remedies(Struct, frozen=True):
    """What would help a line item that falls short, in words: what *works*, and what there was no time to try.

    *tried* is how many changes were judged, by a replay or by the requests there are.
    """

    works: list[str]
    not_tried: list[str]
    tried: int


class Answer(Struct, frozen=True):
    """*line_items* with the change where there is one; *remedies* by the line item that falls short."""

    line_items: list[Forecast]
    hurts: list[Hurt]
    remedies: dict[str, Remedies]


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


def ask(
    world: World, document: Document, changed: Document | None, say: Say, late: Callable[[], bool] = lambda: False
) -> Answer:
    """The answer for *changed*, compared with *document*; or for *document* alone. *say* hears how far it is.

    No remedy is tried any more once *late* says so.
    """
    told = _Told(say, (2 if changed else 1) + _LATER)
    live = Catalog(document, 0)
    if changed is None:
        found, hurts = told.run(partial(_replay, world, live, None)), []
    else:
        catalog = Catalog(changed, 0)
        now = told.run(partial(_replay, world, live, catalog))
        found = told.run(partial(_replay, world, catalog, live))
        hurts = list(_hurts(world, document, now, found))
    remedies = _Search(world, changed or document, told, late).remedies([one for one in found if one.short])
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


def _replay(world: World, catalog: Catalog, beside: Catalog | None, told: Say) -> list[Forecast]:
    return replay(
        catalog,
        world.outlook,
        world.views,
        world.before,
        world.begins,
        world.ends,
        usual=world.usual,
        beside=beside,
        told=told,
    )


def _hurts(world: World, document: Document, without: Iterable[Forecast], having: Iterable[Forecast]) -> Iterable[Hurt]:
    """Whom it costs more than the replay's own error: 2 %, or 2 % of a hundredth of all that is served."""
    after = {one.line_item: one for one in having}
    items = {one.id: one for one in document.line_items}
    rates = {name: world.before.get(name, Before()).rate(items[name], world.usual) for name in items}
    delivers = {one.line_item: one.counted - one.before for one in without}
    error = _HURT * 0.01 * sum(n / rates[name] for name, n in delivers.items())
    for name, n in delivers.items():
        other = after.get(name)
        if other and n - (other.counted - other.before) > max(_HURT * n, error * rates[name]):
            yield Hurt(name, n, other.counted - other.before)


class _Idea(Struct, frozen=True):
    """A change of one line item, and the sentence that names it."""

    item: LineItem
    sentence: str


class _Late(Exception):
    """There is no more time."""


class _Search:
    """Remedies by trial, for one document."""

    def __init__(self, world: World, document: Document, told: _Told, late: Callable[[], bool]) -> None:
        self._world = world
        self._document = document
        self._told = told
        self._late = late

    def remedies(self, short: Sequence[Forecast]) -> dict[str, Remedies]:
        """By line item. The smallest change of each kind that works."""
        items = {one.id: one for one in self._document.line_items}
        allowed = _Allowed(self._document)
        kinds = {one.line_item: _kinds(self._document, items[one.line_item], allowed) for one in short}
        hopeful = {
            one.line_item: [
                [idea for idea in ideas if self._may_help(items[one.line_item], one, idea.item)]
                for ideas in kinds[one.line_item]
            ]
            for one in short
        }
        self._told.add(sum(len(ideas) for lists in hopeful.values() for ideas in lists) - _LATER)
        asked: Asked | None = None
        found = {}
        for one in short:
            works: list[str] = []
            not_tried: list[str] = []
            for ideas in hopeful[one.line_item]:
                try:
                    if ideas and self._late():
                        raise _Late
                    if ideas and asked is None:
                        catalog = Catalog(self._document, 0)
                        asked = gather(catalog, self._world.views, self._world.outlook, hopeful.keys())
                    works += self._first(ideas, asked) if asked else []
                except _Late:
                    not_tried += [idea.sentence for idea in ideas]
            found[one.line_item] = Remedies(works, not_tried, sum(map(len, kinds[one.line_item])) - len(not_tried))
        return found

    def _first(self, ideas: Sequence[_Idea], asked: Asked) -> list[str]:
        """The first of them that works, when each does more than those before; else the first of single ones."""
        if ideas and ideas[0].item.ends != ideas[-1].item.ends:
            least, most = 0, len(ideas)
            while least < most:
                middle = (least + most) // 2
                if self._works(ideas[middle], asked):
                    most = middle
                else:
                    least = middle + 1
            return [idea.sentence for idea in ideas[least : least + 1]]
        for idea in ideas:
            if self._works(idea, asked):
                return [idea.sentence]
        return []

    def _works(self, idea: _Idea, asked: Asked) -> bool:
        world, catalog = self._world, Catalog(_with(self._document, idea.item), 0)
        last = last_instant(idea.item)
        ends = world.ends if last is None or _is_daily(idea.item) else max(last, world.begins)

        def replayed(told: Say) -> list[Forecast]:
            return replay_asked(
                catalog,
                world.outlook,
                asked.near(catalog, idea.item.slots),
                world.before,
                world.begins,
                ends,
                decisions=DECISIONS,
                step_h=STEP_H,
                usual=world.usual,
                aim=idea.item.id,
                told=partial(self._hear, told),
            )

        found: list[Forecast] = self._told.run(replayed)
        mine = next(one for one in found if one.line_item == idea.item.id)
        if mine.daily:
            return mine.daily.reached >= mine.daily.days - (not mine.daily.today)
        return mine.goal is not None and mine.counted >= mine.goal * _REACHED

    def _hear(self, told: Say, part: float) -> None:
        if self._late():
            raise _Late
        told(part)

    def _may_help(self, item: LineItem, found: Forecast, changed: LineItem) -> bool:
        """Whether the requests that *changed* can have and *item* does not are as many as *item* is short of."""
        world, before = self._world, self._world.before.get(item.id, Before())
        rate = before.rate(item, world.usual)
        goal = (found.goal or 0) * (found.daily.days if found.daily else 1)
        most = self._requests(changed, world.ends) * rate
        if changed.priority is item.priority:
            most -= self._requests(item, world.ends) * rate
        else:
            most -= found.counted - found.before
        return most >= found.short - SURE * goal

    def _requests(self, item: LineItem, ends: float) -> float:
        """How many requests its slots get in its time from now on."""
        last = last_instant(item)
        begins = max(self._world.begins, item.starts or -inf)
        until = ends if last is None else last if not _is_daily(item) else min(ends, last)
        expected = self._world.outlook.expect(tuple(map(int, item.slots)), spans_of(item.hours), begins, until)
        return inf if expected is None else expected


def _is_daily(item: LineItem) -> bool:
    return item.goal is not None and item.goal.daily


class _Allowed:
    """Whether `check` finds no more wrong with a line item changed than with it as it is."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._slots = {one.id: one for one in document.slots}
        self._creatives = {one.id: one for one in document.creatives}
        self._campaigns = {one.id: one for one in document.campaigns}
        self._known = Known({}, 0)
        for table in ("slots", "groups", "campaigns", "advertisers", "line_items", "creatives"):
            self._known.files |= {(table[:-1], one.id): "" for one in getattr(document, table)}
        self._shares: dict[int, list[LineItem]] = {}
        for one in document.line_items:
            for slot in one.slots if one.share is not None else ():
                self._shares.setdefault(slot, []).append(one)
        self._wrong: dict[str, set[str]] = {}

    def __call__(self, item: LineItem, changed: LineItem) -> bool:
        wrong = self._wrong.get(item.id)
        if wrong is None:
            wrong = self._wrong[item.id] = self._problems(item)
        return self._problems(changed) <= wrong

    def _problems(self, item: LineItem) -> set[str]:
        """Of *item* and the sponsorships it meets: what else there is in the document does not depend on it."""
        met = (
            {one.id: one for slot in item.slots for one in self._shares.get(slot, ())} if item.share is not None else {}
        )
        small = structs.replace(
            self._document,
            groups=(),
            placements=(),
            pauses=(),
            advertisers=(),
            slots=tuple(map(self._slots.__getitem__, item.slots)),
            campaigns=(self._campaigns[item.campaign],),
            creatives=tuple(map(self._creatives.__getitem__, item.creatives)),
            line_items=tuple({**met, item.id: item}.values()),
        )
        return {problem.what for problem in check(small, self._known)}


def _kinds(document: Document, item: LineItem, allowed: Callable[[LineItem, LineItem], bool]) -> list[list[_Idea]]:
    """What to try, by kind: longer flights, slots more, a higher priority; of what is *allowed*."""
    longer: dict[float, _Idea] = {}
    if item.starts is not None and item.ends is not None and not _is_daily(item):
        for part in _LONGER:
            more_s = max(86_400.0, round((item.ends - item.starts) * part / 86_400) * 86_400.0)
            days = round(more_s / 86_400)
            if more_s <= _LONGEST_S:
                changed = structs.replace(item, ends=item.ends + more_s)
                longer.setdefault(more_s, _Idea(changed, f"a flight {days} day{'s' if days > 1 else ''} longer"))
    slots = (
        _Idea(structs.replace(item, slots=(*item.slots, slot)), f"slot {slot} added")
        for slot in _other_slots(document, item)
    )
    higher = _HIGHER.get(item.priority)
    raised = [_Idea(structs.replace(item, priority=higher), f"priority {higher.value}")] if higher else []
    kinds: tuple[tuple[Iterable[_Idea], int], ...] = (longer.values(), len(_LONGER)), (slots, _SLOTS), (raised, 1)
    return [list(islice((idea for idea in ideas if allowed(item, idea.item)), most)) for ideas, most in kinds]


def _other_slots(document: Document, item: LineItem) -> list[SlotId]:
    """The slots that one of its creatives fits and that it does not have; those with its own sizes first."""
    creatives = [one for one in document.creatives if one.id in item.creatives and one.weight]
    mine = {size for slot in document.slots if slot.id in item.slots for size in slot.sizes}
    found = [one for one in document.slots if one.id not in item.slots and any(fits(each, one) for each in creatives)]
    found.sort(key=lambda slot: not mine & set(slot.sizes))
    return [one.id for one in found]


def _with(document: Document, item: LineItem) -> Document:
    items = tuple(item if one.id == item.id else one for one in document.line_items)
    return structs.replace(document, line_items=items)
