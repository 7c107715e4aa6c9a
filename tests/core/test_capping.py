"""Frequency caps: what a reader has seen, against what may be seen."""

from msgspec import structs

from adserver.capping import Held, capped_on, fields_of, hold, hold_at_first, say_window, window_s
from adserver.catalog import Catalog
from adserver.decide import Filled, Page, decide
from adserver.model import Cap, PageRule, Priority, SlotId
from tests.make import NOON, SLOT, advertiser, campaign, catalog, document, draws, line_item

DAY, HOUR = 86_400, 3600
OWN, OF_CAMPAIGN, OF_ADVERTISER = Cap(3, DAY), Cap(5, 7 * DAY), Cap(1, HOUR)


def made() -> Catalog:
    """Two line items of one campaign and one of another, all of one advertiser; one has nothing to do with caps."""
    items = [
        line_item("own", frequency=(OWN, Cap(2, HOUR))),
        line_item("sibling"),
        line_item("free", campaign="other"),
        line_item("over", ends=NOON, frequency=(OWN,)),
    ]
    found = document(*items)
    campaigns = (campaign("spring", frequency=(OF_CAMPAIGN,)), campaign("other"))
    return Catalog(structs.replace(found, campaigns=campaigns), 1)


def test_a_line_item_is_under_its_own_caps_and_its_owners() -> None:
    """
    By campaign and advertiser, too; only what is live in the slots asked for is looked at.
    """
    of = made()
    assert sorted(capped_on(of, [SLOT], NOON)) == ["own", "sibling"]
    assert sorted(capped_on(of, [SLOT], NOON - 1)) == ["over", "own", "sibling"]
    assert fields_of(of, ["own", "sibling"]) == {"line_item:own": 3, "campaign:spring": 5}
    assert window_s(of, ["own"]) == 7 * DAY
    assert window_s(of, []) == 0
    owned = structs.replace(document(line_item("a")), advertisers=(advertiser(frequency=(OF_ADVERTISER,)),))
    assert fields_of(Catalog(owned, 1), ["a"]) == {"advertiser:acme": 1}


def test_the_first_cap_that_is_full_holds_back() -> None:
    """
    Views older than its window do not count; the sentence names whose cap it is.
    """
    of = made()
    views = [int(NOON) - ago for ago in (HOUR + 1, HOUR - 1, 10)]
    assert hold(of, ["own"], {"line_item:own": views[:1]}, NOON).line_items == {}
    assert hold(of, ["own"], {"line_item:own": views}, NOON).line_items == {
        "own": "this reader has seen it 3 times within a day"
    }
    assert hold(of, ["own"], {"line_item:own": views[1:]}, NOON).line_items == {
        "own": "this reader has seen it 2 times within an hour"
    }
    week = {"campaign:spring": [int(NOON) - n * DAY for n in range(5)]}
    said = "this reader has seen its campaign 5 times within a week"
    assert hold(of, ["own", "sibling"], week, NOON).line_items == {"own": said, "sibling": said}
    assert hold(of, ["own"], week, NOON + 5 * DAY).line_items == {}


def test_windows_have_names() -> None:
    """
    In the largest unit that they are whole numbers of.
    """
    found = [say_window(Cap(1, n)) for n in (60, 7200, HOUR, DAY, 2 * DAY, 7 * DAY, 90)]
    assert found == ["a minute", "2 hours", "an hour", "a day", "2 days", "a week", "90 seconds"]


def test_a_catalog_without_caps_has_none() -> None:
    """
    Nothing is asked of a store for it.
    """
    of = catalog(line_item())
    assert of.caps == {}
    assert not of.bookings[SLOT].at(NOON).capped


def test_what_caps_leave_is_told_by_whose_views_they_count() -> None:
    """
    Of two caps on the same views the tighter one says how many are left; what is full is not among them.
    """
    of = made()
    found = hold(of, ["own", "sibling"], {"line_item:own": [int(NOON) - 10]}, NOON)
    assert found.line_items == {}
    assert found.left["campaign:spring"] == 5
    assert 0 < found.left["line_item:own"] <= 2


def on_page(slots: list[int], left: dict[str, int], **fields: object) -> list[str | None]:
    """What shows of two capped line items of one campaign, and one without a cap behind them."""
    made_ = document(
        *(line_item(name, slots=tuple(map(SlotId, slots)), **fields) for name in ("one", "two")),
        line_item("free", campaign="free", priority=Priority.HOUSE, slots=tuple(map(SlotId, slots))),
    )
    campaigns = (campaign(frequency=(Cap(3, DAY),)), campaign("free"))
    of = Catalog(structs.replace(made_, campaigns=campaigns), 1)
    page = Page(tuple(map(SlotId, slots)), held={}, left=left)
    return [one.ad.line_item.id if isinstance(one, Filled) else None for one in decide(of, NOON, page, draws())]


def test_a_page_itself_counts_towards_caps() -> None:
    """
    Once a day for a campaign is once on a page, whichever of its line items shows; what has no cap fills the rest.
    """
    shown = on_page([1, 2, 3], {"campaign:spring": 1}, page=PageRule.ROADBLOCK_ANY)
    assert sum(one in ("one", "two") for one in shown) == 1
    shown = on_page([1, 2, 3], {"campaign:spring": 2}, page=PageRule.ROADBLOCK_ANY)
    assert sum(one in ("one", "two") for one in shown) == 2


def test_a_roadblock_needs_room_for_all_of_its_slots() -> None:
    """
    With two views left a roadblock of three slots is not shown at all; with three, it is.
    """
    names = tuple(f"c-{n}" for n in range(3))
    fields = {"page": PageRule.ROADBLOCK_ALL, "creatives": names}
    assert on_page([1, 2, 3], {"campaign:spring": 2}, **fields) == ["free", None, None]
    shown = on_page([1, 2, 3], {"campaign:spring": 3}, **fields)
    assert set(shown) <= {"one", "two"}


def test_a_reader_who_has_seen_nothing_has_all_of_each_cap_left() -> None:
    """
    Of several caps on the same views the smallest; a slot that there is none of has nothing to say.
    """
    left = {"line_item:own": 2, "campaign:spring": 5}
    assert hold_at_first(made(), [SLOT, SlotId(5)], NOON) == Held({}, left)
