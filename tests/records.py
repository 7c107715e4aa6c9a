"""The count an event adds to."""

from adserver.events import Event
from adserver.events import stored as stored
from adserver.tally import field_of as _field_of


def field_of(event: Event) -> str:
    return _field_of(event.type, event.reason, event.hour, event.subject)
