"""Events as a journal stores them, and the count each of them adds to."""

from collections.abc import Iterable

from adserver.events import STORED, Event, pack
from adserver.tally import field_of as _field_of


def stored(events: Iterable[Event]) -> bytes:
    """The events' records one after the other, with room for the checksums that nothing but a journal looks at."""
    return b"".join(_pack(event).ljust(STORED, b"\0") for event in events)


def field_of(event: Event) -> str:
    return _field_of(event.type, event.reason, event.hour, event.subject)


def _pack(event: Event) -> bytes:
    return pack(event.type, event.reason, event.day, event.hour, event.issuer, event.serial, event.subject, event.at, 0)
