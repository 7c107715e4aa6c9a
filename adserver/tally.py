"""Counts that add up the same in any order and any batching: records summed into what one batch changes.

A count's field is `<type>:<hour>:<subject>` and, for an event filed as invalid or a request left unfilled, its
reason: `1:14:0b5d…` or `3:9:0b5d…:bot` or `2:9:889990:not-live`. The subject is the ad's key in hex, or a slot id.
"""

from collections.abc import Iterable

from msgspec import Struct

from adserver.events import INVALID, NO_FILLS, TOKEN_BIT, Event, Type, subject_slot


class Batch(Struct, frozen=True):
    """What one producer's records after *start* and up to *end* do to one day's partition.

    *fields* are increments of plain counts. *tokens* are the events that count once per token: by bit chunk, each
    with the token's place in the chunk and its event (`token * 4 + bit`), and the field to add 1 to.
    """

    day: int
    start: int
    end: int
    fields: dict[str, int]
    tokens: dict[bytes, list[tuple[int, str]]]


TOKENS_A_CHUNK = 64


def field_of(event: Event) -> str:
    if event.type is Type.UNFILLED:
        reason = NO_FILLS[event.reason].value if event.reason < len(NO_FILLS) else f"reason-{event.reason}"
        return f"{event.type:d}:{event.hour}:{subject_slot(event.subject)}:{reason}"
    field = f"{event.type:d}:{event.hour}:{event.subject[:7].hex()}"
    if not event.reason:
        return field
    return f"{field}:{INVALID[event.reason] if event.reason < len(INVALID) else f'reason-{event.reason}'}"


def tally(day: int, start: int, end: int, events: Iterable[Event]) -> Batch:
    """The batch that counts *events*, all of *day*."""
    fields: dict[str, int] = {}
    tokens: dict[bytes, list[tuple[int, str]]] = {}
    for event in events:
        field = field_of(event)
        bit = TOKEN_BIT.get(event.type)
        if bit is None:
            fields[field] = fields.get(field, 0) + 1
        else:
            chunk, place = divmod(event.serial, TOKENS_A_CHUNK)
            name = b"b:" + event.issuer + chunk.to_bytes(4, "big")
            tokens.setdefault(name, []).append((place * 4 + bit, field))
            fields.setdefault(field, 0)
    return Batch(day, start, end, fields, tokens)
