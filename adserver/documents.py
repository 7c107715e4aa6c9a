"""The booking document: every table of the configuration as plain structs, and how raw tables become one.

`read_tables` goes through everything and collects every problem instead of stopping at the first; an entry with
a problem is left out of the document, yet its id stays known, so that one slip is told once and not once for
every place that names the entry.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, NamedTuple

from msgspec import Struct

from adserver import fields
from adserver.errors import Problem
from adserver.fields import shown
from adserver.model import (
    Advertiser,
    Campaign,
    Counts,
    Creative,
    Group,
    Kind,
    LineItem,
    Member,
    OnShortfall,
    Pacing,
    PageRule,
    Pause,
    Placement,
    Political,
    Priority,
    Rotation,
    Site,
    Slot,
    Targeting,
    Terms,
    WhenEmpty,
)

Parse = Callable[[Any], Any]


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything bookable, as values; what a numbered version holds."""

    site: Site = Site()
    slots: tuple[Slot, ...] = ()
    groups: tuple[Group, ...] = ()
    placements: tuple[Placement, ...] = ()
    advertisers: tuple[Advertiser, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    line_items: tuple[LineItem, ...] = ()
    creatives: tuple[Creative, ...] = ()
    pauses: tuple[Pause, ...] = ()


class Entry(NamedTuple):
    """A raw table as a file gave it."""

    file: str
    table: str
    raw: object


class Known(Struct):
    """Which ids the files name, per table, and in which file: also those of entries that had a problem.

    *looks* is how many ids may still be looked at for a did-you-mean. Each takes some 4 µs, and in a catalog that has
    lost a whole file of creatives every line item would look at all the others.
    """

    files: dict[tuple[str, object], str]
    looks: int = 200_000

    def where(self, table: str, entry_id: object) -> str:
        name = table.replace("_", " ")
        file = self.files.get((table, entry_id))
        return f"{file}: {name} {entry_id!r}" if file else f"{name} {entry_id!r}"

    def missing(self, table: str, entry_id: object) -> str | None:
        """The end of a sentence about an id that no entry of *table* has; None when one has it."""
        if (table, entry_id) in self.files:
            return None
        return f"{table.replace('_', ' ')} {entry_id!r}, which does not exist{self._hint(table, entry_id)}"

    def _hint(self, table: str, entry_id: object) -> str:
        if len(self.files) > self.looks:
            return ""
        self.looks -= len(self.files)
        ids = [known if isinstance(known, str) else shown(known) for kind, known in self.files if kind == table]
        close = get_close_matches(str(entry_id), ids, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""


def _each(error: ValueError) -> list[str]:
    return error.each if isinstance(error, _Several) else [str(error)]


class _Several(ValueError):
    """Everything that is wrong with a value; *each* is the rest of a sentence about it."""

    def __init__(self, each: Iterable[str]) -> None:
        self.each = list(dict.fromkeys(each))
        super().__init__("; ".join(self.each))


def _many(parse: Parse, *, least: int = 1) -> Parse:
    def parse_many(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < least:
            raise ValueError(f"is {shown(value)}; expected a list of at least {least}")
        found, wrong = [], []
        for one in value:
            try:
                found.append(parse(one))
            except ValueError as error:
                wrong += _each(error)
        if wrong:
            raise _Several(wrong)
        if len(set(found)) < len(found):
            raise ValueError(f"names something twice: {shown(value)}")
        return tuple(found)

    return parse_many


def _choice(options: type[Enum]) -> Parse:
    def parse_choice(value: object) -> Enum:
        try:
            return options(value)
        except ValueError:
            words = [option.value for option in options]
            close = get_close_matches(value, words, n=1) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"is {shown(value)}; expected one of {', '.join(map(repr, words))}{hint}") from None

    return parse_choice


def _count_level(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in (2, 3):
        raise ValueError(
            f"is {shown(value)}; expected 2 (acknowledged when synced to disk) or 3 (when a replica of the store has "
            "it, too)"
        )
    return value


def _file_name(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 200:
        raise ValueError(f"is {shown(value)}; expected the path of an image, such as 'assets/spring.png'")
    return value


class _Field(NamedTuple):
    parse: Parse
    required: bool = False


class _Table(NamedTuple):
    struct: type[Struct]
    fields: Mapping[str, _Field]


_ID = _Field(fields.parse_word, required=True)
_NAME = _Field(fields.parse_name, required=True)

_MEMBER = _Table(
    Member,
    {"slot": _Field(fields.parse_slot_number, required=True), "weight": _Field(fields.parse_weight)},
)
_POLITICAL = _Table(
    Political,
    {
        "sponsor": _NAME,
        "controlled_by": _NAME,
        "paid_by": _NAME,
        "election": _NAME,
        "targeted": _Field(fields.parse_flag, required=True),
        "notice_url": _Field(fields.parse_url, required=True),
    },
)


def _nested(table: _Table) -> Parse:
    def parse_nested(value: object) -> Struct:
        found, problems = _read_fields(table, value)
        if problems:
            raise ValueError("; ".join(f"{field} {what}" for field, what in problems))
        return table.struct(**found)

    return parse_nested


def _parse_keys(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"is {shown(value)}; expected the site's own keys, such as {{ team = ['arsenal'] }}")
    parse_values = _many(fields.parse_term)
    found, wrong = {}, []
    for name, values in value.items():
        try:
            found[fields.parse_word(name)] = parse_values(values)
        except ValueError as error:
            wrong += [f"{shown(name)} {what}" for what in _each(error)]
    if wrong:
        raise _Several(wrong)
    return found


_TERMS_OF = _Field(_many(fields.parse_term))
_TERMS = _Table(
    Terms,
    {
        "section": _TERMS_OF,
        "tag": _TERMS_OF,
        "url": _Field(_many(fields.parse_url_beginning)),
        "lang": _Field(_many(fields.parse_language)),
        "country": _Field(_many(fields.parse_country)),
        "device": _Field(_many(fields.parse_device)),
        "keys": _Field(_parse_keys),
    },
)


def _parse_terms(value: object) -> Any:
    if value == {}:
        raise ValueError(f"names nothing; expected some of {', '.join(_TERMS.fields)}")
    return _nested(_TERMS)(value)


_TARGETING = _Table(Targeting, {name: _Field(_parse_terms) for name in ("any", "all", "none", "prefer")})


TABLES: Mapping[str, _Table] = {
    "site": _Table(
        Site,
        {
            "name": _Field(fields.parse_name),
            "time_zone": _Field(fields.parse_zone),
            "home_url": _Field(fields.parse_url),
            "tags": _Field(fields.parse_flag),
            "sample": _Field(fields.parse_flag),
        },
    ),
    "slot": _Table(
        Slot,
        {
            "id": _Field(fields.parse_slot_number, required=True),
            "name": _NAME,
            "sizes": _Field(_many(fields.parse_size), required=True),
            "label": _Field(fields.parse_name),
            "when_empty": _Field(_choice(WhenEmpty)),
            "passback": _Field(fields.parse_markup),
            "counts": _Field(_choice(Counts)),
            "lazy": _Field(fields.parse_flag),
            "refresh_s": _Field(fields.parse_seconds),
        },
    ),
    "group": _Table(Group, {"id": _ID, "name": _NAME, "slots": _Field(_many(_nested(_MEMBER)), required=True)}),
    "placement": _Table(
        Placement,
        {"id": _ID, "name": _NAME, "slot": _Field(fields.parse_slot_number), "group": _Field(fields.parse_word)},
    ),
    "advertiser": _Table(
        Advertiser,
        {
            "id": _ID,
            "name": _NAME,
            "categories": _Field(_many(fields.parse_word, least=0)),
            "several": _Field(fields.parse_flag),
            "frequency": _Field(_many(fields.parse_cap)),
            "contact": _Field(fields.parse_name),
            "count_level": _Field(_count_level),
        },
    ),
    "campaign": _Table(
        Campaign, {"id": _ID, "name": _NAME, "advertiser": _ID, "frequency": _Field(_many(fields.parse_cap))}
    ),
    "line_item": _Table(
        LineItem,
        {
            "id": _ID,
            "name": _NAME,
            "campaign": _ID,
            "priority": _Field(_choice(Priority), required=True),
            "slots": _Field(_many(fields.parse_slot_number), required=True),
            "creatives": _Field(_many(fields.parse_word), required=True),
            "starts": _Field(fields.parse_instant),
            "ends": _Field(fields.parse_instant),
            "share": _Field(fields.parse_share),
            "weight": _Field(fields.parse_weight),
            "rotation": _Field(_choice(Rotation)),
            "hours": _Field(_many(fields.parse_hours)),
            "targeting": _Field(_nested(_TARGETING)),
            "page": _Field(_choice(PageRule)),
            "goal": _Field(fields.parse_goal),
            "pacing": _Field(_choice(Pacing)),
            "on_shortfall": _Field(_choice(OnShortfall)),
            "frequency": _Field(_many(fields.parse_cap)),
        },
    ),
    "creative": _Table(
        Creative,
        {
            "id": _ID,
            "advertiser": _ID,
            "kind": _Field(_choice(Kind), required=True),
            "click_url": _Field(fields.parse_click_url),
            "size": _Field(fields.parse_size),
            "image": _Field(_file_name),
            "alt": _Field(fields.parse_prose),
            "title": _Field(fields.parse_prose),
            "text": _Field(fields.parse_prose),
            "sponsor": _Field(fields.parse_prose),
            "html": _Field(fields.parse_markup),
            "weight": _Field(fields.parse_weight),
            "political": _Field(_nested(_POLITICAL)),
        },
    ),
    "pause": _Table(
        Pause,
        {
            "id": _ID,
            "line_item": _Field(fields.parse_word),
            "advertiser": _Field(fields.parse_word),
            "category": _Field(fields.parse_word),
            "section": _Field(fields.parse_term),
            "starts": _Field(fields.parse_instant, required=True),
            "ends": _Field(fields.parse_instant, required=True),
            "reason": _Field(fields.parse_prose),
            "by": _Field(fields.parse_name),
        },
    ),
}

_PLURAL = {
    "slot": "slots",
    "group": "groups",
    "placement": "placements",
    "advertiser": "advertisers",
    "campaign": "campaigns",
    "line_item": "line_items",
    "creative": "creatives",
    "pause": "pauses",
}


def read_entry(table: str, raw: Mapping[str, Any]) -> tuple[Struct | None, dict[str, str]]:
    """One entry of *table* as its struct, or None and what is wrong with which of its fields."""
    kind = TABLES[table]
    values, problems = _read_fields(kind, dict(raw))
    return (None, dict(problems)) if problems else (kind.struct(**values), {})


def read_tables(entries: list[Entry]) -> tuple[Document, Known, list[Problem]]:
    """The document the entries make, the ids they name, and every problem within single entries."""
    found: dict[str, list[Any]] = {plural: [] for plural in _PLURAL.values()}
    known = Known({})
    problems: list[Problem] = []
    site: Site | None = None
    for entry in entries:
        table = TABLES[entry.table]
        where = _name_entry(entry, known, problems)
        values, wrong = _read_fields(table, _with_sizes(entry))
        problems += [Problem(where, f"field {field!r} {what}") for field, what in wrong]
        if wrong:
            continue
        if entry.table != "site":
            found[_PLURAL[entry.table]].append(table.struct(**values))
        elif site is None:
            site = Site(**values)
        else:
            problems.append(Problem(where, "there is already a [site] table; keep one"))
    document = Document(site=site or Site(), **{plural: tuple(rows) for plural, rows in found.items()})
    return document, known, problems


def _with_sizes(entry: Entry) -> object:
    """A slot may say `size` for a single one of its `sizes`."""
    raw = entry.raw
    if entry.table == "slot" and isinstance(raw, dict) and "size" in raw and "sizes" not in raw:
        return {
            ("sizes" if key == "size" else key): ([value] if key == "size" else value) for key, value in raw.items()
        }
    return raw


def _name_entry(entry: Entry, known: Known, problems: list[Problem]) -> str:
    """How to name *entry* to a person; records its id, or the problem that it is taken."""
    table = entry.table.replace("_", " ")
    entry_id = entry.raw.get("id") if isinstance(entry.raw, dict) else None
    if entry.table == "site":
        return f"{entry.file}: [site]"
    if not isinstance(entry_id, str | int) or isinstance(entry_id, bool):  # True would be taken for slot 1
        return f"{entry.file}: a [[{entry.table}]]"
    where = f"{entry.file}: {table} {shown(entry_id)}"
    taken = known.files.get((entry.table, entry_id))
    if taken is None:
        known.files[entry.table, entry_id] = entry.file
    else:
        problems.append(Problem(where, f"the id is taken already, in {taken}; give one of the two another id"))
    return where


def _read_fields(table: _Table, raw: object) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The good values of *raw* by field, and what is wrong with the others."""
    if not isinstance(raw, dict):
        return {}, [("", f"is {shown(raw)}; expected a table of fields")]
    values: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for name, value in raw.items():
        field = table.fields.get(name)
        if field is None:
            close = get_close_matches(str(name), table.fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(table.fields)}"
            problems.append((name, f"does not exist here{hint}"))
            continue
        try:
            values[name] = field.parse(value)
        except ValueError as error:
            problems += [(name, what) for what in _each(error)]
    missing = [name for name, field in table.fields.items() if field.required and name not in raw]
    problems += [(name, "is missing; it is required") for name in missing]
    return values, problems
