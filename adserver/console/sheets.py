"""Line items as a spreadsheet, and what an edited one changes: every problem named by its cell.

Rules: writing and reading again changes nothing. A row that is missing removes nothing, a column that is missing leaves
its fields as they are, and an empty cell takes its field away. Nothing is guessed: a date that may be two days, or a
name that two campaigns have, is a problem.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct, structs

from adserver.checks import check
from adserver.config_files import raw_of
from adserver.console import complaints, sheet_files, sheet_times
from adserver.console.booking import make_id
from adserver.console.sheet_files import LONGEST_CELL, Cell, Row
from adserver.console.targeting_words import parse_targeting, say_targeting
from adserver.documents import TABLES, Document, Known
from adserver.errors import BadSheet, Problem
from adserver.fields import shown
from adserver.model import LineItem

__all__ = ["BadSheet", "CellProblem", "Sheet", "read_sheet", "write_csv", "write_xlsx"]

_MOST_PROBLEMS = 1000
_KEPT = "(too long for a cell: left as it is)"


class CellProblem(Struct, frozen=True, order=True):
    """What is wrong in a cell; without *column*, in the row; without *row*, in all that the sheet makes."""

    row: int
    column: str
    cell: str
    what: str

    def __str__(self) -> str:
        if not self.row:
            return self.what
        return (
            f"row {self.row}, {self.column} (cell {self.cell}): {self.what}"
            if self.column
            else (f"row {self.row}: {self.what}")
        )


class Sheet(Struct, frozen=True):
    """What an edited sheet changes: entries that are new or different, and ids to remove, by the document's lists. With
    *problems* it must not be taken over.
    """

    puts: dict[str, list[LineItem]]
    removes: dict[str, list[str]]
    problems: list[CellProblem]


def write_xlsx(document: Document, zone: str) -> bytes:
    """Every line item; times in newsroom time (*zone*)."""
    return sheet_files.write_xlsx_rows(_rows(document, zone), [column.width for column in _COLUMNS])


def write_csv(document: Document, zone: str) -> bytes:
    return sheet_files.write_csv_rows(_rows(document, zone))


def read_sheet(data: bytes, file_name: str, document: Document, zone: str) -> Sheet:
    """What the file changes in *document*. Raises BadSheet with a whole sentence for what is no such sheet at all."""
    found = sheet_files.read_rows(data, file_name)
    reading = _Reading(document, zone, found.epoch)
    try:
        reading.read(found.rows)
    except BadSheet as error:
        raise BadSheet(f"{file_name!r:.100} {error}") from None
    return reading.result()


def changed(document: Document, sheet: Sheet) -> Document:
    """*document* with what *sheet* changes."""
    puts = {one.id: one for one in sheet.puts.get("line_items", ())}
    gone = set(sheet.removes.get("line_items", ()))
    kept = [puts.pop(one.id, one) for one in document.line_items if one.id not in gone]
    return structs.replace(document, line_items=(*kept, *puts.values()))


# Columns


class _Owners:
    """Advertisers and campaigns by id or by name."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.advertisers = {one.id: one for one in document.advertisers}
        self.campaigns = {one.id: one for one in document.campaigns}
        self._named: dict[str, dict[str, list[Any]]] = {"advertiser": {}, "campaign": {}}
        for table, entries in (("advertiser", document.advertisers), ("campaign", document.campaigns)):
            for one in entries:
                self._named[table].setdefault(one.name, []).append(one)
        self._known = Known({(table, one.id): "" for table, ids in self._tables() for one in ids})

    def _tables(self) -> Iterator[tuple[str, Iterable[Any]]]:
        document = self.document
        yield from (("advertiser", document.advertisers), ("campaign", document.campaigns))
        yield from (("slot", document.slots), ("creative", document.creatives), ("line_item", document.line_items))

    @property
    def known(self) -> Known:
        return self._known

    def advertiser(self, text: str) -> str:
        """The id of the one that *text* names. Raises ValueError with the rest of a sentence."""
        return self._find("advertiser", text, self.advertisers, [])

    def campaign(self, text: str, advertiser: str | None) -> str:
        named = self._named["campaign"].get(text, [])
        return self._find("campaign", text, self.campaigns, [one for one in named if one.advertiser == advertiser])

    def _find(self, table: str, text: str, ids: Mapping[str, Any], near: list[Any]) -> str:
        if text in ids:
            return text
        named = near or self._named[table].get(text, [])
        if len(named) == 1:
            return str(named[0].id)
        if named:
            which = ", ".join(repr(one.id) for one in named[:5])
            raise ValueError(f"names {shown(text)}, and several {table}s have that name; write the id: {which}")
        close = get_close_matches(text, [*ids, *self._named[table]][:5000], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"names {table} {shown(text)}, which does not exist{hint}")

    def said_advertiser(self, id_: str) -> str:
        one = self.advertisers.get(id_)
        return self._shortest(one.name if one else id_, id_, self.advertiser)

    def said_campaign(self, id_: str) -> str:
        one = self.campaigns.get(id_)
        if one is None:
            return id_
        return self._shortest(one.name, id_, lambda name: self.campaign(name, one.advertiser))

    @staticmethod
    def _shortest(name: str, id_: str, find: Callable[[str], str]) -> str:
        """The name where it leads to *id_*, else the id."""
        try:
            return name if find(name) == id_ else id_
        except ValueError:
            return id_


class _Column(NamedTuple):
    title: str
    width: int
    write: Callable[[LineItem, _Owners, str], Cell]


def _listed(values: Iterable[Any], between: str = ", ") -> Cell:
    text = between.join(map(str, values))
    return text if len(text) <= LONGEST_CELL else _KEPT


def _spoken(word: Enum) -> str:
    return str(word.value).replace("_", " ")


def _number(value: float | None) -> Cell:
    return int(value) if value is not None and value == int(value) and value < 1e15 else value


def _advertiser(item: LineItem, owners: _Owners, _: str) -> Cell:
    campaign = owners.campaigns.get(item.campaign)
    return owners.said_advertiser(campaign.advertiser) if campaign else None


def _caps(item: LineItem) -> Cell:
    return _listed(raw_of(item).get("frequency", ()) if item.frequency else (), "; ")


def _at(at: float | None, zone: str) -> Cell:
    return None if at is None else sheet_times.instant_cell(at, zone)


def _targeting(item: LineItem) -> Cell:
    return None if item.targeting is None else _listed([say_targeting(item.targeting)])


_COLUMNS = (
    _Column("Id", 26, lambda item, _, __: item.id),
    _Column("Name", 36, lambda item, _, __: item.name),
    _Column("Advertiser", 22, _advertiser),
    _Column("Campaign", 26, lambda item, owners, _: owners.said_campaign(item.campaign)),
    _Column("Priority", 13, lambda item, _, __: _spoken(item.priority)),
    _Column("Slots", 22, lambda item, _, __: _listed(item.slots)),
    _Column("Creatives", 34, lambda item, _, __: _listed(item.creatives)),
    _Column("Starts", 18, lambda item, _, zone: _at(item.starts, zone)),
    _Column("Ends", 18, lambda item, _, zone: _at(item.ends, zone)),
    _Column("Share %", 9, lambda item, _, __: _number(item.share)),
    _Column("Weight", 9, lambda item, _, __: _number(item.weight)),
    _Column("Goal", 12, lambda item, _, __: item.goal.n if item.goal else None),
    _Column("Goal counts", 13, lambda item, _, __: item.goal.of.value if item.goal else None),
    _Column("Per day", 9, lambda item, _, __: "yes" if item.goal and item.goal.daily else None),
    _Column("Pacing", 13, lambda item, _, __: _spoken(item.pacing)),
    _Column("On shortfall", 13, lambda item, _, __: _spoken(item.on_shortfall)),
    _Column("Rotation", 12, lambda item, _, __: _spoken(item.rotation)),
    _Column("Hours", 24, lambda item, _, __: _listed(item.hours, "; ")),
    _Column("Targeting", 40, lambda item, _, __: _targeting(item)),
    _Column("Page", 15, lambda item, _, __: _spoken(item.page)),
    _Column("Frequency", 20, lambda item, _, __: _caps(item)),
    _Column("Remove", 9, lambda _, __, ___: None),
)
_TITLES = {column.title.casefold(): column.title for column in _COLUMNS}


def _rows(document: Document, zone: str) -> Iterator[Row]:
    owners = _Owners(document)
    yield [column.title for column in _COLUMNS]
    for item in document.line_items:
        yield [column.write(item, owners, zone) for column in _COLUMNS]


# Reading


def _text(cell: Cell) -> str:
    """A cell as words: what a spreadsheet took for a number or a date as it would be typed."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return ("yes" if cell else "no") if isinstance(cell, bool) else "" if cell is None else str(cell).strip()


def _parts(between: str, cell: Cell) -> list[str]:
    return [part for one in re.split(between, _text(cell)) if (part := one.strip())]


def _slots(cell: Cell) -> list[Any]:
    return [int(part) if re.fullmatch("[0-9]{1,10}", part, re.ASCII) else part for part in _parts(r"[,;\s]", cell)]


def _word(cell: Cell) -> str:
    return re.sub(r"[\s-]+", "_", _text(cell).lower())


def _quantity(cell: Cell) -> Any:
    """A number as people type one: `12.5`, `12,5`, `30 %`. What may be twelve or twelve thousand is a problem."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return cell
    text = _text(cell).removesuffix("%").strip()
    if re.fullmatch(r"[0-9]{1,3},[0-9]{3}", text, re.ASCII):
        raise ValueError(
            f"is {shown(text)}, which may be read in two ways; write it without the comma, or with a point"
        )
    if re.fullmatch(r"[0-9]{1,20}(?:[.,][0-9]{1,30})?(?:e[+-]?[0-9]{1,3})?", text, re.ASCII | re.IGNORECASE):
        return float(text.replace(",", "."))
    return text


def _whole(cell: Cell) -> Any:
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    text = _text(cell)
    if re.fullmatch(r"[0-9]{1,3}(?:[., '\u00a0\u202f_][0-9]{3})+|[0-9]{1,16}", text, re.ASCII):
        return int(re.sub("[^0-9]", "", text))
    return cell if isinstance(cell, int) else text


def _flag(cell: Cell) -> bool:
    text = _text(cell).lower()
    if text not in ("", "yes", "no"):
        raise ValueError(f"is {shown(text)}; expected yes, or nothing")
    return text == "yes"


class _Field(NamedTuple):
    """How a cell of column *title* becomes what `documents` reads in field *name*."""

    title: str
    name: str
    raw: Callable[[Cell], Any]
    list_of: bool = False


_FIELDS = (
    _Field("Name", "name", _text),
    _Field("Priority", "priority", _word),
    _Field("Slots", "slots", _slots, list_of=True),
    _Field("Creatives", "creatives", partial(_parts, r"[,;\s]"), list_of=True),
    _Field("Share %", "share", _quantity),
    _Field("Weight", "weight", _quantity),
    _Field("Pacing", "pacing", _word),
    _Field("On shortfall", "on_shortfall", _word),
    _Field("Rotation", "rotation", _word),
    _Field("Hours", "hours", partial(_parts, r"[;\n]"), list_of=True),
    _Field("Targeting", "targeting", lambda cell: parse_targeting(_text(cell)), list_of=True),
    _Field("Page", "page", _word),
    _Field("Frequency", "frequency", partial(_parts, r"[;,\n]"), list_of=True),
)
_COLUMN_OF = {
    **{field.name: field.title for field in _FIELDS},
    "campaign": "Campaign",
    "starts": "Starts",
    "ends": "Ends",
    "goal": "Goal",
}
_PARSERS = TABLES["line_item"].fields
_DEFAULTS = {field.name: field.default for field in structs.fields(LineItem) if not field.required}


class _Reading:
    """A sheet on its way to what it changes."""

    def __init__(self, document: Document, zone: str, epoch: datetime) -> None:
        self.document, self.zone, self.epoch = document, zone, epoch
        self.owners = _Owners(document)
        self.before = {one.id: one for one in document.line_items}
        self.columns: dict[str, int] = {}
        self.placed: set[int] = set()
        self.read_before: dict[tuple[str, str], Any] = {}
        self.problems: list[CellProblem] = []
        self.rows_of: dict[str, int] = {}
        self.puts: list[LineItem] = []
        self.removes: list[str] = []

    def read(self, rows: list[Row]) -> None:
        filled = [(number, row) for number, row in enumerate(rows, 1) if any(_text(cell) for cell in row)]
        if not filled:
            raise BadSheet("is empty; expected a heading row with Id, Name and so on")
        self._read_heading(*filled[0])
        if self.problems:
            return
        ids = [self._cell(row, "Id") for _, row in filled[1:]]
        taken = {*self.before, *map(_text, ids)}
        for (number, row), id_ in zip(filled[1:], ids, strict=True):
            self._read_row(number, row, _text(id_), taken)
            if len(self.problems) > _MOST_PROBLEMS:
                break

    def result(self) -> Sheet:
        puts = {"line_items": self.puts} if self.puts else {}
        removes = {"line_items": self.removes} if self.removes else {}
        if puts or removes:
            self.problems += self._check(Sheet(puts, removes, []))
        return Sheet(puts, removes, sorted(self.problems, key=lambda one: one.row)[:_MOST_PROBLEMS])

    # The heading

    def _read_heading(self, number: int, row: Row) -> None:
        for at, cell in enumerate(row):
            text = " ".join(_text(cell).split())
            title = _TITLES.get(text.casefold())
            if not text:
                continue
            if title is None:
                close = get_close_matches(text.casefold(), _TITLES, n=1)
                hint = (
                    f"did you mean {_TITLES[close[0]]!r}?"
                    if close
                    else f"expected some of {', '.join(_TITLES.values())}"
                )
                self._tell(number, text[:40], at, f"no such column; {hint}")
            elif title in self.columns:
                self._tell(number, title, at, "this column is there twice; take one out")
            else:
                self.columns[title] = at
        self.placed = set(self.columns.values())
        if "Id" not in self.columns and "Name" not in self.columns:
            raise BadSheet(
                f"has no heading row that says which column is which; expected {', '.join(_TITLES.values())}"
            )

    # A row

    def _read_row(self, number: int, row: Row, id_: str, taken: set[str]) -> None:
        told = len(self.problems)
        if not self._is_free(number, id_):
            return
        if self._parse(number, "Remove", lambda: _flag(self._cell(row, "Remove"))):
            if id_ in self.before:
                self.removes.append(id_)
            else:
                self._tell_in(number, "Remove", f"there is no line item {shown(id_)} to remove")
            return
        old = self.before.get(id_)
        values = {**_DEFAULTS, **(structs.asdict(old) if old else {})}
        for at in range(len(row)):
            if at not in self.placed and _text(row[at]):
                self._tell(number, "?", at, "stands in a column without a heading; give it one or take it out")
        for field in _FIELDS:
            self._read_field(number, row, field, values, new=old is None)
        self._read_campaign(number, row, values, new=old is None)
        for title, name in (("Starts", "starts"), ("Ends", "ends")):
            if title in self.columns:
                cell = self._cell(row, title)
                read = partial(sheet_times.parse_cell, cell, self.zone, self.epoch)
                values[name] = self._parse(number, title, read) if _text(cell) else None
        self._read_goal(number, row, values)
        values["id"] = id_ or make_id(_text(self._cell(row, "Name")), taken, "line-item")
        taken.add(values["id"])
        self._parse(number, "Id", lambda: _PARSERS["id"].parse(values["id"]))
        if len(self.problems) > told:
            return
        self.rows_of[values["id"]] = number
        item = LineItem(**values)
        if item == old:
            return
        self._check_item(number, item)
        if len(self.problems) == told:
            self.puts.append(item)

    def _is_free(self, number: int, id_: str) -> bool:
        other = self.rows_of.setdefault(id_, number) if id_ else number
        if other != number:
            self._tell_in(number, "Id", f"is {shown(id_)}, as in row {other}; keep one of the two rows")
        return other == number

    def _read_field(self, number: int, row: Row, field: _Field, values: dict[str, Any], *, new: bool) -> None:
        cell, required = self._cell(row, field.title), _PARSERS[field.name].required
        if field.list_of and cell == _KEPT and not new:
            return
        if field.title not in self.columns:
            if new and required:
                self._tell(number, "", 0, f"is a new booking, and the sheet has no column {field.title!r}; add it")
        elif not _text(cell):
            if required:
                self._tell_in(number, field.title, "is empty; it is required")
            else:
                values[field.name] = _DEFAULTS[field.name]
        else:
            values[field.name] = self._parse(number, field.title, lambda: self._read_cell(field, cell))

    def _read_cell(self, field: _Field, cell: Cell) -> Any:
        """Most columns say the same few things in all rows; each is read once."""
        if not isinstance(cell, str):
            return _PARSERS[field.name].parse(field.raw(cell))
        key = field.name, cell
        if key not in self.read_before:
            self.read_before[key] = _PARSERS[field.name].parse(field.raw(cell))
        return self.read_before[key]

    def _read_campaign(self, number: int, row: Row, values: dict[str, Any], *, new: bool) -> None:
        who, what = _text(self._cell(row, "Advertiser")), _text(self._cell(row, "Campaign"))
        advertiser = self._parse(number, "Advertiser", lambda: self.owners.advertiser(who)) if who else None
        if who and advertiser is None:
            return
        if "Campaign" not in self.columns:
            if new:
                self._tell(number, "", 0, "is a new booking, and the sheet has no column 'Campaign'; add it")
                return
        elif not what:
            self._tell_in(number, "Campaign", "is empty; it is required")
            return
        else:
            values["campaign"] = self._parse(number, "Campaign", lambda: self.owners.campaign(what, advertiser))
        campaign = self.owners.campaigns.get(values["campaign"])
        if campaign and advertiser and campaign.advertiser != advertiser:
            self._tell_in(
                number,
                "Advertiser",
                f"is {shown(who)}, and the campaign is of {self.owners.said_advertiser(campaign.advertiser)!r}",
            )

    def _read_goal(self, number: int, row: Row, values: dict[str, Any]) -> None:
        if not {"Goal", "Goal counts", "Per day"} & self.columns.keys():
            return
        old = values["goal"]
        n = self._cell(row, "Goal") if "Goal" in self.columns else old and old.n
        of = _word(self._cell(row, "Goal counts")) if "Goal counts" in self.columns else old.of.value if old else ""
        daily = bool(old and old.daily)
        if "Per day" in self.columns:
            daily = bool(self._parse(number, "Per day", lambda: _flag(self._cell(row, "Per day"))))
        values["goal"] = None
        if not _text(n):
            if "Goal" in self.columns and (of or daily):
                self._tell_in(number, "Goal", "is empty; expected how many, or nothing in the two columns after it")
            return
        number_of = _whole(n)
        if not isinstance(number_of, int) or isinstance(number_of, bool):
            self._tell_in(number, "Goal", f"is {shown(n)}; expected a whole number")
        elif not of:
            self._tell_in(number, "Goal counts", "is empty; expected impressions, viewables or clicks")
        else:
            raw = {of: number_of, **({"per": "day"} if daily else {})}
            title = "Goal" if of in ("impressions", "viewables", "clicks") else "Goal counts"
            values["goal"] = self._parse(number, title, lambda: _PARSERS["goal"].parse(raw))

    # What is checked

    def _check_item(self, number: int, item: LineItem) -> None:
        for table, column, ids in (("slot", "Slots", item.slots), ("creative", "Creatives", item.creatives)):
            for one in ids:
                if missing := self.owners.known.missing(table, one):
                    self._tell_in(number, column, f"names {missing}")
        if item.starts is not None and item.ends is not None and item.ends <= item.starts:
            self._tell_in(
                number, "Ends", "ends before it starts, so it would never show; exchange or correct the two dates"
            )

    def _check(self, sheet: Sheet) -> Iterator[CellProblem]:
        """What is wrong between the entries, that was not so before."""
        after = changed(self.document, sheet)
        known_before = self.owners.known
        known = Known({**known_before.files, **{("line_item", one.id): "" for one in after.line_items}})
        before = set(check(self.document, known_before))
        names: complaints.Names = {}
        for problem in check(after, known):
            if problem not in before:
                names = names or complaints.names_of(after)
                yield self._located(problem, names)

    def _located(self, problem: Problem, names: complaints.Names) -> CellProblem:
        match = re.fullmatch(r"line item '(.*)'", problem.where)
        number = self.rows_of.get(match[1]) if match else None
        if number is None:
            said = complaints.tell(problem, names)
            return CellProblem(0, "", "", f"{said.where}: {said.what}")
        said_of = complaints.of_entry(problem.what, names)
        title = _COLUMN_OF.get(said_of.field, "")
        if title not in self.columns:
            return CellProblem(number, "", "", said_of.sentence)
        what = re.sub(r"field '\w+':? ", "", problem.what)
        return CellProblem(number, title, _address(number, self.columns[title]), what)

    # Words

    def _cell(self, row: Row, title: str) -> Cell:
        at = self.columns.get(title)
        return None if at is None or at >= len(row) else row[at]

    def _parse(self, number: int, title: str, parse: Callable[[], Any]) -> Any:
        """What *parse* finds; None where that is a problem, which is told."""
        try:
            return parse()
        except (ValueError, OverflowError) as error:
            self._tell_in(number, title, str(error))
            return None

    def _tell_in(self, number: int, title: str, what: str) -> None:
        self._tell(number, title, self.columns.get(title, 0), what)

    def _tell(self, number: int, title: str, at: int, what: str) -> None:
        cell = _address(number, at) if title else ""
        self.problems.append(CellProblem(number, title, cell, what))


def _address(row: int, at: int) -> str:
    letters = ""
    at += 1
    while at:
        at, rest = divmod(at - 1, 26)
        letters = chr(65 + rest) + letters
    return f"{letters}{row}"
