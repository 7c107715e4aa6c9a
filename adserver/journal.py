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
import errno
import fcntl
import itertools
import logging
import mmap
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct as Layout
from typing import ClassVar, TypeVar

from msgspec import Struct, structs

from adserver import events
from adserver.errors import JournalUnavailable
from adserver.events import Block
from adserver.retention import Held

log = logging.getLogger(__name__)

T = TypeVar("T")

RECORD = events.STORED
SEGMENT_BYTES = 4 * 1024 * 1024
SYNC_WITHIN_S = 0.05
"""A record nobody waits for is synced this soon all the same."""
PATIENCE_S = 2.0
"""Who waits for a sync is told no later than this that it did not come."""

_MAGIC = b"ASJRNL1\n"
_HEADER = Layout("<8sIIQQ8s20x")  # magic, version, record size, first number, created in µs, producer
_CRC = Layout("<I")
_SERVED = int(events.Type.SERVED)
_pack = events.RECORD.pack  # events.pack without the call, in the hottest place
_STORED = Layout(f"<{events.SIZE}sI")
_LOW = Layout(f"<{events.SIZE - 2}xH4x")
HEADER = _HEADER.size + 4
_ZEROS = b"\0" * 65536
_RETRY_S = 1.0
_HUNG_S = 1.0
_SEGMENT = re.compile(r"([0-9]{20})\.seg", re.ASCII)
_HOLE = re.compile(r"([0-9]{20})-([0-9]{20})\.hole", re.ASCII)
_AT = slice(22, 26)  # a record's instant
CORRUPT, QUARANTINED, SALVAGED = ".corrupt", ".quarantined", ".salvaged"
"""What a segment's name ends in that is kept for a person: with a hole in it, too old to be counted, dealt with."""
_GONE = ".gone"
_PRODUCER = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Segment:
    """One preallocated file, mapped for storing: a spare until `begin` gives it a number. Closed by its journal."""

    __slots__ = ("fd", "first", "map", "path", "room")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.first = 0
        self.room = (size - HEADER) // RECORD
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for start in range(0, size, len(_ZEROS)):
                _write_all(self.fd, _ZEROS[: size - start])
            os.fsync(self.fd)
            self.map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            path.unlink(missing_ok=True)
            raise

    def begin(self, first: int, producer: bytes) -> None:
        """From now on it holds the records from *first* on; the rename shows a reader all that was stored before."""
        header = _HEADER.pack(_MAGIC, 1, RECORD, first, time.time_ns() // 1000, producer)
        self.map[:HEADER] = header + _CRC.pack(zlib.crc32(header))
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
        self.on_sync: Callable[[float], None] = lambda _: None
        self.names: dict[bytes, str] = {}
        self._seed = zlib.crc32(producer)
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._spares = itertools.count(1)
        self._full: list[Segment] = []
        self._spare: Segment | None = None
        self._preparing = False
        self._moving = False
        self._moved_at = float("-inf")
        self._closing = False
        self._unsynced_names = False
        self._unsynced_directory = False
        self._waiting: list[tuple[int, float, Callable[[bool], None]]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._syncing = False
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "journal")
        self._began: deque[float] = deque()
        first = self._make_spare(segment_bytes)
        try:
            self._names = os.open(directory / "names", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            first.discard()
            raise
        self._names_size = 0
        self._offset = self._end = 0
        self._begin(first)
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
            self._rotate()
            offset = self._offset
        number = self.written + 1
        record = _pack(type_, reason, day, hour, issuer, serial, subject, int(now), number & 0xFFFF)
        self._map[offset : offset + RECORD] = record + _CRC.pack(zlib.crc32(record, self._seed))
        self._offset = offset + RECORD
        self.written = number
        if self._timer is None and not self._syncing:
            self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)
        return number

    def append_served(
        self, day: int, hour: int, issuer: bytes, serial: int, subjects: Sequence[bytes], now: float
    ) -> None:
        """Store that these ads were served, their serials counting up from *serial*. Raises JournalUnavailable, when
        `written` says how many of them are stored."""
        offset, end = self._offset, self._offset + RECORD * len(subjects)
        if end > self._end:
            for place, subject in enumerate(subjects, serial):
                self.append(_SERVED, 0, day, hour, issuer, place, subject, now)
            return
        at, number, seed = int(now), self.written, self._seed
        stored: list[bytes] = []
        for subject in subjects:
            number += 1
            record = _pack(_SERVED, 0, day, hour, issuer, serial, subject, at, number & 0xFFFF)
            serial += 1
            stored += record, _CRC.pack(zlib.crc32(record, seed))
        self._map[offset:end] = b"".join(stored)
        self._offset, self.written = end, number
        if self._timer is None and not self._syncing:
            self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)

    def name(self, key: bytes, name: str) -> None:
        """Note once which ad *key* stands for, so that the journal can be read without any catalog."""
        if key in self.names:
            return
        line = f"{key.hex()} {name}\n".encode()
        try:
            _write_all(self._names, line)
        except OSError as error:
            with suppress(OSError):  # the next line must not continue half of this one
                os.ftruncate(self._names, self._names_size)
            raise self._fail(f"{error.strerror} ({self.directory / 'names'})") from error
        self._names_size += len(line)
        self.names[key] = name
        self._unsynced_names = True

    def _rotate(self) -> None:
        """Go on in the next segment. It is prepared here if need be, unless the disk failed or hung a moment ago."""
        if self._closing:
            raise JournalUnavailable("the journal is closed")
        if self._spare is None and self._retry is not None:
            raise JournalUnavailable(self.failure or "no segment is ready")
        if self._spare is None and self._began and time.monotonic() - self._began[0] > _HUNG_S:
            raise self._fail(f"the disk has not answered for {time.monotonic() - self._began[0]:.0f} s")
        full = self._segment
        try:
            if self._spare is None:
                self._spare = self._make_spare(self._segment_bytes)
            self._begin(self._spare)
        except OSError as error:
            raise self._fail(f"{error.strerror} ({self.directory})") from error
        self._spare = None
        self._full.append(full)

    def _begin(self, segment: Segment, stored: bytes = b"") -> None:
        """Store from now on in *segment*, behind the records *stored* there anew. Raises OSError."""
        segment.map[HEADER : HEADER + len(stored)] = stored
        segment.begin(self.written + 1 - len(stored) // RECORD, self.producer)
        self._segment, self._map = segment, segment.map
        self._offset, self._end = HEADER + len(stored), HEADER + segment.room * RECORD
        self._unsynced_directory = True

    def _make_spare(self, size: int) -> Segment:
        return Segment(self.directory / f"{next(self._spares)}.spare", size)

    def _prepare_spare(self) -> None:
        """Have the next segment ready before this one is full; on the journal's own thread, it takes milliseconds."""
        self._preparing = True
        self._in_thread(lambda: self._make_spare(self._segment_bytes), self._take_spare)

    def _take_spare(self, done: "asyncio.Future[Segment]") -> None:
        self._preparing = False
        if error := done.exception():
            self._fail(f"the next segment cannot be prepared: {error}")
        elif self._spare is not None:  # one was made at once meanwhile
            done.result().discard()
        else:
            self._spare = done.result()
            self.failure = None

    def _fail(self, what: str) -> JournalUnavailable:
        """Say what is wrong, and see after a moment whether it still is, also when nobody appends any more."""
        self.failure = what
        if self._retry is None and not self._closing:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._recover)
        return JournalUnavailable(what)

    def _recover(self) -> None:
        self._retry = None
        if self._moving:
            self._move_unsynced()
        elif self._spare is not None:
            self.failure = None
        elif not self._preparing:
            self._prepare_spare()

    def _in_thread(self, work: Callable[[], T], then: "Callable[[asyncio.Future[T]], None]") -> None:
        """Do *work* on the journal's own thread, one after the other, *then* go on in the loop."""

        def finish(done: "asyncio.Future[T]") -> None:
            self._began.popleft()
            then(done)

        self._began.append(time.monotonic())
        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(finish)

    # Syncing

    def wait_synced(self, within_s: float = PATIENCE_S) -> "asyncio.Future[bool]":
        """The answer that `when_synced` tells, to be awaited."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.when_synced(lambda safe: None if future.done() else future.set_result(safe), within_s)
        return future

    def when_synced(self, tell: Callable[[bool], None], within_s: float = PATIENCE_S) -> None:
        """Tell True as soon as everything stored so far is on the disk, or False when it is not *within_s* seconds.

        One timer serves all who wait: a beacon a tenth of a millisecond would otherwise set and cancel one each.
        """
        if self.synced >= self.written:
            tell(True)  # noqa: FBT003
            return
        deadline = asyncio.get_running_loop().time() + within_s
        self._waiting.append((self.written, deadline, tell))
        if self._alarm is None or deadline < self._alarm.when():
            self._set_alarm(deadline)
        if not self._syncing:
            self._sync()

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(at, self._tell_late)

    def _tell_late(self) -> None:
        """Tell those who have waited long enough; the disk hangs or is slow."""
        self._alarm = None
        now = asyncio.get_running_loop().time()
        self._resolve(lambda _, deadline: False if deadline <= now else None)
        if self._waiting:
            self._set_alarm(min(deadline for _, deadline, _ in self._waiting))

    def _resolve(self, answer: Callable[[int, float], bool | None]) -> None:
        waiting, self._waiting = self._waiting, []
        for number, deadline, tell in waiting:
            said = answer(number, deadline)
            if said is None:
                self._waiting.append((number, deadline, tell))
                continue
            try:
                tell(said)
            except Exception:
                log.exception("%s: one who waited for record %d could not be told", self.directory, number)

    def _sync(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._syncing or self._moving or self._closing or self.synced >= self.written:
            return
        self._syncing = True
        target = self.written
        descriptors = [segment.fd for segment in (*self._full, self._segment)]
        names, self._unsynced_names = self._unsynced_names, False
        if names:
            descriptors.insert(0, self._names)
        directory, self._unsynced_directory = self._unsynced_directory, False

        def sync() -> float:
            began = time.perf_counter()
            for descriptor in descriptors:
                os.fdatasync(descriptor)
            if directory:
                _sync_directory(self.directory)
            return time.perf_counter() - began

        def finish(done: "asyncio.Future[float]") -> None:
            self._syncing = False
            if error := done.exception():
                log.error("%s: sync failed (%s); storing its unsynced records again", self.directory, error)
                self._unsynced_names |= names
                self._moving = True
                if time.monotonic() < self._moved_at + _RETRY_S:
                    self._fail(f"one sync after the other fails: {error}")
                else:
                    self._move_unsynced()
            else:
                self._finish_sync(target, done.result())

        self._in_thread(sync, finish)
        half_full = (self._offset - HEADER) * 2 > self._end - HEADER
        if half_full and self._spare is None and not self._preparing and self._retry is None:
            self._prepare_spare()

    def _finish_sync(self, target: int, seconds: float) -> None:
        self.synced = target
        while self._full and self._full[0].first + self._full[0].room - 1 <= target:
            segment = self._full.pop(0)
            self._close(segment, segment.room)
        self._resolve(lambda number, _: True if number <= target else None)
        if self.synced < self.written:
            if self._waiting:
                self._sync()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)
        self.on_sync(seconds)
        self.on_synced()

    def _move_unsynced(self) -> None:
        """After a failed sync the kernel may have dropped the pages: store what is not known to be safe once more.

        Until that is done nothing is synced; what is appended meanwhile is moved with the rest.
        """
        if self._closing:
            return
        size = self._segment_bytes + (self.written - self.synced) * RECORD
        self._in_thread(lambda: self._make_spare(size), self._finish_move)

    def _finish_move(self, done: "asyncio.Future[Segment]") -> None:
        if error := done.exception():
            self._fail(f"a sync failed and no new segment can be made: {error}")
            return
        fresh, old = done.result(), [*self._full, self._segment]
        if self._closing or fresh.room <= self.written - self.synced:  # more was appended meanwhile than there is room
            fresh.discard()
            self._move_unsynced()
            return
        unsafe = b"".join(segment.map[HEADER : HEADER + segment.room * RECORD] for segment in old)
        skip, all_ = (self.synced + 1 - old[0].first) * RECORD, (self.written + 1 - old[0].first) * RECORD
        try:
            self._begin(fresh, unsafe[skip:all_])
        except OSError as again:
            fresh.discard()
            self._fail(f"a sync failed and no new segment can be made: {again}")
            return
        # What starts behind the new segment's start would hide the records there: its number is its place.
        for segment in old:
            if segment.first > fresh.first:
                segment.path.unlink(missing_ok=True)
            self._close(segment, max(0, fresh.first - segment.first))
        self._full = []
        self._moving = False
        self._moved_at = time.monotonic()
        self.failure = None
        self._sync()

    def _close(self, segment: Segment, used: int) -> None:
        try:
            segment.close(used)
        except OSError as error:
            log.warning("%s keeps its unused room: %s", segment.path, error)

    async def drain(self) -> None:
        """Sync what is stored; give up after PATIENCE_S."""
        await self.wait_synced()

    async def close(self) -> None:
        """Sync what is stored, give the unused room back and release the lock."""
        await self.drain()
        self._closing = True
        self._resolve(lambda *_: False)
        for timer in (self._timer, self._retry, self._alarm):
            if timer is not None:
                timer.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        for segment in self._full:
            self._close(segment, segment.room)
        self._close(self._segment, (self._offset - HEADER) // RECORD)
        self._offset = self._end
        if self._spare is not None:
            self._spare.discard()
        os.close(self._names)
        os.close(self._lock)


class NoJournal:
    """Stands in where no journal can be made: it takes nothing and says why, so that ads are served all the same."""

    names: ClassVar[dict[bytes, str]] = {}
    written = synced = 0

    def __init__(self, failure: str) -> None:
        self.failure: str | None = failure
        self.issuer = secrets.token_bytes(5)

    def __repr__(self) -> str:
        return f"<NoJournal {self.failure}>"

    def append(self, *_: object) -> int:
        raise JournalUnavailable(self.failure)

    def append_served(self, *_: object) -> None:
        raise JournalUnavailable(self.failure)

    def name(self, *_: object) -> None:
        raise JournalUnavailable(self.failure)

    def wait_synced(self, _: float = 0) -> "asyncio.Future[bool]":
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    def when_synced(self, tell: Callable[[bool], None], _: float = 0) -> None:
        tell(True)  # noqa: FBT003


Ledger = Journal | NoJournal


# Opening


def check_root(root: Path) -> None:
    """Raises JournalUnavailable unless *root* is a real directory of ours that nobody else can write to."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_ours(root)


def _check_ours(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise JournalUnavailable(f"{directory} is not a directory (a link is not followed); give another --data-dir")
    if found.st_uid != os.geteuid():
        raise JournalUnavailable(f"{directory} belongs to user {found.st_uid}, not to the user running this service")
    if found.st_mode & 0o022:
        raise JournalUnavailable(f"{directory} can be written by other users; run: chmod 700 {directory}")


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
            if lock is None:  # somebody took the new directory for a dead one's: leave it to them
                continue
            try:
                return Journal(directory, producer, lock, segment_bytes)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)
                raise
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
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # this file system has no locks
        os.close(fd)
        raise
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
        self._seed = zlib.crc32(self.producer)

    def read(self, after: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """The records that `read_block` finds, each with its number and without its checksum."""
        block = self.read_block(after, last, limit)
        return list(enumerate((record for record, _ in _STORED.iter_unpack(block.data)), block.first))

    def read_block(self, after: int, last: int | None, limit: int) -> Block:
        """Up to *limit* valid records numbered above *after* and at most *last*, in order.

        It ends before a record that is damaged or missing. What lies before the first segment may be gone, and what a
        salvage has written down as a hole is passed over.
        Segments are listed anew each time: one that supersedes others may have appeared. Raises OSError.
        """
        if last is not None and last <= after:
            return Block(after + 1, b"")
        starts = self.starts()
        begin = number = _behind_holes(self.directory, max(after + 1, starts[0] if starts else 1))
        found: list[bytes] = []
        for first, following in _spans(starts):
            end = following - 1 if last is None else min(last, following - 1)
            if end < number:
                continue
            if number - begin == limit:
                break
            data = _valid(
                self._pread(first, number, min(end - number + 1, limit - (number - begin))), number, self._seed
            )
            found.append(data)
            number += len(data) // RECORD
            if number <= end:
                break
        return Block(begin, found[0] if len(found) == 1 else b"".join(found))

    def starts(self) -> list[int]:
        """The numbers that its segments begin with."""
        return sorted(_starts(self.directory))

    def follows(self, number: int) -> int:
        """The number that comes after *number*, holes written down by a salvage passed over."""
        return _behind_holes(self.directory, number + 1)

    def _pread(self, first: int, begin: int, count: int) -> bytes:
        fd = os.open(self.directory / f"{first:020}.seg", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _is_header(os.pread(fd, HEADER, 0), first, self.producer):
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
        found = _valid(self._pread(first, first + place, 1), first + place, self._seed)
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


def _starts(directory: Path) -> Iterator[int]:
    for path in directory.iterdir():
        if match := _SEGMENT.fullmatch(path.name):
            yield int(match[1])


def _spans(starts: list[int]) -> Iterator[tuple[int, int]]:
    """Each segment's first number, and the first of the one behind it."""
    return itertools.pairwise([*starts, 1 << 62])


def _holes(directory: Path) -> Iterator[tuple[int, int]]:
    for path in directory.iterdir():
        if match := _HOLE.fullmatch(path.name):
            yield int(match[1]), int(match[2])


def _behind_holes(directory: Path, number: int) -> int:
    for first, last in sorted(_holes(directory)):
        if first <= number <= last:
            number = last + 1
    return number


def _is_header(header: bytes, first: int, producer: bytes) -> bool:
    if len(header) < HEADER or _CRC.unpack(header[-4:])[0] != zlib.crc32(header[:-4]):
        return False
    magic, version, record, number, _, owner = _HEADER.unpack(header[:-4])
    return (magic, version, record, number, owner) == (_MAGIC, 1, RECORD, first, producer)


def _valid(data: bytes, begin: int, seed: int) -> bytes:
    """The stored records of *data* up to the first that is cut, unwritten, out of place or damaged."""
    whole = data[: len(data) // RECORD * RECORD]
    end = begin + len(whole) // RECORD
    crc32 = zlib.crc32
    checks = [crc32(record, seed) == crc for record, crc in _STORED.iter_unpack(whole)]
    lows = [low for (low,) in _LOW.iter_unpack(whole)]
    if all(checks) and lows == [number & 0xFFFF for number in range(begin, end)]:
        return whole  # nearly always; one by one takes three times as long
    for place, (record, crc) in enumerate(_STORED.iter_unpack(whole)):
        if crc32(record, seed) != crc or record[-2] | record[-1] << 8 != begin + place & 0xFFFF:
            return whole[: place * RECORD]
    return whole


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
        for first, following in _spans(starts):
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
        self._salvaged = _salvaged(directory)
        self.quarantined = self._quarantine(too_old)
        self.last = self.reader.last()
        self.names = self.reader.names()
        self._cut()
        for spare in directory.glob("*.spare"):
            spare.unlink()
        _sync_directory(directory)

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
        if (salvaged := _salvaged(self.reader.directory)) != self._salvaged:
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
        for first, following in _spans(starts):
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
            if _valid(data[offset : offset + RECORD], number + offset // RECORD, seed):
                return True
        place += 8192
        number += 8192
    return False


def _store_again(fd: int, size: int) -> None:
    """Write the first *size* bytes anew where they are, and sync.

    After a sync that failed, its writer's or an earlier adopter's, the kernel takes pages for clean that never
    reached the disk: the next sync would succeed, and do nothing for them.
    """
    for start in range(0, size, len(_ZEROS)):
        piece = os.pread(fd, min(len(_ZEROS), size - start), start)
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
    _sync_directory(to.parent)


def adopt_dead(root: Path, known: set[bytes], too_old: float = 0.0) -> tuple[list[Adopted], list[str]]:
    """Adopt every journal under *root* whose writer is gone, except the *known* producers'; says what was refused.

    Segments with nothing newer than *too_old* (Unix seconds) are set aside.
    """
    adopted: list[Adopted] = []
    refused: list[str] = []
    for directory in sorted(root.iterdir()):
        if not _PRODUCER.fullmatch(directory.name) or bytes.fromhex(directory.name) in known:
            continue
        lock: int | None = None
        try:
            _check_ours(directory)
            lock = _lock(directory)
            if lock is not None:
                adopted.append(Adopted(directory, lock, too_old))
        except (OSError, JournalUnavailable) as error:
            if lock is not None:
                os.close(lock)
            refused.append(f"{directory} cannot be adopted: {error}")
    return adopted, refused


# Deleting and salvaging


def delete_segment(directory: Path, first: int) -> None:
    """Raises OSError."""
    (directory / f"{first:020}.seg").unlink(missing_ok=True)


def set_aside(directory: Path) -> list[Path]:
    """The segments in *directory* that wait for a person."""
    return sorted([*directory.glob(f"*{CORRUPT}"), *directory.glob(f"*{QUARANTINED}")])


def delete_journal(directory: Path) -> None:
    """Remove a dead journal whole, while its lock is held: nobody sees half of it. Raises OSError."""
    gone = directory.with_name(directory.name + _GONE)
    directory.rename(gone)
    _sync_directory(directory.parent)
    shutil.rmtree(gone, ignore_errors=True)  # what is left, somebody sweeps up


def _salvaged(directory: Path) -> set[str]:
    return {path.name for path in directory.glob(f"*{SALVAGED}")}


def delete_leftovers(root: Path) -> None:
    """Remove what an interrupted `delete_journal` has left."""
    for gone in root.glob(f"*{_GONE}"):
        shutil.rmtree(gone, ignore_errors=True)


class Salvage(Struct, frozen=True):
    """What lies in set-aside segments: *runs* of valid records (first number and their bytes), and the *holes*."""

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
    for path in set_aside(directory):
        data, first = path.read_bytes(), int(path.stem)
        for place in range((len(data) - HEADER) // RECORD):
            record = data[HEADER + place * RECORD : HEADER + (place + 1) * RECORD]
            if record.strip(b"\0") and _valid(record, first + place, reader._seed):
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
    return Salvage(runs, [(first, last) for first, last in holes if first <= last])


def apply_salvage(directory: Path, found: Salvage) -> None:
    """Put the records back under their own numbers, so that they are shipped, sealed and kept like any others.

    A repeat changes nothing: a number that was counted stays counted. The segments read become `.salvaged`.
    Raises OSError.
    """
    producer = bytes.fromhex(directory.name)
    for first, last in found.holes:  # first the way over them: without segments behind it leads nowhere
        _write_synced(directory / f"{first:020}-{last:020}.hole", b"")
    for run in found.runs:
        header = _HEADER.pack(_MAGIC, 1, RECORD, run.first, time.time_ns() // 1000, producer)
        _write_synced(directory / f"{run.first:020}.seg", header + _CRC.pack(zlib.crc32(header)) + run.data)
    for path in set_aside(directory):
        path.replace(path.with_suffix(SALVAGED))
    _sync_directory(directory)


def _write_synced(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    _sync_directory(path.parent)


# What else lies on a journals' volume


def volume(root: Path) -> str:
    """The name of the volume that the journals under *root* are on; made up at the first call."""
    path = root / "volume"
    with suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_hex(8).encode())
    return path.read_text("ascii") or "unknown"


def read_closed(root: Path) -> dict[int, str]:
    """The days closed for good, and the digest of each one's page in the archive."""
    try:
        lines = (root / "closed").read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    found = (line.split() for line in lines)
    return {int(words[0]): words[1] for words in found if len(words) == 2 and words[0].isdigit()}


def list_closed(root: Path, digests: Mapping[int, str]) -> None:
    """Note on the journals' volume which days are closed, whatever the store forgets. Raises OSError."""
    found = read_closed(root)
    if not digests.keys() <= found.keys():
        lines = (f"{day} {digest}\n" for day, digest in sorted({**found, **digests}.items()))
        _write_synced(root / "closed", "".join(lines).encode())


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Hold the lock file *path* while the body runs; False when another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
