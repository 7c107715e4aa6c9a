"""Receipts: what decisions were made of, written and read back, is decided to the same end."""

import random
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from adserver.catalog import Catalog
from adserver.decide import Decision, Filled, Lost, Page, Step, Unfilled, decide
from adserver.model import Cap, Format, Goal, Group, Kind, Measure, NoFill, Rotation, SlotId, Targeting, Terms
from adserver.pacing import Pace
from adserver.receipts import (
    LONGEST_PAGE,
    MOST_REMEMBERED,
    DamagedReceipts,
    Noted,
    Receipt,
    Writer,
    decide_again,
    decision_id,
    find_receipt,
    parse_id,
    read_receipts,
)
from adserver.targeting import Context, know, withhold
from adserver.token import Mint, parse_keys, verify
from tests.core.test_page_rules import SLOTS, random_catalog, random_held, random_pace
from tests.make import NOON, SLOT, catalog, creative, group, line_item, pause

ISSUER = b"12345"
WORDS = ("sport", "business", "town")
URLS = ("/live/", "/live/1", "https://a.example/", "https://a.example/live", "https://b.example/")


def noted(
    made: Catalog,
    page: Page,
    serial: int = 0,
    keys: Iterable[bytes] = (b"7654321",),
    pace: Pace | None = None,
    **of: Any,
) -> Noted:
    """Each is of a moment of its own, unless *of* says which."""
    pace, draws = pace or Pace(), of.pop("draws", {SLOT: serial})
    moment = of.pop("moment", serial)
    return Noted(of.pop("at", NOON), made, page, draws, moment, pace.shares, pace.creatives, ISSUER, serial, list(keys))


def read(data: bytes) -> list[Receipt]:
    return list(read_receipts([data]))


def framed(record: object) -> bytes:
    data = msgspec.msgpack.encode(record)
    return len(data).to_bytes(4, "little") + data


def random_site(draw: random.Random) -> Catalog:
    """A random catalog that asks what page it is, whose views are capped at every level, with a paused section and some
    creatives that are third-party tags.
    """
    made = random_catalog(draw).document
    tags = [creative(one.id, Kind.TAG, advertiser=one.advertiser) for one in made.creatives]
    creatives = tuple(tag if draw.random() < 0.3 else one for one, tag in zip(made.creatives, tags, strict=True))
    rail = group(*[one.id for one in made.slots[:3]], id="rail")

    def terms() -> Terms | None:
        if draw.random() < 0.5:
            return None
        words = draw.sample(WORDS, draw.randrange(3))
        return Terms(section=tuple(words[:1]), tag=tuple(words[1:]), url=tuple(draw.sample(URLS, draw.randrange(3))))

    items = [
        structs.replace(
            one,
            targeting=Targeting(any=terms(), all=terms(), none=terms(), prefer=None if one.share else terms())
            if draw.random() < 0.6
            else None,
        )
        for one in made.line_items
    ]
    campaigns = [
        structs.replace(one, frequency=(Cap(2, 3600),) if draw.random() < 0.2 else ()) for one in made.campaigns
    ]
    pauses = (pause(section=draw.choice(WORDS)),) if draw.random() < 0.4 else ()
    changed: dict[str, Any] = {"line_items": tuple(items), "campaigns": tuple(campaigns), "creatives": creatives}
    changed |= {"pauses": pauses, "groups": (rail,)}
    return Catalog(structs.replace(made, **changed), draw.randrange(100))


def random_page(made: Catalog, draw: random.Random) -> Page:
    asks: list[SlotId | Group] = [*draw.sample(SLOTS, draw.randint(1, 5))]
    if draw.random() < 0.3:
        asks.append(made.groups["rail"])
    context = know(
        section=draw.choice(["", *WORDS]),
        tags=draw.sample([*WORDS, *map(str, range(9))], 3),
        url=draw.choice(["", "https://a.example/live/1?x=1", "https://ann:secret@a.example/live/", "//["]),
        lang=draw.choice(["", "nl"]),
    )
    if draw.random() < 0.5:
        context = withhold(context)
    held, limits = random_held(made, draw), {limit.field for limits in made.caps.values() for limit in limits}
    left = {} if held is None else {field: draw.randint(1, 3) for field in sorted(limits) if draw.random() < 0.7}
    return Page(tuple(asks), draw.choice(list(Format)), context, held, {**left, "line_item:another": 1})


def random_earned(made: Catalog, draw: random.Random) -> Mapping[str, Mapping[str, float]]:
    optimised = [one for one in made.document.line_items if one.rotation is Rotation.OPTIMISED]
    return {one.id: {name: draw.random() for name in one.creatives} for one in optimised if draw.random() < 0.7}


def reached_or_not_due(decision: Decision) -> Decision:
    """A receipt does not keep which of the two it was."""
    if isinstance(decision, Unfilled) and decision.reason is NoFill.GOAL:
        return Unfilled(decision.slot, NoFill.PACING)
    return decision


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_every_decision_comes_out_the_same(seed: int) -> None:
    """
    Over random catalogs, with everything that is asked of pages, readers and goals, and published anew in between: the
    same winners, and the same trace, whatever of the pages and the pace is not kept.
    """
    draw, writer, data = random.Random(seed), Writer(), b""
    asked = []
    made = random_site(draw)
    pace, moment = Pace(), 0
    for n in range(12):
        if draw.random() < 0.2:
            made, moment = random_site(draw), moment + 1
        if draw.random() < 0.5:
            shares = {name: share for name, share in random_pace(made, draw).shares.items() if draw.random() < 0.8}
            pace, moment = Pace(shares, {}, random_earned(made, draw)), moment + 1
        page = random_page(made, draw)
        draws: dict[int | str, int] = {slot: draw.randrange(10**6) for slot in SLOTS}
        draws["rail"] = draw.randrange(10**6)
        trace: list[Lost] = []
        decisions = decide(made, NOON + n, page, draws, pace, trace)
        keys = [one.ad.key for one in decisions if isinstance(one, Filled)]
        of = {"draws": draws, "at": NOON + n, "moment": moment}
        data += writer.records(noted(made, page, n * 10, keys, pace, **of))
        asked.append((made, page, decisions, trace))
    receipts = read(data)
    assert len(receipts) == len(asked)
    for n, (receipt, (of_then, page, decisions, trace)) in enumerate(zip(receipts, asked, strict=True)):
        again, found, why, same = decide_again(of_then, receipt)
        assert same
        assert (found, why) == (decisions, trace)
        assert (again.asks, again.format) == (page.asks, page.format)
        assert again.held is None or page.held is not None
        assert (receipt.version, receipt.issuer, receipt.serial, receipt.at) == (
            of_then.version,
            ISSUER,
            n * 10,
            NOON + n,
        )


def test_a_receipt_does_not_say_which_goal_was_reached() -> None:
    """
    It keeps how much each goal took of the draw: one that took nothing is told as such, not as unknown or reached.
    """
    goals = (line_item(name, goal=Goal(1000, Measure.IMPRESSIONS)) for name in ("met", "slow"))
    made, writer = catalog(*goals, line_item("rest")), Writer()
    page, pace = Page((SLOT,)), Pace({"met": 0.0, "slow": 0.125}, {}, {}, frozenset({"met"}))
    draws: dict[int | str, int] = {SLOT: 1}
    [ad] = [one.ad for one in decide(made, NOON, page, draws, pace) if isinstance(one, Filled)]
    [receipt] = read(writer.records(noted(made, page, keys=[ad.key], pace=pace, draws=draws)))
    _, _, trace, same = decide_again(made, receipt)
    assert same
    assert {one.line_item.id: (one.step, one.reason) for one in trace} == {
        "slow": (Step.PACING, "it took 12 % of its chances"),
        "met": (Step.PACING, "its goal was reached, or nothing of it was due then: a receipt does not keep which"),
    }


def test_a_group_is_found_again() -> None:
    """
    By its name, in the catalog of then.
    """
    rail = group(SLOT, id="rail")
    made = catalog(line_item(), groups=[rail])
    page = Page((rail,))
    draws: dict[int | str, int] = {SLOT: 3, "rail": 9}
    [ad] = [one.ad for one in decide(made, NOON, page, draws) if isinstance(one, Filled)]
    [receipt] = read(Writer().records(noted(made, page, keys=[ad.key], draws=draws)))
    assert receipt.asks == ("rail",)
    assert decide_again(made, receipt)[3]


def test_another_winner_is_noticed() -> None:
    """
    Decided by another catalog the ads differ, and it says so.
    """
    made = catalog(line_item())
    [receipt] = read(Writer().records(noted(made, Page((SLOT,)), keys=[b"another"])))
    assert not decide_again(made, receipt)[3]


def test_a_file_cut_anywhere_is_good_up_to_there() -> None:
    """
    What a kill leaves behind is read as far as it is whole, in pieces of any length; rubbish ends it, and is told.
    """
    made, writer, data, ends = catalog(line_item("a", goal=Goal(9, Measure.IMPRESSIONS))), Writer(), b"", []
    for n in range(5):
        data += writer.records(noted(made, Page((SLOT,)), n, pace=Pace({"a": n / 10})))
        ends.append(len(data))
    for cut in range(len(data)):
        found = read(data[:cut])
        assert len(found) == sum(end <= cut for end in ends)
        assert [one.pace.shares["a"] for one in found] == [n / 10 for n in range(len(found))]
    assert len(list(read_receipts(bytes([byte]) for byte in data))) == 5
    rubbish = [b"\x03\x00\x00\x00\xc1\xc1\xc1", b"\xff\xff\xff\xff", framed([5, b"12345", 1, NOON, 77, 0, [1], b""])]
    rubbish += [
        framed([3, NOON, 1, 77, {}, b"12345", 0, b""]),
        framed([0, 9, [["x"]], "html", [], "", "", None]),
        framed([9]),
    ]
    rubbish += [
        framed([5, b"12345", 1, NOON, 0, 0, [1, 2], b""]),
        framed([2, {"a": "x"}, {}]),
        framed({"a": 1}),
        framed(0),
    ]
    for end in rubbish:
        found = []
        with pytest.raises(DamagedReceipts):
            found.extend(read_receipts([data, end]))
        assert find_receipt([data, end], ISSUER, 4)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_damage_is_told_or_read_past_and_nothing_else(rubbish: bytes, at: int, byte: int) -> None:
    """
    Whatever stands in a file, reading it ends in receipts and at most in word of the damage.
    """
    made, writer = catalog(line_item()), Writer()
    data = bytearray(b"".join(writer.records(noted(made, Page((SLOT,)), n)) for n in range(5)))
    for damaged in (data + rubbish, data[: (cut := at % len(data))] + bytes([byte]) + data[cut + 1 :]):
        found: list[Receipt] = []
        try:
            for receipt in read_receipts([bytes(damaged)]):
                found.append(receipt)
        except DamagedReceipts:
            pass
        assert len(found) <= len(damaged) // 8


@pytest.mark.parametrize("many", ["pages", "shares", "weights"])
def test_a_file_cannot_have_more_remembered_than_is_ever_written(many: str) -> None:
    """
    Records without end, each whole by itself, are read with some megabytes of memory, and told.
    """
    records: dict[str, Callable[[int], list[Any]]] = {
        "pages": lambda n: [0, n, [1], "html", ["section=" + "x" * 10_000], "", "", None],
        "shares": lambda n: [1, {f"{n} {name}": 0.5 for name in range(100)}],
        "weights": lambda n: [4, {f"{n}": {str(name): 0.5 for name in range(100)}}],
    }
    tracemalloc.start()
    try:
        with pytest.raises(DamagedReceipts, match="remembered"):
            for _ in read_receipts(framed(records[many](n)) for n, _ in enumerate(repeat(0))):
                pass
        assert tracemalloc.get_traced_memory()[1] < 20 * MOST_REMEMBERED
    finally:
        tracemalloc.stop()


def test_what_older_versions_wrote_is_read() -> None:
    """
    Their pages, paces and decisions, of which pages said everything.
    """
    goal = line_item("a", goal=Goal(9, Measure.IMPRESSIONS), targeting=Targeting(all=Terms(section=("sport",))))
    made, page = catalog(goal), Page((SLOT,), context=know(section="sport", url="https://a.example/live"))
    [ad] = [one.ad for one in decide(made, NOON, page, {SLOT: 5}, Pace({"a": 1.0})) if isinstance(one, Filled)]
    data = framed([2, {"b": 0.5}, {"b": {"x": 1.0}}]) + framed([1, {"a": 1.0}])
    data += framed([0, 0, [int(SLOT)], "html", ["section=sport"], "/live", "https://a.example/live", None])
    data += framed([3, NOON, 7, 0, {int(SLOT): 5}, ISSUER, 40, ad.key])
    data += framed([0, 1, ["rail"], "html", [], "", "", {"a": "seen"}, {"line_item:a": 1}])
    data += framed([3, NOON, 7, 1, {int(SLOT): 6, "rail": 1}, ISSUER, 41, b""])
    first, second = read(data)
    assert decide_again(made, first)[3]
    assert (first.context, first.pace.shares, first.version) == (page.context, {"a": 1.0, "b": 0.5}, 7)
    assert (second.asks, second.held, second.left) == (("rail",), {"a": "seen"}, {"line_item:a": 1})
    assert find_receipt([data], ISSUER, 40) == first


def test_what_decides_nothing_is_not_written() -> None:
    """
    Of a page's facts and address, of what its reader has seen, and of the goals only what its slots' bookings look at;
    of an address never who signed in.
    """
    other = line_item("other", slots=(SLOTS[0],), goal=Goal(9, Measure.IMPRESSIONS), frequency=(Cap(1, 60),))
    asks = Targeting(any=Terms(section=("sport",), url=("https://a.example/live", "/live")))
    made = catalog(line_item("mine", targeting=asks, goal=Goal(9, Measure.IMPRESSIONS)), other)
    words = {"country": "nl", "tags": ["private"], "keys": {"user": ["ann"]}}
    page = Page(
        (SLOT,),
        context=know(section="sport", url="https://ann:secret@a.example/live/1?session=2", **words),  # type: ignore[arg-type]
        held={"other": "seen"},
        left={"line_item:other": 1},
    )
    plain = structs.replace(page, context=know(section="sport", url="https://a.example/live/1?session=2", **words))  # type: ignore[arg-type]
    pace = Pace({"mine": 0.5, "other": 0.25})
    for asked, address in ((page, ""), (plain, "https://a.example/live")):
        data = Writer().records(noted(made, asked, pace=pace))
        for word in (b"ann", b"secret", b"session", b"private", b"country", b"user", b"other", b"seen"):
            assert word not in data
        [receipt] = read(data)
        assert receipt.context == Context(frozenset({"section=sport"}), "/live", address)
        assert (receipt.held, receipt.left, receipt.pace.shares) == (None, {}, {"mine": 0.5})


def test_a_huge_page_is_only_mentioned() -> None:
    """
    Thousands of facts that nobody asks for take no room; of a page of thousands of slots it is kept that there was one.
    """
    made, writer = catalog(line_item()), Writer()
    keys = {f"k{n}": [str(n)] for n in range(10_000)}
    assert len(writer.records(noted(made, Page((SLOT,), context=know(keys=keys))))) < 200
    many = (SLOT,) * 20_000
    data = writer.records(noted(made, Page(many), 1, [b"7654321"] * 20_000))
    assert len(data) < 100
    [huge] = read(writer.records(noted(made, Page(many), 20_001, [b"7654321"] * 20_000)))
    assert not huge.whole
    assert (huge.n, huge.version, huge.at) == (20_000, made.version, NOON)
    assert len(writer.records(noted(made, Page((SLOT,) * 1000), 40_001, draws={SLOT: 1}))) < LONGEST_PAGE
    data = Writer().records(noted(made, Page(many), 7, [b"7654321"] * 20_000)) + Writer().records(
        noted(made, Page((SLOT,)), 3)
    )
    assert find_receipt([data], ISSUER, 20_006)


def test_a_serial_is_found_among_many() -> None:
    """
    A page's ads have one receipt; serials and draws are told by how far they are from the last.
    """
    made, writer = catalog(line_item()), Writer()
    serials = [4, 7, 8, 100, 90, 2**32 - 3]
    data = b"".join(
        writer.records(noted(made, Page((SLOT, SLOTS[0])), n, [b"7654321"] * 2, draws={SLOT: n * 3})) for n in serials
    )
    for n in serials:
        for serial in (n, n + 1):
            found = find_receipt([data], ISSUER, serial)
            assert found
            assert (found.serial, found.draws) == (n if serial != 8 else found.serial, {SLOT: found.serial * 3})
    assert find_receipt([data], ISSUER, 50) is None
    assert find_receipt([data], b"54321", 4) is None


def test_an_id_is_part_of_its_token() -> None:
    """
    Whoever holds a snippet, an address or the 16 characters names the same decision.
    """
    keys = parse_keys(f"1 {'ab' * 32}")
    mint = Mint(keys, b"\x01\x02\xf3\x04\x05")
    mint.next_serial = 77_001
    token = mint.token(b"7654321", 20_000, 20_000 * 86_400.0, 7)
    text = token.decode()
    genuine = verify(keys, token)
    for named in (text, decision_id(text), f"https://ads.example/i/{text}?x", f'<img src="/i/{text}">'):
        assert parse_id(named) == (genuine.issuer, genuine.serial)
    for wrong in ("", "x" * 15, "x" * 17, "!" * 16):
        with pytest.raises(ValueError, match="16 characters"):
            parse_id(wrong)
