"""Events on disk, the ledger: numbered, checksummed records in preallocated segments; one writer per directory.

Rules that must hold here:

- A record is stored into a memory map of its segment before anybody is answered. That is one copy of 32 bytes into
  the page cache (0.2 µs measured, against 4.5 µs for a pwrite) and survives kill -9. The segment was filled with
  zeros and synced beforehand, so its blocks exist and a full disk cannot fault the store.
- A record's number is its place: records are numbered 1, 2, 3, … per producer, and a segment's file name says the
  number of its first. A journal is its segments in order, each read to its first invalid record; a segment that
  starts at b supersedes everything numbered b and above in earlier ones.
- One sync is in flight at a time and takes everything stored so far with it. `synced` only grows. After a failed
  sync that descriptor is never synced again: what it held unsynced is stored again in a new segment.
- A producer id lives for one boot. Nobody appends to another producer's journal; a dead one's is adopted by
  whoever gets the lock on it, cut to its valid records, synced, and only then shipped.
"""

import asyncio
import fcntl
import logging
import mmap
import os
import secrets
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct as Layout

from adserver import events
from adserver.errors import JournalUnavailable

log = logging.getLogger(__name__)

RECORD = events.SIZE + 4
SEGMENT_BYTES = 4 * 1024 * 1024
SYNC_WITHIN_S = 0.05
"""A record nobody waits for is synced this soon all the same."""

_MAGIC = b"ASJRNL1\n"
_HEADER = Layout("<8sIIQQ8s20x")  # magic, version, record size, first number, created in µs, producer
_CRC = Layout("<I")
HEADER = _HEADER.size + 4
_ZEROS = b"\0" * 65536
_RETRY_S = 1.0


class Segment:
    """One preallocated file, mapped for storing. Made by `prepare`; closed by its journal."""

    __slots__ = ("fd", "first", "map", "path", "room", "seed")

    def __init__(self, path: Path, first: int, producer: bytes, size: int) -> None:
        self.path = path
        self.first = first
        self.room = (size - HEADER) // RECORD
        self.seed = zlib.crc32(producer)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            header = _HEADER.pack(_MAGIC, 1, RECORD, first, time.time_ns() // 1000, producer)
            _write_all(self.fd, header + _CRC.pack(zlib.crc32(header)))
            for _ in range(HEADER, size, len(_ZEROS)):
                _write_all(self.fd, _ZEROS)
            os.ftruncate(self.fd, size)
            os.fsync(self.fd)
            self.map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            path.unlink(missing_ok=True)
            raise

    def close(self, used: int) -> None:
        """Give back the room behind its *used* records."""
        self.map.close()
        os.ftruncate(self.fd, HEADER + used * RECORD)
        os.close(self.fd)


def _write_all(fd: int, data: bytes) -> None:
    """A full disk first writes fewer bytes than it was given, and only then says ENOSPC."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Journal:
    """This boot's own journal. `append` is for the event loop's thread alone."""

    def __init__(self, directory: Path, producer: bytes, lock: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.producer = producer
        self.issuer = producer[:5]
        self.written = 0
        self.synced = 0
        self.failure: str | None = None
        self.on_synced: Callable[[], None] = lambda: None
        self.on_sync: Callable[[float], None] = lambda seconds: None
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._names = os.open(directory / "names", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.names: dict[bytes, str] = {}
        self._unsynced_names = False
        self._thread = ThreadPoolExecutor(1, "journal")
        self._segment = self._prepare(1)
        self._offset, self._end = HEADER, HEADER + self._segment.room * RECORD
        self._full: list[Segment] = []
        self._next: Segment | None = None
        self._preparing = False
        self._retry_at = 0.0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._syncing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        _sync_directory(directory)

    def __repr__(self) -> str:
        return f"<Journal {self.producer.hex()} record {self.written:,} written, {self.synced:,} synced>"

    # Storing

    def append(
        self, type_: int, reason: int, day: int, hour: int, issuer: bytes, serial: int, subject: bytes, now: float
    ) -> int:
        """Store one event; it survives kill -9 when this returns its number. Raises JournalUnavailable."""
        offset = self._offset
        if offset == self._end:
            self._rotate(now)
            offset = self._offset
        number = self.written + 1
        record = events.pack(type_, reason, day, hour, issuer, serial, subject, int(now), number)
        self._segment.map[offset : offset + RECORD] = record + _CRC.pack(zlib.crc32(record, self._segment.seed))
        self._offset = offset + RECORD
        self.written = number
        if self._timer is None and self._syncing is None:
            self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)
        return number

    def name(self, key: bytes, name: str) -> None:
        """Note once which ad *key* stands for, so that the journal can be read without any catalog."""
        if key in self.names:
            return
        try:
            _write_all(self._names, f"{key.hex()} {name}\n".encode())
        except OSError as error:
            self.failure = str(error)
            raise JournalUnavailable(f"{self.directory}: {error}") from error
        self.names[key] = name
        self._unsynced_names = True

    def _rotate(self, now: float) -> None:
        following = self._next
        if following is None:
            if now < self._retry_at:
                raise JournalUnavailable(self.failure or "no segment is ready")
            try:
                following = self._prepare(self.written + 1)
            except OSError as error:
                self._retry_at = now + _RETRY_S
                self.failure = f"{error.strerror} ({self.directory})"
                raise JournalUnavailable(self.failure) from error
        self.failure = None
        self._next = None
        self._full.append(self._segment)
        self._take(following)

    def _take(self, segment: Segment) -> None:
        self._segment = segment
        self._offset, self._end = HEADER, HEADER + segment.room * RECORD

    def _prepare(self, first: int) -> Segment:
        path = self.directory / f"{first:020}.seg"
        segment = Segment(path, first, self.producer, self._segment_bytes)
        _sync_directory(self.directory)
        return segment

    def _prepare_next(self) -> None:
        """Have the next segment ready before this one is full; on the journal's own thread, it takes milliseconds."""
        self._preparing = True
        first = self._segment.first + self._segment.room

        def take(done: asyncio.Future[Segment]) -> None:
            self._preparing = False
            if done.cancelled():
                return
            if error := done.exception():
                self.failure = f"the next segment cannot be prepared: {error}"
            elif self._segment.first + self._segment.room == first:
                self._next = done.result()
            else:  # another segment took over meanwhile
                done.result().close(0)
                done.result().path.unlink()

        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._prepare, first).add_done_callback(take)

    # Syncing

    def wait_synced(self) -> "asyncio.Future[None]":
        """Done when everything stored so far has reached the disk."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.synced >= self.written:
            future.set_result(None)
            return future
        self._waiting.append((self.written, future))
        if self._syncing is None:
            self._sync()
        return future

    def _sync(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._syncing is not None or self.synced >= self.written:
            return
        target = self.written
        segments = [*self._full, self._segment]
        names, self._unsynced_names = self._unsynced_names, False
        loop = asyncio.get_running_loop()
        self._syncing = loop.run_in_executor(self._thread, self._sync_files, segments, names)
        self._syncing.add_done_callback(lambda done: self._finish_sync(done, target, names))
        half_full = (self._offset - HEADER) * 2 > self._end - HEADER
        if half_full and self._next is None and not self._preparing and self.failure is None:
            self._prepare_next()

    def _sync_files(self, segments: list[Segment], names: bool) -> None:  # noqa: FBT001
        began = time.perf_counter()
        if names:
            os.fdatasync(self._names)
        for segment in segments:
            os.fdatasync(segment.fd)
        self.on_sync(time.perf_counter() - began)

    def _finish_sync(self, done: "asyncio.Future[None]", target: int, names: bool) -> None:  # noqa: FBT001
        self._syncing = None
        if done.cancelled():
            return
        if error := done.exception():
            self._unsynced_names = self._unsynced_names or names
            self._move_unsynced(error)
            return
        self.synced = target
        self._retire()
        left = [(number, future) for number, future in self._waiting if number > target]
        for number, future in self._waiting:
            if number <= target and not future.done():
                future.set_result(None)
        self._waiting = left
        self.on_synced()
        if self.synced < self.written:
            if left:
                self._sync()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)

    def _retire(self) -> None:
        """Close full segments once they are synced."""
        while self._full and self._full[0].first + self._full[0].room - 1 <= self.synced:
            segment = self._full.pop(0)
            segment.close(segment.room)

    def _move_unsynced(self, error: BaseException) -> None:
        """After a failed sync the kernel may have dropped the pages: store what is not known to be safe once more."""
        log.error("%s: sync failed (%s); storing its unsynced records again", self.directory, error)
        unsafe = b"".join(
            bytes(segment.map[HEADER + (max(self.synced + 1, segment.first) - segment.first) * RECORD : end])
            for segment, end in [
                *((full, HEADER + full.room * RECORD) for full in self._full),
                (self._segment, self._offset),
            ]
            if segment.first + segment.room - 1 > self.synced
        )
        try:
            fresh = self._prepare(self.synced + 1)
        except OSError as again:
            self.failure = f"sync failed ({error}) and no new segment could be made ({again})"
            loop = asyncio.get_running_loop()
            self._timer = self._timer or loop.call_later(_RETRY_S, self._sync)
            return
        for segment in [*self._full, self._segment]:
            segment.close(min(segment.room, max(0, self.synced + 1 - segment.first)))
        self._full, self._next = [], None
        self._take(fresh)
        fits = (self._end - HEADER) // RECORD
        # More than one segment's worth cannot be unsynced: a sync is asked for every 50 ms.
        moved = unsafe[: fits * RECORD]
        fresh.map[HEADER : HEADER + len(moved)] = moved
        self._offset = HEADER + len(moved)
        self.written = self.synced + len(moved) // RECORD
        self._sync()

    async def drain(self) -> None:
        """Sync what is stored; give up after two seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait_synced(), 2)

    async def close(self) -> None:
        """Sync what is stored, give the unused room back and release the lock."""
        await self.drain()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        for segment in self._full:
            segment.close(segment.room)
        self._segment.close((self._offset - HEADER) // RECORD)
        if self._next is not None:
            self._next.close(0)
            self._next.path.unlink()
        os.close(self._names)
        os.close(self._lock)


class NoJournal:
    """Stands in where no journal can be made: it takes nothing and says why, so that ads are served all the same."""

    names: dict[bytes, str] = {}
    written = synced = 0

    def __init__(self, failure: str) -> None:
        self.failure: str | None = failure
        self.issuer = secrets.token_bytes(5)

    def __repr__(self) -> str:
        return f"<NoJournal {self.failure}>"

    def append(
        self, type_: int, reason: int, day: int, hour: int, issuer: bytes, serial: int, subject: bytes, now: float
    ) -> int:
        raise JournalUnavailable(self.failure)

    def name(self, key: bytes, name: str) -> None:
        raise JournalUnavailable(self.failure)

    def wait_synced(self) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


Ledger = Journal | NoJournal


# Opening


def check_root(root: Path) -> None:
    """Raises JournalUnavailable unless *root* is a real directory of ours that nobody else can write to."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise JournalUnavailable(f"{root} is not a directory (a link is not followed); give another --data-dir")
    if found.st_uid != os.geteuid():
        raise JournalUnavailable(f"{root} belongs to user {found.st_uid}, not to the user running this service")
    if found.st_mode & 0o022:
        raise JournalUnavailable(f"{root} can be written by other users; run: chmod 700 {root}")


def create_journal(root: Path, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
    """A new journal under *root* for this boot, locked. Raises JournalUnavailable."""
    try:
        check_root(root)
        while True:
            producer = _new_producer(root)
            directory = root / producer.hex()
            directory.mkdir(mode=0o700)
            _sync_directory(root)
            lock = _lock(directory)
            if lock is not None:  # else somebody took the new directory for a dead one's: leave it to them
                return Journal(directory, producer, lock, segment_bytes)
    except OSError as error:
        raise JournalUnavailable(f"{root}: {error.strerror or error}") from error


def _new_producer(root: Path) -> bytes:
    """Eight random bytes whose first five no journal here begins with: they issue tokens under these five."""
    taken = {path.name[:10] for path in root.iterdir()}
    while (producer := secrets.token_bytes(8)).hex()[:10] in taken:
        pass
    return producer


def _lock(directory: Path) -> int | None:
    """The lock's descriptor, or None while another process holds it. The kernel lets go of it when its holder dies."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(directory / "lock", flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Reading


class Reader:
    """Reads any journal's records by number, from its files: its writer's own, a dead one's, or a copy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.producer = bytes.fromhex(directory.name)
        self._starts: list[int] = []

    def read(self, after: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Up to *limit* valid records numbered above *after* and at most *last*, in order, with their numbers."""
        found: list[tuple[int, bytes]] = []
        for first, following in self._stretches(after):
            end = following - 1 if last is None else min(last, following - 1)
            begin = max(after + 1, first)
            if begin > end or len(found) == limit:
                continue
            if found and begin != found[-1][0] + 1:
                break
            data = self._pread(first, begin, min(end - begin + 1, limit - len(found)))
            valid = list(_valid(data, begin, self.producer))
            found += valid
            if len(valid) * RECORD < len(data):
                break
        return found

    def _stretches(self, after: int) -> list[tuple[int, int]]:
        """Each segment's first number and the first of the one that supersedes or follows it, skipping what is read."""
        if not self._starts or after + 1 >= self._starts[-1]:
            self._starts = sorted(_starts(self.directory))
        followings = [*self._starts[1:], 1 << 62]
        return [(one, two) for one, two in zip(self._starts, followings, strict=True) if two > after + 1]

    def _pread(self, first: int, begin: int, count: int) -> bytes:
        fd = os.open(self.directory / f"{first:020}.seg", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _is_header(os.pread(fd, HEADER, 0), first, self.producer):
                return b""
            return os.pread(fd, count * RECORD, HEADER + (begin - first) * RECORD)
        finally:
            os.close(fd)

    def last(self) -> int:
        """The number of the last valid record; 0 for an empty journal."""
        last = 0
        while batch := self.read(last, None, 65536):
            last = batch[-1][0]
        return last

    def tip(self) -> tuple[int, bytes] | None:
        """The last valid record and its number, found by halving instead of reading all; None for an empty journal."""
        for first in sorted(_starts(self.directory), reverse=True):
            size = (self.directory / f"{first:020}.seg").stat().st_size
            low, high = 0, max(0, (size - HEADER) // RECORD)
            while low < high:  # `low` records are valid, the one at `high` is not
                middle = (low + high) // 2
                if self._record(first, middle):
                    low = middle + 1
                else:
                    high = middle
            if low and (record := self._record(first, low - 1)):
                return first + low - 1, record
        return None

    def _record(self, first: int, place: int) -> bytes | None:
        found = list(_valid(self._pread(first, first + place, 1), first + place, self.producer))
        return found[0][1] if found else None

    def names(self) -> dict[bytes, str]:
        """What each ad key in this journal stands for. A line cut off by a crash is left out."""
        try:
            text = (self.directory / "names").read_text()
        except FileNotFoundError:
            return {}
        lines = (line.split(" ", 1) for line in text.splitlines(keepends=True) if line.endswith("\n"))
        return {bytes.fromhex(line[0]): line[1].rstrip("\n") for line in lines if len(line) == 2}


def _starts(directory: Path) -> Iterator[int]:
    for path in directory.iterdir():
        if path.suffix == ".seg" and path.stem.isdigit():
            yield int(path.stem)


def _is_header(header: bytes, first: int, producer: bytes) -> bool:
    if len(header) < HEADER or _CRC.unpack(header[-4:])[0] != zlib.crc32(header[:-4]):
        return False
    magic, version, record, number, _, owner = _HEADER.unpack(header[:-4])
    return (magic, version, record, number, owner) == (_MAGIC, 1, RECORD, first, producer)


def _valid(data: bytes, begin: int, producer: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of *data* up to the first that is cut, unwritten, out of place or damaged."""
    seed = zlib.crc32(producer)
    for number, offset in enumerate(range(0, len(data) - RECORD + 1, RECORD), begin):
        record = data[offset : offset + events.SIZE]
        if _CRC.unpack_from(data, offset + events.SIZE)[0] != zlib.crc32(record, seed):
            return
        if int.from_bytes(record[-2:], "little") != number & 0xFFFF:
            return
        yield number, record


class Adopted:
    """A dead producer's journal, locked by us and cut to its valid records; nobody appends to it again."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._lock = lock
        self.reader = Reader(directory)
        self.producer = self.reader.producer
        self.last = self.reader.last()
        for first in sorted(_starts(directory)):
            _cut_and_sync(directory / f"{first:020}.seg", max(0, self.last - first + 1))
        _sync_directory(directory)

    def __repr__(self) -> str:
        return f"<Adopted {self.producer.hex()} with {self.last:,} records>"

    def close(self) -> None:
        os.close(self._lock)


def _cut_and_sync(path: Path, records: int) -> None:
    """Take off a torn tail and unused room, and sync: what power could still take away must never be shipped."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size > HEADER + records * RECORD:
            os.ftruncate(fd, HEADER + records * RECORD)
        os.fsync(fd)
    finally:
        os.close(fd)


def adopt_dead(root: Path, known: set[bytes]) -> Iterator[Adopted]:
    """Adopt every journal under *root* whose writer is gone, except those of the *known* producers."""
    for directory in sorted(root.iterdir()):
        if len(directory.name) != 16 or directory.is_symlink() or not directory.is_dir():
            continue
        try:
            producer = bytes.fromhex(directory.name)
        except ValueError:
            continue
        if producer in known:
            continue
        try:
            lock = _lock(directory)
        except OSError as error:
            log.warning("%s cannot be adopted: %s", directory, error)
            continue
        if lock is not None:
            yield Adopted(directory, lock)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Hold the lock file *path* while the body runs; False when another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
