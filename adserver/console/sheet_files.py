"""Spreadsheet files as rows of values, and back: XLSX and CSV, whoever wrote them.

Rules: no cell written here is run by any spreadsheet. In XLSX, text is text by its type; in CSV, text that a program
could take for a formula gets an apostrophe, which reading takes away again. An XLSX is unpacked here within limits and
without what is not needed, so that openpyxl sees neither more nor other parts than were looked at.
"""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from html import escape
from typing import Any

import openpyxl  # type: ignore[import-untyped]
from msgspec import Struct
from openpyxl.cell import WriteOnlyCell  # type: ignore[import-untyped]
from openpyxl.styles import Alignment, Font  # type: ignore[import-untyped]
from openpyxl.utils import get_column_letter  # type: ignore[import-untyped]
from openpyxl.utils.datetime import to_excel  # type: ignore[import-untyped]

from adserver.errors import BadSheet

MOST_BYTES = 5_000_000
MOST_ROWS = 20_000
MOST_COLUMNS = 60
LONGEST_CELL = 32_767
"""What Excel holds; it cuts the rest off."""

Cell = str | int | float | bool | datetime | None
Row = Sequence[Cell]

_MOST_UNPACKED = 64_000_000
_MOST_PARTS = 500
_MOST_TAGS_IN_ROW = 1_000
_MOST_TAGS_IN_SHEET = 3_000_000
_MOST_ROWS_FORMATTED = 200_000
_MOST_TAGS_OF_TEXT = 3_000_000
_MOST_TAGS_ELSEWHERE = 50_000
_EXPECTED = "expected a spreadsheet as XLSX or CSV"
_SHEET = "Line items"

_RUN = r"'*\s*[=+\-@\t\r\n＝＋－＠]"
_TO_GUARD = re.compile(rf"(?:^|(?<=[,;]))(?={_RUN})")
_GUARDED = re.compile(rf"(?:^|(?<=[,;]))'(?={_RUN})")
_STARTS_RUNNING = re.compile(_RUN)


class Rows(Struct, frozen=True):
    """The rows of a file, the first being the spreadsheet's row 1. *epoch* is what its bare day numbers count from."""

    rows: list[Row]
    epoch: datetime = datetime(1899, 12, 30)  # noqa: DTZ001 - a spreadsheet's times have no zone


# Writing


def write_csv_rows(rows: Iterator[Row]) -> bytes:
    """UTF-8 with a mark, without which Excel takes it for Windows-1252."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_as_csv(cell) for cell in row])
    return out.getvalue().encode("utf-8-sig")


def _as_csv(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return guard(cell)
    if isinstance(cell, datetime):
        return cell.isoformat(" ", "seconds" if cell.second else "minutes")
    return repr(cell)


def guard(text: str) -> str:
    """*text* so that no spreadsheet takes it, or a part of it after a separator, for a formula."""
    return _TO_GUARD.sub("'", text)


def unguard(text: str) -> str:
    return _GUARDED.sub("", text)


def write_xlsx_rows(rows: Iterator[Row], widths: Sequence[int]) -> bytes:
    """The first of *rows* is the heading; it stays in sight and filters what is below it.

    The rows are spelled here: openpyxl makes the workbook around them, and takes some ten times as long for each cell.
    """
    empty, styles = _empty_workbook(tuple(next(rows)), tuple(widths))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(empty)) as made, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as full:
        for entry in made.infolist():
            part = made.read(entry)
            if entry.filename.startswith("xl/worksheets/"):
                below = "".join(_spelled_row(n, row, styles) for n, row in enumerate(rows, 2))
                part = part.replace(b"</sheetData>", below.encode() + b"</sheetData>")
            full.writestr(entry, part, zipfile.ZIP_DEFLATED)
    return out.getvalue()


class _Styles(Struct, frozen=True):
    """The numbers of the styles that cells name."""

    minutes: int
    seconds: int
    guarded: int


@lru_cache(4)
def _empty_workbook(heading: Row, widths: Sequence[int]) -> tuple[bytes, _Styles]:
    book = openpyxl.Workbook()
    book.properties.creator = "adserver"
    sheet = book.active
    sheet.title = _SHEET
    sheet.freeze_panes = "B2"
    for n, (title, width) in enumerate(zip(heading, widths, strict=True), 1):
        sheet.column_dimensions[get_column_letter(n)].width = width
        cell = sheet.cell(1, n, title)
        cell.font, cell.alignment = Font(bold=True), Alignment(wrap_text=True)
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(widths))}1"
    styles = []
    for form, quoted in (("yyyy-mm-dd hh:mm", False), ("yyyy-mm-dd hh:mm:ss", False), ("@", True)):
        cell = WriteOnlyCell(sheet)
        cell.number_format, cell.quotePrefix = form, quoted
        styles.append(cell.style_id)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue(), _Styles(*styles)


def _spelled_row(number: int, row: Row, styles: _Styles) -> str:
    cells = "".join(
        _spelled_cell(f"{_LETTERS[n]}{number}", value, styles) for n, value in enumerate(row) if value not in (None, "")
    )
    return f'<row r="{number}">{cells}</row>'


_LETTERS = [get_column_letter(n) for n in range(1, MOST_COLUMNS + 1)]


def _spelled_cell(at: str, value: Cell, styles: _Styles) -> str:
    if isinstance(value, datetime):
        style = styles.seconds if value.second else styles.minutes
        return f'<c r="{at}" s="{style}"><v>{to_excel(value)!r}</v></c>'
    if not isinstance(value, str):
        return f'<c r="{at}"><v>{value!r}</v></c>'
    # what could run, or be taken for a number or a date when somebody goes through it, also says so in its style
    said = f' s="{styles.guarded}"' if not value[0].isalpha() or _STARTS_RUNNING.match(value) else ""
    return f'<c r="{at}"{said} t="inlineStr"><is><t xml:space="preserve">{_escaped(value)}</t></is></c>'


def _escaped(text: str) -> str:
    """As Excel spells what XML has no sign for, and what would read like such a spelling."""
    text = re.sub(r"_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", text)
    return escape(re.sub("[\ufffe\uffff]", lambda found: f"_x{ord(found[0]):04X}_", text), quote=False)


def _unescaped(text: str) -> str:
    return re.sub(
        r"_x005F_(?=x[0-9A-Fa-f]{4}_)|_x(FFF[EF])_", lambda found: chr(int(found[1], 16)) if found[1] else "_", text
    )


# Reading


def read_rows(data: bytes, file_name: str) -> Rows:
    """Raises BadSheet with a whole sentence."""
    try:
        if len(data) > MOST_BYTES:
            raise BadSheet(f"has {len(data):,} bytes; at most {MOST_BYTES:,} (5 MB) are taken; split it")
        if not data.strip():
            raise BadSheet(f"is empty; {_EXPECTED}")
        what = next((words for words, magic in _OTHERS if magic.match(data[:4096])), None)
        if what or file_name.lower().endswith((".xlsm", ".xltm", ".xlam", ".xlsb")):
            raise BadSheet(f"is {what or 'a workbook with macros'}; save it as XLSX or CSV")
        return _read_xlsx(data) if data.startswith(b"PK") else Rows(list(_read_csv(data)))
    except BadSheet as error:
        raise BadSheet(f"{file_name!r:.100} {error}") from None


_OTHERS = [
    (words, re.compile(magic, re.DOTALL | re.IGNORECASE))
    for words, magic in (
        ("an old Excel file (.xls), or one with a password", rb"\xd0\xcf\x11\xe0"),
        ("a PDF", rb"%PDF-"),
        ("a web page", rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|table|meta|head)"),
        ("an XML file", rb"(?:\xef\xbb\xbf)?\s*<\?xml"),
        ("an image", rb"\x89PNG|GIF8|\xff\xd8\xff|RIFF"),
    )
]

# XLSX

_NEEDED = re.compile(
    r"\[Content_Types\]\.xml|_rels/\.rels|xl/(?:workbook|styles|sharedStrings)\.xml|xl/_rels/workbook\.xml\.rels"
    r"|xl/worksheets/[^/]+\.xml",
    re.IGNORECASE,
)
_ROW = re.compile(rb"<(?:[A-Za-z0-9]+:)?row(?=[\s/>])[^<>]*+>")
_ROW_END = re.compile(rb"</(?:[A-Za-z0-9]+:)?row>")
_ROW_NUMBER = re.compile(rb"\sr=\"([0-9]{1,20})\"")
_TEXT_END = re.compile(rb"</(?:[A-Za-z0-9]+:)?si>")
_CONTENT = re.compile(rb"<(?:[A-Za-z0-9]+:)?[vt][\s>]")
_SHEET_DATA = re.compile(rb"<((?:[A-Za-z0-9]+:)?)sheetData\s*+>")
_ROOT = re.compile(rb"<(?:[A-Za-z0-9]+:)?worksheet(?:\s[^<>]*+)?>")
_LONG_TAG = re.compile(rb"<[^<>]{16384}|<[^<]{400000}")
"""A tag of so many attributes, or with so many `>` in them, takes a parser that is fed in pieces for ever."""
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding=[\"']([^\"']*)[\"']")


def _read_xlsx(data: bytes) -> Rows:
    parts = _unpack(data)
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    try:
        book = openpyxl.load_workbook(clean, read_only=True, data_only=True, keep_links=False)
        sheet = book[_SHEET] if _SHEET in book.sheetnames else book.worksheets[0]
        sheet.reset_dimensions()
        rows = [_values(row) for row in sheet.iter_rows(max_col=MOST_COLUMNS, max_row=MOST_ROWS + 1)]
        return Rows(rows, book.epoch)
    except Exception as error:  # whatever a damaged workbook makes openpyxl raise
        raise BadSheet(f"cannot be read as a workbook ({error!s:.120}); save it as XLSX or CSV again") from None


def _values(row: Sequence[Any]) -> Row:
    found = [_value(cell) for cell in row]
    while found and found[-1] is None:
        found.pop()
    return found


def _value(cell: Any) -> Cell:
    value = cell.value
    if isinstance(value, str):
        return _unescaped(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and "%" in (cell.number_format or ""):
        return f"{round(value * 100, 9):g}%"
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    return str(value)


def _unpack(data: bytes) -> dict[str, bytes]:
    """The parts that are needed, within the limits. Raises BadSheet."""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries)
            for entry in entries:
                if _NEEDED.fullmatch(entry.filename):
                    found[entry.filename] = _unpack_part(archive, entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, zlib.error) as error:
        raise BadSheet(f"is damaged ({error!s:.80}); save it as XLSX again") from None
    return found


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.filename.lower() for entry in entries]
    if "xl/vbaproject.bin" in names:
        raise BadSheet("is a workbook with macros; save it as XLSX or CSV")
    if "xl/workbook.bin" in names:
        raise BadSheet("is a binary workbook (.xlsb); save it as XLSX or CSV")
    if "content.xml" in names:
        raise BadSheet("is an OpenDocument file; save it as XLSX or CSV")
    if "[content_types].xml" not in names or "xl/workbook.xml" not in names:
        raise BadSheet(f"is a ZIP file or another kind of document; {_EXPECTED}")
    if len(names) > _MOST_PARTS or len(set(names)) < len(names):
        raise BadSheet("is no workbook as a spreadsheet program writes it; save it as XLSX again")
    if sum(entry.file_size for entry in entries) > _MOST_UNPACKED:
        raise BadSheet(
            f"unpacks to more than {_MOST_UNPACKED // 1_000_000} MB, as a zip bomb does; take out what is not needed"
        )


def _unpack_part(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        part = file.read(entry.file_size + 1)  # the directory may have lied
    if len(part) > entry.file_size:
        raise BadSheet("unpacks to more than it says, as a zip bomb does; save it as XLSX again")
    declared = _ENCODING.match(part.removeprefix(b"\xef\xbb\xbf"))
    if b"\0" in part or (declared and declared[1].lower() not in (b"utf-8", b"us-ascii")):
        raise BadSheet("is no workbook as a spreadsheet program writes it; save it as XLSX again")
    if b"<!DOCTYPE" in part or b"<!ENTITY" in part:
        raise BadSheet("defines entities, which no spreadsheet program does; save it as XLSX again")
    if _LONG_TAG.search(part):
        raise BadSheet("is no workbook as a spreadsheet program writes it; save it as XLSX again")
    if b"macroEnabled" in part and entry.filename.lower() == "[content_types].xml":
        raise BadSheet("is a workbook with macros; save it as XLSX or CSV")
    if entry.filename.lower().startswith("xl/worksheets/"):
        return _only_cells(part)
    if entry.filename.lower() == "xl/sharedstrings.xml":
        if part.count(b"<") > _MOST_TAGS_OF_TEXT:
            raise BadSheet("holds more text than a sheet of bookings; take out what is not needed")
        list(_pieces(part, _TEXT_END))
    elif part.count(b"<") > _MOST_TAGS_ELSEWHERE:
        raise BadSheet("has more styles or sheets than a sheet of bookings; copy its cells into a new one")
    return part


def _only_cells(part: bytes) -> bytes:
    """A worksheet without what is around its cells. Raises BadSheet for rows that are too many or too long."""
    root, begins = _ROOT.search(part), _SHEET_DATA.search(part)
    if not root:
        raise BadSheet("is no workbook as a spreadsheet program writes it; save it as XLSX again")
    prefix = begins[1] if begins else b""
    ends = part.rfind(b"</" + prefix + b"sheetData>")
    inside = part[begins.end() : ends] if begins and ends > begins.end() else b""
    if inside.count(b"<") > _MOST_TAGS_IN_SHEET or inside.count(b"row") > 2 * _MOST_ROWS_FORMATTED:
        raise BadSheet("has more cells or formatted rows than a sheet of bookings; copy its cells into a new one")
    inside = _ROW.sub(lambda row: b"" if row[0].endswith(b"/>") and _ROW_NUMBER.search(row[0]) else row[0], inside)
    last, kept = 0, []
    for piece in _pieces(inside, _ROW_END):
        row = _ROW.search(piece)
        number = _ROW_NUMBER.search(row[0]) if row else None
        last = int(number[1]) if number else last + 1
        if last <= MOST_ROWS + 1:
            kept.append(piece)
        elif _CONTENT.search(piece):
            raise BadSheet(f"has more than {MOST_ROWS:,} rows below its heading; split it")
    spelled = prefix.decode()
    head = f'<{spelled}dimension ref="A1"/><{spelled}sheetData>'.encode()
    tail = f"</{spelled}sheetData></{spelled}worksheet>".encode()
    return b"".join([part[: root.end()], head, *kept, tail])


def _pieces(part: bytes, end: re.Pattern[bytes]) -> Iterator[bytes]:
    """*part* cut after each *end*. A parser keeps what lies between as a tree, so none may hold too many tags."""
    at = 0
    for stop in [*(found.end() for found in end.finditer(part)), len(part)]:
        piece, at = part[at:stop], stop
        if piece.count(b"<") > _MOST_TAGS_IN_ROW:
            raise BadSheet("has rows of thousands of cells; take out what is not needed")
        if piece:
            yield piece


# CSV


def _read_csv(data: bytes) -> Iterator[Row]:
    text = _decoded(data)
    separator = None
    if match := re.match(r"sep=(.)\r?\n", text):
        separator, text = match[1], text[match.end() :]
    separator = separator or _separator(text)
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), 1):
            if number > MOST_ROWS + 1:
                if any(cell.strip() for cell in row):
                    raise BadSheet(f"has more than {MOST_ROWS:,} rows below its heading; split it")
                continue
            if any(cell.strip() for cell in row[MOST_COLUMNS:]):
                raise BadSheet(f"has more than {MOST_COLUMNS} columns in row {number}; take out what is not needed")
            yield [unguard(cell) or None for cell in row[:MOST_COLUMNS]]
    except csv.Error as error:
        raise BadSheet(f"cannot be read as CSV ({error}); save it as CSV again") from None


def _decoded(data: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                raise BadSheet("is damaged: it is not the text that it says it is; save it as CSV again") from None
    if b"\0" in data:
        raise BadSheet(f"is no text; {_EXPECTED}")
    for encoding in ("utf-8", "windows-1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadSheet("is in an alphabet that is not known here; save it as 'CSV UTF-8'")


def _separator(text: str) -> str:
    """That which the first line with something on it has most of, outside quotes."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"?', "", line)
    return max(",;\t", key=bare.count)
