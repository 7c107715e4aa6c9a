"""The record of an event: 28 bytes, read back as written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.events import (
    INVALID,
    NO_FILLS,
    REASONS,
    SIZE,
    STORED,
    SUSPECT,
    TOKEN_BIT,
    Block,
    Event,
    Type,
    pack,
    slot_subject,
    subject_slot,
    unpack,
)
from adserver.model import NoFill
from tests.records import stored

events = st.builds(
    Event,
    type=st.sampled_from(Type),
    reason=st.integers(0, 255),
    day=st.integers(0, 2**16 - 1),
    hour=st.integers(0, 24),
    issuer=st.binary(min_size=5, max_size=5),
    serial=st.integers(0, 2**32 - 1),
    subject=st.binary(min_size=8, max_size=8),
    at=st.integers(0, 2**32 - 1),
)


@settings(max_examples=100)
@given(events, st.integers(0, 2**40))
def test_reads_back_as_written(event: Event, seq: int) -> None:
    """
    A record holds its event whole, and the low 16 bits of its sequence number.
    """
    record = pack(
        event.type, event.reason, event.day, event.hour, event.issuer, event.serial, event.subject, event.at, seq
    )
    assert len(record) == SIZE == 28
    assert unpack(record) == (event, seq % 65536)


def test_a_type_of_a_later_version_is_not_guessed() -> None:
    """
    A record of a type this version does not know is an error, not another event.
    """
    record = pack(200, 0, 1, 2, b"abcde", 3, b"subject8", 4, 5)
    with pytest.raises(ValueError, match="200 is not a valid Type"):
        unpack(record)


@given(st.integers(1, 2**32 - 1))
def test_an_unfilled_request_carries_its_slot(slot: int) -> None:
    """
    A slot id goes into a record's subject and comes back.
    """
    assert subject_slot(slot_subject(slot)) == slot


def test_every_no_fill_has_a_number() -> None:
    """
    Each reason for a no-fill can be recorded.
    """
    assert set(NO_FILLS) == set(NoFill)
    assert len(set(NO_FILLS)) == len(NO_FILLS)


def test_every_reason_but_suspect_takes_an_event_off_the_count() -> None:
    """
    What is not valid is filed by a reason; a suspect event has a name of its own and no such reason.
    """
    assert {*INVALID} - {*REASONS} == {"", SUSPECT}
    assert len({*INVALID}) == len(INVALID)


def test_numbers_on_disk_never_change() -> None:
    """
    Journals outlive versions: what has a number keeps it, and both lists only grow at their ends.
    """
    assert [type_.value for type_ in Type][:7] == [1, 2, 3, 4, 5, 6, 7]
    assert [Type(1), Type(6), Type(7)] == [Type.SERVED, Type.LOAD, Type.MEASURED]
    assert [reason.value for reason in NO_FILLS[:6]] == [
        "unknown-slot",
        "no-booking",
        "not-live",
        "outside-share",
        "duplicate-creative",
        "format",
    ]
    assert NO_FILLS[12:15] == (NoFill.PAUSED, NoFill.CONSENT, NoFill.WEIGHT)
    assert INVALID[:6] == ("", "bot", "no-user-agent", "prefetch", "method", "navigation")
    assert INVALID[6:10] == ("rate", "staff", "address-list", "suspect")
    assert TOKEN_BIT == {Type.IMPRESSION: 0, Type.VIEWABLE: 1, Type.CLICK: 2, Type.MEASURED: 3}


few_days = st.builds(
    Event,
    type=st.sampled_from(Type),
    reason=st.just(0),
    day=st.integers(20000, 20002),
    hour=st.just(1),
    issuer=st.just(b"abcde"),
    serial=st.integers(0, 2**32 - 1),
    subject=st.just(b"subject8"),
    at=st.just(0),
)


def numbered(block: Block) -> list[tuple[int, Event]]:
    """A block's events and their numbers, one by one."""
    records = [block.data[at : at + SIZE] for at in range(0, len(block.data), STORED)]
    return [(number, unpack(record)[0]) for number, record in enumerate(records, block.first)]


@settings(max_examples=100)
@given(st.lists(few_days, min_size=1, max_size=30), st.integers(1, 9), st.integers(0, 45))
def test_a_block_takes_apart_like_a_list_of_its_records(events: list[Event], first: int, number: int) -> None:
    """
    What a block says of its days, of a day's records and of those after a number is what looking at each would say.
    """
    block = Block(first, stored(events))
    listed = list(enumerate(events, first))
    assert numbered(block) == listed
    assert (len(block), block.last) == (len(events), listed[-1][0])
    assert numbered(block.after(number)) == [one for one in listed if one[0] > number]
    assert block.days() == sorted({event.day for event in events})
    for day in range(20000, 20004):
        of_day = [one for one in listed if one[1].day == day]
        assert block.of(day) == (stored(event for _, event in of_day), of_day[-1][0] if of_day else 0)


@settings(max_examples=100)
@given(st.lists(few_days, max_size=30), st.integers(1, 8))
def test_parts_hold_everything_once_and_few_token_events(events: list[Event], most: int) -> None:
    """
    The parts of a block are the block in order, and none has more token events than one batch may hold.
    """
    parts = list(Block(7, stored(events)).parts(most))
    assert [one for part in parts for one in numbered(part)] == list(enumerate(events, 7))
    assert all(len(part) > 0 for part in parts)
    assert all(sum(event.type in TOKEN_BIT for _, event in numbered(part)) <= most for part in parts)


def test_a_block_ends_before_what_this_version_does_not_know() -> None:
    """
    A type of a later version, and what lies behind it, waits for that version.
    """
    later = pack(200, 0, 1, 2, b"abcde", 3, b"subject8", 4, 5).ljust(STORED, b"\0")
    known = stored([Event(Type.CLICK, 0, 1, 2, b"abcde", 3, b"subject8", 4)])
    assert Block(3, known + later + known).known() == Block(3, known)
    assert Block(3, known + known).known() == Block(3, known + known)
    assert not Block(3, later).known()
