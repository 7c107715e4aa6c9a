"""Segments that were set aside for a person, and putting back what can be read of them."""

import itertools
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from adserver.disk import sync_directory, write_synced
from adserver.events import Block
from adserver.reader import Reader
from adserver.segments import CORRUPT, HEADER, PRODUCER, QUARANTINED, RECORD, SALVAGED, header_of, valid


def set_aside(directory: Path) -> list[Path]:
    """The segments in *directory* that wait for a person."""
    return sorted([*directory.glob(f"*{CORRUPT}"), *directory.glob(f"*{QUARANTINED}")])


def journals_set_aside(root: Path) -> dict[str, list[Path]]:
    """The journals under *root* with segments that wait for a person, by name. Raises OSError."""
    found = {one.name: set_aside(one) for one in sorted(root.iterdir()) if PRODUCER.fullmatch(one.name)}
    return {name: some for name, some in found.items() if some}


def salvaged_in(directory: Path) -> set[str]:
    return {path.name for path in directory.glob(f"*{SALVAGED}")}


class Salvage(Struct, frozen=True):
    """What lies in set-aside *segments*: *runs* of valid records (first number and their bytes), and the *holes*."""

    segments: list[Path]
    runs: list[Block]
    holes: list[tuple[int, int]]

    @property
    def records(self) -> int:
        return sum(map(len, self.runs))

    @property
    def missing(self) -> int:
        return sum(last - first + 1 for first, last in self.holes)


def read_salvage(directory: Path) -> Salvage:
    """Every valid record of the set-aside segments of the journal in *directory*. Raises OSError."""
    reader = Reader(directory)
    found: dict[int, bytes] = {}
    segments = set_aside(directory)
    for path in segments:
        data, first = path.read_bytes(), int(path.stem)
        for place in range((len(data) - HEADER) // RECORD):
            record = data[HEADER + place * RECORD : HEADER + (place + 1) * RECORD]
            if record.strip(b"\0") and valid(record, first + place, reader.seed):
                found[first + place] = record
    numbers = sorted(found)
    firsts = [number for number in numbers if number - 1 not in found]
    lasts = [number for number in numbers if number + 1 not in found]
    runs = [
        Block(first, b"".join(found[number] for number in range(first, last + 1)))
        for first, last in zip(firsts, lasts, strict=True)
    ]
    edges = [(run.first, run.last) for run in runs]
    holes = [(last + 1, first - 1) for (_, last), (first, _) in itertools.pairwise(edges)]
    return Salvage(segments, runs, [(first, last) for first, last in holes if first <= last])


def apply_salvage(directory: Path, found: Salvage) -> None:
    """Put the records back under their own numbers, so that they are shipped, sealed and kept like any others.

    A repeat changes nothing: a number that was counted stays counted. The segments read become `.salvaged`; what a
    worker has set aside since they were read waits for the next time. Raises OSError.
    """
    producer = bytes.fromhex(directory.name)
    for first, last in found.holes:  # first the way over them: without segments behind it leads nowhere
        write_synced(directory / f"{first:020}-{last:020}.hole", b"")
    for run in found.runs:
        write_synced(directory / f"{run.first:020}.seg", header_of(run.first, producer) + run.data)
    for path in found.segments:
        with suppress(FileNotFoundError):  # as after a crash in the middle
            path.replace(path.with_suffix(SALVAGED))
    sync_directory(directory)
