"""Events on disk, the ledger: this boot's own journal, one writer per directory.

Rules that must hold here:

- A record is stored into a memory map of its segment before anybody is answered. That is one copy of 32 bytes into
  the page cache (0.2 µs measured, against 4.5 µs for a pwrite) and survives kill -9. The segment was filled with
  zeros and synced beforehand, so its blocks exist and a full disk cannot fault the store.
- A record's number is its place: records are numbered 1, 2, 3, … per producer. A journal is its segments in order,
  each read to its first invalid record (see `segments`).
- One sync is in flight at a time and takes everything stored so far with it. `synced` only grows. After a failed
  sync that descriptor is never synced again: what it held unsynced is stored again in a new segment.
- A producer id lives for one boot. Nobody appends to another producer's journal; a dead one's is adopted by
  whoever gets the lock on it, cut to its valid records, synced, and only then shipped (see `adoption`).
"""

import asyncio
import itertools
import logging
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar

from adserver import events
from adserver.disk import check_root, sync_directory, take_lock, write_all, write_synced
from adserver.errors import JournalUnavailable
from adserver.events import Block
from adserver.segments import CRC, HEADER, RECORD, SEGMENT_BYTES, Segment, valid
from adserver.syncing import Syncer

log = logging.getLogger(__name__)

SYNC_WITHIN_S = 0.05
"""A record nobody waits for is synced this soon all the same."""
PATIENCE_S = 2.0
"""Who waits for a sync is told no later than this that it did not come."""

_SERVED = int(events.Type.SERVED)
_pack = events.RECORD.pack  # events.pack without the call, in the hottest place
_RETRY_S = 1.0
_HUNG_S = 1.0


class Journal:
    """This boot's own journal. `append` is for the event loop's thread alone."""

    def __init__(self, directory: Path, producer: bytes, lock: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.producer = producer
        self.issuer = producer[:5]
        self.written = 0
        self.synced = 0
        self.failure: str | None = None  # why it takes no records
        self.trouble: str | None = None  # why it will soon take none
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
        self._unsynced_names = self._doubtful_names = False
        self._unsynced_directory = False
        self._waiting: list[tuple[int, float, Callable[[bool], None]]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._syncing = False
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._syncer = Syncer(directory)
        first = self._make_spare(segment_bytes)
        try:
            self._names = os.open(directory / "names", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            first.discard()
            raise
        self._names_size = 0
        self._offset = self._end = 0
        self._begin(first)
        sync_directory(directory)

    def __repr__(self) -> str:
        return f"<Journal {self.producer.hex()} record {self.written:,} written, {self.synced:,} synced>"

    @property
    def room(self) -> int:
        """How many more records the segment in use takes."""
        return (self._end - self._offset) // RECORD

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
        self._map[offset : offset + RECORD] = record + CRC.pack(zlib.crc32(record, self._seed))
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
            stored += record, CRC.pack(zlib.crc32(record, seed))
        self._map[offset:end] = b"".join(stored)
        self._offset, self.written = end, number
        if self._timer is None and not self._syncing:
            self._timer = asyncio.get_running_loop().call_later(SYNC_WITHIN_S, self._sync)

    def recent(self, after: int, limit: int) -> Block | None:
        """Up to *limit* synced records numbered above *after*, read from memory; None when they are only in files."""
        if self.synced <= after or self._segment.first > after + 1 or self._offset == self._end:
            return None
        begin = HEADER + (after + 1 - self._segment.first) * RECORD
        data = self._map[begin : begin + min(self.synced - after, limit) * RECORD]
        return Block(after + 1, valid(data, after + 1, self._seed))

    def name(self, key: bytes, name: str) -> None:
        """Note once which ad *key* stands for, so that the journal can be read without any catalog."""
        if key in self.names:
            return
        line = _line(key, name)
        try:
            write_all(self._names, line)
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
            raise self._fail(self.trouble or self.failure or "no segment is ready")
        if self._spare is None and self._syncer.hangs_s() > _HUNG_S:
            raise self._fail(f"the disk has not answered for {self._syncer.hangs_s():.0f} s")
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
        self._syncer.work(lambda: self._make_spare(self._segment_bytes), self._take_spare)

    def _take_spare(self, done: "asyncio.Future[Segment]") -> None:
        self._preparing = False
        if error := done.exception():
            what = f"the next segment cannot be prepared: {error}"
            if self.room:  # there is still room in this one
                self.trouble = what
                self._try_again()
            else:
                self._fail(what)
        elif self._spare is not None:  # one was made at once meanwhile
            done.result().discard()
        else:
            self._spare = done.result()
            self.failure = self.trouble = None

    def _fail(self, what: str) -> JournalUnavailable:
        """Say why no record is taken."""
        self.failure = what
        self._try_again()
        return JournalUnavailable(what)

    def _try_again(self) -> None:
        """See after a moment whether it is still so, also when nobody appends any more."""
        if self._retry is None and not self._closing:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._recover)

    def _recover(self) -> None:
        self._retry = None
        if self._moving:
            self._move_unsynced()
        elif self._spare is not None:
            self.failure = self.trouble = None
        elif not self._preparing:
            self._prepare_spare()

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

        def finish(error: Exception | None, seconds: float) -> None:
            self._syncing = False
            if error:
                log.error("%s: sync failed (%s); storing its unsynced records again", self.directory, error)
                self._doubtful_names |= names
                self._moving = True
                if time.monotonic() < self._moved_at + _RETRY_S:
                    self._fail(f"one sync after the other fails: {error}")
                else:
                    self._move_unsynced()
            else:
                self._finish_sync(target, seconds)

        self._syncer.sync(descriptors, finish, directory=directory)
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
        names = list(self.names.items()) if self._doubtful_names else None

        def move() -> Segment:
            if names is not None:
                write_synced(self.directory / "names", b"".join(_line(key, name) for key, name in names))
            return self._make_spare(size)

        self._syncer.work(move, lambda done: self._finish_move(done, None if names is None else len(names)))

    def _finish_move(self, done: "asyncio.Future[Segment]", names: int | None) -> None:
        """Go on in the new segment; and behind so many *names*, which the failed sync may have lost, written anew."""
        if error := done.exception():
            self._fail(f"a sync failed and no new segment can be made: {error}")
            return
        fresh, old = done.result(), [*self._full, self._segment]
        try:
            if names is not None:
                self._reopen_names(names)
        except OSError as again:
            fresh.discard()
            self._fail(f"a sync failed and names cannot be written: {again}")
            return
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

    def _reopen_names(self, written: int) -> None:
        """Leave the file whose sync failed for the one that holds the first so many names. Raises OSError."""
        fd = os.open(self.directory / "names", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            write_all(fd, b"".join(_line(key, name) for key, name in islice(self.names.items(), written, None)))
            self._names_size = os.fstat(fd).st_size
        except OSError:
            os.close(fd)
            raise
        os.close(self._names)
        self._names, self._doubtful_names, self._unsynced_names = fd, False, True

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
        await self._syncer.close()
        for segment in self._full:
            self._close(segment, segment.room)
        self._close(self._segment, (self._offset - HEADER) // RECORD)
        self._offset = self._end
        if self._spare is not None:
            self._spare.discard()
        os.close(self._names)
        os.close(self._lock)


def _line(key: bytes, name: str) -> bytes:
    return f"{key.hex()} {name}\n".encode()


class NoJournal:
    """Stands in where no journal can be made: it takes nothing and says why, so that ads are served all the same."""

    names: ClassVar[dict[bytes, str]] = {}
    written = synced = room = 0
    trouble: str | None = None

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


def create_journal(root: Path, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
    """A new journal under *root* for this boot, locked. Raises JournalUnavailable."""
    try:
        check_root(root)
        while True:
            producer = _new_producer(root)
            directory = root / producer.hex()
            directory.mkdir(mode=0o700)
            sync_directory(root)
            lock = take_lock(directory)
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
