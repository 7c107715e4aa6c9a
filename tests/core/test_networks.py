"""Lists of networks: every problem at once, and the same answer as looking through the list one by one."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver.errors import ConfigError
from adserver.networks import MOST_NETWORKS, MOST_PROBLEMS, Networks, parse_networks


def parse(*lines: str) -> Networks:
    return parse_networks((f"list:{number}", line) for number, line in enumerate(lines, 1))


def problems(*lines: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(*lines)
    return [str(problem) for problem in raised.value.problems]


# Few bits differ, so that networks overlap, touch and hold the addresses asked for.
near4 = st.integers(0, 255).map(lambda low: IPv4Address((192 << 24) + (2 << 8) + low))
near6 = st.integers(0, 255).map(lambda low: IPv6Address((0x2001_0DB8 << 96) + low))
networks = st.one_of(
    st.tuples(near4, st.integers(22, 32)).map(lambda made: IPv4Network(made, strict=False)),
    st.tuples(near6, st.integers(118, 128)).map(lambda made: IPv6Network(made, strict=False)),
)


@settings(max_examples=300)
@given(st.lists(networks, max_size=12), st.one_of(near4, near6))
def test_an_address_is_in_the_list_when_it_is_in_one_of_its_networks(
    listed: list[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
) -> None:
    """
    However networks overlap, repeat or are ordered, the look-up says what looking at each of them says.
    """
    found = parse(*map(str, listed))
    assert (address.packed in found) == any(address in network for network in listed)
    assert found.size == len(listed)


@pytest.mark.parametrize("first", ["192.0.2.0/24", "2001:db8:1::/48"])
def test_both_ends_of_a_network_are_in_it_and_their_neighbours_are_not(first: str) -> None:
    """
    The first and the last address belong to a network.
    """
    found = parse(first)
    network = IPv4Network(first) if "." in first else IPv6Network(first)
    low, high = network.network_address, network.broadcast_address
    assert low.packed in found
    assert high.packed in found
    assert (low - 1).packed not in found
    assert (high + 1).packed not in found


def test_kinds_of_address_are_kept_apart() -> None:
    """
    An IPv4 address is not taken for an IPv6 one that begins alike; one in IPv6's clothes is the IPv4 one.
    """
    found = parse("32.1.13.184", "::ffff:198.51.100.0/120")
    assert ip_address("32.1.13.184").packed in found
    assert ip_address("2001:db8::").packed not in found
    assert ip_address("198.51.100.255").packed in found
    assert ip_address("198.51.101.7").packed not in found


def test_comments_and_blank_lines_say_nothing() -> None:
    """
    A line may be empty, a comment, or end in one; line ends of other systems are fine.
    """
    found = parse("", "  # staff", "192.0.2.1 # the newsroom\r", "\t2001:db8::/32\t")
    assert found.size == 2
    assert ip_address("192.0.2.1").packed in found


def test_an_empty_list_holds_nobody() -> None:
    """
    No network, no address in it.
    """
    assert parse() == Networks()
    assert b"\xc0\0\2\1" not in parse()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("192.0.2.1/24", "did you mean 192.0.2.0/24, or 192.0.2.1 alone?"),
        ("2001:db8::1/48", "did you mean 2001:db8::/48, or 2001:db8::1 alone?"),
        ("192.0.2.0/33", "expected one such as 192.0.2.0/24"),
        ("192.0.2.0-192.0.2.9", "expected one such as"),
        ("192.0.2.0/24 192.0.3.0/24", "expected one such as"),
        ("example.com", "expected one such as"),
        ("010.0.0.1", "expected one such as"),
        ("１９２.0.2.1", "expected one such as"),
        ("3221225985", "expected one such as"),
        ("/24", "expected one such as"),
        ("0.0.0.0/0", "network of /8 is the largest"),
        ("128.0.0.0/7", "network of /8 is the largest"),
        ("::/0", "network of /16 is the largest"),
        ("::ffff:0:0/96", "network of /8 is the largest"),
        ("fe80::1%eth0", "names an interface"),
        ("x" * 10_000, "expected one such as"),
    ],
)
def test_a_line_that_is_no_network_says_what_would_be(line: str, says: str) -> None:
    """
    A slip is told where it is, in words, cut to a line's length.
    """
    (problem,) = problems("192.0.2.0/24", line)
    assert problem.startswith("list:2: ")
    assert says in problem
    assert len(problem) < 220


def test_every_problem_is_told_at_once() -> None:
    """
    All lines are looked at, whatever is wrong with the first.
    """
    told = problems("nonsense", "192.0.2.0/24", "192.0.2.1/24", "# nonsense", "0.0.0.0/0")
    assert [one.partition(": ")[0] for one in told] == ["list:1", "list:3", "list:5"]


def test_a_list_without_end_is_given_up() -> None:
    """
    Neither a file of the wrong kind nor one that is far too long takes more than bounded work to refuse.
    """
    assert len(problems(*["nonsense"] * (MOST_PROBLEMS + 5))) == MOST_PROBLEMS
    assert "at most 100,000" in problems(*["192.0.2.1"] * (MOST_NETWORKS + 5))[0]
