"""Proves that the journals, the store and the archive say the same, per producer and day; says where they do not.

The journals are added up anew, one record after the other, without the store's script: two ways to one figure.
"""

import asyncio
import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct, structs

from adserver.archive import Book
from adserver.events import TOKEN_BIT
from adserver.reader import Contents, Reader
from adserver.retention import parse_producers
from adserver.salvage import set_aside
from adserver.segments import SALVAGED
from adserver.store import LATE, NOBODY, Store
from adserver.tally import tally

_PRODUCER = re.compile(r"[0-9a-f]{16}", re.ASCII)
_LOOK_BACK = 45


class Line(Struct, frozen=True):
    """How far one day holds one producer, by number of record, in each place; None where the place knows nothing.

    *trouble* says what is wrong, *away* that something needed to tell is not here; *not_recounted* why the day's
    figures were not added up anew, so that its cursors alone were compared.
    """

    day: int
    producer: str
    journal: int | None
    store: int | None
    archive: int | None
    trouble: str = ""
    away: bool = False
    not_recounted: str = ""


class Difference(Struct, frozen=True):
    """One figure of one day that two places give differently."""

    day: int
    field: str
    here: str
    n: int
    there: str
    m: int


class Reconciliation(Struct, frozen=True):
    lines: list[Line]
    differences: list[Difference]

    @property
    def equal(self) -> bool:
        return not self.differences and not any(line.trouble for line in self.lines)

    @property
    def not_recounted(self) -> list[int]:
        """The days of which the cursors alone were compared."""
        return sorted({line.day for line in self.lines if line.not_recounted})

    @property
    def away(self) -> bool:
        """Whether nothing differs, but something needed to be sure is not here."""
        return not self.differences and all(line.away for line in self.lines if line.trouble)


class Recount:
    """One day added up from records, each token's event once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._bits: dict[bytes, int] = {}

    def add(self, day: int, data: bytes) -> None:
        batch = tally(day, 0, 0, data)
        self.counts.update(batch.fields)
        for chunk, entries in batch.tokens.items():
            bits = self._bits.get(chunk, 0)
            for place, field in entries:
                if not bits >> place & 1:
                    bits |= 1 << place
                    self.counts[field] += 1
            self._bits[chunk] = bits


class Found(Struct):
    """What the journals here hold: per day the last record of each producer, and all of them added up.

    *shortened* are the producers whose journal is not whole any more, and what became of it.
    """

    ends: dict[int, dict[str, int]]
    recounts: dict[int, Recount]
    shortened: dict[str, str]
    producers: set[str]


def read_journals(root: Path, upto: dict[int, dict[str, int]]) -> Found:
    """Add up every journal under *root*; of a closed day only what its page in *upto* holds. Raises OSError."""
    found = Found({}, {}, {}, set())
    for directory in journals(root):
        reader, name, position = Reader(directory), directory.name, 0
        found.producers.add(name)
        if set_aside(directory):
            found.shortened[name] = "has segments set aside"
        elif list(directory.glob(f"*{SALVAGED}")):
            found.shortened[name] = "was salvaged"
        elif reader.starts()[:1] not in ([], [1]):
            found.shortened[name] = "is shortened: its first segments are deleted"
        while block := reader.read_block(position, None, 4000):
            position = block.last
            for day in block.days():
                data, found.ends.setdefault(day, {})[name] = block.of(day)
                if day in upto:
                    data, _ = block.upto(upto[day].get(name, 0)).of(day)
                found.recounts.setdefault(day, Recount()).add(day, data)
    return found


def journals(root: Path) -> list[Path]:
    """The journals under *root*. Raises OSError."""
    return sorted(path for path in root.iterdir() if _PRODUCER.fullmatch(path.name)) if root.is_dir() else []


async def reconcile(store: Store, book: Book, root: Path) -> Reconciliation:
    """Compare all three. Raises StoreUnavailable, StoreRefused, ArchiveUnavailable or OSError."""
    pages = {day: await asyncio.to_thread(book.read, day) for day in await asyncio.to_thread(book.days)}
    upto = {day: page.producers for day, page in pages.items() if page}
    found = await asyncio.to_thread(read_journals, root, upto)
    newest = max([*found.ends, *pages], default=0)
    asked = range(newest - _LOOK_BACK, newest + 2)
    days = {*found.ends, *pages, *[day for day in asked if newest and await store.producers_of(day)]}
    lines: list[Line] = []
    differences: list[Difference] = []
    for day in sorted(days):
        page, late = pages.get(day), await asyncio.to_thread(book.late, day)
        ends, counts = found.ends.get(day, {}), await store.counts(day)
        cursors = await store.producers_of(day)
        late_cursors = await store.producers_of(day, LATE)
        involved = page.producers if page else cursors
        settled = page or all(cursors.get(name, 0) == end for name, end in ends.items())
        why = _incomplete(involved, found) or ("" if settled else "not all is counted yet")
        held = {**(page.producers if page else {}), **(late.producers if late else {})}
        for name in sorted({*ends, *cursors, *held, *late_cursors}):
            closed = (max(held.get(name, 0), late_cursors.get(name, 0)) if page else None) or None
            line = Line(day, name, ends.get(name), cursors.get(name), closed)
            lines.append(_judged(line, why, is_closed=page is not None, is_here=name in found.producers))
        if page:
            differences += compare(day, "store", counts, "archive", page.counts)
        if not why:
            recount = found.recounts.get(day, Recount()).counts
            here, there = folded(recount), folded(counts)
            more = [there.get(field, 0) - here.get(field, 0) for field in here.keys() | there.keys()]
            # What was counted without a journal is in the store alone, or came again later and is in a journal, too.
            if min(more, default=0) < 0 or sum(more) > involved.get(NOBODY.hex(), 0):
                differences += compare(day, "journals", here, "store", there)
    return Reconciliation(lines, differences)


def _incomplete(involved: Iterable[str], found: Found) -> str:
    """Why what the journals here hold is not all that *involved* producers counted; empty when it is."""
    for name in sorted(involved):
        if name not in found.producers and name != NOBODY.hex():
            return f"journal {name} is not here"
        if name in found.shortened:
            return f"journal {name} {found.shortened[name]}"
    return ""


def _judged(line: Line, not_recounted: str, *, is_closed: bool, is_here: bool) -> Line:
    """*line* with what is wrong about it."""
    trouble, away = "", False
    if line.producer == NOBODY.hex():
        pass  # what was counted without a journal, on a full disk, has nothing to be compared with
    elif is_closed:
        if line.journal is not None and line.journal > (line.archive or 0):
            trouble = "late records are not counted yet"
    elif line.journal is None:
        trouble, away = ("the store has counted records that the journal has not", is_here is False)
        if not is_here:
            trouble = "its journal is not here"
    elif line.store != line.journal:
        trouble = "not all is counted yet" if (line.store or 0) < line.journal else "the store has counted more"
    return structs.replace(line, trouble=trouble, away=away, not_recounted=not_recounted)


def folded(counts: dict[str, int]) -> dict[str, int]:
    """*counts* without the reasons of token events: which of two copies of one event came first, the store decides."""
    found: Counter[str] = Counter()
    for field, n in counts.items():
        type_ = int(field.split(":")[0])
        found[":".join(field.split(":")[:3]) if type_ in TOKEN_BIT else field] += n
    return found


def compare(day: int, here: str, ours: dict[str, int], there: str, theirs: dict[str, int]) -> list[Difference]:
    return [
        Difference(day, field, here, ours.get(field, 0), there, theirs.get(field, 0))
        for field in sorted({*ours, *theirs})
        if ours.get(field, 0) != theirs.get(field, 0)
    ]


class Status(Struct, frozen=True):
    """One journal as it lies on the disk. *counted* is the highest cursor of its days, None without the store."""

    producer: str
    state: str
    records: int
    counted: int | None
    days: list[int]
    bytes: int
    set_aside: int


async def read_status(store: Store | None, book: Book, root: Path) -> list[Status]:
    """Every journal under *root*. Raises StoreUnavailable, StoreRefused or OSError."""
    found = []
    known = parse_producers(await store.producers()) if store else {}
    for directory in await asyncio.to_thread(journals, root):
        contents = Contents(Reader(directory))
        held = await asyncio.to_thread(contents.read)
        days = sorted({day for one in held for day in one.ends})
        producer = bytes.fromhex(directory.name)
        counted: int | None = None
        state = "held" if _is_held(directory) else "dead"
        if store:
            if state == "held" and (told := known.get(directory.name)):
                state = "live" if told.closed is None else "adopted"
            counted = 0
            for day in days:
                page = await asyncio.to_thread(book.read, day)
                cursors = [*(await store.cursors(day, [producer])), *(await store.cursors(day, [producer], LATE))]
                counted = max(counted, *cursors, page.producers.get(directory.name, 0) if page else 0)
        size = await asyncio.to_thread(_size, directory)
        aside = len(set_aside(directory))
        found.append(Status(directory.name, state, contents.last(), counted, days, size, aside))
    return found


def _size(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.iterdir())


def _is_held(directory: Path) -> bool:
    """Whether a process holds it: its writer, or whoever adopted it."""
    if not (directory / "lock").exists():
        return False
    fd = os.open(directory / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
