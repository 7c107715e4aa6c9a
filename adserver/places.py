"""Places in newsletters and feeds: a slot, an issue and a number, as an address and as what their ad is drawn by.

A mail is written once and read by thousands, so its ad cannot be one reader's: a place is what all copies of an issue
share. Rules: an address has one spelling; an issue from an address becomes a store key only as a hash.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from adserver.model import Group, SlotId

STAYS_S = 24 * 3600
"""Seconds a place keeps its ad, from when somebody first asks for it."""
MOST_NUMBER = 99
"""The highest number a caller may ask for; an article that repeats a slot counts on from it."""

_ISSUE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]?", re.ASCII)
_PATH = re.compile(rb"/e/([1-9][0-9]{0,9})/([a-z0-9][a-z0-9-]{0,39})/([1-9][0-9]{0,2})(\.img)?")
_DRAWS = 2**24
"""Far fewer than a double has places for: `decide.spread` of each is told apart."""


class Place(Struct, frozen=True):
    """One place; *number* is 1 for the slot's first in its issue."""

    slot: int
    issue: str
    number: int

    @property
    def path(self) -> str:
        """What follows `/e/` in its addresses: of the link as it is, of the picture with `.img` behind it."""
        return f"{self.slot}/{self.issue}/{self.number}"

    @property
    def key(self) -> bytes:
        """16 bytes that stand for it in the store."""
        return hashlib.blake2s(self.path.encode(), digest_size=16, person=b"place").digest()

    @property
    def draw(self) -> int:
        return draw_of(str(self.slot), self.issue, self.number)


def draw_of(ask: str, issue: str, number: int) -> int:
    """The draw number of a slot or group in an issue: the same in every worker, on every machine."""
    text = f"{ask}/{issue}/{number}".encode()
    return int.from_bytes(hashlib.blake2s(text, digest_size=8, person=b"draw").digest()) % _DRAWS


def number_places(asks: Sequence[SlotId | Group], first: int) -> list[int]:
    """Each ask's number: *first*, and one more for each time that the same was asked for before."""
    seen: dict[int | str, int] = {}
    found = []
    for ask in asks:
        name = ask.id if isinstance(ask, Group) else ask
        found.append(first + seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1
    return found


def draws_of(asks: Sequence[SlotId | Group], issue: str, numbers: Sequence[int]) -> Mapping[int | str, int]:
    """What the places of one issue that are asked for together are drawn by."""
    found: dict[int | str, int] = {}
    for ask, number in zip(asks, numbers, strict=True):
        if isinstance(ask, Group):
            found.setdefault(ask.id, draw_of(f"group:{ask.id}", issue, number))
        for slot in [one.slot for one in ask.slots] if isinstance(ask, Group) else [ask]:
            found.setdefault(slot, Place(slot, issue, number).draw)
    return found


def parse_path(path: bytes) -> tuple[Place, bool] | None:
    """The place that a path names and whether it is its picture's; None for anything else."""
    found = _PATH.fullmatch(path)
    if not found:
        return None
    slot, issue, number, picture = found.groups()
    return Place(int(slot), issue.decode("ascii"), int(number)), picture is not None


def is_issue(text: str) -> bool:
    return _ISSUE.fullmatch(text) is not None


def parse_number(text: str) -> int | None:
    """A number from 1 to MOST_NUMBER; None for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else None
