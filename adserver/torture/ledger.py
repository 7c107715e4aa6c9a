"""Adding up afterwards: what was acknowledged, what the journals hold and what the store says must be one figure."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from adserver.events import INVALID, PREFETCH, TOKEN_BIT, Event, Type, unpack
from adserver.store import open_store, partition
from adserver.tally import field_of
from adserver.torture.driver import Notes
from adserver.torture.manual import MOST_GROWN_MB
from adserver.torture.service import Lost, read_all


class Verdict(Struct, frozen=True):
    """A round's figures. *forgiven* were acknowledged at level A1, and taken by a power cut or a full disk.

    *grown* are the bytes a worker grew by, at most, while the store was away.
    """

    acknowledged: int
    unanswered: int
    replays: int
    refused: int
    forgiven: int
    lost: int
    double: int
    differs: int
    waiting: int
    unexpected: dict[str, int]
    missing: tuple[str, ...]
    grown: int

    def exact(self) -> bool:
        wrong = self.lost or self.double or self.differs or self.waiting or self.unexpected
        return not wrong and self.grown <= MOST_GROWN_MB << 20


_ANSWERED_ANYWAY = (Type.SERVED, Type.CLICK)
"""A reader gets the snippet, or the page behind an ad, also when no journal takes the event."""
_COUNT = re.compile(rb"[1-9]:[0-9]+:")
Counts = dict[tuple[int, str], int]
"""By day and field."""


class Journals:
    """What the journals hold: every record, each token event taken once, what was fetched ahead of it each time."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self.counts: Counter[tuple[int, str]] = Counter()
        self.events: dict[tuple[bytes, int, int], Event] = {}
        self.ends: dict[tuple[bytes, int], int] = {}
        for directory in directories:
            producer = bytes.fromhex(directory.name)
            for number, record in read_all(directory):
                event, _ = unpack(record)
                self.ends[producer, event.day] = number
                key = event.issuer, event.serial, int(event.type)
                ahead = event.type in TOKEN_BIT and event.reason == PREFETCH
                if event.type in TOKEN_BIT and not ahead and key in self.events:
                    continue
                if event.type is not Type.UNFILLED and not ahead:
                    self.events[key] = event
                self.counts[event.day, field_of(event.type, event.reason, event.hour, event.subject)] += 1


async def behind(url: str, ends: dict[tuple[bytes, int], int]) -> int:
    """How many records the store has yet to count, by the cursors it shows."""
    waiting = 0
    async with open_store(url) as store:
        for day in {day for _, day in ends}:
            there = {producer: end for (producer, on), end in ends.items() if on == day}
            cursors = await store.cursors(day, list(there))
            waiting += sum(max(0, end - cursor) for end, cursor in zip(there.values(), cursors, strict=True))
    return waiting


async def read_counts(url: str, days: Iterable[int]) -> Counts:
    """Every count the store holds, whether its directory names it or not."""
    found: Counts = {}
    async with open_store(url) as store:
        for day in days:
            held = await store.ask("HGETALL", partition(day))
            pairs = held.items() if isinstance(held, dict) else zip(held[::2], held[1::2], strict=True)
            found |= {(day, name.decode()): int(value) for name, value in pairs if _COUNT.match(name) and int(value)}
    return found


def judge(
    notes: Notes,
    journals: Journals,
    counts: Counts,
    lost_to_power: Lost,
    uncounted: Lost,
    waiting: int,
    grown: int,
) -> Verdict:
    """Compare the three. An event counts as lost when it was acknowledged and is missing, in the journals or the store.

    Per day, ad and type: acknowledged <= count <= acknowledged + unanswered. A snippet nobody got an answer for may
    have been of any ad of any day, so those few are taken off the sum.
    """
    pardoned = {
        key
        for key in notes.acknowledged
        if key not in journals.events
        and ((key in notes.at_once and key in lost_to_power) or (key.type in _ANSWERED_ANYWAY and key in uncounted))
    }
    strict = notes.acknowledged - pardoned
    missing = [key for key in strict if key not in journals.events]
    by_group: Counter[tuple[int, int, str]] = Counter()
    for (day, field), n in counts.items():
        type_, _, subject, *reason = field.split(":")
        if int(type_) != Type.UNFILLED and reason != [INVALID[PREFETCH]]:
            by_group[day, int(type_), subject] += n
    least: Counter[tuple[int, int, str]] = Counter()
    for key in strict:
        about = notes.about[key]
        least[about.day, key.type, about.ad.hex()] += 1
    most = Counter(least)
    for key in notes.open | pardoned:
        about = notes.about[key]
        most[about.day, key.type, about.ad.hex()] += 1
    short = sum(max(0, n - by_group[group]) for group, n in least.items())
    over = {group: n - most[group] for group, n in by_group.items() if n > most[group]}
    served = sum(n for (_, type_, _), n in over.items() if type_ == Type.SERVED)
    double = sum(over.values()) - min(served, notes.unanswered_views)
    return Verdict(
        acknowledged=len(notes.acknowledged),
        unanswered=notes.unanswered_views + len(notes.open),
        replays=notes.replays,
        refused=notes.refused,
        forgiven=len(pardoned),
        lost=max(len(missing), short),
        double=double,
        differs=sum(
            abs(counts.get(one, 0) - journals.counts.get(one, 0)) for one in counts.keys() | journals.counts.keys()
        ),
        waiting=waiting,
        unexpected=dict(notes.unexpected),
        missing=tuple(
            f"{Type(key.type).name.lower()} of {key.issuer.hex()} token {key.serial}, day {notes.about[key].day}"
            f"{', at level A1' if key in notes.at_once else ''}"
            for key in missing[:5]
        ),
        grown=grown,
    )
