"""What somebody has changed and not published yet: entries on top of a version, kept apart from it.

A draft holds only what it changes, and what that was before. So it can be put on top of whatever is live by the time
it is published: what two people changed apart comes together by itself, and where both changed the same entry it is
said which, and one of the two decides.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from adserver.documents import Document
from adserver.model import Site
from adserver.pauses import take_pauses

TABLES: Mapping[str, str] = {
    "slots": "slot",
    "groups": "group",
    "placements": "placement",
    "advertisers": "advertiser",
    "campaigns": "campaign",
    "creatives": "creative",
    "line_items": "line item",
    "pauses": "pause",
}
"""The document's lists, and what one entry of each is called."""

Place = tuple[str, str | int]
"""Where an entry is: its list in the document, and its id."""


class Draft(Struct, frozen=True):
    """Changes made on top of version *base*: entries that are new or different, those taken away, another *site*; and
    *before*, what these entries were.
    """

    base: int
    puts: Document = Document()
    removes: tuple[Place, ...] = ()
    site: Site | None = None
    before: Document = Document()

    @property
    def places(self) -> list[Place]:
        """Every entry it touches, in the document's order of lists."""
        found = [(table, one.id) for table in TABLES for one in entries(self.puts, table)]
        return found + list(self.removes)

    def __bool__(self) -> bool:
        return bool(self.places) or self.site is not None


class Clash(Struct, frozen=True):
    """An entry that was changed here and by somebody else since; None stands for an entry that is not there."""

    table: str
    id: str | int
    before: Any
    mine: Any
    theirs: Any


def entries(document: Document, table: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] = getattr(document, table)
    return found


def index(document: Document, table: str) -> dict[str | int, Any]:
    return {one.id: one for one in entries(document, table)}


def find(document: Document, table: str, id_: str | int) -> Any:
    """The entry, or None."""
    return next((one for one in entries(document, table) if one.id == id_), None)


def seal(entry: Any) -> str:
    """Another one whenever the entry is; empty for none."""
    return "" if entry is None else hashlib.blake2s(msgspec.json.encode(entry), digest_size=10).hexdigest()


def put(draft: Draft, live: Document, table: str, *changed: Any) -> Draft:
    """The draft with these entries as well. What is as it is live, is no change."""
    theirs, puts, before = index(live, table), index(draft.puts, table), index(draft.before, table)
    gone = {id_ for name, id_ in draft.removes if name == table}
    for entry in changed:
        old = theirs.get(entry.id)
        if entry.id not in puts and entry.id not in gone and old is not None:
            before[entry.id] = old
        gone.discard(entry.id)
        puts.pop(entry.id, None)
        if entry != old:
            puts[entry.id] = entry
        else:
            before.pop(entry.id, None)
    return _with(draft, table, puts, before, gone)


def since(draft: Draft, table: str, was: Mapping[str | int, Any]) -> Draft:
    """The draft with its entries of *was* as changes of those earlier states, whatever is live by now.

    So what somebody else has changed meanwhile clashes instead of being undone.
    """
    puts, before = index(draft.puts, table), index(draft.before, table)
    gone = {id_ for name, id_ in draft.removes if name == table}
    for id_, old in was.items():
        if puts.get(id_) == old and id_ not in gone:  # nothing was changed at all
            puts.pop(id_, None)
            before.pop(id_, None)
        elif id_ in puts or id_ in gone:
            before[id_] = old
    return _with(draft, table, puts, before, gone)


def remove(draft: Draft, live: Document, table: str, *ids: str | int) -> Draft:
    """The draft without these entries, whether they are live or only in the draft."""
    theirs, puts, before = index(live, table), index(draft.puts, table), index(draft.before, table)
    gone = {id_ for name, id_ in draft.removes if name == table}
    for id_ in ids:
        old = theirs.get(id_)
        if old is not None:
            before.setdefault(id_, old)
            gone.add(id_)
        puts.pop(id_, None)
    return _with(draft, table, puts, before, gone)


def forget(draft: Draft, places: Iterable[Place]) -> Draft:
    """The draft without its changes of these entries."""
    places = list(places)
    for table in {table for table, _ in places}:
        ids = {id_ for name, id_ in places if name == table}
        kept = {id_: one for id_, one in index(draft.puts, table).items() if id_ not in ids}
        before = {id_: one for id_, one in index(draft.before, table).items() if id_ not in ids}
        draft = _with(draft, table, kept, before, {id_ for name, id_ in draft.removes if name == table} - ids)
    return draft


def _with(
    draft: Draft, table: str, puts: dict[str | int, Any], before: dict[str | int, Any], gone: set[str | int]
) -> Draft:
    others = tuple(place for place in draft.removes if place[0] != table)
    return structs.replace(
        draft,
        puts=structs.replace(draft.puts, **{table: tuple(puts.values())}),
        before=structs.replace(draft.before, **{table: tuple(before.values())}),
        removes=(*others, *((table, id_) for id_ in sorted(gone, key=str))),
    )


def apply(document: Document, draft: Draft) -> Document:
    """*document* with the draft's changes on top. Changed entries keep their place, new ones come last.

    The pauses of what is removed go with it.
    """
    changed: dict[str, Any] = {} if draft.site is None else {"site": draft.site}
    for table in TABLES:
        puts = index(draft.puts, table)
        gone = {id_ for name, id_ in draft.removes if name == table}
        if not puts and not gone:
            continue
        kept = [puts.pop(one.id, one) for one in entries(document, table) if one.id not in gone]
        changed[table] = (*kept, *puts.values())
    if not changed:
        return document
    made = structs.replace(document, **changed)
    return take_pauses(made, made.pauses) if draft.removes and made.pauses else made


def clashes(draft: Draft, live: Document) -> list[Clash]:
    """The entries that somebody else has changed as well, and otherwise, since the draft was begun."""
    found = []
    documents = draft.before, draft.puts, live
    of = {table: [index(one, table) for one in documents] for table in {table for table, _ in draft.places}}
    for table, id_ in draft.places:
        before, mine, theirs = (one.get(id_) for one in of[table])
        if theirs not in (before, mine):
            found.append(Clash(table, id_, before, mine, theirs))
    return found


def settle(draft: Draft, live: Document, number: int, keep_mine: Iterable[Place]) -> Draft:
    """The draft on top of version *number*: of each clash mine stays where *keep_mine* names it, else theirs."""
    mine = set(keep_mine)
    draft = forget(draft, [(one.table, one.id) for one in clashes(draft, live) if (one.table, one.id) not in mine])
    for table in {table for table, _ in draft.places}:
        theirs, puts = index(live, table), index(draft.puts, table)
        gone = {id_ for name, id_ in draft.removes if name == table and id_ in theirs}
        puts = {id_: one for id_, one in puts.items() if theirs.get(id_) != one}  # somebody else did the same
        before = {id_: theirs[id_] for id_ in (*puts, *gone) if id_ in theirs}
        draft = _with(draft, table, puts, before, gone)
    return structs.replace(draft, base=number, site=None if draft.site == live.site else draft.site)
