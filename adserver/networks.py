"""Lists of networks people write down, and whether an address lies in one of them.

Overlapping networks are merged into ranges that stand in order, so a look-up is one bisection: 1 µs among 100,000
networks. Addresses are their packed bytes, 4 or 16; ranges of the two kinds stand apart.
"""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network

from msgspec import Struct

from adserver.errors import ConfigError, Problem

MOST_NETWORKS = 100_000
MOST_PROBLEMS = 1000
_SHORTEST = {4: 8, 6: 16}
"""No owner was ever given more than an IPv4 /8 or an IPv6 /16: a shorter prefix is a slip that would file everybody."""
_MAPPED = IPv6Network("::ffff:0:0/96")


class Networks(Struct, frozen=True):
    """Ranges of addresses, each kind in order and without overlap. *size* is how many networks they were made of."""

    starts: tuple[list[bytes], list[bytes]] = ([], [])
    ends: tuple[list[bytes], list[bytes]] = ([], [])
    size: int = 0

    def __contains__(self, address: bytes) -> bool:
        """Whether the packed *address* lies in one of them."""
        kind = len(address) > 4
        at = bisect_right(self.starts[kind], address)
        return at > 0 and address <= self.ends[kind][at - 1]


def parse_networks(lines: Iterable[tuple[str, str]]) -> Networks:
    """The networks in *lines*, each with the words that say where it stands; `#` begins a comment.

    A line is an address or a network such as `192.0.2.0/24`. Raises ConfigError with every problem.
    """
    ranges: tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]] = ([], [])
    problems: list[Problem] = []
    size = 0
    for where, line in lines:
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if size == MOST_NETWORKS:
            problems.append(Problem(where, f"is one network too many; at most {MOST_NETWORKS:,} are taken"))
            break
        try:
            start, end = _parse(text)
        except ValueError as error:
            problems.append(Problem(where, str(error)))
            if len(problems) == MOST_PROBLEMS:
                break
            continue
        ranges[len(start) > 4].append((start, end))
        size += 1
    if problems:
        raise ConfigError(problems)
    merged = [_merge(kind) for kind in ranges]
    first, second = ([start for start, _ in kind] for kind in merged)
    third, fourth = ([end for _, end in kind] for kind in merged)
    return Networks((first, second), (third, fourth), size)


def _parse(text: str) -> tuple[bytes, bytes]:
    """The first and last address of a network. Raises ValueError with a sentence."""
    if "%" in text:
        raise ValueError(f"{text!r:.60} names an interface; write the address without what follows the %")
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(_explain(text)) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        network = ip_network((mapped or 0, network.prefixlen - 96))
    if network.prefixlen < _SHORTEST[network.version]:
        raise ValueError(
            f"{text!r:.60} takes in too much; a network of /{_SHORTEST[network.version]} is the largest taken"
        )
    return network.network_address.packed, network.broadcast_address.packed


def _explain(text: str) -> str:
    try:
        inner = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r:.60} is no address and no network; expected one such as 192.0.2.0/24 or 2001:db8::/48"
    return f"{text!r:.60} is an address inside a network; did you mean {inner}, or {text.partition('/')[0]} alone?"


def _merge(ranges: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    merged: list[tuple[bytes, bytes]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
