"""Bookings as a spreadsheet: out, and in again. What a sheet changes is shown before anything happens."""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response

from adserver.console import drafts, words
from adserver.console.bookings import Desk, keep, read_desk
from adserver.console.drafts import Draft
from adserver.console.people import sheet_key
from adserver.console.sheets import read_sheet, write_csv, write_xlsx
from adserver.console.web import Call, Refused
from adserver.errors import BadSheet

_KEPT_S = 3600
_MOST_TOLD = 200
_ANOTHER = (
    "Another sheet was uploaded in another window since this page was made, and only the last one is kept: upload this "
    "one again."
)
_A_LINE = 50
"""Bytes that a booking takes in a sheet at least, packed."""
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class Kept(Struct, frozen=True):
    """A sheet that was uploaded and not taken over yet: its file's name, and what it changes."""

    file: str
    draft: Draft


_KEPT = msgspec.json.Decoder(Kept)


async def page(call: Call) -> Response:
    return await _show(call)


async def _show(call: Call, answer: int = 200, **values: Any) -> Response:
    usual = {"problems": [], "more": 0, "changes": None, "file": "", "moved": "", "sheet": "", "seal": ""}
    said = {"said": call.told("said"), **usual, **values}
    return await call.page("sheet.html", answer, **said)


async def export(call: Call) -> Response:
    """All bookings as they are live, or with the draft of the person who asks."""
    desk = await read_desk(call)
    document = desk.document if call.query("draft") else desk.live
    form, lines = call.request.path_params["form"], len(document.line_items)
    if form == "xlsx":
        data, media = await call.work(lines, write_xlsx, document, call.zone), _XLSX
    elif form == "csv":
        data, media = await call.work(lines, write_csv, document, call.zone), "text/csv; charset=utf-8"
    else:
        raise Refused(404, "There is no such sheet.")
    disposition = f'attachment; filename="bookings-version-{desk.number}.{form}"'
    return Response(data, headers={**call.headers(), "content-disposition": disposition}, media_type=media)


async def upload(call: Call) -> Response:
    """Read a sheet and show what it would change, or every problem by its cell. Nothing has happened yet."""
    found = await call.file("sheet")
    if found is None:
        return await _show(call, 422, problems=["Choose a file first: XLSX or CSV."])
    name, data = found
    desk = await read_desk(call)
    try:
        lines = max(len(desk.document.line_items), len(data) // _A_LINE)
        sheet = await call.work(lines, read_sheet, data, name, desk.document, call.zone)
    except BadSheet as error:
        return await _show(call, 422, problems=[str(error)], file=name)
    if sheet.problems:
        told = [str(one) for one in sheet.problems]
        return await _show(call, 422, problems=told[:_MOST_TOLD], more=max(0, len(told) - _MOST_TOLD), file=name)
    draft = drafts.put(Draft(desk.number), desk.live, "line_items", *sheet.puts.get("line_items", ()))
    for table, entries in sheet.puts.items():
        if table != "line_items":
            draft = drafts.put(draft, desk.live, table, *entries)
    for table, ids in sheet.removes.items():
        draft = drafts.remove(draft, desk.live, table, *ids)
    kept = msgspec.json.encode(Kept(name, draft))
    changes = await _difference(call, desk, draft)
    if changes:
        await call.store.ask("SET", sheet_key(call.who), kept, "EX", _KEPT_S)
    return await _show_difference(call, desk, changes, name, _seal(kept))


async def _difference(call: Call, desk: Desk, draft: Draft) -> list[words.Change]:
    """What the sheet's *draft* changes of what the person has."""
    after = drafts.apply(desk.document, draft)
    return await call.aside(words.changes, desk.document, after, call.zone)


async def _show_difference(
    call: Call, desk: Desk, changes: list[words.Change], file: str, sheet: str, status: int = 200, **values: Any
) -> Response:
    """The page with what the sheet of that seal changes, to be taken as it is shown or not at all."""
    more = max(0, len(changes) - _MOST_TOLD)
    shown = {"changes": changes[:_MOST_TOLD], "more": more, "file": file, "sheet": sheet, "seal": desk.seal}
    return await _show(call, status, **shown, **values)


def _seal(kept: bytes) -> str:
    """Another one for each sheet, whenever it was uploaded."""
    return hashlib.blake2s(kept, digest_size=16).hexdigest()


async def take(call: Call) -> Response:
    """Put what the sheet changes into the draft, if it is the sheet and the draft that its page showed."""
    data = await call.store.ask("GET", sheet_key(call.who))
    if data is None:
        return await _show(call, 409, problems=["That sheet was uploaded more than an hour ago; upload it again."])
    if call.text("sheet") != _seal(data):
        return await _show(call, 409, problems=[_ANOTHER])
    kept = _KEPT.decode(data)
    sheet = kept.draft
    desk = await read_desk(call)
    if call.text("draft") != desk.seal:
        moved = "Your draft has changed in another window since this page was made. This is what the sheet changes now:"
        changes = await _difference(call, desk, sheet)
        return await _show_difference(call, desk, changes, kept.file, _seal(data), 409, moved=moved)
    draft = desk.draft
    for table in drafts.TABLES:
        draft = drafts.put(draft, desk.live, table, *drafts.entries(sheet.puts, table))
        gone = [id_ for name, id_ in sheet.removes if name == table]
        if gone:
            draft = drafts.remove(draft, desk.live, table, *gone)
        mine = {id_ for name, id_ in desk.draft.places if name == table}
        was = drafts.index(sheet.before, table)
        draft = drafts.since(draft, table, {id_: one for id_, one in was.items() if id_ not in mine})
    await keep(call, desk, draft)
    await call.store.ask("DEL", sheet_key(call.who))
    return call.go("/console/draft", said="The sheet is in your draft.")
