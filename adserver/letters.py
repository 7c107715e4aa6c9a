"""Newsletters and feeds: `/e/{slot}/{issue}/{number}`, a link, and the same with `.img`, its picture.

Both lead to the one ad that the place keeps for a day, whoever opens the mail and whichever worker answers: who asks
first decides, and the store tells the others. That look into the store is the second of the two waits on the way to an
answer (the other is for frequency caps), 250 ms at most and hardly ever twice for the same place in one worker. When
nothing is heard in that time, the catalog alone decides, by the place's own number: alike in every worker that serves
the same version.

Rules: a fetched picture is a *load*, never an impression, and waits for nobody; a link followed is a click like any
other, with a token of its own. What has ended (the day, a booking that was paused or removed) leaves a picture of
nothing; a link goes on to its advertiser for the day, and to the site's home page afterwards.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from adserver.answering import Answering, Edition, letter_page
from adserver.answers import NO_STORE, NOSNIFF, Responses, Scope, Send, length
from adserver.catalog import Ad, Catalog
from adserver.chosen import Chosen, Kept
from adserver.context import Query
from adserver.decide import UNPACED, Decision, Filled, Page, Unfilled, decide
from adserver.model import Format, Group, Kind, NoFill, SlotId
from adserver.pauses import in_force
from adserver.places import STAYS_S, Place, draws_of, number_places, parse_path
from adserver.reload import LiveCatalog
from adserver.tracking import GIF, Tracking

_MEDIA = {"png": b"image/png", "jpg": b"image/jpeg", "gif": b"image/gif", "webp": b"image/webp", "avif": b"image/avif"}
_ANYWHERE = (b"cross-origin-resource-policy", b"cross-origin")
_UNKNOWN = (
    "There is no such place. It is written /e/889990/2026-03-10-evening/1: a slot's number, an issue of lowercase "
    "letters, digits and hyphens (40 at most), and a number from 1 to 999."
)


class Letters:
    """One worker's newsletters; for the event loop's thread alone. *files* holds the pictures of earlier versions."""

    def __init__(
        self,
        live: LiveCatalog,
        answering: Answering,
        responses: Responses,
        tracking: Tracking,
        chosen: Chosen,
        files: Path,
    ) -> None:
        self._live = live
        self._answering = answering
        self._responses = responses
        self._tracking = tracking
        self._chosen = chosen
        self._files = files

    # Snippets with `format=email`

    async def fill(
        self, edition: Edition, asks: Sequence[SlotId | Group], query: Query
    ) -> list[tuple[Decision, bytes]]:
        """Decide, count and render the places that a newsletter's template asks for; one page, as everywhere."""
        now = self._answering.now()
        issue, numbers = query.issue or self._answering.date(now), number_places(asks, query.number)
        page = letter_page(edition.catalog, tuple(asks), query)
        pace = self._answering.pacer.planner.pace
        decisions = decide(edition.catalog, now, page, draws_of(asks, issue, numbers), pace)
        places = [Place(_slot_of(one), issue, number) for one, number in zip(decisions, numbers, strict=True)]
        offers = {place: _offer(one) for place, one in zip(places, decisions, strict=True)}
        kept = await self._chosen.keep(offers, now) or {}
        found = [self._judge(edition.catalog, place, kept.get(place), now) for place in places]
        paths = [place.path.encode() for place in places]
        return self._answering.answer_letter(edition, list(zip(found, paths, strict=True)), now)

    def _judge(self, catalog: Catalog, place: Place, kept: Kept | None, now: float) -> Decision:
        """What shows in a place now, by what it has."""
        slot = SlotId(place.slot)
        if kept is None:
            return _fall_back(catalog, place, now)
        ad = catalog.by_key.get(kept.ad)
        if ad is None or _is_over(kept, now):
            return Unfilled(slot, NoFill.NOT_LIVE)
        return Unfilled(slot, NoFill.PAUSED) if _is_paused(catalog, ad, now) else Filled(ad)

    # The addresses

    async def __call__(self, scope: Scope, send: Send) -> None:
        """A place's link or picture."""
        if scope["method"] not in ("GET", "HEAD"):
            await self._responses.method_not_allowed(send, "letter", b"GET, HEAD")
            return
        named = parse_path(scope["raw_path"])
        edition = self._answering.edition()
        if named is None or named[0].slot not in edition.catalog.slots:
            self._answering.note_unknown()
            await self._responses.problem(send, "letter", 404, _UNKNOWN)
            return
        place, is_picture = named
        now = self._answering.now()
        kept = await self._look(edition, place, now)
        if is_picture:
            await self._picture(scope, send, self._judge(edition.catalog, place, kept, now), now)
            return
        await self._link(scope, send, self._behind(edition.catalog, place, kept, now), now)

    async def _look(self, edition: Edition, place: Place, now: float) -> Kept | None:
        """What the place has; where it has nothing yet, what it gets by being asked for: always a picture's ad."""
        slot = SlotId(place.slot)
        page = Page((slot,), Format.EMAIL, edition.unasked((slot,)), pictures=True)
        [decision] = decide(edition.catalog, now, page, {slot: place.draw}, self._answering.pacer.planner.pace)
        return (await self._chosen.keep({place: _offer(decision)}, now) or {}).get(place)

    def _behind(self, catalog: Catalog, place: Place, kept: Kept | None, now: float) -> Ad | None:
        """Whom its link leads to."""
        if kept is not None:
            return None if _is_over(kept, now) else self._live.find(kept.ad)
        decision = _fall_back(catalog, place, now)
        return decision.ad if isinstance(decision, Filled) else None

    async def _link(self, scope: Scope, send: Send, ad: Ad | None, now: float) -> None:
        if ad is None or not ad.creative.click_url:
            await self._tracking.lead_home(send)
        else:
            await self._tracking.follow(self._answering.mint_click(ad, now), scope, send)

    async def _picture(self, scope: Scope, send: Send, decision: Decision, now: float) -> None:
        media, data = b"image/gif", GIF
        if isinstance(decision, Filled) and decision.ad.creative.kind is Kind.IMAGE:
            name = decision.ad.creative.image or ""
            found = await self._read(name)
            if found is not None:
                media, data = _MEDIA[name.rpartition(".")[2]], found
                if scope["method"] == "GET":
                    self._answering.note_load(decision.ad, now)
        headers = [(b"content-type", media), NO_STORE, NOSNIFF, _ANYWHERE, length(data)]
        await self._responses.send(send, "letter", 200, headers, b"" if scope["method"] == "HEAD" else data)

    async def _read(self, name: str) -> bytes | None:
        data = self._live.assets.get(name)
        if data is None and (path := self._files / name).is_file():
            data = await asyncio.to_thread(path.read_bytes)
        return data


def _fall_back(catalog: Catalog, place: Place, now: float) -> Decision:
    """What a place shows where nothing is known of it but its name: by the catalog and its draw number."""
    slot = SlotId(place.slot)
    page = Page((slot,), Format.EMAIL, pictures=True)
    return decide(catalog, now, page, {slot: place.draw}, UNPACED)[0]


def _slot_of(decision: Decision) -> int:
    return decision.ad.slot.id if isinstance(decision, Filled) else decision.slot


def _offer(decision: Decision) -> bytes:
    return decision.ad.key if isinstance(decision, Filled) else b""


def _is_over(kept: Kept, now: float) -> bool:
    return now - kept.since >= STAYS_S


def _is_paused(catalog: Catalog, ad: Ad, now: float) -> bool:
    return bool(in_force(catalog.pauses.get(ad.line_item.id, ()), now))
