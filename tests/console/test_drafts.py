"""Drafts: what two people change apart comes together, and what both changed is said."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from adserver.console import desk as desks
from adserver.console import drafts, words
from adserver.console.drafts import Draft
from adserver.documents import Document
from tests import make

LIVE = make.document(make.line_item("mill"), make.line_item("boat"), make.line_item("bank"))
MILL, BOAT, BANK = LIVE.line_items


def renamed(line_item: object, name: str) -> object:
    return structs.replace(line_item, name=name)  # type: ignore[type-var]


def test_a_change_keeps_its_place_and_a_new_entry_comes_last() -> None:
    """
    A draft on top of the live document changes what it names and leaves the order alone.
    """
    draft = drafts.put(Draft(1), LIVE, "line_items", renamed(BOAT, "Ferry"), make.line_item("new"))
    after = drafts.apply(LIVE, draft)
    assert [one.name for one in after.line_items] == ["mill", "Ferry", "bank", "new"]
    assert after.slots is LIVE.slots


def test_what_is_as_it_was_is_no_change() -> None:
    """
    Changing something and changing it back leaves an empty draft.
    """
    draft = drafts.put(Draft(1), LIVE, "line_items", renamed(BOAT, "Ferry"))
    assert draft
    assert not drafts.put(draft, LIVE, "line_items", BOAT)


def test_removing_what_is_only_drafted_leaves_nothing() -> None:
    """
    An entry that was never live is gone without a trace; a live one is removed.
    """
    draft = drafts.put(Draft(1), LIVE, "line_items", make.line_item("new"))
    assert not drafts.remove(draft, LIVE, "line_items", "new")
    after = drafts.apply(LIVE, drafts.remove(draft, LIVE, "line_items", "boat"))
    assert [one.id for one in after.line_items] == ["mill", "bank", "new"]


def test_pauses_of_what_is_removed_go_with_it() -> None:
    """
    What is paused may be removed: its own pause goes, also one made after the draft was begun; others stay.
    """
    pauses = tuple(
        make.pause(f"of-{kind}-{name}", **{kind: name})
        for kind, name in (("line_item", "boat"), ("line_item", "mill"), ("section", "boat"), ("category", "boat"))
    )
    live = structs.replace(LIVE, pauses=pauses)
    after = drafts.apply(live, drafts.remove(Draft(1), LIVE, "line_items", "boat"))
    assert [one.id for one in after.pauses] == ["of-line_item-mill", "of-section-boat", "of-category-boat"]
    assert desks.problems_of(after) == []
    assert drafts.apply(live, drafts.put(Draft(1), LIVE, "line_items", renamed(BOAT, "Ferry"))).pauses == pauses


def test_putting_back_what_was_removed() -> None:
    """
    An entry that is removed and then changed is changed, not removed.
    """
    draft = drafts.remove(Draft(1), LIVE, "line_items", "boat")
    draft = drafts.put(draft, LIVE, "line_items", renamed(BOAT, "Ferry"))
    assert [one.name for one in drafts.apply(LIVE, draft).line_items] == ["mill", "Ferry", "bank"]


def test_changes_of_different_entries_come_together() -> None:
    """
    Ann changes the mill and Bob the boat: whoever publishes second has both, and neither is asked anything.
    """
    ann = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Ann's"))
    bob = drafts.put(Draft(1), LIVE, "line_items", renamed(BOAT, "Bob's"))
    second = drafts.apply(LIVE, ann)
    assert drafts.clashes(bob, second) == []
    assert [one.name for one in drafts.apply(second, bob).line_items] == ["Ann's", "Bob's", "bank"]


def test_a_change_of_the_same_entry_clashes() -> None:
    """
    Both changed the mill: the second is told what it was, what it is now, and what they made of it.
    """
    ann = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Ann's"))
    bob = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Bob's"))
    [clash] = drafts.clashes(bob, drafts.apply(LIVE, ann))
    assert (clash.before.name, clash.theirs.name, clash.mine.name) == ("mill", "Ann's", "Bob's")


def test_the_same_change_twice_is_no_clash() -> None:
    """
    Two who do the same have no quarrel, and the second has nothing left to publish.
    """
    ann = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Watermill"))
    live = drafts.apply(LIVE, ann)
    assert drafts.clashes(ann, live) == []
    assert not drafts.settle(ann, live, 2, [])


def test_removing_what_somebody_changed_clashes() -> None:
    """
    An entry that one removes and the other changes is asked about, whichever came first.
    """
    removes = drafts.remove(Draft(1), LIVE, "line_items", "mill")
    changes = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Ann's"))
    assert [one.mine for one in drafts.clashes(removes, drafts.apply(LIVE, changes))] == [None]
    assert [one.theirs for one in drafts.clashes(changes, drafts.apply(LIVE, removes))] == [None]


def test_settling_keeps_what_was_chosen() -> None:
    """
    Of each clash mine stays where it is chosen, else theirs; what did not clash stays either way.
    """
    ann = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Ann's"), renamed(BOAT, "Ann's boat"))
    bob = drafts.put(Draft(1), LIVE, "line_items", renamed(MILL, "Bob's"), renamed(BOAT, "Bob's boat"))
    bob = drafts.put(bob, LIVE, "line_items", renamed(BANK, "Bob's bank"))
    live = drafts.apply(LIVE, ann)
    settled = drafts.settle(bob, live, 2, [("line_items", "mill")])
    assert settled.base == 2
    assert drafts.clashes(settled, live) == []
    assert [one.name for one in drafts.apply(live, settled).line_items] == ["Bob's", "Ann's boat", "Bob's bank"]


ids = st.sampled_from(["mill", "boat", "bank", "tram", "cafe"])
steps = st.lists(st.tuples(st.booleans(), ids, st.sampled_from(["red", "blue"])), max_size=8)


def walk(live: Document, edits: list[tuple[bool, str, str]]) -> tuple[Draft, Document]:
    """A draft of these edits, and the document that plain edits make."""
    draft, document = Draft(1), {one.id: one for one in live.line_items}
    for keep, name, colour in edits:
        if keep:
            entry = make.line_item(name, name=colour)
            draft, document[name] = drafts.put(draft, live, "line_items", entry), entry
        else:
            draft = drafts.remove(draft, live, "line_items", name)
            document.pop(name, None)
    return draft, structs.replace(live, line_items=tuple(document.values()))


@given(steps)
def test_a_draft_does_what_its_edits_do(edits: list[tuple[bool, str, str]]) -> None:
    """
    However often entries are changed, removed and made again, the draft on top of live is the document edited.
    """
    draft, document = walk(LIVE, edits)
    after = drafts.apply(LIVE, draft)
    assert drafts.index(after, "line_items") == drafts.index(document, "line_items")
    assert bool(draft) == (drafts.index(document, "line_items") != drafts.index(LIVE, "line_items"))
    assert drafts.clashes(draft, LIVE) == []


@given(steps, steps)
def test_settled_drafts_never_clash(mine: list[tuple[bool, str, str]], theirs: list[tuple[bool, str, str]]) -> None:
    """
    After settling, whatever was chosen, the draft goes on top of what is live, and theirs stays where it was chosen.
    """
    draft, live = walk(LIVE, mine)[0], walk(LIVE, theirs)[1]
    clashing = [(one.table, one.id) for one in drafts.clashes(draft, live)]
    for keep in ([], clashing, clashing[::2]):
        settled = drafts.settle(draft, live, 2, keep)
        after = drafts.index(drafts.apply(live, settled), "line_items")
        assert drafts.clashes(settled, live) == []
        for place in clashing:
            chosen = drafts.index(draft.puts, "line_items") if place in keep else drafts.index(live, "line_items")
            assert after.get(place[1]) == chosen.get(place[1])


def test_changes_are_told_in_words() -> None:
    """
    A change names the fields as people do, with dates in newsroom time.
    """
    zone = "Europe/Amsterdam"
    new = structs.replace(MILL, name="Watermill", ends=make.instant("2026-07-01T00:00:00+02:00"))
    found = words.changes(LIVE, drafts.apply(LIVE, drafts.put(Draft(1), LIVE, "line_items", new)), zone)
    [change] = found
    assert (change.what, change.noun, change.name) == ("changed", "line item", "Watermill")
    told = {turn.label: (turn.before, turn.after) for turn in change.turns}
    assert told["Name"] == ("mill", "Watermill")
    assert told["Ends"][1] == "Wed 1 Jul 2026 00:00"
    gone = words.changes(LIVE, drafts.apply(LIVE, drafts.remove(Draft(1), LIVE, "line_items", "boat")), zone)
    assert [(one.what, one.name) for one in gone] == [("removed", "boat")]


def test_changes_on_one_line_are_bounded() -> None:
    """
    The note first, then ten entries with their fields, long ones cut, and how many more there are.
    """
    told = [
        words.Change("changed", "slot", "slots", n, f"Place {n}", (words.Turn("Name", None, "x" * 900),))
        for n in range(12)
    ]
    line = words.line(told, "summer")

    assert line.startswith("summer: changed slot Place 0 (Name: – → xxx")
    assert line.endswith("…); and 2 more")
    assert "Place 9" in line
    assert "Place 10" not in line
    assert len(line) < 5000
    assert words.line([words.Change("removed", "pause", "pauses", "p", "Crash")]) == "removed pause Crash"
    assert words.line([]) == ""
