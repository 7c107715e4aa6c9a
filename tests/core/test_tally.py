"""Tallies: the same counts in any order and any batching."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.events import INVALID, NO_FILLS, NO_ISSUER, PREFETCH, TOKEN_BIT, Event, Type, slot_subject
from adserver.tally import TOKENS_A_CHUNK, Batch
from adserver.tally import tally as tally_stored
from tests.records import field_of, stored

DAY = 20514
AD = bytes.fromhex("0b5d1122334455") + b"\0"


def tally(day: int, start: int, end: int, events: Iterable[Event]) -> Batch:
    return tally_stored(day, start, end, stored(events))


def event(type_: Type, reason: int = 0, serial: int = 0, subject: bytes = AD, **fields: int | bytes) -> Event:
    quiet = {"day": DAY, "hour": 14, "issuer": b"abcde", "at": 1_772_000_000}
    return Event(**{**quiet, **fields, "type": type_, "reason": reason, "serial": serial, "subject": subject})  # type: ignore[arg-type]


def count(batches: Iterable[Batch]) -> Counter[str]:
    """What a partition holds after *batches*: plain counts are added, a token's event counts the first time."""
    counts: Counter[str] = Counter()
    seen: set[tuple[bytes, int]] = set()
    for batch in batches:
        counts.update(batch.fields)
        for chunk, entries in batch.tokens.items():
            for place, field in entries:
                if (chunk, place) not in seen:
                    seen.add((chunk, place))
                    counts[field] += 1
    return +counts


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A day's events, with repeats; what one token says of its ad and hour never changes."""
    made: list[Event] = []
    for _ in range(draw(st.integers(0, 25))):
        type_ = draw(st.sampled_from(Type))
        if type_ is Type.UNFILLED:
            reason, subject = draw(st.integers(0, len(NO_FILLS) - 1)), slot_subject(draw(st.integers(889977, 889980)))
            made.append(event(type_, reason, subject=subject, issuer=NO_ISSUER, hour=draw(st.integers(0, 24))))
        else:
            serial = draw(st.integers(0, 150))
            subject, hour = bytes([serial % 3]) * 7 + b"\0", serial % 25
            issuer = draw(st.sampled_from([b"abcde", b"vwxyz"]))
            made.append(event(type_, 0, serial, subject, issuer=issuer, hour=hour))
    return made


@settings(max_examples=100)
@given(streams(), st.randoms(use_true_random=False), st.lists(st.integers(0, 25), max_size=5))
def test_adds_up_the_same_in_any_order_and_batching(stream: list[Event], random: object, cuts: list[int]) -> None:
    """
    However events are ordered and cut into batches, the same counts come out.
    """
    shuffled = list(stream)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    edges = [0, *sorted(min(cut, len(shuffled)) for cut in cuts), len(shuffled)]
    batches = [tally(DAY, start, end, shuffled[start:end]) for start, end in pairwise(edges) if start < end]
    assert count(batches) == count([tally(DAY, 0, len(stream), stream)])


@settings(max_examples=50)
@given(streams())
def test_a_token_counts_once_per_event(stream: list[Event]) -> None:
    """
    The same impression, viewable or click again changes nothing; each record of what is served, unfilled or
    loaded counts.
    """
    counts = count([tally(DAY, 0, len(stream), stream), tally(DAY, len(stream), 2 * len(stream), stream)])
    plain = [one for one in stream if one.type not in TOKEN_BIT]
    once = {(one.type, one.issuer, one.serial) for one in stream if one not in plain}
    assert counts.total() == 2 * len(plain) + len(once)


@settings(max_examples=50)
@given(streams(), st.lists(st.integers(0, len(INVALID) - 1), min_size=25, max_size=25), st.booleans())
def test_a_token_filed_both_ways_is_counted_in_one_place(stream: list[Event], reasons: list[int], turn: bool) -> None:
    """
    A token seen by a robot and by a reader is one event, whichever of the two came first; a prefetch is none.
    """
    mixed = [
        one if one.type is Type.UNFILLED else event(one.type, reason, one.serial, one.subject, issuer=one.issuer)
        for one, reason in zip(stream, reasons, strict=False)
    ]
    tokens = [one for one in mixed if one.type in TOKEN_BIT]
    ahead = [one for one in tokens if one.reason == PREFETCH]
    counted = count([tally(DAY, 0, len(mixed), mixed[::-1] if turn else mixed)])
    number = sum(n for field, n in counted.items() if int(field[0]) in TOKEN_BIT)
    once = {(one.type, one.issuer, one.serial) for one in tokens if one not in ahead}
    assert number == len(ahead) + len(once)


@pytest.mark.parametrize("type_", list(TOKEN_BIT))
def test_a_prefetch_leaves_the_readers_event_to_be_counted(type_: Type) -> None:
    """
    What a browser fetched before its reader came is filed, each record of it, and the reader's own counts beside it.
    """
    stream = [event(type_, PREFETCH), event(type_), event(type_, PREFETCH), event(type_)]
    field = field_of(event(type_))
    assert count([tally(DAY, 0, 4, stream)]) == {field: 1, f"{field}:prefetch": 2}


def test_fields_say_type_hour_subject_and_reason() -> None:
    """
    A count's name says what was counted, in which hour, of which ad or slot, and why it is filed apart.
    """
    assert field_of(event(Type.SERVED)) == "1:14:0b5d1122334455"
    assert field_of(event(Type.IMPRESSION, 1, hour=9)) == "3:9:0b5d1122334455:bot"
    assert field_of(event(Type.UNFILLED, 2, subject=slot_subject(889990), hour=9)) == "2:9:889990:not-live"
    assert field_of(event(Type.UNFILLED, 0, subject=slot_subject(889990))) == "2:14:889990:unknown-slot"


def test_a_reason_of_a_later_version_keeps_its_number() -> None:
    """
    A journal written by a later version is still counted: a reason without a name here goes by its number.
    """
    assert field_of(event(Type.CLICK, 200)) == "5:14:0b5d1122334455:reason-200"
    assert field_of(event(Type.UNFILLED, 200, subject=slot_subject(1))) == "2:14:1:reason-200"


def test_tokens_share_chunks() -> None:
    """
    Neighbouring tokens of an issuer share a chunk of bits, and no two events in it have the same bit.
    """
    serials = [0, TOKENS_A_CHUNK - 1, TOKENS_A_CHUNK]
    types = (Type.IMPRESSION, Type.VIEWABLE, Type.CLICK)
    batch = tally(DAY, 0, 9, [event(type_, 0, serial) for serial in serials for type_ in types])
    assert list(batch.tokens) == [b"b:abcde\0\0\0\0", b"b:abcde\0\0\0\1"]
    assert [place for place, _ in batch.tokens[b"b:abcde\0\0\0\0"]] == [0, 1, 2, 252, 253, 254]
    assert set(batch.fields.values()) == {0}


def test_nothing_adds_up_to_nothing() -> None:
    """
    A batch of no events changes no count.
    """
    assert tally(DAY, 5, 5, []) == Batch(DAY, 5, 5, 0, {}, {})
