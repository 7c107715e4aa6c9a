"""What the console does to the store: drafts kept, versions published and brought back, by the same functions as files.

A draft belongs to one person and lies in one hash under their name; it is replaced only if it still is the one that was
read, so that two windows of one person lose nothing. Nothing is live before `publish`, which checks the whole document
as `adserver check` does and swaps the live number only if it still is the one the caller has seen.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct, structs

from adserver import versions
from adserver.checks import check
from adserver.console import audit, words
from adserver.console.drafts import Clash, Draft, apply, clashes, entries, settle
from adserver.console.people import DRAFTS
from adserver.console.pictures import Picture
from adserver.documents import Document, Known
from adserver.errors import ConfigError, Conflict, Problem, StoreRefused
from adserver.pauses import take_pauses
from adserver.store import Store
from adserver.versions import Summary, Version

HELD_DAYS = 30
"""How long an uploaded image is kept that nobody publishes."""
_DRAFT = msgspec.json.Decoder(Draft)
_TABLE_OF = {
    "slots": "slot",
    "groups": "group",
    "placements": "placement",
    "advertisers": "advertiser",
    "campaigns": "campaign",
    "creatives": "creative",
    "line_items": "line_item",
    "pauses": "pause",
}


# KEYS: the drafts, and the audit log. ARGV: the person, the seal of the draft that was read, the new one, or nothing;
# then the log's entry, or nothing.
_WRITE = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if (held and redis.sha1hex(held) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
if #ARGV > 3 then redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4)) end
return 1
"""


class DraftMoved(Conflict):
    """The person's draft is not the one that was read any more: another window of theirs has changed it."""

    def __init__(self) -> None:
        super().__init__("your draft is being changed in another window; do it again")


class Overtaken(Conflict):
    """An entry is not what a form was made from any more: another window of the same person has changed it.

    *turns* are what the form would make of it, None where it would remove it, and *gone* is whether it was removed
    meanwhile. Sent with *since* the form is made from what is there now; *fields* are what else it sends, where that
    is not what came.
    """

    def __init__(
        self,
        called: str,
        turns: tuple[words.Turn, ...] | None,
        since: str,
        *,
        gone: bool = False,
        fields: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(f"another window of yours has changed the {called}")
        self.called = called
        self.turns = turns
        self.since = since
        self.gone = gone
        self.fields = fields


class Clashing(Conflict):
    """Somebody else has changed the same entries since the draft was begun."""

    def __init__(self, number: int, found: list[Clash]) -> None:
        super().__init__(f"version {number} changed {len(found)} of the same entries; say which shall stay")
        self.number = number
        self.found = found


class Live(Struct, frozen=True):
    """The version that is live."""

    number: int
    document: Document


async def read_live(store: Store, held: Live | None = None) -> Live:
    """What is live now; *held* is what a worker has in memory, and is taken where it still is that."""
    number = await versions.live_number(store)
    return held if held and held.number == number else Live(number, await read_document(store, number))


async def read_document(store: Store, number: int) -> Document:
    """The document of a version; an empty one of version 0. Raises StoreRefused when the store does not have it."""
    if number == 0:
        return Document()
    data = await versions.read_raw(store, number)
    if data is None:
        raise StoreRefused(f"version {number} is not in the store")
    return (await asyncio.to_thread(versions.decode, data)).document


class Kept(Struct, frozen=True):
    """A draft as the store has it. *seal* is another one whenever the draft is; that of an empty draft is empty."""

    draft: Draft
    seal: str


async def read_kept(store: Store, person: str, live: int) -> Kept:
    """What *person* has not published; an empty draft on top of version *live* when there is nothing."""
    data: bytes | None = await store.ask("HGET", DRAFTS, person)
    if data is None:
        return Kept(Draft(live), "")
    try:
        return Kept(_DRAFT.decode(data), hashlib.sha1(data, usedforsecurity=False).hexdigest())
    except msgspec.DecodeError as error:
        raise StoreRefused(f"{DRAFTS} holds a draft this service cannot read: {error}") from None


async def read_draft(store: Store, person: str, live: int) -> Draft:
    """The draft alone."""
    return (await read_kept(store, person, live)).draft


async def write_draft(store: Store, person: str, draft: Draft, seal: str, entry: audit.Entry | None = None) -> None:
    """Keep *draft* in place of the one with that *seal*, or forget it when it changes nothing. Raises DraftMoved.

    *entry* is put into the audit log in the same step.
    """
    data = await asyncio.to_thread(msgspec.json.encode, draft) if draft else b""
    noted = audit.fields(entry) if entry else []
    if not await store.ask("EVAL", _WRITE, 2, DRAFTS, audit.LOG, person, seal, data, *noted):
        raise DraftMoved


async def take_published(store: Store, person: str, version: Version) -> None:
    """Leave of the draft of *person* what *version* does not have: what another window saved meanwhile."""
    while True:
        kept = await read_kept(store, person, version.number)
        left = settle(kept.draft, version.document, version.number, kept.draft.places)
        with suppress(DraftMoved):
            return await write_draft(store, person, left, kept.seal)


def problems_of(document: Document) -> list[Problem]:
    """Everything `adserver check` would say of *document*."""
    places = {(_TABLE_OF[table], one.id): "" for table in _TABLE_OF for one in entries(document, table)}
    found = [structs.replace(one, where=one.where.removeprefix(": ")) for one in check(document, Known(places))]
    return sorted(set(found))


async def publish(
    store: Store, draft: Draft, *, author: str, note: str, expected: int, now: float
) -> tuple[Version, Document]:
    """Put *draft* on top of version *expected* and make it live; the new version, and the document before it.

    Raises Conflict when another version is live by now, Clashing when that one changed the same entries, ConfigError
    with every problem the document would have. Nothing has changed then.
    """
    live = await read_live(store)
    if live.number != expected:
        raise Conflict(f"version {live.number} is live by now, not {expected}")
    if found := clashes(draft, live.document):
        raise Clashing(live.number, found)
    document = apply(live.document, draft)
    version = await _publish(store, document, live, author=author, note=note, now=now)
    return version, live.document


async def restore(
    store: Store, number: int, *, author: str, note: str, expected: int, now: float
) -> tuple[Version, Document]:
    """Make the document of version *number* live again; pauses of what it has stay as they are.

    Raises Conflict, StoreRefused, and ConfigError when an image it shows is lost.
    """
    live = await read_live(store)
    if live.number != expected:
        raise Conflict(f"version {live.number} is live by now, not {expected}")
    document = take_pauses(await read_document(store, number), live.document.pauses)
    version = await _publish(store, document, live, author=author, note=note, now=now)
    return version, live.document


async def _publish(store: Store, document: Document, live: Live, *, author: str, note: str, now: float) -> Version:
    if found := await asyncio.to_thread(problems_of, document):
        raise ConfigError(found)
    shown = {name for one in live.document.creatives for name in one.files}
    new = {name for one in document.creatives for name in one.files} - shown
    assets = await _find_assets(store, document, new)
    version = Version(number=live.number + 1, author=author, at=now, note=note, document=document, origin="console")
    await versions.publish(store, version, assets, live.number)
    return version


async def hold_picture(store: Store, picture: Picture) -> None:
    """Keep an upload that no version shows yet, and its still."""
    await versions.hold_asset(store, picture.name, picture.data, HELD_DAYS)
    if picture.still:
        await versions.hold_asset(store, picture.still.name, picture.still.data, HELD_DAYS)


async def _find_assets(store: Store, document: Document, names: Iterable[str]) -> dict[str, bytes]:
    found = {}
    for name in sorted(names):
        data = await versions.read_asset(store, name)
        if data is None:
            ids = [one.id for one in document.creatives if name in one.files]
            raise ConfigError(
                [Problem(f"creative {ids[0]!r}", "its image is not in the store any more; upload it anew")]
            )
        found[name] = data
    return found


async def history(store: Store, before: int, n: int) -> list[Summary]:
    """Up to *n* versions, newest first, from the one before number *before* on."""
    return await versions.read_summaries(store, range(before - 1, max(0, before - 1 - n), -1))
