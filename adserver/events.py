"""What is counted, and the record of it: 28 bytes that say all a report asks for.

    type u8 | reason u8 | day u16 | hour u8 | issuer 5 bytes | serial u32 | subject 8 bytes | instant u32
    | low sequence u16

*subject* is the ad's key (7 bytes, then zero), or for an unfilled request the slot id. *reason* is an index into
NO_FILLS for an unfilled request and into INVALID for the rest, where 0 is a valid event. Both lists only grow at
their ends: journals outlive versions.
"""

from enum import IntEnum
from struct import Struct as Layout

import msgspec

from adserver.model import NoFill


class Type(IntEnum):
    """Served and unfilled requests are counted per record; the others once per token."""

    SERVED = 1
    UNFILLED = 2
    IMPRESSION = 3
    VIEWABLE = 4
    CLICK = 5


TOKEN_BIT = {Type.IMPRESSION: 0, Type.VIEWABLE: 1, Type.CLICK: 2}
"""Which of a token's bits remembers each event."""

INVALID = (
    "", "bot", "no-user-agent", "prefetch", "method", "navigation", "rate", "staff", "address-list", "suspect",
)  # fmt: skip
"""Why an event is filed beside the count instead of in it; the first means it is valid.

`suspect` takes nothing off: such an event has a field of its own and is in the count all the same.
"""

SUSPECT = "suspect"
REASONS = tuple(reason for reason in INVALID if reason and reason != SUSPECT)
"""Those that take an event off the count: net = gross - these."""

NO_FILLS = (
    NoFill.UNKNOWN_SLOT,
    NoFill.NO_BOOKING,
    NoFill.NOT_LIVE,
    NoFill.OUTSIDE_SHARE,
    NoFill.DUPLICATE_CREATIVE,
    NoFill.FORMAT,
)

_RECORD = Layout("<BBHB5sI8sIH")
SIZE = _RECORD.size


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
    return _RECORD.pack(type_, reason, day, hour, issuer, serial, subject, at, seq & 0xFFFF)


def unpack(record: bytes) -> tuple[Event, int]:
    """The event and the low 16 bits of its sequence number. Raises ValueError for a type this version does not know."""
    type_, reason, day, hour, issuer, serial, subject, at, low = _RECORD.unpack(record)
    return Event(Type(type_), reason, day, hour, issuer, serial, subject, at), low


def day_of(record: bytes) -> int:
    """The day of a packed record, without unpacking the rest."""
    return record[2] | record[3] << 8


def slot_subject(slot: int) -> bytes:
    return slot.to_bytes(8, "little")


def subject_slot(subject: bytes) -> int:
    return int.from_bytes(subject, "little")
