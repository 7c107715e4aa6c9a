"""Publishing from drafts, against a real store: nothing is live by halves, nobody's work is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from adserver import versions
from adserver.catalog import Catalog
from adserver.console import audit, drafts
from adserver.console import desk as desks
from adserver.console.desk import Clashing
from adserver.console.drafts import Draft
from adserver.console.people import DRAFTS
from adserver.errors import ConfigError, Conflict
from adserver.model import Format, Kind
from adserver.render import render_preview
from adserver.store import Store
from tests import make

Run = Callable[[Callable[[Store], Awaitable[object]]], object]

LIVE = make.document(
    make.line_item("mill", creatives=("words",)),
    make.line_item("boat", creatives=("words",)),
    creatives=[make.creative("words", Kind.TEXT)],
)
MILL, BOAT = LIVE.line_items
NOON = make.NOON


async def begin(store: Store) -> None:
    version = versions.Version(number=1, author="config", at=NOON, note="", document=LIVE)
    await versions.publish(store, version, {}, 0)


def renamed(name: str, line_item: Any = MILL) -> Draft:
    return drafts.put(Draft(1), LIVE, "line_items", structs.replace(line_item, name=name))


async def publish(store: Store, draft: Draft, author: str = "ann", expected: int = 1) -> versions.Version:
    version, _ = await desks.publish(store, draft, author=author, note="why", expected=expected, now=NOON + 60)
    return version


def test_a_draft_waits_for_its_owner(with_store: Run) -> None:
    """
    Each person's draft is kept under their own name, comes back as it was, and is gone when it changes nothing.
    """

    async def body(store: Store) -> None:
        await begin(store)
        draft = drafts.remove(renamed("Watermill"), LIVE, "line_items", "boat")
        await desks.write_draft(store, "ann", draft, "")
        assert await desks.read_draft(store, "ann", 1) == draft
        assert await desks.read_draft(store, "bob", 1) == Draft(1)
        kept = await desks.read_kept(store, "ann", 1)
        await desks.write_draft(store, "ann", Draft(1), kept.seal)
        assert await store.ask("EXISTS", DRAFTS) == 0

    with_store(body)


def test_a_draft_replaces_only_the_one_that_was_read(with_store: Run) -> None:
    """
    What was made from an older draft is refused, and the newer one stays; also where the older one was empty.
    """

    async def body(store: Store) -> None:
        await begin(store)
        await desks.write_draft(store, "ann", renamed("Watermill"), "")
        seen = await desks.read_kept(store, "ann", 1)
        for older in ("", "0" * 40):
            with pytest.raises(desks.DraftMoved):
                await desks.write_draft(store, "ann", renamed("Windmill"), older)
        assert await desks.read_kept(store, "ann", 1) == seen
        await desks.write_draft(store, "ann", renamed("Windmill"), seen.seal)
        with pytest.raises(desks.DraftMoved):
            await desks.write_draft(store, "ann", Draft(1), seen.seal)
        assert await desks.read_draft(store, "ann", 1) == renamed("Windmill")

    with_store(body)


def test_a_draft_and_its_entry_in_the_log_are_written_together(with_store: Run) -> None:
    """
    The entry is there when the draft is, and neither when another window was first.
    """

    async def body(store: Store) -> None:
        await begin(store)
        entry = audit.Entry(at=NOON, who="ann", what="drafts", subject="boat")
        await desks.write_draft(store, "ann", renamed("Watermill"), "", entry)
        with pytest.raises(desks.DraftMoved):
            await desks.write_draft(store, "ann", renamed("Windmill"), "", entry)
        assert [one.entry for one in (await audit.read(store)).entries] == [entry]
        assert await desks.read_draft(store, "ann", 1) == renamed("Watermill")

    with_store(body)


def test_what_is_saved_while_publishing_stays_drafted(with_store: Run) -> None:
    """
    Of the draft only that goes which the new version has, whatever another window has saved by then.
    """

    async def body(store: Store) -> None:
        await begin(store)
        draft = renamed("Watermill")
        version = await publish(store, draft)
        slot = version.document.slots[0]
        later = drafts.put(draft, LIVE, "slots", structs.replace(slot, name="Saved meanwhile"))
        await desks.write_draft(store, "ann", later, "")
        await desks.take_published(store, "ann", version)
        left = await desks.read_draft(store, "ann", 0)
        assert left.places == [("slots", slot.id)]
        assert left.base == version.number
        await desks.take_published(store, "bob", version)

    with_store(body)


def test_publishing_makes_a_version_with_its_author(with_store: Run) -> None:
    """
    The new version has the next number, the document with the draft on top, who published it and why.
    """

    async def body(store: Store) -> None:
        await begin(store)
        version = await publish(store, renamed("Watermill"))
        assert (version.number, version.author, version.note, version.origin) == (2, "ann", "why", "console")
        live = await desks.read_live(store)
        assert [one.name for one in live.document.line_items] == ["Watermill", "boat"]
        found = await desks.history(store, 3, 10)
        assert [(one.number, one.author) for one in found] == [(2, "ann"), (1, "config")]

    with_store(body)


def test_the_second_to_publish_is_told(with_store: Run) -> None:
    """
    Whoever has not seen the live version publishes nothing; on top of it, both changes are live.
    """

    async def body(store: Store) -> None:
        await begin(store)
        await publish(store, renamed("Ann's"))
        second = renamed("Bob's", BOAT)
        with pytest.raises(Conflict, match="version 2 is live"):
            await publish(store, second, "bob")
        await publish(store, second, "bob", expected=2)
        live = await desks.read_live(store)
        assert [one.name for one in live.document.line_items] == ["Ann's", "Bob's"]

    with_store(body)


def test_the_same_entry_is_asked_about(with_store: Run) -> None:
    """
    Who changes what somebody else has changed meanwhile is asked, even when they have seen the version.
    """

    async def body(store: Store) -> None:
        await begin(store)
        await publish(store, renamed("Ann's"))
        with pytest.raises(Clashing) as caught:
            await publish(store, renamed("Bob's"), "bob", expected=2)
        assert [one.theirs.name for one in caught.value.found] == ["Ann's"]
        assert (await desks.read_live(store)).number == 2

    with_store(body)


def test_of_many_at_once_one_is_live(with_store: Run) -> None:
    """
    Ten who publish on top of the same version at once: one succeeds, nine are told, one version is made.
    """

    async def body(store: Store) -> None:
        await begin(store)
        done = await asyncio.gather(
            *(publish(store, renamed(f"n-{n}"), f"p-{n}") for n in range(10)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in done) == ["Conflict"] * 9 + ["Version"]
        assert await versions.live_number(store) == 2

    with_store(body)


def test_a_document_with_a_problem_is_not_published(with_store: Run) -> None:
    """
    A booking that lost its creative stays a draft, and every problem is named.
    """

    async def body(store: Store) -> None:
        await begin(store)
        broken = drafts.remove(Draft(1), LIVE, "creatives", "words")
        with pytest.raises(ConfigError) as caught:
            await publish(store, broken)
        assert len(caught.value.problems) >= 2
        assert await versions.live_number(store) == 1

    with_store(body)


def test_an_image_that_is_lost_stops_publishing(with_store: Run) -> None:
    """
    A creative whose image is not in the store any more cannot go live; one that is there is kept for good.
    """

    async def body(store: Store) -> None:
        await begin(store)
        draft = drafts.put(Draft(1), LIVE, "creatives", make.creative("picture"))
        with pytest.raises(ConfigError, match="upload it anew"):
            await publish(store, draft)
        data = b"pixels"
        name = __import__("hashlib").blake2b(data, digest_size=16).hexdigest() + ".png"
        await versions.hold_asset(store, name, data, desks.HELD_DAYS)
        assert 0 < await store.ask("TTL", f"as:{{asset:{name}}}") <= desks.HELD_DAYS * 86_400
        await publish(store, drafts.put(Draft(1), LIVE, "creatives", make.creative("picture", image=name)))
        assert await store.ask("TTL", f"as:{{asset:{name}}}") == -1

    with_store(body)


def test_undo_brings_back_every_byte(with_store: Run) -> None:
    """
    After any changes, going back to a version renders each ad to the very bytes it had, under a new number.
    """

    def rendered(document: Any, number: int) -> list[bytes]:
        catalog = Catalog(document, 1)  # a snippet names its version; the number apart, all is the same
        ads = [ad for key in sorted(catalog.by_key) if (ad := catalog.by_key[key])]
        return [render_preview(catalog, ad, Format.HTML, "https://ads.example", eager=False) for ad in ads]

    async def body(store: Store) -> None:
        await begin(store)
        draft = drafts.put(Draft(1), LIVE, "creatives", structs.replace(LIVE.creatives[0], title="Cake"))
        await publish(store, drafts.remove(draft, LIVE, "line_items", "boat"))
        version, _ = await desks.restore(store, 1, author="ann", note="undo", expected=2, now=NOON + 120)
        assert version.number == 3
        live = await desks.read_live(store)
        assert live.document == LIVE
        assert rendered(live.document, 3) == rendered(LIVE, 1)
        with pytest.raises(Conflict):
            await desks.restore(store, 1, author="ann", note="undo", expected=2, now=NOON + 180)

    with_store(body)


def test_undo_to_before_a_booking_leaves_its_pause_behind(with_store: Run) -> None:
    """
    Going back to a version keeps the pauses of today, but those of bookings that it does not have.
    """

    async def body(store: Store) -> None:
        await begin(store)
        draft = drafts.put(Draft(1), LIVE, "line_items", make.line_item("ferry", creatives=("words",)))
        await publish(store, draft)
        live = await desks.read_live(store)
        pauses = make.pause("p1", line_item="ferry"), make.pause("p2", line_item="boat")
        await publish(store, drafts.put(Draft(2), live.document, "pauses", *pauses), expected=2)
        await desks.restore(store, 1, author="ann", note="undo", expected=3, now=NOON + 120)
        assert [one.id for one in (await desks.read_live(store)).document.pauses] == ["p2"]

    with_store(body)
