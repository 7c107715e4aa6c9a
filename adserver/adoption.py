"""What becomes of a dead worker's journal: it is adopted, cut to its valid records, and at last deleted.

Whoever gets the lock on it owns it. It is synced before anything of it is shipped, and nothing is thrown away that a
person could still want: valid records behind a damaged one, and what is too old, are set aside (see `salvage`).
"""

import errno
import logging
import os
import shutil
import zlib
from pathlib import Path

from adserver.disk import check_ours, sync_directory, take_lock
from adserver.errors import JournalUnavailable
from adserver.reader import Reader
from adserver.salvage import salvaged_in
from adserver.segments import CORRUPT, HEADER, PRODUCER, QUARANTINED, RECORD, ZEROS, spans, valid

log = logging.getLogger(__name__)

_GONE = ".gone"


class Adopted:
    """A dead producer's journal, locked by us and cut to its valid records; nobody appends to it again.

    Its oldest segments are set aside where their newest record is from before *too_old* (Unix seconds): what turns up
    after weeks is counted only if a person says so. *corrupt* and *quarantined* say how many segments were set aside.
    """

    def __init__(self, directory: Path, lock: int, too_old: float = 0.0) -> None:
        self._lock = lock
        self.reader = Reader(directory)
        self.producer = self.reader.producer
        self.corrupt = 0
        self._salvaged = salvaged_in(directory)
        self.quarantined = self._quarantine(too_old)
        self.last = self.reader.last()
        self.names = self.reader.names()
        self._cut()
        for spare in directory.glob("*.spare"):
            spare.unlink()
        sync_directory(directory)

    def __repr__(self) -> str:
        return f"<Adopted {self.producer.hex()} with {self.last:,} records>"

    def _quarantine(self, too_old: float) -> int:
        directory, n = self.reader.directory, 0
        if self._salvaged:
            return 0
        for first in self.reader.starts():
            if not 0 < self.reader.newest(first) < too_old:
                break
            path = directory / f"{first:020}.seg"
            path.replace(path.with_suffix(QUARANTINED))
            log.error("%s is too old to be counted by itself; see adserver journal salvage", path)
            n += 1
        return n

    def refresh(self) -> None:
        """See what a salvage has put back since. Raises OSError."""
        if (salvaged := salvaged_in(self.reader.directory)) != self._salvaged:
            self.last, self._salvaged = self.reader.last(), salvaged

    def cut_at_hole(self, position: int) -> bool:
        """Set aside what lies behind a damaged record, if the one after *position* is. Raises OSError."""
        if position >= self.last or self.reader.read_block(position, self.last, 1):
            return False
        self.last = position
        self._cut()
        return True

    def _cut(self) -> None:
        starts = self.reader.starts()
        newest = [first for first in starts if first <= self.last][-2:]  # a full one may not have been synced yet
        for first, following in spans(starts):
            self._cut_and_sync(first, following, doubtful=first in newest)

    def _cut_and_sync(self, first: int, following: int, *, doubtful: bool) -> None:
        """Take off a torn tail and unused room, and sync: what power could still take away must never be shipped.

        Valid records behind a hole may be a damaged disk and not a power cut: those are kept beside, for a person.
        """
        path = self.reader.directory / f"{first:020}.seg"
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            keep = max(0, min(self.last, following - 1) - first + 1)
            size = os.fstat(fd).st_size
            if size > HEADER + keep * RECORD:
                if _has_records(fd, first + keep, keep, min(following - first, size // RECORD), self.producer):
                    kept = path.with_suffix(CORRUPT)
                    self.corrupt += 1
                    log.error("%s holds records behind a damaged one; they are kept in %s, not counted", path, kept)
                    if keep == 0 and first > 1:
                        path.replace(kept)
                        return
                    _copy(path, kept)
                doubtful = True
            if doubtful:
                _store_again(fd, HEADER + keep * RECORD)
                os.ftruncate(fd, HEADER + keep * RECORD)
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        os.close(self._lock)


def _has_records(fd: int, number: int, place: int, places: int, producer: bytes) -> bool:
    """Whether a valid record lies at *place* or behind it; *number* is the one that belongs there."""
    seed = zlib.crc32(producer)
    while place < places and (data := os.pread(fd, min(8192, places - place) * RECORD, HEADER + place * RECORD)):
        for offset in range(0, len(data) if data.strip(b"\0") else 0, RECORD):
            if valid(data[offset : offset + RECORD], number + offset // RECORD, seed):
                return True
        place += 8192
        number += 8192
    return False


def _store_again(fd: int, size: int) -> None:
    """Write the first *size* bytes anew where they are, and sync.

    After a sync that failed, its writer's or an earlier adopter's, the kernel takes pages for clean that never
    reached the disk: the next sync would succeed, and do nothing for them.
    """
    for start in range(0, size, len(ZEROS)):
        piece = os.pread(fd, min(len(ZEROS), size - start), start)
        if os.pwrite(fd, piece, start) != len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)


def _copy(path: Path, to: Path) -> None:
    shutil.copyfile(path, to, follow_symlinks=False)
    fd = os.open(to, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(to.parent)


def adopt_dead(root: Path, known: set[bytes], too_old: float = 0.0) -> tuple[list[Adopted], list[str]]:
    """Adopt every journal under *root* whose writer is gone, except the *known* producers'; says what was refused.

    Segments with nothing newer than *too_old* (Unix seconds) are set aside.
    """
    adopted: list[Adopted] = []
    refused: list[str] = []
    for directory in sorted(root.iterdir()):
        if not PRODUCER.fullmatch(directory.name) or bytes.fromhex(directory.name) in known:
            continue
        lock: int | None = None
        try:
            check_ours(directory)
            lock = take_lock(directory)
            if lock is not None:
                adopted.append(Adopted(directory, lock, too_old))
        except (OSError, JournalUnavailable) as error:
            if lock is not None:
                os.close(lock)
            refused.append(f"{directory} cannot be adopted: {error}")
    return adopted, refused


# Deleting


def delete_segment(directory: Path, first: int) -> None:
    """Raises OSError."""
    (directory / f"{first:020}.seg").unlink(missing_ok=True)


def delete_journal(directory: Path) -> None:
    """Remove a dead journal whole, while its lock is held: nobody sees half of it. Raises OSError."""
    gone = directory.with_name(directory.name + _GONE)
    directory.rename(gone)
    sync_directory(directory.parent)
    shutil.rmtree(gone, ignore_errors=True)  # what is left, somebody sweeps up


def delete_leftovers(root: Path) -> None:
    """Remove what an interrupted `delete_journal` has left."""
    for gone in root.glob(f"*{_GONE}"):
        shutil.rmtree(gone, ignore_errors=True)
