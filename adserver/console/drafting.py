"""Draft, preview, publish, history and undo: the pages between a change and the readers who see it."""

import asyncio
import os
import re
import sys
import time
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from starlette.responses import Response

from adserver import repair
from adserver.articles import prepare, slots_asked
from adserver.console import complaints, drafts, words
from adserver.console import desk as desks
from adserver.console.booking import parse_local
from adserver.console.bookings import Desk, held_by, keep, read_desk
from adserver.console.desk import Clashing, problems_of, read_document, take_published
from adserver.console.framing import headers_of
from adserver.console.web import Call, Refused
from adserver.context import MOST_IDS, Query
from adserver.errors import ConfigError, Conflict
from adserver.fields import read_digits
from adserver.model import DEVICES
from adserver.pacer import read_pace
from adserver.pacing import Pace
from adserver.pauses import take_pauses
from adserver.previews import Moment, narrow
from adserver.readers import REFUSALS
from adserver.site import sample_text
from adserver.targeting import know
from adserver.versions import live_number, read_version_at

_A_PAGE = 25
_MOST_TOLD = 200
_FORECAST_S = 60.0
_MOVED = "Your draft is not as this page showed it: another window of yours has changed it."


async def draft(call: Call) -> Response:
    """What has changed, and what publishing would say."""
    desk = await read_desk(call)
    found = await call.aside(words.changes, desk.live, desk.document, call.zone)
    problems = await call.aside(problems_of, desk.document) if desk.draft else []
    names = complaints.names_of(desk.document) if problems else {}
    theirs = []
    if desk.draft and desk.draft.base != desk.number:
        before = await read_document(call.store, desk.draft.base)
        theirs = await call.aside(words.changes, before, desk.live, call.zone)
    return await call.page(
        "draft.html",
        desk=desk,
        changes=found[:_MOST_TOLD],
        more=max(0, len(found) - _MOST_TOLD),
        problems=[complaints.tell(one, names) for one in problems[:_MOST_TOLD]],
        clashes=[_tell(clash, call.zone) for clash in drafts.clashes(desk.draft, desk.live)],
        theirs=theirs[:_MOST_TOLD],
        authors=await desks.history(call.store, desk.number + 1, max(0, desk.number - desk.draft.base)),
        said=call.told("said"),
        wrong=call.told("wrong"),
    )


class Told(Struct, frozen=True):
    """A clash in words: what each of the two made of the entry."""

    place: str
    noun: str
    name: str
    mine: tuple[words.Turn, ...] | None
    theirs: tuple[words.Turn, ...] | None


def _tell(clash: drafts.Clash, zone: str) -> Told:
    known = clash.mine or clash.theirs or clash.before
    mine, theirs = (
        None if entry is None else words.turns(clash.before, entry, zone) for entry in (clash.mine, clash.theirs)
    )
    name = words.name_of(clash.table, known)
    return Told(f"{clash.table}/{clash.id}", drafts.TABLES[clash.table], name, mine, theirs)


async def settle(call: Call) -> Response:
    """Put the draft on top of what is live now; of what both changed, keep what was chosen."""
    desk = await read_desk(call)
    if read_number(call.text("since")) != desk.number:
        return call.go("/console/draft", wrong="Somebody has published meanwhile. Look at what both changed once more.")
    if call.text("draft") != desk.seal:
        return call.go("/console/draft", wrong=f"{_MOVED} Look at what both changed once more.")
    mine = []
    for clash in drafts.clashes(desk.draft, desk.live):
        chosen = call.text(f"{clash.table}/{clash.id}")
        if chosen not in ("mine", "theirs"):
            return call.go("/console/draft", wrong="Choose for each entry whose change shall stay.")
        if chosen == "mine":
            mine.append((clash.table, clash.id))
    await keep(call, desk, drafts.settle(desk.draft, desk.live, desk.number, mine), "settles")
    return call.go("/console/draft", said=f"Your draft is on top of version {desk.number} now.")


async def drop(call: Call) -> Response:
    """Forget one change, or all of them."""
    desk = await read_desk(call)
    if call.text("draft") != desk.seal:
        return call.go("/console/draft", wrong=f"{_MOVED} Nothing was thrown away; this is what it is now.")
    place = call.text("place")
    if place:
        table, _, text = place.partition("/")
        id_: str | int = (read_digits(text) or text) if table == "slots" else text
        if table not in drafts.TABLES:
            raise Refused(400, "There is no such change.")
        await keep(call, desk, drafts.forget(desk.draft, [(table, id_)]), "takes back")
        return call.go("/console/draft", said="That change is forgotten.")
    await keep(call, desk, drafts.Draft(desk.number), "takes back")
    return call.go("/console/draft", said="Your draft is empty again.")


async def publish(call: Call) -> Response:
    """Make the draft live, if what is live is what the person has seen."""
    desk = await read_desk(call)
    if not desk.draft:
        return call.go("/console/draft", wrong="There is nothing to publish.")
    expected = read_number(call.text("version"))
    if call.text("draft") != desk.seal:
        return call.go("/console/draft", wrong=f"{_MOVED} Look at the difference below, then publish.")
    note_ = call.text("note")[:500]
    try:
        version, before = await desks.publish(
            call.store, desk.draft, author=call.who, note=note_, expected=expected, now=time.time()
        )
    except Clashing as error:
        who = await desks.history(call.store, error.number + 1, 1)
        name = who[0].author if who else "somebody"
        return call.go("/console/draft", wrong=f"{name} has published meanwhile and changed the same. Nothing is lost: "
                       "look at both below.")  # fmt: skip
    except Conflict:
        number = await live_number(call.store)
        who = await desks.history(call.store, number + 1, 1)
        name = who[0].author if who else "somebody"
        return call.go("/console/draft", wrong=f"{name} has published version {number} meanwhile. Nothing is lost: "
                       "look at the difference below, then publish again.")  # fmt: skip
    except ConfigError as error:
        return call.go("/console/draft", wrong=f"It cannot be published. {_say(error, desk)}")
    await take_published(call.store, call.who, version)
    told = await call.aside(words.changes, before, version.document, call.zone)
    await call.note("publishes", f"version {version.number}", words.line(told, note_))
    return call.go(
        "/console/history", said=f"Version {version.number} is live. Every page shows it within two seconds."
    )


def _say(error: ConfigError, desk: Desk) -> str:
    """The first of a document's problems, in words."""
    told = complaints.tell(error.problems[0], complaints.names_of(desk.document))
    return f"{told.where}: {told.what}."


def _number_of(call: Call) -> int:
    """The version a page is of. Raises Refused."""
    found = read_digits(call.request.path_params["number"])
    if found is None:
        raise Refused(404, "There is no such version.")
    return found


def read_number(text: str) -> int:
    """A version's number. Raises Refused."""
    found = read_digits(text)
    if found is None:
        raise Refused(400, "Say which version you have seen: the number is missing.")
    return found


async def forecast(call: Call) -> Response:
    """What the draft does to the others: asked in a process of its own, so that ads go on meanwhile."""
    desk = await read_desk(call)
    found, sentence = None, ""
    if await call.aside(problems_of, desk.document):
        sentence = "The forecast can be made once the problems are mended."
    elif not any(one.goal for one in (*desk.live.line_items, *desk.document.line_items)):
        sentence = "No booking has a number to reach, so none can fall short."
    else:
        found, sentence = await _foretell(call)
    names = {one.id: one.name for one in (*desk.live.line_items, *desk.document.line_items)}
    return await call.page("forecast.html", found=found, sentence=sentence, names=names)


_foretelling = asyncio.Lock()


async def _foretell(call: Call) -> tuple[Any, str]:
    """The forecast's answer as JSON gives it, or None and why there is none."""
    command = [sys.executable, "-m", "adserver", "forecast", "--draft", call.who, "--json"]
    environment = {**os.environ, **call.tools.settings.environment()}
    pipe = asyncio.subprocess.PIPE
    async with _foretelling:
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
        try:
            out, error = await asyncio.wait_for(process.communicate(), _FORECAST_S)
        except TimeoutError:
            return None, f"The forecast took longer than {_FORECAST_S:.0f} seconds and was given up."
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        lines = error.decode(errors="replace").strip().splitlines() or ["it failed"]
        return None, f"There is no forecast: {lines[-1].removeprefix('adserver: ')}"
    return msgspec.json.decode(out), ""


# Preview


async def preview(call: Call) -> Response:
    """The site's sample article with the draft on it, at any instant and under any address."""
    at = call.query("at") or datetime.fromtimestamp(call.now, ZoneInfo(call.zone)).strftime("%Y-%m-%dT%H:%M")
    wanted = {name: call.query(name) for name in ("section", "tag", "url", "device")}
    wrong = ""
    try:
        parse_local(at, call.zone)
    except ValueError as error:
        wrong = f"The instant {error}."
    desk = await read_desk(call)
    query = urlencode({"at": at, **{name: value for name, value in wanted.items() if value}})
    return await call.page(
        "preview.html", at=at, wanted=wanted, wrong=wrong, query=query, drafted=bool(desk.draft), jumps=_jumps(call)
    )


def _jumps(call: Call) -> list[tuple[str, str]]:
    """Instants people ask for: now, and the next seven mornings at nine."""
    now = datetime.fromtimestamp(call.now, ZoneInfo(call.zone))
    found = [("Now", now)]
    for days in range(1, 8):
        day = (now + timedelta(days=days)).replace(hour=9, minute=0)
        found.append((day.strftime("%A 09:00"), day))
    return [(name, at.strftime("%Y-%m-%dT%H:%M")) for name, at in found]


async def preview_page(call: Call) -> Response:
    """The article in the preview's frame: decided as on the site, marked PREVIEW, counted never."""
    try:
        at = parse_local(call.query("at"), call.zone).timestamp()
    except ValueError as error:
        raise Refused(400, f"The instant {error}.") from None
    if abs(at - call.now) > 400 * 86_400:
        raise Refused(400, "That instant is more than 400 days away.")
    desk = await read_desk(call)
    document = desk.document
    if at < call.now - 60 and (old := await read_version_at(call.store, at)):
        document = old.document
    article = prepare(repair.read(_NOT_HERE.sub("", sample_text("page.html")), MOST_IDS))
    try:
        catalog = await call.aside(narrow, document, desk.number, slots_asked(article, document))
    except KeyError:  # a booking, or what it shows, names an entry that is not there
        said = await call.aside(call.render, "framed.html", {"html": f"<p>{_BROKEN}</p>", "dark": False})
        headers = headers_of(said, call.headers(), call.tools.settings.base_url)
        return Response(said, 409, headers, media_type="text/html")
    pace = call.tools.answering.pacer.planner.pace if abs(at - call.now) <= 60 else Pace()
    if abs(at - call.now) > 60:
        pacer = call.tools.answering.pacer
        pace = await read_pace(call.store, catalog, call.now, at, pacer.known, pacer.book)
    device = call.query("device")
    context = know(section=call.query("section").lower(), tags=[call.query("tag").lower()], url=call.query("url"),
                   device=device if device in DEVICES else "", lang="en")  # fmt: skip
    moment = Moment(catalog, at, pace)
    query = Query(context=context, reader="preview", consent=True)  # whatever the staff's own browser refuses
    scope = {**call.request.scope, "headers": [one for one in call.request.scope["headers"] if one[0] not in REFUSALS]}
    body = await call.tools.articles.preview(moment, article, query, scope)
    headers = headers_of(body.decode(), call.headers(), call.tools.settings.base_url)
    headers[moment.header[0].decode()] = moment.header[1].decode()
    return Response(body, headers=headers, media_type="text/html")


_BROKEN = "Something in your draft names what is not there any more; the page of your draft says what. Mend that first."
_NOT_HERE = re.compile(r'<script\b[^>]*></script>|<p class="sample-note">.*?</p>', re.DOTALL)
"""Of the sample page: its script, and what it says of its counts, which a preview has none of."""


# History


async def history(call: Call) -> Response:
    live = await live_number(call.store)
    before = read_number(call.query("before") or str(live + 1))
    found = await desks.history(call.store, min(before, live + 1), _A_PAGE)
    return await call.page("history.html", versions=found, live=live, said=call.told("said"))


async def version(call: Call) -> Response:
    """One version: who, when, why, and what it changed; and what going back to it would change."""
    return await _show_version(call, _number_of(call))


async def _show_version(
    call: Call, number: int, status: int = 200, *, seen: int | None = None, note: str = "", wrong: str = ""
) -> Response:
    """*seen* is the version that was live when the page was made that asked to go back; None: nothing was asked."""
    found = await desks.history(call.store, number + 1, 1)
    if not found or found[0].number != number:
        raise Refused(404, "There is no such version.")
    live = await desks.read_live(call.store, held_by(call))
    document = live.document if number == live.number else await read_document(call.store, number)
    before = await read_document(call.store, number - 1)
    back = take_pauses(document, live.document.pauses)
    theirs: list[words.Change] = []
    if seen is not None and 0 < seen < live.number:
        then = await read_document(call.store, seen)
        theirs = await call.aside(words.changes, then, live.document, call.zone)
    return await call.page(
        "version.html",
        status,
        version=found[0],
        live=live.number,
        changes=(await call.aside(words.changes, before, document, call.zone))[:_MOST_TOLD],
        back=(await call.aside(words.changes, live.document, back, call.zone))[:_MOST_TOLD],
        theirs=theirs[:_MOST_TOLD],
        authors=await desks.history(call.store, live.number + 1, live.number - seen) if theirs and seen else [],
        note=note,
        wrong=wrong,
    )


async def restore(call: Call) -> Response:
    """Undo: make an older version's document live again, as a new version."""
    number = _number_of(call)
    expected = read_number(call.text("version"))
    typed = call.text("note")[:500]
    note_ = typed or f"back to version {number}"
    try:
        made, before = await desks.restore(
            call.store, number, author=call.who, note=note_, expected=expected, now=time.time()
        )
    except ConfigError as error:
        wrong = f"Version {number} cannot come back: {error.problems[0]}"
        return await _show_version(call, number, 409, note=typed, wrong=wrong)
    except Conflict:
        latest = (await desks.history(call.store, await live_number(call.store) + 1, 1))[0]
        wrong = (
            f"{latest.author} has published version {latest.number} meanwhile, so nothing was undone. What that "
            "changed is below, and the difference is to it by now: look, then undo again."
        )
        return await _show_version(call, number, 409, seen=expected, note=typed, wrong=wrong)
    told = await call.aside(words.changes, before, made.document, call.zone)
    why = f"back to version {number}"
    await call.note("undoes", f"version {made.number}", words.line(told, f"{why}, {typed}" if typed else why))
    return call.go(
        "/console/history", said=f"Version {made.number} is live: everything is as it was in version {number}."
    )
