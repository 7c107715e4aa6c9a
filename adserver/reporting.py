"""Reads delivery figures back: the store's counts, after what the journals still hold has been counted."""

import asyncio
import re
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from adserver import report, versions
from adserver.archive import Book
from adserver.days import Days
from adserver.documents import Document
from adserver.errors import AdserverError
from adserver.events import unpack
from adserver.reader import Reader
from adserver.store import LATE, Store

MOST_DAYS = 400
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class BadRange(AdserverError):
    """The days or the dimension asked for cannot be reported."""


class Request(Struct, frozen=True):
    """What to report: *first* and *last* are dates in the newsroom's zone, None is its today."""

    first: date | None
    last: date | None
    by: str


def parse_request(first: str | None, last: str | None, by: str) -> Request:
    """Raises BadRange."""
    if by not in report.DIMENSIONS:
        raise BadRange(f"'by' is none of {', '.join(report.DIMENSIONS)}.")
    request = Request(_parse_date("from", first), _parse_date("to", last), by)
    if request.first and request.last and request.last < request.first:
        raise BadRange("'to' lies before 'from'; exchange them.")
    return request


def _parse_date(name: str, text: str | None) -> date | None:
    if not text:
        return None
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        found = date.fromisoformat(text)
    except ValueError:
        raise BadRange(f"'{name}' is not a date; write it as 2026-03-31.") from None
    if not 1971 <= found.year <= 2148:  # a day is counted in 16 bits from 1970
        raise BadRange(f"'{name}' lies outside the years 1971 to 2148.")
    return found


class Report(Struct, frozen=True):
    """*rows* by *by*; *waiting* is how many journals here hold events the store has not counted yet.

    *late* has a row for each closed day that events came for afterwards: corrections beside the rows, never in them.
    """

    by: str
    first: date
    last: date
    zone: str
    rows: list[report.Row]
    waiting: int
    late: list[report.Row]

    def as_dict(self) -> dict[str, Any]:
        return {
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "time_zone": self.zone,
            "waiting": self.waiting,
            "rows": [row.as_dict(self.by) for row in self.rows],
            "late": [row.as_dict("day") for row in self.late],
        }


async def read_report(store: Store, book: Book, journals: Path, request: Request, patience_s: float) -> Report:
    """The figures, once every event journalled here before the call is counted or *patience_s* has gone by.

    A closed day that the store has forgotten is read from *book*.
    Raises BadRange, StoreUnavailable, StoreRefused or ArchiveUnavailable.
    """
    waiting = await settle(store, journals, patience_s)
    live = await versions.read_version(store, await versions.live_number(store))
    document = live.document if live else Document()
    days = Days(document.site.time_zone)
    today = days.date(days.locate(time.time())[0])
    first = request.first or request.last or today
    last = request.last or max(today, first)
    if last - first >= timedelta(days=MOST_DAYS):
        raise BadRange(f"{(last - first).days + 1} days are asked for; at most {MOST_DAYS} are kept and reported.")
    numbers = range(days.number(first), days.number(last) + 1)
    names = await store.ad_names()
    closed, late_days = await asyncio.to_thread(book.digests), await asyncio.to_thread(book.late_days)
    counts, late = {}, {}
    for day in numbers:
        digest = closed.get(day)
        counts[day] = await _read_day(store, book, day, digest, names)
        if digest and await store.is_late_open(day):
            late[day] = await store.counts(day, LATE)
        elif day in late_days and (page := await asyncio.to_thread(book.late, day)):
            late[day] = page.counts
            names.update(page.ads)
    slots = [slot.id for slot in document.slots]
    rows = report.rows(counts, names, request.by, days, slots)
    corrections = report.rows(late, names, "day", days)
    return Report(request.by, first, last, days.zone, rows, waiting, corrections)


async def _read_day(store: Store, book: Book, day: int, digest: str | None, names: dict[str, str]) -> dict[str, int]:
    """A day's counts, from the archive where the store has forgotten them; adds to *names* those of that page."""
    if digest is None or await store.state(day) == (True, digest):
        return await store.counts(day)
    page = await asyncio.to_thread(book.read, day)
    names.update(page.ads if page else {})
    return page.counts if page else {}


async def settle(store: Store, journals: Path, patience_s: float) -> int:
    """Wait until the store has counted the newest record of every journal here; how many it has not, at the end."""
    tips = await asyncio.to_thread(_tips, journals)
    deadline = time.monotonic() + patience_s
    while tips:
        behind = []
        for producer, day, last in tips:
            if (await store.cursors(day, [producer]))[0] < last and not (await store.state(day))[0]:
                behind.append((producer, day, last))
        tips = behind
        if time.monotonic() >= deadline:
            break
        if tips:
            await asyncio.sleep(0.02)
    return len(tips)


def _tips(journals: Path) -> list[tuple[bytes, int, int]]:
    """Each journal's producer, and the day and number of its newest record."""
    found: list[tuple[bytes, int, int]] = []
    if not journals.is_dir():
        return found
    for directory in journals.iterdir():
        if not re.fullmatch("[0-9a-f]{16}", directory.name):
            continue
        try:
            tip = Reader(directory).tip()
        except OSError:  # being made or removed this very moment
            continue
        if tip:
            found.append((bytes.fromhex(directory.name), unpack(tip[1])[0].day, tip[0]))
    return found
