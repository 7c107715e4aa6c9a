"""The store as a model: what `apply.lua` does to one partition, on plain values, with all it ever wrote to take back.

A test holds `StoreModel.apply` against the real script on a real server.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from adserver.store import LATE, Applied, Behind, Mismatch, Outcome, Sealed, Snapshot
from adserver.tally import Batch

Key = tuple[int, str]
"""A partition: its day, and its part (LATE, or "")."""


class Partition(Struct):
    """A day's hash: counts, cursors and token bits; and what closing it leaves there."""

    counts: dict[str, int] = {}
    cursors: dict[bytes, int] = {}
    bits: set[tuple[bytes, int]] = set()
    sealed: bool = False
    page: bytes | None = None
    closed: str | None = None
    filling: str = ""
    open: bool = False

    def copy(self) -> "Partition":
        return replace(self, counts=dict(self.counts), cursors=dict(self.cursors), bits=set(self.bits))


class _Written(Struct):
    """One batch, and what was there before it."""

    key: Key
    producer: bytes
    cursor: int
    counts: dict[str, int | None]
    bits: list[tuple[bytes, int]]


class _Changed(Struct):
    """Any other write, and the whole partition before it."""

    key: Key
    before: Partition


class StoreModel:
    """A server: its partitions, and how far its file and its replica have got in what it wrote."""

    def __init__(self) -> None:
        self.days: dict[Key, Partition] = {}
        self.log: list[_Written | _Changed] = []
        self.synced = 0
        self.replicated = 0
        self.compares = True
        self.remembers_tokens = True

    def partition(self, day: int, part: str = "") -> Partition:
        found = self.days.get((day, part))
        if found is None:
            found = self.days[day, part] = Partition({}, {}, set())
        return found

    def cursors(self, day: int, producers: Sequence[bytes], part: str = "") -> list[int]:
        return [self.partition(day, part).cursors.get(producer, 0) for producer in producers]

    def apply(self, producer: bytes, batch: Batch, part: str = "") -> Outcome:
        """The same as the script: compare the cursor, test the bits, add, and write once."""
        there = self.partition(batch.day, part)
        if there.sealed or (part == LATE and not there.open):
            return Sealed()
        cursor = there.cursors.get(producer, 0)
        if cursor != batch.start and self.compares:
            return Mismatch(cursor)
        sums = dict(batch.fields)
        fresh: list[tuple[bytes, int]] = []
        repeats = 0
        for chunk, entries in batch.tokens.items():
            for place, field in entries:
                if (chunk, place) not in there.bits:
                    there.bits.add((chunk, place))
                    fresh.append((chunk, place))
                elif self.remembers_tokens:
                    repeats += 1
                    continue
                sums[field] += 1
        before = {field: there.counts.get(field) for field in sums}
        for field, n in sums.items():
            there.counts[field] = there.counts.get(field, 0) + n
        there.cursors[producer] = batch.end
        self.log.append(_Written((batch.day, part), producer, cursor, before, fresh))
        return Applied(batch.end, repeats)

    # Closing days: each is one write

    def change(self, day: int, part: str, work: Callable[[Partition], None]) -> None:
        there = self.partition(day, part)
        self.log.append(_Changed((day, part), there.copy()))
        work(there)

    def seal(self, day: int, ends: Mapping[str, int]) -> Behind | None:
        """The same as the script: every producer is where it must be, or nothing is sealed."""
        there = self.partition(day)
        if not there.sealed:
            for name, end in ends.items():
                cursor = there.cursors.get(bytes.fromhex(name), 0)
                if cursor != end:
                    return Behind(name, cursor)
            self.change(day, "", lambda one: setattr(one, "sealed", True))
        return None

    def snapshot(self, day: int, part: str) -> Snapshot:
        there = self.partition(day, part)
        bits: dict[bytes, bytearray] = {}
        for chunk, place in there.bits:
            bits.setdefault(chunk, bytearray(32))[place >> 3] |= 1 << (place & 7)
        return Snapshot(
            sealed=there.sealed,
            page=there.page,
            producers={name.hex(): cursor for name, cursor in there.cursors.items()},
            counts=dict(there.counts),
            bits={chunk: bytes(value) for chunk, value in bits.items()},
        )

    def fill(self, day: int, mark: str, step: str, fields: Mapping[str | bytes, str | bytes]) -> str:
        """The same as the script: part of what a late partition begins with, unless another fills it, or it is open."""
        there = self.partition(day, LATE)
        if there.open:
            return "open"
        if step != "first" and there.filling != mark:
            return "lost"

        def put(one: Partition) -> None:
            one.filling = mark
            one.open = step == "open"
            for name, value in fields.items():
                if isinstance(name, bytes):
                    assert isinstance(value, bytes)
                    places = (place for place in range(256) if value[place >> 3] >> (place & 7) & 1)
                    one.bits.update((name, place) for place in places)
                elif name.startswith("@"):
                    one.cursors[bytes.fromhex(name[1:])] = int(value)
                elif not name.startswith("F"):
                    one.counts[name] = int(value)

        self.change(day, LATE, put)
        return "filled"

    def undo(self, to: int, *, torn: bool = False) -> None:
        """Forget all writes but the first *to*; *torn* leaves the counts of the last one forgotten behind."""
        while len(self.log) > to:
            written = self.log.pop()
            if isinstance(written, _Changed):
                self.days[written.key] = written.before
                continue
            there = self.partition(*written.key)
            if written.cursor:
                there.cursors[written.producer] = written.cursor
            else:
                there.cursors.pop(written.producer, None)
            there.bits.difference_update(written.bits)
            if torn and len(self.log) == to:
                continue
            for field, n in written.counts.items():
                if n is None:
                    there.counts.pop(field, None)
                else:
                    there.counts[field] = n
        self.synced = min(self.synced, to)
        self.replicated = min(self.replicated, to)

    def wipe(self) -> None:
        self.days.clear()
        self.log.clear()
        self.synced = self.replicated = 0

    def copy(self) -> "StoreModel":
        other = StoreModel()
        other.days = {key: one.copy() for key, one in self.days.items()}
        other.log = list(self.log)
        other.synced, other.replicated = self.synced, self.replicated
        other.compares, other.remembers_tokens = self.compares, self.remembers_tokens
        return other
