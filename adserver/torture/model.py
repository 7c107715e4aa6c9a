"""The store as a model: what `apply.lua` does to one partition, on plain values, with all it ever wrote to take back.

A test holds `StoreModel.apply` against the real script on a real server.
"""

from collections.abc import Sequence

from msgspec import Struct

from adserver.store import Applied, Mismatch, Outcome, Sealed
from adserver.tally import Batch


class Partition(Struct):
    """A day's hash: counts, cursors and token bits."""

    counts: dict[str, int] = {}
    cursors: dict[bytes, int] = {}
    bits: set[tuple[bytes, int]] = set()
    sealed: bool = False


class _Written(Struct):
    """One write, and what was there before it."""

    day: int
    producer: bytes
    cursor: int
    counts: dict[str, int | None]
    bits: list[tuple[bytes, int]]


class StoreModel:
    """A server: its partitions, and how far its file and its replica have got in what it wrote."""

    def __init__(self) -> None:
        self.days: dict[int, Partition] = {}
        self.log: list[_Written] = []
        self.synced = 0
        self.replicated = 0
        self.compares = True
        self.remembers_tokens = True

    def partition(self, day: int) -> Partition:
        found = self.days.get(day)
        if found is None:
            found = self.days[day] = Partition({}, {}, set())
        return found

    def cursors(self, day: int, producers: Sequence[bytes]) -> list[int]:
        return [self.partition(day).cursors.get(producer, 0) for producer in producers]

    def apply(self, producer: bytes, batch: Batch) -> Outcome:
        """The same as the script: compare the cursor, test the bits, add, and write once."""
        there = self.partition(batch.day)
        if there.sealed:
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
        self.log.append(_Written(batch.day, producer, cursor, before, fresh))
        return Applied(batch.end, repeats)

    def undo(self, to: int, *, torn: bool = False) -> None:
        """Forget all writes but the first *to*; *torn* leaves the counts of the last one forgotten behind."""
        while len(self.log) > to:
            written = self.log.pop()
            there = self.partition(written.day)
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
        other.days = {
            day: Partition(dict(one.counts), dict(one.cursors), set(one.bits), one.sealed)
            for day, one in self.days.items()
        }
        other.log = list(self.log)
        other.synced, other.replicated = self.synced, self.replicated
        other.compares, other.remembers_tokens = self.compares, self.remembers_tokens
        return other
