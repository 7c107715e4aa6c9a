"""Entries of the catalog as programs send and get them: in the very words of the configuration files, as JSON.

An instant is ISO text with an offset, an image is `assets/` and its name, and what is not said is as usual. What is
read goes through the same rules as a file's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, structs

from adserver import documents
from adserver.checks import check
from adserver.config_files import raw_of, rows_of
from adserver.console import drafts
from adserver.console.drafts import Draft, entries, index
from adserver.documents import Document, Entry, Known, read_entry, read_tables
from adserver.errors import Problem
from adserver.fields import read_digits, shown

PLURAL: Mapping[str, str] = {
    noun.replace(" ", "_"): table for table, noun in drafts.TABLES.items() if noun.replace(" ", "_") in documents.TABLES
}
"""The tables as the configuration calls them, and the document's lists of their entries."""
_HERE = "this request"
_FOLDER = "assets/"
_INSTANTS = ("starts", "ends")


class Asked(Struct, frozen=True):
    """What a request changes. *wrong* is all that cannot be read of it; *named* are the entries that concerns."""

    draft: Draft
    wrong: tuple[Problem, ...] = ()
    named: frozenset[tuple[str, str | int]] = frozenset()


def write(entry: Struct) -> dict[str, Any]:
    """An entry as a program gets it."""
    return raw_of(entry)


def write_all(document: Document) -> dict[str, Any]:
    """The whole document."""
    return {"site": raw_of(document.site), **rows_of(document)}


def parse_id(table: str, text: str) -> str | int:
    """The id of an entry as it stands in an address; of a slot it is a number."""
    return text if table != "slot" or (n := read_digits(text)) is None else n


def read_one(table: str, raw: Mapping[str, Any]) -> tuple[Struct | None, list[Problem]]:
    """One entry, or None and what is wrong with it."""
    plain = _plain(dict(raw))
    assert isinstance(plain, dict)
    found, wrong = read_entry(table, plain)
    where = f"{table.replace('_', ' ')} {shown(raw.get('id'))}"
    return found, [Problem(where, f"field {field!r} {what}") for field, what in wrong.items()]


def read_changes(put: object, remove: object, live: Document, number: int) -> Asked:
    """What a request to put and to remove entries changes of version *number*."""
    problems: list[Problem] = []
    raw = _entries_of(put, problems)
    document, known, wrong = read_tables(raw)
    problems += [Problem(one.where.removeprefix(f"{_HERE}: "), one.what) for one in wrong]
    draft = Draft(number, site=document.site if any(one.table == "site" for one in raw) else None)
    if draft.site == live.site:
        draft = structs.replace(draft, site=None)
    for table, ids in _ids_of(remove, problems).items():
        there, given = index(live, PLURAL[table]), {id_ for name, id_ in known.files if name == table}
        for id_ in ids:
            where = f"{table.replace('_', ' ')} {shown(id_)}"
            if id_ not in there:
                problems.append(Problem(where, "is to be removed, and is not there"))
            elif id_ in given:
                problems.append(Problem(where, "is both put and removed; do one of the two"))
        draft = drafts.remove(draft, live, PLURAL[table], *(id_ for id_ in ids if id_ in there))
    for plural in PLURAL.values():
        there = index(live, plural)
        found = [_with_pixels(one, there.get(one.id)) for one in entries(document, plural)]
        if found:
            draft = drafts.put(draft, live, plural, *found)
    bad = frozenset((table, id_) for table, id_ in known.files if isinstance(id_, str | int))
    return Asked(draft, tuple(problems), bad)


def problems_beside(asked: Asked, document: Document) -> list[Problem]:
    """What is wrong between the entries of *document*, besides what was wrong within those that could not be read."""
    places: dict[tuple[str, object], str] = dict.fromkeys(asked.named, "")
    places |= {(table, one.id): "" for table, plural in PLURAL.items() for one in entries(document, plural)}
    return check(document, Known(places))


def _with_pixels(entry: Any, before: Any) -> Any:
    """A creative that shows the image it showed before is known to have its pixels."""
    pixels = getattr(before, "image_size", None)
    if pixels is None or entry.image != before.image or entry.size != before.size:
        return entry
    return structs.replace(entry, image_size=pixels, still=before.still)


def _entries_of(put: object, problems: list[Problem]) -> list[Entry]:
    if not isinstance(put, dict):
        problems.append(Problem("put", f"is {shown(put)}; expected lists of entries by table"))
        return []
    found = []
    for table, rows in put.items():
        if table == "site" and isinstance(rows, dict):
            found.append(Entry(_HERE, table, rows))
        elif table not in PLURAL:
            problems.append(Problem("put", _no_table(table)))
        elif not isinstance(rows, list):
            problems.append(Problem("put", f"table {table!r} is {shown(rows)}; expected a list of entries"))
        else:
            found += [Entry(_HERE, table, _plain(row)) for row in rows]
    return found


def _ids_of(remove: object, problems: list[Problem]) -> dict[str, list[str | int]]:
    if not isinstance(remove, dict):
        problems.append(Problem("remove", f"is {shown(remove)}; expected lists of ids by table"))
        return {}
    found: dict[str, list[str | int]] = {}
    for table, ids in remove.items():
        if table not in PLURAL:
            problems.append(Problem("remove", _no_table(table)))
        elif not isinstance(ids, list) or not all(isinstance(one, str | int) for one in ids):
            problems.append(Problem("remove", f"table {table!r} is {shown(ids)}; expected a list of ids"))
        else:
            found[table] = list(dict.fromkeys(ids))
    return found


def _no_table(table: str) -> str:
    return f"table {shown(table)} does not exist; expected one of {', '.join(PLURAL)}"


def _plain(row: object) -> object:
    """An entry as a file would give it: instants are instants there, and images are named without their folder."""
    if not isinstance(row, dict):
        return row
    found = dict(row)
    for name in _INSTANTS:
        if isinstance(found.get(name), str):
            found[name] = _instant(found[name])
    image = found.get("image")
    if isinstance(image, str):
        found["image"] = image.removeprefix(_FOLDER)
    return found


def _instant(text: str) -> str | datetime:
    """The instant a text says; the text itself where it says none, for the field's own rule to refuse."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def without_pixels(draft: Draft) -> Sequence[Any]:
    """The creatives it puts whose image nobody has looked at yet."""
    return [one for one in draft.puts.creatives if one.image and one.image_size is None]
