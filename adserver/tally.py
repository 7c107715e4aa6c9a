"""Counts that add up the same in any order and any batching: records summed into what one batch changes.

A count's field is `<type>:<hour>:<subject>` and, for an event filed as invalid or a request left unfilled, its
reason: `1:14:0b5d…` or `3:9:0b5d…:bot` or `2:9:889990:not-live`. The subject is the ad's key in hex, or a slot id.
"""

from collections import Counter
from struct import Struct as Layout

from msgspec import Struct

from adserver.events import INVALID, NO_FILLS, Type, subject_slot, token_bit


class Batch(Struct, frozen=True):
    """What one producer's records after *start* and up to *end* do to one day's partition.

    *fields* are increments of plain counts. *tokens* are the events that count once per token: by bit chunk, each
    with the token's place in the chunk and its event (`token * 4 + bit`), and the field to add 1 to. *events* is how
    many records it stands for.
    """

    day: int
    start: int
    end: int
    events: int
    fields: dict[str, int]
    tokens: dict[bytes, list[tuple[int, str]]]


TOKENS_A_CHUNK = 64

# Of a stored record: type and reason; hour; subject. Behind it, for token events: issuer and serial.
_KIND = Layout("<2s2xB9x8s10x")
_TOKEN = Layout("<2s2xB5sI8s10x")
_UNFILLED, _SERVED = Type.UNFILLED, Type.SERVED


def field_of(type_: int, reason: int, hour: int, subject: bytes) -> str:
    if type_ == _UNFILLED:
        why = NO_FILLS[reason].value if reason < len(NO_FILLS) else f"reason-{reason}"
        return f"{type_:d}:{hour}:{subject_slot(subject)}:{why}"
    field = f"{type_:d}:{hour}:{subject[:7].hex()}"
    if not reason:
        return field
    return f"{field}:{INVALID[reason] if reason < len(INVALID) else f'reason-{reason}'}"


def tally(day: int, start: int, end: int, data: bytes) -> Batch:
    """The batch that counts the stored records *data*, all of *day*. Summed before any of them is looked at."""
    sums = Counter(_KIND.iter_unpack(data))
    fields: dict[str, int] = {}
    tokens: dict[bytes, list[tuple[int, str]]] = {}
    once: dict[tuple[bytes, int, bytes], tuple[str, int]] = {}
    for key, n in sums.items():
        kind, hour, subject = key
        field = field_of(kind[0], kind[1], hour, subject)
        bit = token_bit(kind[0], kind[1])
        if bit is None:
            fields[field] = fields.get(field, 0) + n
        else:
            fields.setdefault(field, 0)
            once[key] = field, bit
    if once:
        for kind, hour, issuer, serial, subject in _TOKEN.iter_unpack(data):
            found = once.get((kind, hour, subject))
            if found is not None:
                name = b"b:" + issuer + (serial // TOKENS_A_CHUNK).to_bytes(4, "big")
                tokens.setdefault(name, []).append((serial % TOKENS_A_CHUNK * 4 + found[1], found[0]))
    return Batch(day, start, end, sums.total(), fields, tokens)
