"""Frequency caps: may this reader see it again?

A cap of `3 per day` looks back a day from each view. What a reader has seen is known by the instants of the last few
views of each owner of a cap: a line item, a campaign or an advertiser.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from adserver.catalog import Catalog, Limit
from adserver.model import Cap

Seen = Mapping[str, Sequence[int]]
"""By field (see `Limit.field`): when it was shown lately, in Unix seconds."""

_UNITS = ((604_800, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Held(Struct, frozen=True):
    """*line_items* that this reader may not be shown now, and why, as the rest of a sentence; of the others, how many
    views are *left* by field.
    """

    line_items: Mapping[str, str] = {}
    left: Mapping[str, int] = {}


def capped_on(catalog: Catalog, slots: Iterable[int], now: float) -> list[str]:
    """The line items with a cap that may be shown in *slots* now."""
    found: dict[str, None] = {}
    for slot in slots:
        live = catalog.bookings[slot].at(now)
        if live.capped:
            for tier in live.tiers:
                found.update((one.line_item.id, None) for one in (tier.everyone if tier else ()) if one.caps)
    return list(found)


def fields_of(catalog: Catalog, line_items: Iterable[str]) -> dict[str, int]:
    """What to know about a reader for *line_items*: each field, and how many views back its caps look."""
    found: dict[str, int] = {}
    for line_item in line_items:
        for limit in catalog.caps[line_item]:
            field = limit.field
            found[field] = max(found.get(field, 0), limit.cap.most)
    return found


def window_s(catalog: Catalog, line_items: Iterable[str]) -> int:
    """How long what a reader saw of *line_items* has to be remembered."""
    return max((limit.cap.within_s for line_item in line_items for limit in catalog.caps[line_item]), default=0)


def hold(catalog: Catalog, line_items: Iterable[str], seen: Seen, now: float) -> Held:
    """Which of *line_items* this reader may not be shown now, and how often the others."""
    found: dict[str, str] = {}
    left: dict[str, int] = {}
    for line_item in line_items:
        for limit in catalog.caps[line_item]:
            shown = sum(at > now - limit.cap.within_s for at in seen.get(limit.field, ()))
            if shown >= limit.cap.most:
                times = "once" if shown == 1 else f"{shown} times"
                found[line_item] = f"this reader has seen {_whose(limit)} {times} within {say_window(limit.cap)}"
                break
            left[limit.field] = min(left.get(limit.field, limit.cap.most), limit.cap.most - shown)
    return Held(found, left)


def hold_at_first(catalog: Catalog, slots: Iterable[int], now: float) -> Held:
    """What caps leave a known reader who has seen nothing yet."""
    return hold(catalog, capped_on(catalog, [one for one in slots if one in catalog.slots], now), {}, now)


def _whose(limit: Limit) -> str:
    return "it" if limit.level == "line_item" else f"its {limit.level}"


def say_window(cap: Cap) -> str:
    """`a day`, `an hour`, `6 hours`."""
    unit_s, unit = next((unit_s, unit) for unit_s, unit in _UNITS if cap.within_s % unit_s == 0)
    n = cap.within_s // unit_s
    return f"{n} {unit}s" if n > 1 else f"{'an' if unit == 'hour' else 'a'} {unit}"
