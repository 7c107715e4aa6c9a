"""What deciding about a page may look at: of all that is known of it, of its reader and of the pace, the little that
the bookings of its slots go by. The rest decides nothing, and some of it names readers.

Rule that must hold here: a page cut down to its stakes is decided as the whole one is, winner and trace.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct, structs

from adserver.catalog import Catalog
from adserver.decide import Page
from adserver.model import Group, Rotation
from adserver.pauses import section_fact
from adserver.targeting import NO_CONSENT, UNKNOWN, Context, Interest, interest_of


class Stakes(Struct, frozen=True):
    """One slot's. *goals*, *optimised* and *capped* are line items; *limits*, the fields that frequency caps count."""

    goals: tuple[str, ...] = ()
    optimised: tuple[str, ...] = ()
    capped: frozenset[str] = frozenset()
    limits: frozenset[str] = frozenset()
    interest: Interest = Interest()


NOTHING = Stakes()


def stakes_of(catalog: Catalog, slot: int) -> Stakes:
    bookings = catalog.bookings.get(slot)
    if bookings is None:
        return NOTHING
    items = [one.line_item for one in bookings.all]
    asked = interest_of(one.target for one in bookings.all if one.target)
    said = frozenset(map(section_fact, catalog.sections))
    if slot in catalog.third_party:
        said |= {NO_CONSENT}
    return Stakes(
        tuple(one.id for one in items if one.goal),
        tuple(one.id for one in items if one.rotation is Rotation.OPTIMISED),
        frozenset(one.line_item.id for one in bookings.all if one.caps),
        frozenset(field for one in bookings.all for field in one.caps),
        structs.replace(asked, facts=asked.facts | said),
    )


def slots_of(page: Page) -> Iterator[int]:
    """The slots that answer a page or might, those of its groups as well."""
    for ask in page.asks:
        if isinstance(ask, Group):
            yield from (member.slot for member in ask.slots)
        else:
            yield ask


def cut_down(page: Page, stakes: Iterable[Stakes]) -> Page:
    """As much of *page* as decides anything; *stakes* are those of its slots."""
    stakes = tuple(stakes)
    held, capped = page.held, frozenset().union(*(one.capped for one in stakes))
    if held is not None:
        held = {name: held[name] for name in sorted(capped & held.keys())} if capped else None
    left = page.left
    if left:  # what the page cannot show that often holds nothing back
        limits = frozenset().union(*(one.limits for one in stakes))
        left = {field: left[field] for field in sorted(limits & left.keys()) if left[field] < len(page.asks)}
    return Page(page.asks, page.format, _looked_at(page.context, stakes), held, left)


def _looked_at(context: Context, stakes: tuple[Stakes, ...]) -> Context:
    if context == UNKNOWN:
        return context
    found = [one.interest.of(context) for one in stakes]
    return Context(
        frozenset().union(*(one.facts for one in found)),
        max((one.path for one in found), key=len, default=""),
        max((one.address for one in found), key=len, default=""),
    )
