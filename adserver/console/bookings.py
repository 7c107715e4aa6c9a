"""The pages of bookings: the list, one short form to book or change, and what is said of a field as it is left."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from adserver import repair
from adserver.articles import prepare, slots_in_turn
from adserver.catalog import is_live, last_instant
from adserver.console import drafts, words
from adserver.console.booking import NEW, Booked, blank, parse, with_image
from adserver.console.desk import Live, Overtaken, read_document, read_kept, read_live, write_draft
from adserver.console.drafts import Draft, find
from adserver.console.pictures import Kept
from adserver.console.uploads import read_upload, sizes_of
from adserver.console.web import Call, Refused, read_seen
from adserver.context import MOST_IDS
from adserver.documents import Document
from adserver.errors import BadPicture, StoreRefused
from adserver.fields import read_digits
from adserver.model import Creative, LineItem, Priority
from adserver.site import sample_text

_A_PAGE = 50
_HIGH, _NARROW = 500, 320
"""Pixels: what is as high and no wider is made for the rail beside the text."""
_FINER = {"campaign", "new_campaign", "priority", "weight", "hours", "frequency", "page", "rotation", "pacing",
          "on_shortfall", "target_any", "target_all", "target_none", "target_prefer"}  # fmt: skip
_LABELS = {
    "advertiser": "Advertiser", "new_advertiser": "Name of the new advertiser", "new_categories": "What they sell",
    "name": "What it is called", "slots": "Where", "starts": "From", "ends": "Until", "goal_n": "How many",
    "goal_of": "Of what", "share": "Per cent", "creatives": "What is shown", "image": "A new image",
    "alt": "What the image shows, in words", "click_url": "Where a click leads", "weight": "Weight",
    "hours": "Only at these hours", "frequency": "At most so often for one reader", "page": "On one page",
    "pacing": "Spread", "on_shortfall": "If the number is missed", "rotation": "Several creatives",
    "campaign": "Campaign", "new_campaign": "A new campaign", "priority": "Priority",
    "target_any": "Only on pages with any of these", "target_all": "Only on pages with all of these",
    "target_none": "Never on pages with any of these", "target_prefer": "Rather on pages with any of these",
}  # fmt: skip
"""What the form calls its inputs."""
STATES = ("all", "live", "coming", "ended", "draft", "paused")


class Listed(Struct, frozen=True):
    """A line item in the list. *paused* is until when; None where no pause holds it back now."""

    line_item: LineItem
    advertiser: str
    state: str
    drafted: bool
    paused: float | None


class Desk(Struct, frozen=True):
    """What one person works on: what is live, their draft with its seal, and the two together."""

    number: int
    live: Document
    draft: Draft
    seal: str
    document: Document


async def read_desk(call: Call) -> Desk:
    live = await read_live(call.store, held_by(call))
    kept = await read_kept(call.store, call.who, live.number)
    document = await call.aside(drafts.apply, live.document, kept.draft)
    # Another worker may have published it this very moment, and this one not have it yet.
    call.since = f"{live.number}-{drafts.seal(_named(call, document))}"
    return Desk(live.number, live.document, kept.draft, kept.seal, document)


_TABLES = {"line-items": "line_items", "creatives": "creatives", "advertisers": "advertisers", "slots": "slots"}


def _named(call: Call, document: Document) -> Any:
    """The entry that the address is of; None for a page of none, and where it is not there."""
    kind, id_ = call.request.url.path.split("/")[2:][:1], call.request.path_params.get("id")
    table = _TABLES.get(kind[0]) if kind else None
    if table is None or id_ is None:
        return None
    return find(document, table, (read_digits(id_) or 0) if table == "slots" else id_)


async def keep(call: Call, desk: Desk, draft: Draft, what: str = "drafts") -> None:
    """Make *draft* the person's, and note what that changes. Raises DraftMoved where it is made from an older one than
    they have by now.
    """
    document = await call.aside(drafts.apply, desk.live, draft)
    told = await call.aside(words.changes, desk.document, document, call.zone)
    subject = told[0].name if len(told) == 1 else f"{len(told)} entries"
    entry = call.entry(what, subject, words.line(told)) if told else None
    await write_draft(call.store, call.who, draft, desk.seal, entry)


def held_by(call: Call) -> Live | None:
    """What this worker holds of the live version: reading a large one anew takes longer than most pages."""
    held = call.tools.live
    return Live(held.current.version, held.current.document) if held.confirmed else None


def state_of(line_item: LineItem, now: float) -> str:
    if is_live(line_item, now):
        return "live"
    ends = last_instant(line_item)
    return "ended" if ends is not None and ends <= now else "coming"


async def listing(call: Call) -> Response:
    desk = await read_desk(call)
    text, state = call.query("q").lower(), call.query("state", "all")
    owners = {one.id: one.advertiser for one in desk.document.campaigns}
    names = {one.id: one.name for one in desk.document.advertisers}
    drafted = {id_ for table, id_ in desk.draft.places if table == "line_items"}
    found = []
    for one in desk.document.line_items:
        advertiser = names.get(owners.get(one.campaign, ""), "")
        if text and text not in f"{one.name} {one.id} {advertiser} {' '.join(map(str, one.slots))}".lower():
            continue
        is_now, paused = state_of(one, call.now), call.paused(one.id)
        others = {"draft": one.id in drafted, "paused": paused is not None}
        if state in ("all", is_now) or others.get(state):
            found.append(Listed(one, advertiser, is_now, one.id in drafted, paused))
    found.sort(key=lambda one: (_ORDER[one.state], one.line_item.ends or math.inf, one.line_item.name))
    number, last = page_of(call, len(found))
    return await call.page(
        "line_items.html",
        rows=found[(number - 1) * _A_PAGE : number * _A_PAGE],
        count=len(found),
        number=number,
        last=last,
        q=call.query("q"),
        state=state,
        states=STATES,
    )


_ORDER = {"live": 0, "coming": 1, "ended": 2}


def page_of(call: Call, n: int, a_page: int = _A_PAGE) -> tuple[int, int]:
    """Which page of *n* entries is asked for, and which is the last."""
    last = max(1, math.ceil(n / a_page))
    return min(last, max(1, read_digits(call.query("page")) or 1)), last


async def form(call: Call) -> Response:
    """An empty form, or that of a line item."""
    desk = await read_desk(call)
    line_item = _find(call, desk)
    fields: Mapping[str, Sequence[str]] = blank(line_item, call.zone, desk.document)
    if line_item is None:
        fields = {**fields, **{name: [value] for name, value in call.request.query_params.items() if name != "csrf"}}
    return await _show(call, desk, line_item, fields, {})


async def check(call: Call) -> Response:
    """What is wrong with the fields so far, by input, for the form's script; and what became of an image it sent."""
    looked = await _look(call, await read_desk(call))
    kept = looked.picture
    notes = kept.notes if kept else ()
    return call.json({"wrong": looked.wrong, "picture": kept.name if kept else "", "notes": notes})


async def choices(call: Call) -> Response:
    """The creatives of an advertiser, to choose from, for the form's script."""
    desk = await read_desk(call)
    found = _creatives_for(desk.document, call.query("advertiser"))
    return await call.page("choices.html", creatives=found, chosen=set())


class Looked(Struct, frozen=True):
    """A form that was read: as it came, what it asks for, its image, and everything that is wrong by input."""

    line_item: LineItem | None
    fields: Mapping[str, Sequence[str]]
    booked: Booked
    picture: Kept | None
    creative: Creative | None
    wrong: Mapping[str, str]


async def _look(call: Call, desk: Desk) -> Looked:
    before, fields = await _find_seen(call, desk), _fields(call)
    refused, picture = {}, None
    try:
        picture = await read_upload(call, sizes_of(desk.document))
    except BadPicture as error:
        refused["image"] = str(error)
    drawn = with_image(fields, desk.document, picture)
    booked = parse(drawn.fields, drawn.document, call.zone, before, call.now)
    wrong = {**booked.wrong, **drawn.wrong, **refused}
    if refused and not fields.get("creatives"):
        wrong.pop("creatives", None)  # an image was chosen
    return Looked(before, fields, booked, picture, drawn.creative, wrong)


async def save(call: Call) -> Response:
    """Put the booking into the draft; with a problem, show the form again with everything that was typed."""
    desk = await read_desk(call)
    looked = await _look(call, desk)
    booked, draft, picture = looked.booked, desk.draft, looked.picture
    if looked.wrong or booked.line_item is None:
        return await _show(call, desk, looked.line_item, looked.fields, looked.wrong, status=422, picture=picture)
    new = (("advertisers", booked.advertiser), ("campaigns", booked.campaign), ("creatives", looked.creative))
    for table, entry in new:
        if entry is not None:
            draft = drafts.put(draft, desk.live, table, entry)
    try:
        draft = await put_seen(call, desk, draft, "line_items", booked.line_item)
    except Overtaken as error:
        error.fields = dict(looked.fields)
        if picture:  # the image that was uploaded is not lost
            error.fields |= {"picture": [picture.name], "picture_notes": ["\n".join(picture.notes)]}
        raise
    await keep(call, desk, draft)
    advice = f" Of its image: {' '.join(picture.notes)}" if picture and picture.notes else ""
    return call.go("/console/draft", said=f"{booked.line_item.name} is in your draft.{advice}")


async def put_seen(call: Call, desk: Desk, draft: Draft, table: str, entry: Any) -> Draft:
    """The draft with *entry*, as a change of what its form was made from (the field `since`, see `read_seen`).

    Raises Overtaken where the person themself has changed it since, and Refused where the store does not have that
    version any more.
    """
    return await _since(call, desk, drafts.put(draft, desk.live, table, entry), table, entry.id, entry)


async def _since(call: Call, desk: Desk, draft: Draft, table: str, id_: str | int, mine: Any) -> Draft:
    """*draft*, which makes *mine* of an entry, as a change of what the form was made from."""
    seen = read_seen(call.text("since"))
    assert seen is not None
    number, seal = seen
    now = find(desk.document, table, id_)
    if seal is None:
        seal = drafts.seal(find(await _read_then(call, desk, number), table, id_))
    if drafts.seal(now) == seal or (mine is not None and now == mine):
        return draft
    was = None
    if (table, id_) not in desk.draft.places and number != desk.number:
        was = find(await _read_then(call, desk, number), table, id_)
    if was is None:
        name = words.name_of(table, mine or now)
        turns = None if mine is None else words.turns(now, mine, call.zone)
        made_from = f"{desk.number}-{drafts.seal(now)}"
        raise Overtaken(f"{drafts.TABLES[table]} {name}", turns, made_from, gone=now is None)
    return drafts.since(draft, table, {id_: was})


async def _read_then(call: Call, desk: Desk, number: int) -> Document:
    """What was live when a form was made. Raises Refused."""
    if number == desk.number:
        return desk.live
    try:
        return await read_document(call.store, number)
    except StoreRefused:
        raise Refused(409, "This form is of a version that is gone; load the page again and repeat it.") from None


async def find_seen(call: Call, desk: Desk, table: str, id_: str | int) -> Any:
    """The entry that a form changes; as it was when the form was made where it is gone since. None: it never was."""
    found = find(desk.document, table, id_) or find(desk.live, table, id_)
    seen = read_seen(call.text("since"))
    if found is None and seen is not None:
        found = find(await _read_then(call, desk, seen[0]), table, id_)
    return found


async def remove(call: Call) -> Response:
    desk = await read_desk(call)
    line_item = _find(call, desk)
    if line_item is None:
        raise Refused(404, "There is no such booking.")
    draft = drafts.remove(desk.draft, desk.live, "line_items", line_item.id)
    await keep(call, desk, await _since(call, desk, draft, "line_items", line_item.id, None))
    return call.go("/console/draft", said=f"{line_item.name} is removed in your draft.")


def _find(call: Call, desk: Desk) -> LineItem | None:
    id_ = call.request.path_params.get("id")
    if id_ is None:
        return None
    line_item: LineItem | None = find(desk.document, "line_items", id_)
    if line_item is None:
        raise Refused(404, "There is no such booking.")
    return line_item


async def _find_seen(call: Call, desk: Desk) -> LineItem | None:
    """The same for a form that was sent: one that is removed since is not lost with what was typed."""
    id_ = call.request.path_params.get("id")
    if id_ is None:
        return None
    line_item: LineItem | None = await find_seen(call, desk, "line_items", id_)
    if line_item is None:
        raise Refused(404, "There is no such booking.")
    return line_item


def _fields(call: Call) -> dict[str, list[str]]:
    return {name: call.texts(name) for name in call.form if name != "csrf"}


async def _show(
    call: Call,
    desk: Desk,
    line_item: LineItem | None,
    fields: Mapping[str, Sequence[str]],
    wrong: Mapping[str, str],
    status: int = 200,
    picture: Kept | None = None,
) -> Response:
    document = desk.document
    owners = {one.id: one.name for one in document.advertisers}

    def one(name: str, default: str = "") -> str:
        return next(iter(fields.get(name) or ()), default)

    order = [*_LABELS]  # in which the form has its inputs
    told = sorted(wrong, key=lambda name: order.index(name) if name in order else len(order))
    return await call.page(
        "booking.html",
        status,
        line_item=line_item,
        one=one,
        many=lambda name: set(fields.get(name) or ()),
        wrong={name: wrong[name] for name in told},
        advertisers=sorted(owners.items(), key=lambda pair: pair[1].lower()),
        campaign_options=[(each.id, each.name) for each in document.campaigns if each.advertiser == one("advertiser")],
        creatives=_creatives_for(document, one("advertiser"), fields.get("creatives") or ()),
        slots=document.slots,
        boxes=_boxes(document),
        priorities=[each for each in Priority if each is not Priority.SPONSORSHIP],
        new=NEW,
        labels=_LABELS,
        picture=picture,
        finer_wrong=bool(_FINER & wrong.keys()),
        drafted=bool(desk.draft),
        paused=call.paused(line_item.id) if line_item else None,
    )


def _creatives_for(document: Document, advertiser: str, chosen: Sequence[str] = ()) -> list[Any]:
    """The advertiser's creatives, first those that are chosen, in their order."""
    found = {one.id: one for one in document.creatives if one.advertiser == advertiser}
    first = [found.pop(name) for name in dict.fromkeys(chosen) if name in found]
    return first + list(found.values())


class Box(Struct, frozen=True):
    """A slot in the outline of a page 100 wide and 70 high."""

    x: float
    y: float
    width: float
    height: float


def _boxes(document: Document) -> dict[int, Box]:
    """The slots of the site's sample article where they come in it, from top to bottom and as wide as they are; high
    ones that are narrow stand in the rail. The others are drawn at the end of the page.
    """
    article = prepare(repair.read(sample_text("page.html"), MOST_IDS))
    turns = {slot: turn for turn, slot in enumerate(slots_in_turn(article, document))}
    found: dict[int, Box] = {}
    for slot in document.slots:
        width, height = min(96.0, slot.sizes[0][0] / 10.2), max(3.0, min(60.0, slot.sizes[0][1] / 10.2))
        down = turns[slot.id] / max(1, len(turns) - 1) if slot.id in turns else 1.0
        in_rail = slot.sizes[0][1] >= _HIGH and slot.sizes[0][0] <= _NARROW
        x = 97 - width if in_rail else 3 + max(0.0, 62 - width) / 2
        found[slot.id] = Box(round(x, 1), round(6 + down * (61 - height), 1), round(width, 1), round(height, 1))
    return found
