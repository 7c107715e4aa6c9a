"""`python -m adserver.torture.inside serve …`: the service as it is, with its disk and its clock in our hands.

The service's own code runs unchanged; what is wrapped are `os.fsync`, `os.fdatasync`, the kernel's own syncs
and `time.time`. Each worker
is spawned with this as its main module, so the wrapping is in place before anything of the service is imported there.
Before a sync it is noted how far the file is valid, and after it that this much is safe: what lies behind may be taken
away by a power cut.
"""

import asyncio
import errno
import os
import random
import stat
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adserver.torture.control import BROKEN, SIDE, Control

SEGMENT_BYTES = 128 * 1024
"""Small segments, so that a round fills many."""
FAR_BEHIND = 300
"""Far less than in earnest, so that workers turn over to new journals most times that the store was away."""


class Disk:
    """Wraps the syncs of this process."""

    def __init__(self, side: Path, journals: Path, control: Control) -> None:
        self._journals = os.fsencode(journals) + b"/"
        self._control = control
        self._notes = os.open(
            side / f"notes-{os.getpid()}-{time.monotonic_ns()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        self._valid: dict[int, int] = {}
        self.pretending = threading.local()

    def note(self, *words: object) -> None:
        os.write(self._notes, (" ".join(map(str, (time.monotonic_ns(), *words))) + "\n").encode())

    def wrap(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            path = os.readlink(b"/proc/self/fd/%d" % fd)
            if not path.startswith(self._journals):
                real(fd)
            elif not getattr(self.pretending, "on", False):
                note = self._begin(fd, path)
                real(fd)
                note()

        return sync

    def wrap_kernel(self, real: Callable[..., None]) -> Callable[..., None]:
        def start(kernel: Any, fd: int, tell: Callable[[OSError | None], None]) -> None:
            try:
                note = self._begin(fd, os.readlink(b"/proc/self/fd/%d" % fd))
            except OSError as error:
                asyncio.get_running_loop().call_soon(tell, error)
                return

            def done(error: OSError | None) -> None:
                if error is None:
                    note()
                tell(error)

            real(kernel, fd, done)

        return start

    def wrap_write(self, real: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
        def write(fd: int, data: bytes, offset: int) -> int:
            written = real(fd, data, offset)
            if os.readlink(b"/proc/self/fd/%d" % fd).startswith(self._journals):
                self.note("rewritten", os.fstat(fd).st_ino)
            return written

        return write

    def _begin(self, fd: int, path: bytes) -> Callable[[], None]:
        """What to do once this sync has succeeded. Raises OSError when it is to fail."""
        found = os.fstat(fd)
        _, until, probability, full_until = self._control.read()
        now = time.monotonic()
        if path.endswith(b".spare") and now < full_until:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if now < until and random.random() < probability:
            if path.endswith(b".seg"):  # the kernel calls these pages clean now: no later sync will write them
                self.note("failed", found.st_ino)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if stat.S_ISDIR(found.st_mode):
            names = " ".join(f"{entry.name}={entry.inode()}" for entry in os.scandir(fd))
            return lambda: self.note("directory", os.path.basename(path).decode(), names)
        size = self._measure(fd, found, path)
        return lambda: self.note("file", found.st_ino, size)

    def _measure(self, fd: int, found: os.stat_result, path: bytes) -> int:
        """The bytes of the file that hold something a reader takes."""
        if path.endswith(b".seg"):
            end = self._valid[found.st_ino] = _valid_end(fd, path, min(self._valid.get(found.st_ino, 0), found.st_size))
            return end
        if path.endswith(b".spare"):  # a new file, perhaps with the inode of one removed
            self.note("new", found.st_ino)
            self._valid.pop(found.st_ino, None)
            return 0
        return found.st_size


def _valid_end(fd: int, path: bytes, begin: int) -> int:
    from adserver import events
    from adserver.segments import HEADER, RECORD

    directory, name = path.rsplit(b"/", 2)[1:]
    seed, first = zlib.crc32(bytes.fromhex(directory.decode())), int(name.split(b".")[0])
    end = max(begin, HEADER)
    while data := os.pread(fd, 2048 * RECORD, end):
        for offset in range(0, len(data) - RECORD + 1, RECORD):
            record = data[offset : offset + events.SIZE]
            number = first + (end - HEADER) // RECORD
            if (
                zlib.crc32(record, seed).to_bytes(4, "little") != data[offset + events.SIZE : offset + RECORD]
                or int.from_bytes(record[-2:], "little") != number & 0xFFFF
            ):
                return end
            end += RECORD
        if len(data) < RECORD:
            break
    return end


def _note_uncounted(disk: Disk) -> None:
    """Note each event that no journal would take: its snippet leaves all the same, and is said to be uncounted."""
    from adserver import journal
    from adserver.errors import JournalUnavailable
    from adserver.events import Type

    def noting(append: Callable[..., int]) -> Callable[..., int]:
        def wrapped(
            self: Any, type_: int, reason: int, day: int, hour: int, issuer: bytes, serial: int, *rest: Any
        ) -> int:
            try:
                return append(self, type_, reason, day, hour, issuer, serial, *rest)
            except JournalUnavailable:
                disk.note("uncounted", int(type_), issuer.hex(), serial)
                raise

        return wrapped

    def noting_served(append_served: Callable[..., None]) -> Callable[..., None]:
        def wrapped(
            self: Any, day: int, hour: int, issuer: bytes, serial: int, subjects: Sequence[bytes], now: float
        ) -> None:
            before = self.written
            try:
                append_served(self, day, hour, issuer, serial, subjects, now)
            except JournalUnavailable:
                for place in range(self.written - before, len(subjects)):
                    disk.note("uncounted", int(Type.SERVED), issuer.hex(), serial + place)
                raise

        return wrapped

    # What is no journal refuses names before it refuses events; it is the events that are noted here.
    setattr(journal.NoJournal, "name", lambda *_: None)  # noqa: B010
    for one in (journal.Journal, journal.NoJournal):
        setattr(one, "append", noting(one.append))  # noqa: B010
        setattr(one, "append_served", noting_served(one.append_served))  # noqa: B010
    (journal.create_journal.__kwdefaults__ or {})["segment_bytes"] = SEGMENT_BYTES


def install(side: Path) -> None:
    """Take this process's disk and clock in hand."""
    from adserver import ship, syncing

    control = Control(side)
    disk = Disk(side, Path(os.environ["ADSERVER_DATA_DIR"]) / "journal", control)
    os.fsync = disk.wrap(os.fsync)  # type: ignore[assignment]
    os.fdatasync = disk.wrap(os.fdatasync)  # type: ignore[assignment]
    setattr(syncing.KernelSync, "start", disk.wrap_kernel(syncing.KernelSync.start))  # noqa: B010
    os.pwrite = disk.wrap_write(os.pwrite)  # type: ignore[assignment]
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + control.read()[0]
    time.time_ns = lambda: real_ns() + int(control.read()[0] * 1e9)
    _note_uncounted(disk)
    ship.FAR_BEHIND = FAR_BEHIND
    if name := os.environ.get(BROKEN):
        from adserver.torture.broken import VARIANTS

        VARIANTS[name].install(side, disk.pretending)


if SIDE in os.environ:
    install(Path(os.environ[SIDE]))

if __name__ == "__main__":
    from adserver.cli import main

    sys.exit(main())
