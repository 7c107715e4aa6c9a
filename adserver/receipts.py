"""Receipts: what each decision was made of, so that it can be made again weeks later, winner and trace.

A decision's id is 16 characters of the tokens it served (see `decision_id`): each snippet carries it in its addresses.
A worker's receipts are a stream of records, each a msgpack array that begins with its kind:

    0  page      number, asks, format, facts, path, address, line items held back (or nil), views left by field, the
                 slots and groups that were drawn for
    1  pace      shares that are not as before, by line item; nil: none is known any more
    2  reset     all shares and weights (written by older versions only)
    3  decision  instant, version, page, draws, issuer, first serial, keys (written by older versions only)
    4  earned    weights that creatives of optimised line items have earned, where they are not as before
    5  decision  issuer, version, instant, page, serial, draws, keys of the ads served; serial and draws are told by how
                 far they are from the last, which is 0 to begin with
    6  too long  issuer, version, instant, serial as above, number of ads: its page was longer than `LONGEST_PAGE`

What a record needs stands before it in the same file; a file that ends in the middle of a record, as a kill leaves it,
is good up to there. Of the page, of its reader and of the pace only that is kept which decides (see `stakes`).
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from adserver.catalog import Catalog
from adserver.decide import Decision, Filled, Lost, Page, decide
from adserver.errors import AdserverError
from adserver.model import Format, Group, SlotId
from adserver.pacing import Pace
from adserver.stakes import Stakes, cut_down, slots_of, stakes_of
from adserver.targeting import UNKNOWN, Context

LONGEST_PAGE = 8_192
"""Bytes of a page's record; of a longer one it is only kept that it was."""
MOST_REMEMBERED = 4_000_000
"""Bytes that a file's readers and its writer have to remember, about; then another file is begun."""
_BESIDE = 100
"""Bytes that remembering something takes beside itself."""
_LONGEST_RECORD = 1 << 20
_LONGEST_FILE = 256_000_000
_MOST_RECORDS = 2_000_000
"""Twice as many as 16 MB hold, and more."""
_READ_MOST = 2 * MOST_REMEMBERED
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{48}(?![A-Za-z0-9_-])")
_ID = re.compile(r"[A-Za-z0-9_-]{16}")


class DamagedReceipts(AdserverError):
    """Bytes that no Writer wrote; what stands before them is good."""


class Receipt(Struct, frozen=True):
    """One decision's inputs. *keys* are the ads served, by serial from *serial* on.

    Of one that is not *whole* nothing else is known than instant, version, and that *n* ads were served: its page was
    too long.
    """

    at: float
    version: int
    asks: tuple[int | str, ...]
    format: Format
    context: Context
    held: Mapping[str, str] | None
    draws: Mapping[int | str, int]
    pace: Pace
    issuer: bytes
    serial: int
    keys: tuple[bytes, ...]
    left: Mapping[str, int] = {}
    whole: bool = True
    n: int = 0


class Noted(Struct, frozen=True):
    """What a decision was made of, as it is noted when it was served. Nothing of it may change any more.

    *moment* is another one whenever *shares* or *creatives* are.
    """

    at: float
    catalog: Catalog
    page: Page
    draws: Mapping[Any, int]
    moment: int
    shares: Mapping[str, float]
    creatives: Mapping[str, Mapping[str, float]]
    issuer: bytes
    serial: int
    keys: list[bytes]


class _Page(Struct, array_like=True, frozen=True, tag=0):
    number: int
    asks: tuple[int | str, ...]
    format: Format
    facts: tuple[str, ...]
    path: str
    address: str
    held: dict[str, str] | None
    left: dict[str, int] = {}
    drawn: tuple[int | str, ...] = ()


class _Shares(Struct, array_like=True, frozen=True, tag=1):
    changed: dict[str, float | None]


class _Reset(Struct, array_like=True, frozen=True, tag=2):
    shares: dict[str, float]
    creatives: dict[str, dict[str, float]]


class _Older(Struct, array_like=True, frozen=True, tag=3):
    at: float
    version: int
    page: int
    draws: dict[int | str, int]
    issuer: bytes
    serial: int
    keys: bytes


class _Earned(Struct, array_like=True, frozen=True, tag=4):
    changed: dict[str, dict[str, float]]


class _Decided(Struct, array_like=True, frozen=True, tag=5):
    issuer: bytes
    version: int
    at: float
    page: int
    serial: int
    draws: tuple[int, ...]
    keys: bytes


class _TooLong(Struct, array_like=True, frozen=True, tag=6):
    issuer: bytes
    version: int
    at: float
    serial: int
    n: int


_Record = _Page | _Shares | _Reset | _Older | _Earned | _Decided | _TooLong
_decoder = msgspec.msgpack.Decoder(_Record)
_encoder = msgspec.msgpack.Encoder()
_KEY = 7


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
        self._catalog: Catalog | None = None
        self._stakes: dict[int, Stakes] = {}
        self._told: dict[int, int] = {}
        self._pages: dict[bytes, int] = {}
        self._shares: dict[str, float] = {}
        self._earned: dict[str, Mapping[str, float]] = {}
        self._drawn: dict[int | str, int] = {}
        self._serial = 0
        self.remembered = 0
        """Bytes, about."""

    def records(self, noted: Noted) -> bytes:
        """A decision, and first what else is new here: the pace, the page."""
        if noted.catalog is not self._catalog:
            self._catalog, self._stakes, self._told = noted.catalog, {}, {}
        slots = dict.fromkeys(slots_of(noted.page))
        stakes = {slot: self._stakes_of(noted.catalog, slot) for slot in slots}
        page = cut_down(noted.page, stakes.values())
        number, out = self._page(page, tuple(noted.draws))
        serial, self._serial = noted.serial - self._serial, noted.serial + len(noted.keys)
        if number is None:
            return _framed(_TooLong(noted.issuer, noted.catalog.version, noted.at, serial, len(noted.keys)))
        draws = tuple(n - self._drawn.get(name, 0) for name, n in noted.draws.items())
        self._drawn.update(noted.draws)
        keys = b"".join(noted.keys)
        made = _Decided(noted.issuer, noted.catalog.version, noted.at, number, serial, draws, keys)
        return self._pace(noted, stakes) + out + _framed(made)

    def _stakes_of(self, catalog: Catalog, slot: int) -> Stakes:
        found = self._stakes.get(slot)
        if found is None:
            found = self._stakes[slot] = stakes_of(catalog, slot)
        return found

    def _pace(self, noted: Noted, stakes: Mapping[int, Stakes]) -> bytes:
        """What of the pace at stake is not as it was last told."""
        shares: dict[str, float | None] = {}
        earned: dict[str, Mapping[str, float]] = {}
        for slot, one in stakes.items():
            if self._told.get(slot) == noted.moment:
                continue
            self._told[slot] = noted.moment
            for name in one.goals:
                share = noted.shares.get(name)
                if share != self._shares.get(name):
                    shares[name] = share
            for name in one.optimised:
                weights = noted.creatives.get(name, {})
                if weights != self._earned.get(name, {}):
                    earned[name] = weights
        out = b""
        if shares:
            self.remembered += sum(_BESIDE + len(name) for name in shares if name not in self._shares)
            self._shares |= {name: share for name, share in shares.items() if share is not None}
            for name in [name for name, share in shares.items() if share is None]:
                self._shares.pop(name, None)
            out = _framed(_Shares(shares))
        if earned:
            self._earned |= earned
            record = _framed(_Earned({name: dict(weights) for name, weights in earned.items()}))
            self.remembered += len(record)
            out += record
        return out

    def _page(self, page: Page, drawn: tuple[int | str, ...]) -> tuple[int | None, bytes]:
        """The page's number, and its record where it is new; no number where it is too long."""
        asks = tuple(ask.id if isinstance(ask, Group) else int(ask) for ask in page.asks)
        context, held = page.context, None if page.held is None else dict(page.held)
        facts = tuple(sorted(context.facts))
        made = _Page(0, asks, page.format, facts, context.path, context.address, held, dict(page.left), drawn)
        known = _encoder.encode(made)
        number = self._pages.get(known)
        if number is not None:
            return number, b""
        if len(known) > LONGEST_PAGE:
            return None, b""
        number = self._pages[known] = len(self._pages)
        self.remembered += _BESIDE + len(known)
        return number, _framed(msgspec.structs.replace(made, number=number))


def _framed(record: _Record) -> bytes:
    data = _encoder.encode(record)
    return len(data).to_bytes(4, "little") + data


def read_receipts(pieces: Iterable[bytes]) -> Iterator[Receipt]:
    """Every receipt of a file that comes in *pieces*, up to a record that is not whole. Raises DamagedReceipts."""
    return _Reader().read(pieces, lambda *_: True)


def find_receipt(pieces: Iterable[bytes], issuer: bytes, serial: int) -> Receipt | None:
    """A file's receipt of what *issuer* served under *serial*; None where there is none. Raises DamagedReceipts."""
    wanted = _Reader().read(pieces, lambda of, first, n: of == issuer and first <= serial < first + n)
    return next(wanted, None)


class _Reader:
    """What is known at one place of a file. Pages stay as they are written: most are not asked for."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes] = {}
        self._shares: dict[str, float] = {}
        self._earned: dict[str, dict[str, float]] = {}
        self._drawn: dict[int | str, int] = {}
        self._serial = 0
        self._remembered = 0

    def read(self, pieces: Iterable[bytes], wanted: Callable[[bytes, int, int], bool]) -> Iterator[Receipt]:
        """Those that are *wanted*, by their issuer, first serial, and how many ads were served."""
        for data in _records(pieces):
            match _decode(data):
                case _Decided() as made:
                    page, serial, draws = self._decided(made)
                    if wanted(made.issuer, serial, len(made.keys) // _KEY):
                        yield self._receipt(made, page, serial, draws)
                case _TooLong() as made:
                    serial = self._serial + made.serial
                    self._serial = serial + made.n
                    if wanted(made.issuer, serial, made.n):
                        yield Receipt(
                            made.at, made.version, (), Format.HTML, UNKNOWN, None, {}, Pace(), made.issuer, serial, (),
                            whole=False, n=made.n,
                        )  # fmt: skip
                case _Older() as made:
                    if wanted(made.issuer, made.serial, len(made.keys) // _KEY):
                        yield self._receipt(made, self._page(made.page), made.serial, made.draws)
                case _Reset() as made:
                    self._shares, self._earned = made.shares, made.creatives
                case other:
                    self._learn(other, data)

    def _decided(self, made: _Decided) -> tuple[_Page, int, dict[int | str, int]]:
        page, serial = self._page(made.page), self._serial + made.serial
        if len(made.draws) != len(page.drawn):
            raise DamagedReceipts(f"a decision has {len(made.draws)} draws, and its page {len(page.drawn)}")
        draws = {name: self._drawn.get(name, 0) + n for name, n in zip(page.drawn, made.draws, strict=True)}
        self._drawn.update(draws)
        self._serial = serial + len(made.keys) // _KEY
        return page, serial, draws

    def _page(self, number: int) -> _Page:
        data = self._pages.get(number)
        page = _decode(data) if data is not None else None
        if not isinstance(page, _Page):
            raise DamagedReceipts(f"a decision is of page {number}, which is not in the file")
        return page

    def _learn(self, record: _Page | _Shares | _Earned, data: bytes) -> None:
        """Remember it: no more than a Writer lets its readers."""
        match record:
            case _Page():
                self._remembered += _BESIDE + len(data)
                self._pages[record.number] = data
            case _Shares():
                self._remembered += sum(_BESIDE + len(name) for name in record.changed if name not in self._shares)
                for name, share in record.changed.items():
                    if share is None:
                        self._shares.pop(name, None)
                    else:
                        self._shares[name] = share
            case _Earned():
                self._remembered += len(data)
                self._earned |= record.changed
        if self._remembered > _READ_MOST:
            raise DamagedReceipts(f"it would have {_READ_MOST:,} bytes remembered, more than is ever written")

    def _receipt(self, made: _Decided | _Older, page: _Page, serial: int, draws: Mapping[int | str, int]) -> Receipt:
        keys = tuple(made.keys[start : start + _KEY] for start in range(0, len(made.keys), _KEY))
        context = Context(frozenset(page.facts), page.path, page.address)
        pace = Pace(dict(self._shares), {}, dict(self._earned))
        inputs = page.asks, page.format, context, page.held, draws, pace
        return Receipt(made.at, made.version, *inputs, made.issuer, serial, keys, page.left, n=len(keys))


def _decode(data: bytes) -> _Record:
    try:
        record: _Record = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedReceipts(f"a record cannot be read: {error}") from None
    return record


def _records(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The records that *pieces* are made of: before each stands its length, a u32."""
    data, passed, n = bytearray(), 0, 0
    for piece in pieces:
        data += piece
        at = 0
        while at + 4 <= len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if end - at > _LONGEST_RECORD:
                raise DamagedReceipts(f"a record of {end - at:,} bytes: at most {_LONGEST_RECORD:,} are read")
            if end > len(data):
                break
            yield bytes(data[at + 4 : end])
            at, n = end, n + 1
        del data[:at]
        passed += at
        if passed > _LONGEST_FILE or n > _MOST_RECORDS:
            raise DamagedReceipts(f"it goes on after {passed:,} bytes unpacked and {n:,} records")


def decide_again(catalog: Catalog, receipt: Receipt) -> tuple[Page, list[Decision], list[Lost], bool]:
    """The page of a receipt that is whole decided once more, as far as it decides anything: its decisions, why others
    lost, and whether the same ads won.
    """
    known = (catalog.groups.get(ask) if isinstance(ask, str) else SlotId(ask) for ask in receipt.asks)
    asks = tuple(ask for ask in known if ask is not None)
    page = Page(asks, receipt.format, receipt.context, receipt.held, receipt.left)
    trace: list[Lost] = []
    decisions = decide(catalog, receipt.at, page, receipt.draws, receipt.pace, trace)
    won = tuple(one.ad.key for one in decisions if isinstance(one, Filled))
    return page, decisions, trace, won == receipt.keys
