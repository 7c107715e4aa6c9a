"""A journal's segments on disk: how a file begins, what makes a record valid, and what the files' names say.

A record is valid when its checksum, which covers the producer, is right and its number is its place. A segment's file
name says the number of its first record; one that starts at b supersedes everything numbered b and above in earlier
ones.
"""

import itertools
import mmap
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct as Layout

from adserver import events
from adserver.disk import write_all

RECORD = events.STORED
SEGMENT_BYTES = 4 * 1024 * 1024
CORRUPT, QUARANTINED, SALVAGED = ".corrupt", ".quarantined", ".salvaged"
"""What a segment's name ends in that is kept for a person: with a hole in it, too old to be counted, dealt with."""
PRODUCER = re.compile(r"[0-9a-f]{16}", re.ASCII)
CRC = Layout("<I")
STORED = Layout(f"<{events.SIZE}sI")

_MAGIC = b"ASJRNL1\n"
_HEADER = Layout("<8sIIQQ8s20x")  # magic, version, record size, first number, created in µs, producer
HEADER = _HEADER.size + 4
ZEROS = b"\0" * 65536
_LOW = Layout(f"<{events.SIZE - 2}xH4x")
_SEGMENT = re.compile(r"([0-9]{20})\.seg", re.ASCII)
_HOLE = re.compile(r"([0-9]{20})-([0-9]{20})\.hole", re.ASCII)


class Segment:
    """One preallocated file, mapped for storing: a spare until `begin` gives it a number. Closed by its journal."""

    __slots__ = ("fd", "first", "map", "path", "room")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.first = 0
        self.room = (size - HEADER) // RECORD
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for start in range(0, size, len(ZEROS)):
                write_all(self.fd, ZEROS[: size - start])
            os.fsync(self.fd)
            self.map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            path.unlink(missing_ok=True)
            raise

    def begin(self, first: int, producer: bytes) -> None:
        """From now on it holds the records from *first* on; the rename shows a reader all that was stored before."""
        self.map[:HEADER] = header_of(first, producer)
        path = self.path.with_name(f"{first:020}.seg")
        self.path.replace(path)
        self.path, self.first = path, first

    def close(self, used: int) -> None:
        """Give back the room behind its *used* records."""
        self.map.close()
        try:
            os.ftruncate(self.fd, HEADER + used * RECORD)
        finally:
            os.close(self.fd)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close(0)


def header_of(first: int, producer: bytes) -> bytes:
    """What a segment begins with that holds *producer*'s records from *first* on."""
    header = _HEADER.pack(_MAGIC, 1, RECORD, first, time.time_ns() // 1000, producer)
    return header + CRC.pack(zlib.crc32(header))


def is_header(header: bytes, first: int, producer: bytes) -> bool:
    if len(header) < HEADER or CRC.unpack(header[-4:])[0] != zlib.crc32(header[:-4]):
        return False
    magic, version, record, number, _, owner = _HEADER.unpack(header[:-4])
    return (magic, version, record, number, owner) == (_MAGIC, 1, RECORD, first, producer)


def valid(data: bytes, begin: int, seed: int) -> bytes:
    """The stored records of *data* up to the first that is cut, unwritten, out of place or damaged."""
    whole = data[: len(data) // RECORD * RECORD]
    end = begin + len(whole) // RECORD
    crc32 = zlib.crc32
    checks = [crc32(record, seed) == crc for record, crc in STORED.iter_unpack(whole)]
    lows = [low for (low,) in _LOW.iter_unpack(whole)]
    if all(checks) and lows == [number & 0xFFFF for number in range(begin, end)]:
        return whole  # nearly always; one by one takes three times as long
    for place, (record, crc) in enumerate(STORED.iter_unpack(whole)):
        if crc32(record, seed) != crc or record[-2] | record[-1] << 8 != begin + place & 0xFFFF:
            return whole[: place * RECORD]
    return whole


def starts_in(directory: Path) -> Iterator[int]:
    for path in directory.iterdir():
        if match := _SEGMENT.fullmatch(path.name):
            yield int(match[1])


def spans(starts: list[int]) -> Iterator[tuple[int, int]]:
    """Each segment's first number, and the first of the one behind it."""
    return itertools.pairwise([*starts, 1 << 62])


def _holes(directory: Path) -> Iterator[tuple[int, int]]:
    for path in directory.iterdir():
        if match := _HOLE.fullmatch(path.name):
            yield int(match[1]), int(match[2])


def behind_holes(directory: Path, number: int) -> int:
    for first, last in sorted(_holes(directory)):
        if first <= number <= last:
            number = last + 1
    return number
