"""What is counted, and the record of it: 28 bytes that say all a report asks for.

    type u8 | reason u8 | day u16 | hour u8 | issuer 5 bytes | serial u32 | subject 8 bytes | instant u32
    | low sequence u16

*subject* is the ad's key (7 bytes, then zero), or for an unfilled request the slot id. *reason* is an index into
NO_FILLS for an unfilled request and into INVALID for the rest, where 0 is a valid event. Both lists only grow at
their ends: journals outlive versions.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct as Layout

import msgspec

from adserver.model import NoFill


class Type(IntEnum):
    """Served and unfilled requests and loads are counted per record; the others once per token, see `token_bit`."""

    SERVED = 1
    UNFILLED = 2
    IMPRESSION = 3
    VIEWABLE = 4
    CLICK = 5
    LOAD = 6
    MEASURED = 7


TOKEN_BIT = {Type.IMPRESSION: 0, Type.VIEWABLE: 1, Type.CLICK: 2, Type.MEASURED: 3}
"""Which of a token's bits remembers each event."""
_BITS = {int(type_): bit for type_, bit in TOKEN_BIT.items()}

INVALID = (
    "", "bot", "no-user-agent", "prefetch", "method", "navigation", "rate", "staff", "address-list", "suspect",
)  # fmt: skip
"""Why an event is filed beside the count instead of in it; the first means it is valid.

`suspect` takes nothing off: such an event has a field of its own and is in the count all the same.
"""

SUSPECT = "suspect"
PREFETCH = INVALID.index("prefetch")
REASONS = tuple(reason for reason in INVALID if reason and reason != SUSPECT)
"""Those that take an event off the count: net = gross - these."""

NO_FILLS = (
    NoFill.UNKNOWN_SLOT,
    NoFill.NO_BOOKING,
    NoFill.NOT_LIVE,
    NoFill.OUTSIDE_SHARE,
    NoFill.DUPLICATE_CREATIVE,
    NoFill.FORMAT,
    NoFill.OUTSIDE_HOURS,
    NoFill.NOT_TARGETED,
    NoFill.PAGE_RULE,
    NoFill.GOAL,
    NoFill.PACING,
    NoFill.FREQUENCY,
    NoFill.PAUSED,
    NoFill.CONSENT,
    NoFill.WEIGHT,
)

RECORD = Layout("<BBHB5sI8sIH")
SIZE = RECORD.size
STORED = SIZE + 4
"""Bytes a record takes in a journal: its checksum, a u32, comes behind it."""
_DAY = Layout(f"<2xH{STORED - 4}x")
_TOKEN_TYPES = bytes(TOKEN_BIT)
_TYPES = bytes(Type)


def token_bit(type_: int, reason: int) -> int | None:
    """The bit that keeps an event from counting twice; None where each record counts.

    A prefetch has none: it must not use up what the reader's own event is remembered by, which may follow it.
    """
    return None if reason == PREFETCH else _BITS.get(type_)


class Event(msgspec.Struct, frozen=True):
    """One record, read back. *at* is the Unix second it was accepted, for audits only: counts go by day and hour."""

    type: Type
    reason: int
    day: int
    hour: int
    issuer: bytes
    serial: int
    subject: bytes
    at: int


NO_ISSUER = b"\0\0\0\0\0"


def pack(
    type_: int, reason: int, day: int, hour: int, issuer: bytes, serial: int, subject: bytes, at: int, seq: int
) -> bytes:
    return RECORD.pack(type_, reason, day, hour, issuer, serial, subject, at, seq & 0xFFFF)


def stored(events: Iterable["Event"]) -> bytes:
    """The events' records as a journal stores them, one after the other, without checksums."""
    return b"".join(
        pack(one.type, one.reason, one.day, one.hour, one.issuer, one.serial, one.subject, one.at, 0) + b"\0\0\0\0"
        for one in events
    )


def unpack(record: bytes) -> tuple[Event, int]:
    """The event and the low 16 bits of its sequence number. Raises ValueError for a type this version does not know."""
    type_, reason, day, hour, issuer, serial, subject, at, low = RECORD.unpack(record)
    return Event(Type(type_), reason, day, hour, issuer, serial, subject, at), low


class Block(msgspec.Struct, frozen=True):
    """Records as a journal stores them, one after the other, taken as a whole: most of them are counted a thousand at
    a time, and looking at each costs more than answering the request it stands for. *first* is the first's number.
    """

    first: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data) // STORED

    @property
    def last(self) -> int:
        """The number of the last record."""
        return self.first + len(self) - 1

    def after(self, number: int) -> "Block":
        """The records numbered above *number*."""
        skip = number + 1 - self.first
        return Block(number + 1, self.data[skip * STORED :]) if skip > 0 else self

    def upto(self, number: int) -> "Block":
        """The records numbered at most *number*."""
        return Block(self.first, self.data[: max(0, number + 1 - self.first) * STORED])

    def known(self) -> "Block":
        """The records up to the first of a type this version does not know."""
        types = self.data[::STORED]
        unknown = types.translate(None, _TYPES)
        return Block(self.first, self.data[: types.index(unknown[0]) * STORED]) if unknown else self

    def days(self) -> list[int]:
        """The days of its records, the earliest first."""
        return sorted({day for (day,) in _DAY.iter_unpack(self.data)})

    def of(self, day: int) -> tuple[bytes, int]:
        """The stored records of *day*, and the number of the last of them (0 when there are none)."""
        days = [found for (found,) in _DAY.iter_unpack(self.data)]
        if days.count(day) == len(days):
            return self.data, self.last if days else 0
        places = [place for place, found in enumerate(days) if found == day]
        data = b"".join([self.data[place * STORED : (place + 1) * STORED] for place in places])
        return data, self.first + places[-1] if places else 0

    def parts(self, most_token_events: int) -> Iterator["Block"]:
        """The block cut so that no part holds more events that count once per token than this."""
        types = self.data[::STORED]
        begin = tokens = 0
        if len(types) - len(types.translate(None, _TOKEN_TYPES)) > most_token_events:
            for place, type_ in enumerate(types, 1):
                tokens += type_ in _TOKEN_TYPES
                if tokens == most_token_events:
                    yield Block(self.first + begin, self.data[begin * STORED : place * STORED])
                    begin, tokens = place, 0
        if begin < len(types):
            yield Block(self.first + begin, self.data[begin * STORED :])


def slot_subject(slot: int) -> bytes:
    return slot.to_bytes(8, "little")


def subject_slot(subject: bytes) -> int:
    return int.from_bytes(subject, "little")
