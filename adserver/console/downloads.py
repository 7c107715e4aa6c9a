"""Tables as files: CSV and XLSX that no spreadsheet program runs anything of.

Rules: a text that begins like a formula is written with an apostrophe before it in CSV, which programs take for "this
is text"; in XLSX every text is a text cell. Numbers stay numbers.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from openpyxl import Workbook  # type: ignore[import-untyped]
from openpyxl.cell import WriteOnlyCell  # type: ignore[import-untyped]
from openpyxl.styles import Font  # type: ignore[import-untyped]

from adserver.console.sheet_files import guard

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV = "text/csv; charset=utf-8"
Cell = str | int | float | None

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_LONGEST = 32_767
"""What a cell holds in a spreadsheet."""


def write_csv(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """With a byte order mark, without which spreadsheet programs take it for another encoding."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in (head, *rows):
        writer.writerow([guard(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue().encode("utf-8-sig")


def write_xlsx(title: str, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    book = Workbook(write_only=True)
    sheet = book.create_sheet(re.sub(r"[\[\]:*?/\\]", " ", title)[:31])
    sheet.freeze_panes = "A2"
    bold = Font(bold=True)
    for column, name in enumerate(head):
        letter = chr(ord("A") + column) if column < 26 else f"A{chr(ord('A') + column - 26)}"
        sheet.column_dimensions[letter].width = max(10, min(40, len(name) + 2))

    def text(value: str, font: Any = None) -> Any:
        cell = WriteOnlyCell(sheet, _UNWRITABLE.sub(" ", value)[:_LONGEST])
        cell.data_type = "s"  # what begins with "=" would be a formula otherwise
        if font is not None:
            cell.font = font
        return cell

    sheet.append([text(name, bold) for name in head])
    for row in rows:
        sheet.append([text(cell) if isinstance(cell, str) else cell for cell in row])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
