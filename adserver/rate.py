"""Which networks send more events in a minute than readers do.

A reader's address is truncated before it comes here, IPv4 to its /24 and IPv6 to its /48. That is the common way to
keep no address of a person (web analytics drops the last 8 and the last 80 bits), it is what logs keep here too, and
it is the block one house, company or hosting customer usually has: a robot that walks through the addresses of its
block is seen as one.

The table has a fixed number of places. When they run out, the algorithm of Misra and Gries ("Finding repeated
elements", 1982) takes 1 off every count and frees the places at 0. So a flood of addresses costs no memory, and its
error has one direction: a count may be too low, by the minute's events divided by PLACES at most (61 in a million);
no network is ever charged with another's events.
"""

PLACES = 16_384
WINDOW_S = 60.0


def truncate(address: bytes) -> bytes:
    """The network of a packed address: its first 3 bytes of 4 (/24), or 6 of 16 (/48)."""
    return address[:3] if len(address) == 4 else address[:6]


class Rate:
    """Counts the events of each network, minute by minute; *most* a minute are within the rate, 0 is no limit."""

    __slots__ = ("_began", "_counts", "_places", "most")

    def __init__(self, most: int, places: int = PLACES) -> None:
        self.most = most
        self._places = places
        self._began = float("-inf")
        self._counts: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<Rate of {self.most} a minute, {len(self._counts)} networks in this one>"

    def exceeds(self, network: bytes, now: float) -> bool:
        """Count an event of *network* at *now*, in seconds of any steady clock; whether it is one too many."""
        if now - self._began >= WINDOW_S:
            self._began = now
            self._counts = {}
        counts = self._counts
        n = counts.get(network, 0) + 1
        if n == 1 and len(counts) >= self._places:
            self._counts = {one: count - 1 for one, count in counts.items() if count > 1}
            return False
        counts[network] = n
        return n > self.most
