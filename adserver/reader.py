"""Reads journals from their files: records by number, and which days the segments hold."""

import os
import zlib
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from adserver import events
from adserver.events import Block
from adserver.retention import Held
from adserver.segments import HEADER, RECORD, STORED, behind_holes, is_header, spans, starts_in, valid

_AT = slice(22, 26)  # a record's instant


class Reader:
    """Reads any journal's records by number, from its files: its writer's own, a dead one's, or a copy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.producer = bytes.fromhex(directory.name)
        self.seed = zlib.crc32(self.producer)

    def read(self, after: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """The records that `read_block` finds, each with its number and without its checksum."""
        block = self.read_block(after, last, limit)
        return list(enumerate((record for record, _ in STORED.iter_unpack(block.data)), block.first))

    def read_block(self, after: int, last: int | None, limit: int) -> Block:
        """Up to *limit* valid records numbered above *after* and at most *last*, in order.

        It ends before a record that is damaged or missing. What lies before the first segment may be gone, and what a
        salvage has written down as a hole is passed over.
        Segments are listed anew each time: one that supersedes others may have appeared. Raises OSError.
        """
        if last is not None and last <= after:
            return Block(after + 1, b"")
        starts = self.starts()
        begin = number = behind_holes(self.directory, max(after + 1, starts[0] if starts else 1))
        found: list[bytes] = []
        for first, following in spans(starts):
            end = following - 1 if last is None else min(last, following - 1)
            if end < number:
                continue
            if number - begin == limit:
                break
            data = valid(self._pread(first, number, min(end - number + 1, limit - (number - begin))), number, self.seed)
            found.append(data)
            number += len(data) // RECORD
            if number <= end:
                break
        return Block(begin, found[0] if len(found) == 1 else b"".join(found))

    def starts(self) -> list[int]:
        """The numbers that its segments begin with."""
        return sorted(starts_in(self.directory))

    def follows(self, number: int) -> int:
        """The number that comes after *number*, holes written down by a salvage passed over."""
        return behind_holes(self.directory, number + 1)

    def _pread(self, first: int, begin: int, count: int) -> bytes:
        fd = os.open(self.directory / f"{first:020}.seg", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not is_header(os.pread(fd, HEADER, 0), first, self.producer):
                return b""
            return os.pread(fd, count * RECORD, HEADER + (begin - first) * RECORD)
        finally:
            os.close(fd)

    def last(self) -> int:
        """The number of the last valid record; 0 for an empty journal.

        Looks closely at the last two segments: earlier ones were synced whole, and are checked when they are shipped.
        """
        used = [first for first in self.starts() if self._record(first, 0)]
        last = used[-2:][0] - 1 if used else 0
        while block := self.read_block(last, None, 8192):
            last = block.last
        return last

    def tip(self) -> tuple[int, bytes] | None:
        """The last valid record and its number, found by halving instead of reading all; None for an empty journal."""
        for first in reversed(self.starts()):
            if found := self._tip_of(first):
                return found
        return None

    def _tip_of(self, first: int) -> tuple[int, bytes] | None:
        size = (self.directory / f"{first:020}.seg").lstat().st_size
        low, high = 0, max(0, (size - HEADER) // RECORD)
        while low < high:  # `low` records are valid, the one at `high` is not
            middle = (low + high) // 2
            if self._record(first, middle):
                low = middle + 1
            else:
                high = middle
        record = self._record(first, low - 1) if low else None
        return (first + low - 1, record) if record else None

    def newest(self, first: int) -> float:
        """When the last record of the segment that begins with *first* was stored, Unix seconds; 0 for an empty one."""
        found = self._tip_of(first)
        return float(int.from_bytes(found[1][_AT], "little")) if found else 0.0

    def _record(self, first: int, place: int) -> bytes | None:
        found = valid(self._pread(first, first + place, 1), first + place, self.seed)
        return found[: events.SIZE] or None

    def names(self) -> dict[bytes, str]:
        """What each ad key in this journal stands for. A line cut off by a crash, or damaged, is left out."""
        try:
            fd = os.open(self.directory / "names", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        with os.fdopen(fd, "rb") as file:
            lines = file.read().split(b"\n")[:-1]
        found: dict[bytes, str] = {}
        for line in lines:
            key, _, name = line.partition(b" ")
            with suppress(ValueError):
                found[bytes.fromhex(key.decode("ascii"))] = name.decode()
        return found


class Contents:
    """Which days the segments of one journal hold; reads each record once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._position = 0
        self._held: dict[int, Held] = {}

    def read(self) -> list[Held]:
        """Its segments, oldest first, as they are now. Does I/O; raises OSError."""
        starts = self._reader.starts()
        if any(first <= self._position and first not in self._held for first in starts):
            self._position, self._held = 0, {}  # a segment appeared that replaces records seen before
        self._held = {first: self._held.get(first, Held(first, first - 1, {}, 0.0, whole=False)) for first in starts}
        for first, following in spans(starts):
            while self._position < following - 1:
                block = self._reader.read_block(max(self._position, first - 1), following - 1, 8192)
                if not block or block.first >= following:
                    break
                before = self._held[first]
                ends = {**before.ends, **{day: block.of(day)[1] for day in block.days()}}
                self._held[first] = Held(first, block.last, ends, self._reader.newest(first), whole=False)
                self._position = block.last
        return [
            structs.replace(one, whole=self._reader.follows(one.last) >= following)
            for one, following in zip(
                self._held.values(), [*starts[1:], self._position + 1][: len(starts)], strict=True
            )
        ]

    def last(self) -> int:
        """The last record seen."""
        return self._position
