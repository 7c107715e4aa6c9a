"""Delivery figures out of counts: per slot, line item, creative, day or hour.

requests >= served >= impressions >= viewables, and clicks, each counted apart; measured, of how many impressions the
page could tell whether they were viewable; and loads, how often the pictures of newsletters were fetched, by whatever
fetched them. What was filed as invalid is in its own column by reason and in none of the others: for each of the four
events, gross - reasons = net, and net is what the figure of its name shows. Suspect events are in the net, and told
apart.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from adserver.days import Days
from adserver.events import INVALID, SUSPECT, Type

DIMENSIONS = ("slot", "line_item", "creative", "day", "hour")
FIGURES = ("requests", "served", "impressions", "measured", "viewables", "clicks", "loads")
APART = ("invalid", "invalid_by_type", "suspect", "gross")

_FIELD = re.compile(r"(?:[134567]:[0-9]{1,2}:[0-9a-f]{14}|2:[0-9]{1,2}:[0-9]{1,10})(?::[a-z0-9-]+)?", re.ASCII)
_AD = re.compile(r"[0-9]{1,10}/[^/]+/[^/]+")
FIGURE_OF = {
    Type.IMPRESSION: "impressions",
    Type.MEASURED: "measured",
    Type.VIEWABLE: "viewables",
    Type.CLICK: "clicks",
}
EVENT_FIGURES = tuple(FIGURE_OF.values())
_TYPES = {str(int(type_)): type_ for type_ in Type}
_NUMBERED = {f"reason-{number}": reason for number, reason in enumerate(INVALID)}
"""What an older version called the reasons it did not know yet; its counts still mean the same."""


def _nothing() -> dict[str, int]:
    return dict.fromkeys(EVENT_FIGURES, 0)


def _no_reasons() -> dict[str, dict[str, int]]:
    return {figure: {} for figure in EVENT_FIGURES}


class Row(Struct, kw_only=True):
    """One line of a report. *name* is the value of the dimension asked for.

    The figures are net. *suspect* is how many of each event's look automated; *invalid_by_type* is what was taken
    off each event, by reason.
    """

    name: int | str | None
    requests: int = 0
    served: int = 0
    impressions: int = 0
    measured: int = 0
    viewables: int = 0
    clicks: int = 0
    loads: int = 0
    suspect: dict[str, int] = field(default_factory=_nothing)
    invalid_by_type: dict[str, dict[str, int]] = field(default_factory=_no_reasons)

    @property
    def invalid(self) -> dict[str, int]:
        """What was taken off all events together, by reason."""
        summed: dict[str, int] = {}
        for reasons in self.invalid_by_type.values():
            for reason, n in reasons.items():
                summed[reason] = summed.get(reason, 0) + n
        return summed

    @property
    def viewable_of(self) -> int:
        return viewable_of(self.measured, self.viewables)

    @property
    def gross(self) -> dict[str, int]:
        """Every genuine event, before anything is taken off."""
        return {
            figure: getattr(self, figure) + sum(reasons.values()) for figure, reasons in self.invalid_by_type.items()
        }

    def as_dict(self, by: str) -> dict[str, Any]:
        return {by: self.name, **{name: getattr(self, name) for name in (*FIGURES, *APART)}}


def rows(
    counts: Mapping[int, Mapping[str, int]], ads: Mapping[str, str], by: str, days: Days, slots: Iterable[int] = ()
) -> list[Row]:
    """A row per value of the dimension *by*, in its order, from each day's count fields.

    *ads* names the ad keys. Every one of *slots* gets a row when asking by slot, so that a silent one is seen.
    """
    found: dict[int | str | None, Row] = {slot: Row(name=slot) for slot in slots} if by == "slot" else {}
    for day, fields in counts.items():
        for name, n in fields.items():
            _add(found, day, name, n, ads, by, days)
    return [found[name] for name in sorted(found, key=_at if by == "hour" else _place)]


def _place(name: int | str | None) -> tuple[bool, bool, int | str | None]:
    """Numbers first, then words; what has no name comes last."""
    return name is None, isinstance(name, str), name


def _at(hour: int | str | None) -> float:
    """An hour's instant: where clocks go back, 02:00+02:00 comes before 02:00+01:00."""
    return datetime.fromisoformat(str(hour)).timestamp()


class Count(Struct, frozen=True):
    """What a count's field says. *subject* is an ad's key (hex), or of an unfilled request the slot."""

    type: Type
    hour: int
    subject: str
    reason: str | None


def parse_count(field: str) -> Count | None:
    """The count in *field*; None for another program's: the fields of ours are written by `tally` alone."""
    if not _FIELD.fullmatch(field):
        return None
    number, hour, subject, *rest = field.split(":")
    return Count(_TYPES[number], int(hour), subject, _NUMBERED.get(rest[0], rest[0]) if rest else None)


def name_of_ad(key: str, ads: Mapping[str, str]) -> str:
    """The name of the ad with *key*, `slot/line item/creative`; of one that nobody has named, its key stands in it."""
    name = ads.get(key, "")
    return name if _AD.fullmatch(name) else f"/{key}/{key}"


def _add(
    found: dict[int | str | None, Row], day: int, field: str, n: int, ads: Mapping[str, str], by: str, days: Days
) -> None:
    count = parse_count(field)
    if count is None:
        return
    type_, reason = count.type, count.reason
    if type_ is Type.UNFILLED:
        slot, line_item, creative = count.subject, None, None
    else:
        slot, line_item, creative = name_of_ad(count.subject, ads).split("/")
    match by:
        case "slot":
            name: int | str | None = int(slot) if slot else None
        case "line_item":
            name = line_item
        case "creative":
            name = creative
        case "day":
            name = days.date(day).isoformat()
        case _:
            name = days.describe(day, count.hour)
    row = found.get(name)
    if row is None:
        row = found[name] = Row(name=name)
    if type_ is Type.UNFILLED:
        row.requests += n
    elif type_ is Type.SERVED:
        row.requests += n
        row.served += n
    elif type_ is Type.LOAD:
        row.loads += n
    elif reason and reason != SUSPECT:
        reasons = row.invalid_by_type[FIGURE_OF[type_]]
        reasons[reason] = reasons.get(reason, 0) + n
    else:
        figure = FIGURE_OF[type_]
        setattr(row, figure, getattr(row, figure) + n)
        if reason:
            row.suspect[figure] += n


def viewable_of(measured: int, viewables: int) -> int:
    """Of how many impressions a viewable rate is taken: of those that were measured (MRC Viewable Ad Impression
    Measurement Guidelines, "viewable rate"). A viewable one was, also where the word of its measuring was lost.
    """
    return max(measured, viewables)


ORDER = (("served", "requests"), ("impressions", "served"), ("measured", "impressions"), ("viewables", "impressions"))
"""What each figure may never exceed."""


def violations(rows: Iterable[Row]) -> dict[str, int]:
    """In how many of *rows* a figure exceeds the one it must come from, by `<figure>-<other>`.

    No event is counted wrongly for it to happen: a page whose impression was lost still sends its viewable. More than
    a few say that something on the way from pages to here is broken.
    """
    found = {f"{less}-{more}": 0 for less, more in ORDER}
    for row in rows:
        for less, more in ORDER:
            found[f"{less}-{more}"] += getattr(row, less) > getattr(row, more)
    return found


def total(rows: Iterable[Row]) -> Row:
    """The sum of *rows*."""
    whole = Row(name="total")
    for row in rows:
        for figure in FIGURES:
            setattr(whole, figure, getattr(whole, figure) + getattr(row, figure))
        for figure in EVENT_FIGURES:
            whole.suspect[figure] += row.suspect[figure]
            reasons = whole.invalid_by_type[figure]
            for reason, n in row.invalid_by_type[figure].items():
                reasons[reason] = reasons.get(reason, 0) + n
    return whole
