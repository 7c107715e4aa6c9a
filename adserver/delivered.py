"""What line items have delivered so far, read from the counts: the present hour each time, closed days once.

Net and by measure, as a report shows it; only ads of line items that somebody asks about are looked at.
"""

import time
from collections.abc import Iterable, Mapping

from adserver.catalog import Catalog
from adserver.days import Days
from adserver.events import SUSPECT, Type
from adserver.model import LineItem
from adserver.pacing import Figures
from adserver.store import LATE, Store

WHOLE_EVERY_S = 60.0
CLOSED_EVERY_S = 600.0
MOST_DAYS = 400
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
    """Figures of the line items whose deciding takes them, or of *everything*, kept fresh by `refresh`."""

    def __init__(self, *, everything: bool = False) -> None:
        self._all = everything
        self._wanted: dict[str, LineItem] = {}
        self._names: dict[str, str] = {}
        self._closed: By = {}
        self._closed_at = float("-inf")
        self._hours: dict[int, dict[int, By]] = {}
        self._whole_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Delivered of {len(self._wanted)} line items>"

    def totals(self, day: int | None = None) -> dict[str, Figures]:
        """What each line item has delivered in all, or on *day*, which is today."""
        found: dict[str, Figures] = {}
        for by in self._parts(day):
            for (line_item, _), figures in by.items():
                found.setdefault(line_item, Figures()).add(figures)
        return found

    def until(self, day: int, hour: int) -> None:
        """Forget what came in *hour* of *day*, the last of the days read, and later."""
        self._hours[day] = {one: by for one, by in self._hours.get(day, {}).items() if one < hour}

    def creatives(self, line_item: str) -> dict[str, Figures]:
        """The same for the creatives of one."""
        found: dict[str, Figures] = {}
        for by in self._parts(None):
            for (name, creative), figures in by.items():
                if name == line_item:
                    found.setdefault(creative, Figures()).add(figures)
        return found

    def _parts(self, day: int | None) -> Iterable[By]:
        if day is None:
            yield self._closed
        for number, hours in self._hours.items():
            if day is None or number == day:
                yield from hours.values()

    async def refresh(self, store: Store, catalog: Catalog, days: Days, now: float) -> None:
        """Read what may have changed. Raises StoreUnavailable or StoreRefused; then everything is as it was."""
        line_items = {one.id: one for one in (catalog.document.line_items if self._all else catalog.measured)}
        today, hour = days.locate(now)
        steady = time.monotonic()
        if line_items != self._wanted or {today - 1, today} != self._hours.keys():
            self._closed_at = self._whole_at = float("-inf")
        self._wanted = line_items
        if steady - self._closed_at >= CLOSED_EVERY_S:
            self._closed, self._closed_at = await self._read_closed(store, days, today), steady
        if steady - self._whole_at >= WHOLE_EVERY_S:
            hours = {day: await self._read_hours(store, day, _HOURS) for day in (today - 1, today)}
            self._hours, self._whole_at = hours, steady
        else:
            recent = await self._read_hours(store, today, [one for one in (hour - 1, hour) if one >= 0])
            self._hours[today] = {**self._hours[today], **recent}

    async def _read_closed(self, store: Store, days: Days, today: int) -> By:
        """Of the days before yesterday, those since each line item's start."""
        found: By = {}
        if not self._wanted:
            return found
        self._names = await store.ad_names()
        begins = {name: _first_day(one, days, today) for name, one in self._wanted.items()}
        for day in range(max(today - MOST_DAYS, min(begins.values())), today - 1):
            for part in ("", LATE) if await store.is_late_open(day) else ("",):
                for by in self._sum(await store.counts(day, part)).values():
                    for key, figures in by.items():
                        if day >= begins[key[0]]:
                            found.setdefault(key, Figures()).add(figures)
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


def _first_day(line_item: LineItem, days: Days, today: int) -> int:
    return today - MOST_DAYS if line_item.starts is None else days.locate(line_item.starts)[0]
