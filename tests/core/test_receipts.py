"""Receipts: what decisions were made of, written and read back, is decided to the same end."""

import random

import pytest

from adserver.decide import Filled, Page, decide
from adserver.model import Format
from adserver.receipts import Writer, decide_again, decision_id, parse_id, read_receipts
from adserver.targeting import know
from adserver.token import Mint, parse_keys, verify
from tests.core.test_page_rules import SLOTS, random_catalog, random_held, random_pace
from tests.make import NOON, SLOT, catalog, group, line_item


def test_every_decision_comes_out_the_same() -> None:
    """
    2,000 random pages over 40 random catalogs, of whatever was known and however goals were paced.
    """
    draw = random.Random(5)
    for version in range(40):
        made, writer, data, asked = random_catalog(draw), Writer(), b"", []
        for n in range(50):
            context = know(section=draw.choice(["", "sport"]), url=draw.choice(["", "https://a.example/live/1"]))
            asks = tuple(draw.sample(SLOTS, draw.randint(1, 5)))
            page = Page(asks, draw.choice(list(Format)), context, random_held(made, draw))
            pace = random_pace(made, draw)
            draws: dict[int | str, int] = {slot: draw.randrange(10**6) for slot in SLOTS}
            decisions = decide(made, NOON + n, page, draws, pace)
            keys = [one.ad.key for one in decisions if isinstance(one, Filled)]
            data += writer.pace(pace.shares, pace.creatives)
            data += writer.decision(NOON + n, version, page, draws, b"12345", n * 10, keys)
            asked.append((page, decisions))
        receipts = list(read_receipts(data))
        assert len(receipts) == 50
        for receipt, (page, decisions) in zip(receipts, asked, strict=True):
            again, found, _, same = decide_again(made, receipt)
            assert same
            assert (again, found) == (page, decisions)
            assert (receipt.version, receipt.issuer) == (version, b"12345")


def test_a_group_is_found_again() -> None:
    """
    By its name, in the catalog of then.
    """
    rail = group(SLOT, id="rail")
    made = catalog(line_item(), groups=[rail])
    page = Page((rail,))
    draws: dict[int | str, int] = {SLOT: 3, "rail": 9}
    writer = Writer()
    [ad] = [one.ad for one in decide(made, NOON, page, draws) if isinstance(one, Filled)]
    [receipt] = read_receipts(writer.decision(NOON, 7, page, draws, b"12345", 0, [ad.key]))
    assert receipt.asks == ("rail",)
    assert decide_again(made, receipt)[3]


def test_another_winner_is_noticed() -> None:
    """
    Decided by another catalog the ads differ, and it says so.
    """
    page, writer = Page((SLOT,)), Writer()
    [receipt] = read_receipts(writer.decision(NOON, 1, page, {SLOT: 0}, b"12345", 0, [b"another"]))
    assert not decide_again(catalog(line_item()), receipt)[3]


def test_a_file_cut_anywhere_is_good_up_to_there() -> None:
    """
    What a kill leaves behind is read as far as it is whole; rubbish ends it.
    """
    writer, data, ends = Writer(), b"", []
    for n in range(5):
        data += writer.pace({"a": n / 10}, {}) + writer.decision(
            NOON, 1, Page((SLOT,)), {SLOT: n}, b"12345", n, [b"7654321"]
        )
        ends.append(len(data))
    for cut in range(len(data)):
        found = list(read_receipts(data[:cut]))
        assert len(found) == sum(end <= cut for end in ends)
        assert [one.pace.shares["a"] for one in found] == [n / 10 for n in range(len(found))]
    assert len(list(read_receipts(data + b"\x03\x00\x00\x00\xc1\xc1\xc1"))) == 5


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
