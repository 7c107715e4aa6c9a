"""The console's twin for programs: the catalog, its versions, pauses and images as JSON, with the same rights.

Whatever changes the catalog names the version it was made for (`If-Match: "12"`) and publishes at once, by the same
function as the console: the whole document is checked, and nothing has changed when any of it is wrong. People's drafts
are not touched.
"""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import structs
from starlette.datastructures import UploadFile
from starlette.responses import Response

from adserver.answers import problem_response
from adserver.config_files import measure_image
from adserver.console import audit, desk, drafts, entries, pausing, words
from adserver.console.api_tokens import Caller
from adserver.console.bookings import held_by
from adserver.console.desk import HELD_DAYS, Live, hold_picture, read_document, read_live
from adserver.console.drafting import read_number
from adserver.console.drafts import Draft, find
from adserver.console.entries import PLURAL, Asked
from adserver.console.pictures import take
from adserver.console.web import MOST_BODY_BYTES, Call, Refused, read_form, read_json
from adserver.documents import Document
from adserver.errors import BadPicture, ConfigError, Conflict, Problem
from adserver.fields import read_digits, shown
from adserver.model import Creative, Pause
from adserver.versions import Summary, hold_asset, read_asset

_A_PAGE = 100
_MOST_TOLD = 200
_LONGEST_NOTE = 500
_IF_MATCH = re.compile(r'"([0-9]{1,12})"', re.ASCII)
_SINGULAR = {plural: table for table, plural in PLURAL.items()}
_NAMES = {"image/png": "upload.png", "image/jpeg": "upload.jpg", "image/gif": "upload.gif", "image/webp": "upload.webp",
          "image/avif": "upload.avif"}  # fmt: skip


async def me(call: Call) -> Response:
    """Who calls, and what they may."""
    assert call.session
    token = {"id": call.session.token_id, "label": call.session.label} if isinstance(call.session, Caller) else None
    return call.json({"name": call.session.name, "role": call.session.role.value, "token": token})


# The catalog


async def catalog(call: Call) -> Response:
    """The live document, whole."""
    live = await read_live(call.store, held_by(call))
    whole = await call.aside(entries.write_all, live.document)
    return await _answer(call, {"version": live.number, **whole}, live.number)


async def table(call: Call) -> Response:
    """A page of the entries of one table, those whose id or name holds what is looked for."""
    name = _table(call)
    live = await read_live(call.store, held_by(call))
    text, number = call.query("q").lower(), _read_page(call)
    found = [
        one
        for one in drafts.entries(live.document, PLURAL[name])
        if not text or text in f"{one.id} {words.name_of(PLURAL[name], one)}".lower()
    ]
    rows = [entries.write(one) for one in found[(number - 1) * _A_PAGE : number * _A_PAGE]]
    counted = {"count": len(found), "page": number, "pages": max(1, -(-len(found) // _A_PAGE))}
    return await _answer(call, {"version": live.number, "table": name, **counted, "entries": rows}, live.number)


async def entry(call: Call) -> Response:
    name = _table(call)
    live = await read_live(call.store, held_by(call))
    found = _find(call, live.document, name)
    if found is None:
        raise Refused(404, _nothing(name))
    return await _answer(call, entries.write(found), live.number)


async def put_entry(call: Call) -> Response:
    """Add an entry, or put it in the place of the one with its id."""
    name = _table(call)
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live):
        return refused
    id_ = entries.parse_id(name, call.request.path_params["id"])
    raw = await read_json(call)
    if not isinstance(raw, dict):
        raise Refused(400, "The body is no object; send the entry as the configuration would spell it.")
    if raw.setdefault("id", id_) != id_:
        raise Refused(400, "The entry's id is not that of its address.")
    before = find(live.document, PLURAL[name], id_)
    asked = entries.read_changes({name: [raw]}, {}, live.document, live.number)
    number, refused = await _publish(call, asked, live, _note(call.query("note")))
    if refused:
        return refused
    found = find(drafts.apply(live.document, asked.draft), PLURAL[name], id_)
    location = {} if before else {"location": f"/api/catalog/{name}/{id_}"}
    body = {"version": number, "entry": entries.write(found)}
    return await _answer(call, body, number, 200 if before else 201, location)


async def delete_entry(call: Call) -> Response:
    name = _table(call)
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live):
        return refused
    found = _find(call, live.document, name)
    if found is None:
        raise Refused(404, _nothing(name))
    asked = entries.read_changes({}, {name: [found.id]}, live.document, live.number)
    number, refused = await _publish(call, asked, live, _note(call.query("note")))
    return refused or await _answer(call, {"version": number}, number)


async def change(call: Call) -> Response:
    """Put and remove many entries at once: all of it goes live, or nothing."""
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live):
        return refused
    body = await read_json(call)
    if not isinstance(body, dict) or body.keys() - {"put", "remove", "note"}:
        raise Refused(400, 'The body is not understood; send {"put": {…}, "remove": {…}, "note": "…"}.')
    put, remove = body.get("put", {}), body.get("remove", {})
    asked = await call.aside(entries.read_changes, put, remove, live.document, live.number)
    number, refused = await _publish(call, asked, live, _note(body.get("note", "")))
    if refused:
        return refused
    told = await call.aside(words.changes, live.document, drafts.apply(live.document, asked.draft), call.zone)
    return await _answer(call, {"version": number, "changes": [_tell(one) for one in told[:_MOST_TOLD]]}, number)


def _table(call: Call) -> str:
    name: str = call.request.path_params["table"]
    if name not in PLURAL:
        raise Refused(404, f"There is no such table; expected one of {', '.join(PLURAL)}.")
    return name


def _find(call: Call, document: Document, table: str) -> Any:
    return find(document, PLURAL[table], entries.parse_id(table, call.request.path_params["id"]))


def _nothing(table: str) -> str:
    return f"There is no such {table.replace('_', ' ')}."


def _read_page(call: Call) -> int:
    found = read_digits(call.query("page", "1"), 8)
    if not found:
        raise Refused(400, "Parameter 'page' is no page; the first is 1.")
    return found


def _note(given: object) -> str:
    if not isinstance(given, str) or len(given) > _LONGEST_NOTE:
        raise Refused(400, f"The note is no text of at most {_LONGEST_NOTE} characters.")
    return " ".join(given.split())


def _tell(one: words.Change) -> dict[str, Any]:
    turns = [structs.asdict(turn) for turn in one.turns]
    name = _SINGULAR.get(one.table, one.table)
    return {"what": one.what, "table": name, "id": one.id, "name": one.name, "fields": turns}


async def _answer(
    call: Call, body: Any, number: int, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that says which version it is of."""
    return await call.aside(call.json, body, status, {"etag": f'"{number}"', **(headers or {})})


# Which version a change was made for, and what became of it


async def _check_version(call: Call, live: Live, *, needed: bool = True) -> Response | None:
    """The refusal of a change that was made for another version than the live one, or for none that it says."""
    given = call.request.headers.get("if-match")
    if given is None:
        detail = f'Say which version you change: If-Match: "{live.number}" is the live one.'
        return problem_response(428, detail, {"etag": f'"{live.number}"'}) if needed else None
    match = _IF_MATCH.fullmatch(given.strip())
    if match is None:
        raise Refused(400, 'If-Match is no version; write it like "12", with the quotes.')
    return None if int(match[1]) == live.number else await _stale(call, int(match[1]))


async def _stale(call: Call, seen: int) -> Response:
    """Who has published what since version *seen*."""
    live = await read_live(call.store, held_by(call))
    since = await desk.history(call.store, live.number + 1, max(0, min(live.number - seen, _A_PAGE)))
    told = await _difference(call, seen, live) if since else []
    names = " and ".join(dict.fromkeys(one.author for one in since)) or "nobody"
    detail = (
        f"Version {live.number} is live, not {seen}: {names} published since. Look at what changed, and send again."
    )
    more = {"version": live.number, "since": [_summary(one) for one in since], "changes": told}
    return problem_response(412, detail, {"etag": f'"{live.number}"'}, more)


async def _difference(call: Call, seen: int, live: Live) -> list[dict[str, Any]]:
    if seen and not await desk.history(call.store, seen + 1, 1):
        return []
    before = await read_document(call.store, seen)
    told = await call.aside(words.changes, before, live.document, call.zone)
    return [_tell(one) for one in told[:_MOST_TOLD]]


async def _publish(call: Call, asked: Asked, live: Live, note: str) -> tuple[int, Response | None]:
    """Make what was asked for live; the number that is live then, or the refusal."""
    draft, unseen = await _look_at_images(call, asked.draft)
    if wrong := [*asked.wrong, *unseen]:
        document = drafts.apply(live.document, draft)
        return 0, _wrong([*wrong, *await call.aside(entries.problems_beside, asked, document)])
    if not draft:
        return live.number, None
    try:
        version, before = await desk.publish(
            call.store, draft, author=call.who, note=note, expected=live.number, now=time.time()
        )
    except Conflict:
        return 0, await _stale(call, live.number)
    except ConfigError as error:
        return 0, _wrong(error.problems)
    told = await call.aside(words.changes, before, version.document, call.zone)
    await call.note("publishes", f"version {version.number}", _by(call) + words.line(told, note))
    return version.number, None


def _wrong(problems: list[Problem]) -> Response:
    found = sorted(set(problems))
    detail = f"Nothing was published. {found[0]}" + (f" And {len(found) - 1} more." if len(found) > 1 else "")
    return problem_response(422, detail, more={"problems": [structs.asdict(one) for one in found]})


def _by(call: Call) -> str:
    return f"by token {call.session.label}: " if isinstance(call.session, Caller) else "by the API: "


async def _look_at_images(call: Call, draft: Draft) -> tuple[Draft, list[Problem]]:
    """The draft with the pixels of images that were uploaded before, and what is wrong with them."""
    problems: list[Problem] = []
    seen: dict[str, Creative] = {}
    for one in entries.without_pixels(draft):
        data = await read_asset(call.store, one.image)
        where = f"creative {one.id!r}"
        if data is None:
            what = f"field 'image' names {one.image!r}, which is not here; upload it by POST /api/assets"
            problems.append(Problem(where, what))
            continue
        try:
            found = await call.aside(measure_image, one, data)
        except ValueError as error:
            problems.append(Problem(where, f"field 'image': {error}"))
        else:
            if found.still:
                await hold_asset(call.store, found.still.name, found.still.data, HELD_DAYS)
            seen[one.id] = structs.replace(one, image_size=found.size, still=found.still.name if found.still else None)
    creatives = tuple(seen.get(one.id, one) for one in draft.puts.creatives)
    return structs.replace(draft, puts=structs.replace(draft.puts, creatives=creatives)), problems


# Versions


async def versions(call: Call) -> Response:
    live = await read_live(call.store, held_by(call))
    before = read_number(call.query("before") or str(live.number + 1))
    found = await desk.history(call.store, min(before, live.number + 1), _A_PAGE)
    older = found[-1].number if found and found[-1].number > 1 else None
    body = {"live": live.number, "versions": [_summary(one) for one in found], "before": older}
    return await _answer(call, body, live.number)


async def version(call: Call) -> Response:
    """One version, with its document."""
    found = await _summary_of(call)
    document = await read_document(call.store, found.number)
    whole = await call.aside(entries.write_all, document)
    return await call.aside(call.json, {**_summary(found), "catalog": whole})


async def difference(call: Call) -> Response:
    """What a version changed, or what lies between it and an older or newer one."""
    found = await _summary_of(call)
    since = read_number(call.query("since") or str(found.number - 1))
    if since and not await desk.history(call.store, since + 1, 1):
        raise Refused(404, f"There is no version {since} to compare with.")
    before, after = await read_document(call.store, since), await read_document(call.store, found.number)
    told = await call.aside(words.changes, before, after, call.zone)
    body = {"version": found.number, "since": since, "count": len(told)}
    return call.json({**body, "changes": [_tell(one) for one in told[:_MOST_TOLD]]})


async def restore(call: Call) -> Response:
    """Make an older version's document live again, as a new version."""
    found = await _summary_of(call)
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live):
        return refused
    note = _note(call.query("note")) or f"back to version {found.number}"
    try:
        made, before = await desk.restore(
            call.store, found.number, author=call.who, note=note, expected=live.number, now=time.time()
        )
    except Conflict:
        return await _stale(call, live.number)
    except ConfigError as error:
        return _wrong(error.problems)
    told = await call.aside(words.changes, before, made.document, call.zone)
    why = f"{_by(call)}back to version {found.number}"
    await call.note("undoes", f"version {made.number}", words.line(told, why))
    return await _answer(call, {"version": made.number}, made.number)


def _summary(one: Summary) -> dict[str, Any]:
    at = datetime.fromtimestamp(one.at, UTC)
    return {"number": one.number, "author": one.author, "at": at, "note": one.note, "origin": one.origin}


async def _summary_of(call: Call) -> Summary:
    number = read_number(call.request.path_params["number"])
    found = await desk.history(call.store, number + 1, 1)
    if not found or found[0].number != number:
        raise Refused(404, "There is no such version.")
    return found[0]


# Pauses


async def pauses(call: Call) -> Response:
    live = await read_live(call.store, held_by(call))
    rows = [entries.write(one) for one in live.document.pauses]
    return await _answer(call, {"version": live.number, "pauses": rows}, live.number)


async def pause(call: Call) -> Response:
    """Stop something at once, or from a later instant on. It meets nobody's changes, so it needs no version."""
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live, needed=False):
        return refused
    raw = await read_json(call)
    if not isinstance(raw, dict):
        raise Refused(400, 'The body is no object; send such as {"category": "airline", "ends": "…"}.')
    kinds = [kind for kind in pausing.TARGETS if raw.get(kind) is not None]
    if len(kinds) != 1:
        what = f"names {len(kinds)} things; expected exactly one of {', '.join(pausing.TARGETS)}"
        return _wrong([Problem("pause", what)])
    begins = datetime.fromtimestamp(int(call.now), UTC)
    whole = {"id": pausing.new_id(begins), "starts": begins.isoformat(), **raw, "by": call.who}
    given, problems = entries.read_one("pause", whole)
    where, kind = f"pause {shown(whole['id'])}", kinds[0]
    if not isinstance(given, Pause):
        return _wrong(problems)
    target = getattr(given, kind)
    if kind in PLURAL and find(live.document, PLURAL[kind], target) is None:
        return _wrong([Problem(where, f"names {kind.replace('_', ' ')} {target!r}, which does not exist")])
    if given.ends <= max(given.starts, call.now):
        return _wrong([Problem(where, "field 'ends' lies before anything would be paused")])
    if find(live.document, "pauses", given.id) is not None:
        return _wrong([Problem(where, "is there already; give another id, or none")])
    number = await pausing.publish(call, given, pausing.tell(live.document, given, call.zone))
    body = {"version": number, "pause": entries.write(given)}
    return await _answer(call, body, number, 201, {"location": f"/api/catalog/pause/{given.id}"})


async def lift(call: Call) -> Response:
    """End a pause at once."""
    live = await read_live(call.store, held_by(call))
    if refused := await _check_version(call, live, needed=False):
        return refused
    found = find(live.document, "pauses", call.request.path_params["id"])
    if found is None:
        raise Refused(404, "There is no such pause; it may have ended.")
    said = f"lifts the pause: {pausing.tell(live.document, found, call.zone)}"
    number = await pausing.publish(call, found.id, said)
    return await _answer(call, {"version": number}, number)


# Images


async def upload(call: Call) -> Response:
    """Keep an image, as the body or as a file of a form, for entries to name."""
    name, data = await _read_upload(call)
    live = await read_live(call.store, held_by(call))
    sizes = [size for slot in live.document.slots for size in slot.sizes]
    try:
        picture = await call.aside(take, data, name, sizes)
    except BadPicture as error:
        return problem_response(422, str(error), more={"problems": [{"where": "image", "what": str(error)}]})
    await hold_picture(call.store, picture)
    await call.note("uploads", picture.name, f"{_by(call)}{name}")
    fits = [_size(size) for size in picture.fits]
    body = {"image": f"assets/{picture.name}", "pixels": _size(picture.size), "fits": fits, "bytes": len(picture.data)}
    return call.json({**body, "notes": picture.notes, "kept_days": HELD_DAYS}, 201)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


async def _read_upload(call: Call) -> tuple[str, bytes]:
    """The name and the bytes of what was sent. Raises Refused."""
    media = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        form = await read_form(call.request)
        file = next((value for value in form.values() if isinstance(value, UploadFile) and value.filename), None)
        if file is None:
            raise Refused(400, "The form holds no file.")
        return file.filename or "", await file.read()
    if media not in _NAMES:
        raise Refused(
            415, f"Send the image as the body, with its own type ({', '.join(_NAMES)}), or a form with a file."
        )
    body = bytearray()
    async for part in call.request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise Refused(413, f"The body is larger than {MOST_BODY_BYTES:,} bytes.")
    return call.query("name") or _NAMES[media], bytes(body)


# The audit log


async def audit_log(call: Call) -> Response:
    """Who did what, newest first."""
    found = await audit.read(
        call.store, _A_PAGE, call.query("before") or None, who=call.query("who") or None,
        subject=call.query("subject") or None,
    )  # fmt: skip
    rows = [
        {"position": one.position, **structs.asdict(one.entry), "at": datetime.fromtimestamp(one.entry.at, UTC)}
        for one in found.entries
    ]
    return await call.aside(call.json, {"entries": rows, "before": found.before})
