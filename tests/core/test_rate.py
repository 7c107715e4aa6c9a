"""How often a network sends events: bounded memory, and no network charged with another's events."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.rate import PLACES, WINDOW_S, Rate, truncate

ONE, OTHER = b"\xc0\0\2", b"\xc0\0\3"


def test_so_many_a_minute_are_within_the_rate() -> None:
    """
    The first events of a minute up to the limit are within it, every further one is over it.
    """
    limit = Rate(3)
    assert [limit.exceeds(ONE, 10.0 + n) for n in range(5)] == [False, False, False, True, True]


def test_networks_are_counted_apart() -> None:
    """
    What one network sends is no other's.
    """
    limit = Rate(1)
    assert [limit.exceeds(one, 1.0) for one in (ONE, OTHER, ONE, OTHER)] == [False, False, True, True]


def test_a_new_minute_begins_at_nothing() -> None:
    """
    A minute after its first event everybody starts again; not a moment sooner.
    """
    limit = Rate(1)
    assert not limit.exceeds(ONE, 100.0)
    assert limit.exceeds(ONE, 100.0 + WINDOW_S - 0.001)
    assert not limit.exceeds(ONE, 100.0 + WINDOW_S)


def test_a_flood_of_networks_takes_no_more_memory() -> None:
    """
    However many networks send, the table keeps its size, and one that sends far more than the rest is still found.
    """
    limit = Rate(600)
    over = 0
    for n in range(8 * PLACES):
        limit.exceeds(n.to_bytes(3, "big"), 1.0)
        over += limit.exceeds(b"heavy!", 1.0)
        assert len(limit._counts) <= PLACES
    sent = 8 * PLACES
    assert sent - 600 - 2 * sent // PLACES - 1 <= over <= sent - 600


def test_who_filled_the_table_makes_room_for_who_sends_more() -> None:
    """
    Counts of networks that have stopped go down with every new one, until a busy one finds a place.
    """
    limit = Rate(1, places=1)
    assert [limit.exceeds(one, 1.0) for one in (ONE, ONE, OTHER, OTHER, OTHER, OTHER)] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), max_size=120), st.integers(1, 8), st.integers(1, 10))
def test_the_error_has_one_direction(sent: list[int], most: int, places: int) -> None:
    """
    With too few places, a network is never over the rate before it has sent that many itself, and always when it has
    sent more than the limit and the minute's events divided by the places together.
    """
    limit, seen = Rate(most, places), Counter[int]()
    for n, one in enumerate(sent, 1):
        seen[one] += 1
        over = limit.exceeds(bytes([one]), 5.0)
        assert not over or seen[one] > most
        assert over or seen[one] <= most + n // (places + 1)


def test_a_network_is_the_first_bits_of_its_addresses() -> None:
    """
    An IPv4 address counts for its /24, an IPv6 address for its /48.
    """
    assert truncate(bytes([192, 0, 2, 77])) == bytes([192, 0, 2])
    assert truncate(bytes(range(16))) == bytes(range(6))
