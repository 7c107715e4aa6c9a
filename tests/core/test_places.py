"""Places in newsletters: one spelling each, a key for the store, a number their ad is drawn by."""

import pytest

from adserver.context import PLAIN, BadQuery, parse_query
from adserver.model import Format
from adserver.places import Place, draw_of, parse_path


def test_an_address_says_slot_issue_and_number() -> None:
    """
    The link's address is the place's path, the picture's has `.img` behind it.
    """
    place = Place(889990, "2026-03-10-evening", 2)
    assert place.path == "889990/2026-03-10-evening/2"
    assert parse_path(f"/e/{place.path}".encode()) == (place, False)
    assert parse_path(f"/e/{place.path}.img".encode()) == (place, True)


BAD = [
    b"/e/889990/spring", b"/e/889990/spring/", b"/e/889990//1", b"/e//spring/1", b"/e/889990/spring/1/", b"/e/",
    b"/e/0/spring/1", b"/e/-1/spring/1", b"/e/+889990/spring/1", b"/e/889_990/spring/1", b"/e/0889990/spring/1",
    b"/e/" + b"9" * 5000 + b"/spring/1", "/e/８８９９９０/spring/1".encode(), "/e/889990/spring/١".encode(),
    b"/e/889990/spring/0", b"/e/889990/spring/01", b"/e/889990/spring/1000", b"/e/889990/spring/1e1",
    b"/e/889990/spring/1.png", b"/e/889990/spring/1.IMG", b"/e/889990/spring/1.img.img", b"/e/889990/spring/1\n",
    b"/e/889990/Spring/1", b"/e/889990/-spring/1", b"/e/889990/../1", b"/e/889990/a.b/1", b"/e/889990/a%20b/1",
    b"/e/889990/" + b"a" * 41 + b"/1", b"/e/889990/a_b/1", "/e/889990/frühling/1".encode(), b"/e/889990/a\0/1",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD, ids=lambda path: ascii(path)[:40])
def test_anything_else_is_no_place(path: bytes) -> None:
    """
    Another spelling of a number, another alphabet, what is too long, too short or leads elsewhere.
    """
    assert parse_path(path) is None


def test_places_do_not_share_a_key_and_a_draw() -> None:
    """
    A digit more in one part never makes up for one less in another.
    """
    places = [Place(slot, issue, n) for slot in (1, 11) for issue in ("1", "11", "1-1") for n in (1, 11, 111)]
    assert len({place.key for place in places}) == len({place.draw for place in places}) == len(places)
    assert places[0].draw == draw_of("1", "1", 1) == Place(1, "1", 1).draw
    assert all(0 <= place.draw < 2**24 for place in places)


def test_a_query_names_issue_and_index() -> None:
    """
    Both are read with `format=email` alone; without them it is the day's issue and the slot's first place.
    """
    found = parse_query(b"format=email&issue=2026-03-10-evening&index=12")
    assert (found.format, found.issue, found.number) == (Format.EMAIL, "2026-03-10-evening", 12)
    assert (parse_query(b"format=email").issue, parse_query(b"format=email").number) == ("", 1)
    assert parse_query(b"issue=Not+one&index=x") == PLAIN


@pytest.mark.parametrize(
    "query",
    [b"issue=", b"issue=A", b"issue=a/b", b"issue=a%0A", b"issue=%C3%BC", b"issue=-a", b"issue=" + b"a" * 41,
     b"index=", b"index=0", b"index=-1", b"index=100", b"index=1e1", b"index=%D9%A1", b"index=+1", b"index=1%0A"],
)  # fmt: skip
def test_a_wrong_issue_or_index_is_refused_in_words(query: bytes) -> None:
    """
    400, and what would do; what was asked is not repeated.
    """
    with pytest.raises(BadQuery, match=r"write (1 to 40 lowercase|a number from 1 to 99)") as caught:
        parse_query(b"format=email&" + query)
    assert caught.value.status == 400
