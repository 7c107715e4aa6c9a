"""A preview of now is what is served next, whatever is booked and asked for; and who may ask for one."""

import asyncio
import base64
import random
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.answering import Answering
from adserver.catalog import Catalog
from adserver.context import BadQuery
from adserver.days import Days
from adserver.decide import Filled, Page, decide
from adserver.journal import NoJournal
from adserver.metrics import Meter
from adserver.model import Format
from adserver.pacing import Figures, Pace
from adserver.planner import Heard, Planner
from adserver.previews import Previews, narrow
from adserver.reload import LiveCatalog
from adserver.targeting import know
from adserver.token import Mint, parse_keys
from adserver.versions import Version
from tests.core.test_page_rules import SLOTS, random_catalog, random_held, random_pace
from tests.make import NOON

TOKEN = "a-token-of-the-staff"
STAFF = [(b"authorization", b"Bearer " + TOKEN.encode())]


def serving(seed: int) -> tuple[Answering, Previews, LiveCatalog, random.Random]:
    """A worker's answering on a random catalog, goals paced at random, and its previews."""
    draw = random.Random(seed)
    made = random_catalog(draw)
    live = LiveCatalog()
    live.swap(Version(number=1, author="a", at=0.0, note="", document=made.document), made, {})
    keys = parse_keys(f"1 {'ab' * 32}")
    answering = Answering(live, NoJournal("none"), Mint(keys, b"12345"), Meter(), "https://ads.example")
    answering.pacer.planner.pace = random_pace(made, draw)
    return answering, Previews(live, answering, "unix:///nowhere", TOKEN, "https://ads.example"), live, draw


@settings(max_examples=80)
@given(st.integers(0, 2**32))
def test_a_preview_of_now_is_what_is_served_next(seed: int) -> None:
    """
    Over random catalogs, paces and pages, after any number of views; and looking changes nothing.
    """

    async def body() -> None:
        answering, previews, live, draw = serving(seed)
        slots = [slot for slot in SLOTS if slot in live.current.slots]
        for _ in range(draw.randrange(5)):
            answering.answer(answering.edition(), Page((draw.choice(slots),)), answering.now())
        asks, form = tuple(draw.sample(slots, draw.randint(1, len(slots)))), draw.choice([Format.HTML, Format.AMP])
        page = Page(asks, form, know(section="sport"), random_held(live.current, draw))
        moment = await previews.moment(datetime.now(UTC).isoformat(), STAFF, lambda _: SLOTS)
        shown = previews.show(moment, page)
        served = answering.answer(answering.edition(), page, answering.now())
        assert [one for one, _ in shown] == [one for one, _ in served]
        for decision, html in shown:
            assert (b"PREVIEW" in html) == isinstance(decision, Filled)
            assert b"/i/" not in html
            assert b"/c/" not in html

    asyncio.run(body())


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_what_decides_about_a_page_is_all_that_a_preview_needs(seed: int) -> None:
    """
    The catalog of a page's slots alone decides about it as the whole one does, and plans its goals the same.
    """
    draw = random.Random(seed)
    whole = random_catalog(draw)
    slots = [slot for slot in SLOTS if slot in whole.slots]
    asks = tuple(draw.sample(slots, draw.randint(1, len(slots))))
    page = Page(asks, context=know(section="sport"), held=random_held(whole, draw))
    pace = random_pace(whole, draw)
    draws: dict[int | str, int] = {slot: draw.randrange(50) for slot in asks}
    less = narrow(whole.document, whole.version, asks)

    def decided(catalog: Catalog) -> list[tuple[object, ...]]:
        return [
            (one.ad.slot.id, one.ad.line_item.id, one.ad.creative.id)
            if isinstance(one, Filled)
            else (one.slot, one.reason)
            for one in decide(catalog, NOON, page, dict(draws), pace)
        ]

    def planned(catalog: Catalog) -> Pace:
        planner = Planner({})
        planner.follow(catalog)
        planner.plan(Heard({one.id: Figures() for one in whole.goals}, {}, {}), None, NOON, Days("Europe/Amsterdam"))
        return planner.pace

    assert decided(less) == decided(whole)
    shares = planned(whole).shares
    assert all(shares[name] == share for name, share in planned(less).shares.items())
    assert not {one.id for one in less.goals} - {one.id for one in whole.goals}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (b"Bearer " + TOKEN.encode(), True),
        (b"bearer " + TOKEN.encode(), True),
        (b"Basic " + base64.b64encode(b"anybody:" + TOKEN.encode()), True),
        (b"Basic " + base64.b64encode(TOKEN.encode()), False),
        (b"Bearer " + TOKEN.encode() + b"x", False),
        (b"Bearer", False),
        (b"", False),
    ],
)
def test_only_the_token_opens(given: bytes, allowed: bool) -> None:
    """
    As a Bearer token or as a password with any name; anything else is refused with 403.
    """
    _, previews, _, _ = serving(1)
    assert previews.allows([(b"authorization", given)]) is allowed
    if not allowed:
        with pytest.raises(BadQuery) as caught:
            asyncio.run(previews.moment("2026-03-10T09:00", [(b"authorization", given)], lambda _: SLOTS))
        assert caught.value.status == 403


def test_while_the_store_is_away_only_now_can_be_seen() -> None:
    """
    Another instant is 503, in words.
    """
    _, previews, _, _ = serving(1)
    later = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
    with pytest.raises(BadQuery, match="while the store is away") as caught:
        asyncio.run(previews.moment(later, STAFF, lambda _: SLOTS))
    assert caught.value.status == 503
