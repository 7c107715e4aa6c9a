"""Receipts: what each decision was made of, so that it can be made again weeks later, winner and trace.

A decision's id is 16 characters of the tokens it served (see `decision_id`): each snippet carries it in its addresses.
A worker's receipts are a stream of records, each a msgpack array that begins with its kind:

    page      number, asks, format, facts, path, address, line items held back (or nil)
    pace      shares that changed, by line item
    reset     all shares, and the weights that optimised creatives have earned
    decision  instant, version, page, draws by slot and group, issuer, first serial, keys of the ads served

What a record needs stands before it in the same file; a file that ends in the middle of a record, as a kill leaves it,
is good up to there.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from adserver.catalog import Catalog
from adserver.decide import Decision, Filled, Lost, Page, decide
from adserver.model import Format, Group, SlotId
from adserver.pacing import Pace
from adserver.targeting import Context

PAGE, PACE, RESET, DECISION = range(4)
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{48}(?![A-Za-z0-9_-])")
_ID = re.compile(r"[A-Za-z0-9_-]{16}")


class Receipt(Struct, frozen=True):
    """One decision's inputs. *keys* are the ads served, by serial from *serial* on."""

    at: float
    version: int
    asks: tuple[int | str, ...]
    format: str
    context: Context
    held: Mapping[str, str] | None
    draws: Mapping[int | str, int]
    pace: Pace
    issuer: bytes
    serial: int
    keys: tuple[bytes, ...]


def decision_id(token: str) -> str:
    """Of a token's 48 characters those that say who issued it and which it was."""
    return token[8:24]


def parse_id(text: str) -> tuple[bytes, int]:
    """The issuer and serial that an id, a token, or anything that holds a token names. Raises ValueError."""
    found = _TOKEN.search(text)
    name = decision_id(found[0]) if found else text.strip()
    if not _ID.fullmatch(name):
        raise ValueError("expected a decision's id of 16 characters, or a snippet or address that holds a token")
    raw = base64.urlsafe_b64decode(name)
    return raw[2:7], int.from_bytes(raw[7:11], "little")


class Writer:
    """Makes records, and those that they need, of one file."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._pages: dict[Any, int] = {}
        self._shares: dict[str, float] | None = None
        self._creatives: Mapping[str, Mapping[str, float]] = {}

    def pace(self, shares: Mapping[str, float], creatives: Mapping[str, Mapping[str, float]]) -> bytes:
        """The pace from here on; nothing where it is as before."""
        if self._shares is None or creatives is not self._creatives:
            self._shares, self._creatives = dict(shares), creatives
            return self._framed((RESET, shares, creatives))
        before, self._shares = self._shares, dict(shares)
        changed = {name: share for name, share in shares.items() if before.get(name) != share}
        changed |= {name: 0.0 for name in before if name not in shares}
        return self._framed((PACE, changed)) if changed else b""

    def decision(
        self,
        at: float,
        version: int,
        page: Page,
        draws: Mapping[Any, int],
        issuer: bytes,
        serial: int,
        keys: list[bytes],
    ) -> bytes:
        """A page that was decided, and first the page itself where it is new here."""
        asks = tuple(ask.id if isinstance(ask, Group) else int(ask) for ask in page.asks)
        held = None if page.held is None else tuple(sorted(page.held.items()))
        known = asks, page.format.value, page.context, held
        number = self._pages.get(known)
        out = b""
        if number is None:
            number = self._pages[known] = len(self._pages)
            context = sorted(page.context.facts), page.context.path, page.context.address
            kept = None if held is None else dict(held)
            out = self._framed((PAGE, number, asks, page.format.value, *context, kept))
        record = (DECISION, at, version, number, draws, issuer, serial, b"".join(keys))
        return out + self._framed(record)

    def _framed(self, record: tuple[Any, ...]) -> bytes:
        data = self._encoder.encode(record)
        return len(data).to_bytes(4, "little") + data


def read_receipts(data: bytes) -> Iterator[Receipt]:
    """Every receipt of a file's bytes, up to a record that is not whole."""
    pages: dict[int, tuple[Any, ...]] = {}
    shares: dict[str, float] = {}
    creatives: dict[str, dict[str, float]] = {}
    for record in _records(data):
        match record:
            case [0, int(number), list(asks), str(form), list(facts), str(path), str(address), held]:
                pages[number] = (tuple(asks), form, Context(frozenset(facts), path, address), held)
            case [1, dict(changed)]:
                shares = {**shares, **changed}
            case [2, dict(whole), dict(earned)]:
                shares, creatives = whole, earned
            case [3, float(at), int(version), int(number), dict(draws), bytes(issuer), int(serial), bytes(keys)]:
                cut = tuple(keys[start : start + 7] for start in range(0, len(keys), 7))
                asks, form, context, held = pages[number]
                pace = Pace(shares, {}, creatives)
                yield Receipt(at, version, asks, form, context, held, draws, pace, issuer, serial, cut)


def _records(data: bytes) -> Iterator[Any]:
    """The msgpack values that *data* is made of: before each stands its length, a u32."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            return
        try:
            yield msgspec.msgpack.decode(data[at + 4 : end])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        at = end


def decide_again(catalog: Catalog, receipt: Receipt) -> tuple[Page, list[Decision], list[Lost], bool]:
    """The page decided once more: its decisions, why others lost, and whether the same ads won."""
    known = (catalog.groups.get(ask) if isinstance(ask, str) else SlotId(ask) for ask in receipt.asks)
    asks = tuple(ask for ask in known if ask is not None)
    page = Page(asks, Format(receipt.format), receipt.context, receipt.held)
    trace: list[Lost] = []
    decisions = decide(catalog, receipt.at, page, receipt.draws, receipt.pace, trace)
    won = tuple(one.ad.key for one in decisions if isinstance(one, Filled))
    return page, decisions, trace, won == receipt.keys
