"""What is paused, and until when: what does not show for a while, and comes back by itself.

A pause holds its first instant and not its last, as a flight does. One of a line item, an advertiser or a category
holds line items back on every page; one of a section holds back everything but house ads, on pages that say they are of
that section.
"""

from collections.abc import Iterable, Mapping

from msgspec import structs

from adserver.documents import Document
from adserver.hours import merge
from adserver.model import PAUSED, Pause
from adserver.steps import Steps, at_once, pieces

Gaps = tuple[tuple[float, float], ...]
"""Stretches of time in which nothing shows: begin and end of each in Unix seconds, in order, none touching the next."""


def find_pauses(document: Document) -> dict[str, tuple[Pause, ...]]:
    """The pauses of each line item that has any: its own, its advertiser's, its categories'. Those of sections are in
    none. Raises KeyError for a name that leads nowhere.
    """
    return at_once(finding_pauses(document))


def finding_pauses(document: Document) -> Steps[dict[str, tuple[Pause, ...]]]:
    """The same in steps."""
    targets: dict[tuple[str, str], list[Pause]] = {}
    for pause in document.pauses:
        for target in _targets(pause):
            targets.setdefault(target, []).append(pause)
    if not any(kind != "section" for kind, _ in targets):
        return {}
    of_advertiser: dict[str, tuple[Pause, ...]] = {}
    for advertisers in pieces(document.advertisers):
        for one in advertisers:
            named = (("category", name) for name in one.categories)
            of_advertiser[one.id] = _of(targets, ("advertiser", one.id), *named)
        yield
    of_campaign = {one.id: of_advertiser[one.advertiser] for one in document.campaigns}
    found: dict[str, tuple[Pause, ...]] = {}
    for line_items in pieces(document.line_items):
        for item in line_items:
            if pauses := _of(targets, ("line_item", item.id)) + of_campaign[item.campaign]:
                found[item.id] = pauses
        yield
    return found


def take_pauses(document: Document, pauses: Iterable[Pause]) -> Document:
    """*document* with these pauses in place of its own, those of line items and advertisers it has not left out."""
    known = {
        "line_item": {one.id for one in document.line_items},
        "advertiser": {one.id for one in document.advertisers},
    }
    kept = (one for one in pauses if all(name in known.get(kind, (name,)) for kind, name in _targets(one)))
    return structs.replace(document, pauses=tuple(kept))


def _targets(pause: Pause) -> list[tuple[str, str]]:
    """What is paused, as its kind and its name: one, once it is checked."""
    return [(kind, name) for kind in PAUSED if (name := getattr(pause, kind)) is not None]


def _of(found: Mapping[tuple[str, str], list[Pause]], *targets: tuple[str, str]) -> tuple[Pause, ...]:
    return tuple(pause for target in targets for pause in found.get(target, ()))


def in_force(pauses: Iterable[Pause], now: float) -> list[Pause]:
    return [one for one in pauses if one.starts <= now < one.ends]


def is_paused(pauses: Iterable[Pause], now: float) -> bool:
    return any(one.starts <= now < one.ends for one in pauses)


def section_fact(pause: Pause) -> str:
    """What a page says of itself that a section's pause is for (see `targeting`)."""
    return f"section={pause.section}".lower()


def why(pause: Pause, until: str) -> str:
    """Why a line item that it holds back does not show, as the rest of a sentence. *until* is its end in words."""
    named = [f"{kind} {name}" for kind, name in _targets(pause) if kind != "line_item"]
    because = ": ".join([*named, *([pause.reason] if pause.reason else [])])
    return f"it is paused until {until} ({because})" if because else f"it is paused until {until}"


def gaps_of(pauses: Iterable[Pause]) -> Gaps:
    return merge((one.starts, one.ends) for one in pauses)


def paused_until(pauses: Iterable[Pause], now: float) -> float | None:
    """When it shows again, pauses that follow one another without a gap being one; None where none is in force."""
    return next((ends for begins, ends in gaps_of(pauses) if begins <= now < ends), None)


def outside(gaps: Gaps, begins: float, ends: float) -> Gaps:
    """What is left of the time from *begins* to *ends*."""
    if not gaps:
        return ((begins, ends),) if begins < ends else ()
    edges = [begins, *(min(ends, max(begins, edge)) for gap in gaps for edge in gap), ends]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def length_outside(gaps: Gaps, begins: float, ends: float) -> float:
    """How many seconds from *begins* to *ends* lie in none of *gaps*."""
    return sum(b - a for a, b in outside(gaps, begins, ends))
