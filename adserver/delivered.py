"""What line items have delivered so far, read from the counts: the present hour each time, closed days once.

Net and by measure, as a report shows it; only ads of line items that somebody asks about are looked at. A flight may be
longer than the store keeps a day's totals: what it has forgotten is in the archive.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from adserver.archive import ArchiveUnavailable, Book, Closed
from adserver.catalog import Catalog
from adserver.days import Days
from adserver.events import SUSPECT, Type
from adserver.model import LineItem
from adserver.pacing import Figures
from adserver.store import LATE, Store

log = logging.getLogger(__name__)

WHOLE_EVERY_S = 60.0
CLOSED_EVERY_S = 600.0
MOST_DAYS = 400
"""Days looked back where no start is said, and none before them is in the archive."""
_SURELY_KEPT_DAYS = 40
"""However it is set up, the store has not forgotten what is younger."""
_MAY_CHANGE_DAYS = 3
"""Days before yesterday that may not be sealed yet, so that events are still counted in them."""
_HOURS = range(25)


_FIGURE = {
    str(int(Type.SERVED)): "served",
    str(int(Type.IMPRESSION)): "impressions",
    str(int(Type.VIEWABLE)): "viewables",
    str(int(Type.CLICK)): "clicks",
}

By = dict[tuple[str, str], Figures]
"""Figures by line item and creative."""


class Delivered:
    """Figures of the line items whose deciding takes them, or of *everything*, kept fresh by `refresh`.

    A closed day's sums stay as they were read; only what may still change is read again. So another goal, or the next
    day, costs no more than what is new.
    """

    def __init__(self, book: Book | None = None, *, everything: bool = False) -> None:
        self._book = book
        self._archived: frozenset[int] | None = None
        """The days that the archive holds; None before they are known, then nothing older is taken for nothing."""
        self._archived_at = float("-inf")
        self._all = everything
        self._wanted: dict[str, LineItem] = {}
        self._names: dict[str, str] = {}
        self._begins: dict[str, int] = {}
        self._closed: dict[int, By] = {}
        self._covered: dict[int, frozenset[str]] = {}
        self._closed_at = float("-inf")
        self._hours: dict[int, dict[int, By]] = {}
        self._whole_at = float("-inf")
        self._today = 0
        self._complete: frozenset[str] = frozenset()
        self._catalog: Catalog | None = None
        self._asked: frozenset[str] = frozenset()
        self._changed = True
        """Whether what is wanted, or what is known of closed days, is not as it was when `_complete` was found."""
        self._before: dict[str, Figures] | None = None
        """What closed days sum up to, by line item."""
        self._present: frozenset[tuple[int, int]] = frozenset()
        """The days and hours that are read each time."""
        self._settled: dict[int, dict[str, Figures]] | None = None
        """What the other hours of the days that are open sum up to, by day and line item."""

    def __repr__(self) -> str:
        return f"<Delivered of {len(self._wanted)} line items>"

    @property
    def complete(self) -> bool:
        """Whether all that was delivered is read, of every line item."""
        return self._complete >= self._wanted.keys()

    def totals(self, day: int | None = None) -> dict[str, Figures]:
        """What each line item has delivered in all, or on *day*, which is today; without those not all read yet."""
        if self._before is None:
            self._before = _by_line_item(self._closed_parts())
        if self._settled is None:
            self._settled = {
                number: _by_line_item(by for hour, by in hours.items() if (number, hour) not in self._present)
                for number, hours in self._hours.items()
            }
        found = {name: Figures() for name in self._complete}
        settled = [by for number, by in self._settled.items() if day in (None, number)]
        for by_line_item in [self._before, *settled] if day is None else settled:
            for name in by_line_item.keys() & found.keys():
                found[name].add(by_line_item[name])
        for number, hour in self._present:
            for (name, _), figures in self._hours.get(number, {}).get(hour, {}).items():
                if day in (None, number) and name in found:
                    found[name].add(figures)
        return found

    def recent(self, day: int, hour: int) -> dict[str, int]:
        """What each line item served in *hour* of *day* and the hour before."""
        found: dict[str, int] = {}
        before = (day, hour - 1) if hour else (day - 1, 23)
        for number, one in ((day, hour), before):
            for (line_item, _), figures in self._hours.get(number, {}).get(one, {}).items():
                found[line_item] = found.get(line_item, 0) + figures.served
        return found

    def until(self, day: int, hour: int) -> None:
        """Forget what came in *hour* of *day*, the last of the days read, and later."""
        self._hours[day] = {one: by for one, by in self._hours.get(day, {}).items() if one < hour}
        self._settled = None

    def creatives(self, line_item: str) -> dict[str, Figures]:
        """The same for the creatives of one."""
        found: dict[str, Figures] = {}
        for by in (*self._closed_parts(), *(by for hours in self._hours.values() for by in hours.values())):
            for (name, creative), figures in by.items():
                if name == line_item:
                    found.setdefault(creative, Figures()).add(figures)
        return found

    def _closed_parts(self) -> Iterable[By]:
        for number, by in self._closed.items():
            yield {key: one for key, one in by.items() if number >= self._begins.get(key[0], number + 1)}

    async def refresh(
        self, store: Store, catalog: Catalog, days: Days, now: float, budget_s: float | None = None
    ) -> None:
        """Read what may have changed. Raises StoreUnavailable or StoreRefused; then what was read so far is kept.

        With a budget, days gone by are read for about so long; the next call goes on, see `complete`.
        """
        before, steady = self._today, time.monotonic()
        today, hour = days.locate(now)
        self._today = today
        if self._hours and today - 1 in self._hours and today not in self._hours:  # a new day has begun
            self._whole_at = float("-inf")
        if catalog is not self._catalog or today != before or self._archived is None:
            await self._look_up(steady, anew=today != before)
            self._want(catalog, days)
        if not self._names:
            self._names = await store.ad_names()
        is_read = await self._read_closed(store, today, steady, budget_s)
        if steady - self._whole_at >= WHOLE_EVERY_S or self._hours.keys() != {today - 1, today}:
            hours = {day: await self._read_hours(store, day, _HOURS) for day in (today - 1, today)}
            self._hours, self._whole_at, self._settled = hours, steady, None
        else:
            recent = await self._read_hours(store, today, [one for one in (hour - 1, hour) if one >= 0])
            self._hours[today] = {**self._hours[today], **recent}
        present = frozenset((today, one) for one in (hour - 1, hour) if one >= 0)
        if present != self._present:
            self._present, self._settled = present, None
        if self._changed:
            self._complete, self._before, self._changed = self._find_complete(), None, not is_read

    async def _look_up(self, steady: float, *, anew: bool) -> None:
        """Which days the archive holds: once a day, and each minute while it is away."""
        if self._book is None:
            self._archived = frozenset()
        elif anew or (self._archived is None and steady - self._archived_at >= WHOLE_EVERY_S):
            self._archived_at = steady
            try:
                self._archived = frozenset(await asyncio.to_thread(self._book.days))
            except ArchiveUnavailable as error:
                log.warning("goals that began long ago wait: %s", error)

    def _want(self, catalog: Catalog, days: Days) -> None:
        """Follow the line items of *catalog* from now on."""
        line_items = {one.id: one for one in (catalog.document.line_items if self._all else catalog.measured)}
        if line_items.keys() != self._wanted.keys():
            self._whole_at = float("-inf")
            self._asked = frozenset(line_items)
        self._wanted, self._catalog, self._changed = line_items, catalog, True
        oldest = min(self._archived or (), default=self._today)
        oldest = min(oldest, self._today - MOST_DAYS)  # nobody knows of anything before
        self._begins = {name: max(_first_day(one, days), oldest) for name, one in line_items.items()}

    def _find_complete(self) -> frozenset[str]:
        """The line items of which every day since their start is known, but for today and yesterday."""
        last = self._today - 2
        begin: dict[int, list[str]] = {}
        for name, day in self._begins.items():
            begin.setdefault(min(day, last + 1), []).append(name)
        found, left = set(begin.pop(last + 1, ())), set(self._wanted)
        seen: frozenset[str] | None = None
        for day in range(last, min(begin, default=last + 1) - 1, -1):
            covered = self._covered.get(day, frozenset())
            if covered is not seen:  # most days are covered alike
                left &= covered
                seen = covered
            found.update(name for name in begin.get(day, ()) if name in left)
        return frozenset(found)

    async def _read_closed(self, store: Store, today: int, steady: float, budget_s: float | None) -> bool:
        """Of the days before yesterday, those since each line item's start: what is not known, and what may change.
        Whether that was all.
        """
        if steady - self._closed_at >= CLOSED_EVERY_S:
            for day in list(self._covered):
                if day >= today - 1 - _MAY_CHANGE_DAYS or await store.is_late_open(day):
                    del self._covered[day]
            self._closed_at, self._changed = steady, True
        first = min(self._begins.values(), default=today)
        for day in [day for day in self._covered if day < first or day >= today - 1]:
            del self._covered[day]
            self._closed.pop(day, None)
            self._changed = True
        if not self._changed:
            return True
        for day in range(today - 2, first - 1, -1):
            covered = self._covered.get(day, frozenset())
            if covered is self._asked:
                continue
            if self._asked <= covered:
                self._covered[day] = self._asked
                continue
            if {name for name, begins in self._begins.items() if begins <= day} <= covered:
                continue
            counts = await self._counts(store, day, today)
            if counts is None:
                return False
            late = await store.counts(day, LATE) if await store.is_late_open(day) else {}
            found: By = {}
            for part in (counts, late):
                for by in self._sum(part).values():
                    for key, figures in by.items():
                        found.setdefault(key, Figures()).add(figures)
            self._closed[day], self._covered[day] = found, self._asked
            if budget_s is not None and time.monotonic() - steady >= budget_s:
                return False
        return True

    async def _counts(self, store: Store, day: int, today: int) -> Mapping[str, int] | None:
        """A day's counts, of the archive where the store has forgotten them; None while nobody can tell."""
        counts = await store.counts(day)
        if counts or (self._archived is None and day >= today - _SURELY_KEPT_DAYS):
            return counts
        if self._archived is None:
            return None
        if self._book is None or day not in self._archived:
            return counts
        try:
            pages = await asyncio.to_thread(_look, self._book, day)
        except ArchiveUnavailable as error:
            log.warning("goals that began long ago wait: %s", error)
            self._archived = None
            return None
        found: dict[str, int] = {}
        for page in pages:
            self._names = {**page.ads, **self._names}
            for field, n in page.counts.items():
                found[field] = found.get(field, 0) + n
        return found

    async def _read_hours(self, store: Store, day: int, hours: Iterable[int]) -> dict[int, By]:
        if not self._wanted:
            return {}
        counts = await store.counts(day, hours=hours)
        keys = {field.split(":")[2] for field in counts if field.count(":") >= 2 and field[:2] != "2:"}
        if not keys <= self._names.keys():
            self._names = await store.ad_names()
        return {**{hour: {} for hour in hours}, **self._sum(counts)}

    def _sum(self, counts: Mapping[str, int]) -> dict[int, By]:
        found: dict[int, By] = {}
        for field, n in counts.items():
            type_, hour, key, *reason = field.split(":") if field.count(":") in (2, 3) else ("", "", "")
            figure = _FIGURE.get(type_) if hour.isdigit() else None
            name = self._names.get(key, "").split("/")
            if figure and len(name) == 3 and name[1] in self._wanted and (not reason or reason == [SUSPECT]):
                figures = found.setdefault(int(hour), {}).setdefault((name[1], name[2]), Figures())
                setattr(figures, figure, getattr(figures, figure) + n)
        return found


def _look(book: Book, day: int) -> list[Closed]:
    """A closed day, and what came late for it; the store forgets both at once."""
    return [page for page in (book.look(day), book.late(day)) if page is not None]


def _by_line_item(parts: Iterable[By]) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for by in parts:
        for (line_item, _), figures in by.items():
            found.setdefault(line_item, Figures()).add(figures)
    return found


def _first_day(line_item: LineItem, days: Days) -> int:
    return 0 if line_item.starts is None else days.locate(line_item.starts)[0]
