"""When what was appended is safe, and what a disk costs that fails or hangs.

A failing sync is real in one test (a shim preloaded into a child) and replaced in the others, because no file
system here fails on demand.
"""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adserver import journal
from adserver.disk import write_all
from adserver.errors import JournalUnavailable
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from tests.edges.journals import (
    AD,
    ROOT,
    SMALL,
    Disk,
    adopt_only,
    put,
    read_all,
    serials,
    settled,
    with_journal,
)
from tests.edges.servers import until


def test_waiting_ends_when_everything_stored_is_synced(root: Path) -> None:
    """
    `wait_synced` covers all records stored before the call, and is done at once when there is nothing to wait for.
    """

    async def body(made: Journal) -> None:
        assert made.wait_synced().done()
        put(made)
        put(made)
        waiting = made.wait_synced()
        assert not waiting.done()
        await waiting
        assert made.synced == 2
        assert made.wait_synced().result() is True  # not just done: a beacon takes anything else for a no

    with_journal(root, body)


def test_a_record_nobody_waits_for_is_synced_soon(root: Path) -> None:
    """
    Within SYNC_WITHIN_S and a moment a stored record is on disk, and `on_synced` and `on_sync` say so.
    """

    async def body(made: Journal) -> None:
        heard = list[float]()
        made.on_sync = heard.append
        rang = asyncio.Event()
        made.on_synced = rang.set
        put(made)
        await asyncio.wait_for(rang.wait(), 5)
        assert made.synced == 1
        assert [type(seconds) for seconds in heard] == [float]

    with_journal(root, body)


def test_a_page_nobody_waits_for_is_synced_soon(root: Path) -> None:
    """
    What a page served is synced and counted though no beacon of it ever comes.
    """

    async def body(made: Journal) -> None:
        rang = asyncio.Event()
        made.on_synced = rang.set
        made.append_served(400, 9, b"issue", 0, [AD, AD], 1_772_000_000.0)
        await asyncio.wait_for(rang.wait(), 5)
        assert made.synced == 2

    with_journal(root, body)


def test_one_who_cannot_be_told_keeps_nobody_else_waiting(
    root: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A callback that raises is named in the log; those before and after it are told, and the next sync comes.
    """

    def broken(safe: bool) -> None:
        raise RuntimeError("its connection is gone")

    async def body(made: Journal) -> None:
        told = list[bool]()
        disk.gate.clear()
        put(made)
        for tell in (told.append, broken, told.append):
            made.when_synced(tell, 30)
        disk.gate.set()
        await settled(lambda: len(told) == 2)
        assert told == [True, True]
        assert f"{made.directory}: one who waited for record 1 could not be told" in caplog.text
        assert "its connection is gone" in caplog.text
        put(made)
        assert await asyncio.wait_for(made.wait_synced(), 5)

    with_journal(root, body)


def test_one_sync_is_in_flight_and_takes_all_that_is_stored(root: Path, disk: Disk) -> None:
    """
    While a sync runs others wait; the next one serves all of them together.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        waiting = [made.wait_synced()]
        await settled(lambda: disk.calls)
        for _ in range(5):
            put(made)
            waiting.append(made.wait_synced())
        disk.gate.set()
        await waiting[0]
        assert not waiting[1].done()
        await asyncio.gather(*waiting)
        assert made.synced == 6
        assert len(disk.calls) == 2
        assert disk.most == 1

    with_journal(root, body)


def test_a_segment_that_fills_up_during_a_sync_is_synced_again(root: Path, disk: Disk) -> None:
    """
    A full segment is let go only when the sync that ended took its last record with it.
    """

    async def body(made: Journal) -> None:
        first = (made.directory / f"{1:020}.seg").stat().st_ino
        disk.gate.clear()
        put(made)
        waiting = made.wait_synced()
        await settled(lambda: disk.running)
        for _ in range(9):
            put(made)
        disk.gate.set()
        await waiting
        await made.wait_synced()
        assert made.synced == 10
        assert disk.inodes.count(first) == 2

    with_journal(root, body)


def test_who_waits_is_told_in_time_that_the_disk_was_not(root: Path, disk: Disk) -> None:
    """
    A wait ends with False when its own time is up, whatever others wait for, and leaves nothing behind.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        patient = made.wait_synced(30)
        hasty = [made.wait_synced(0.01) for _ in range(1000)]
        longer = made.wait_synced(0.02)
        assert await asyncio.gather(*hasty) == [False] * 1000
        assert not patient.done()
        assert await longer is False
        assert len(made._waiting) == 1
        disk.gate.set()
        assert await asyncio.wait_for(patient, 5)
        assert not made._waiting

    with_journal(root, body)


def test_a_caller_that_gave_up_disturbs_nobody(root: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """
    A future that its caller cancelled is skipped, which is no error, and the others resolve.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        made.wait_synced().cancel()
        patient = made.wait_synced(30)
        made.wait_synced().cancel()
        disk.gate.set()
        assert await asyncio.wait_for(patient, 5)

    with_journal(root, body)
    assert "could not be told" not in caplog.text


def test_closing_tells_those_who_still_wait(root: Path, disk: Disk) -> None:
    """
    Whoever waits for a disk that hangs while the journal closes is told no, and does not hang with it.
    """

    async def main() -> None:
        made = create_journal(root, segment_bytes=SMALL)
        disk.gate.clear()
        put(made)
        waiting = made.wait_synced(30)
        closing = asyncio.create_task(made.close())
        assert await asyncio.wait_for(waiting, 10) is False
        disk.gate.set()
        await closing

    asyncio.run(main())


def test_records_of_a_failed_sync_are_stored_again(root: Path, disk: Disk) -> None:
    """
    After a failed sync its descriptor is left alone, the waiting resolve, and a reader sees each number once.
    """

    async def body(made: Journal) -> None:
        for _ in range(3):
            put(made)
        await made.wait_synced()
        put(made)
        put(made)
        disk.failures = 1
        await asyncio.wait_for(made.wait_synced(), 5)
        assert made.synced == made.written == 5
        assert made.failure is None
        assert (made.directory / f"{4:020}.seg").exists()
        assert serials(read_all(made.directory, made.synced)) == [1, 2, 3, 4, 5]
        for _ in range(30):
            put(made)
        await made.wait_synced()

    assert serials(read_all(with_journal(root, body))) == list(range(1, 36))


def test_names_of_a_failed_sync_are_written_again(root: Path, disk: Disk) -> None:
    """
    What a failed sync may have lost of the names stands in a new file, with those noted meanwhile and afterwards.
    """
    names = {bytes([n] * 7): f"ad {n}" for n in range(6)}
    keys = list(names)

    async def body(made: Journal) -> None:
        def note(key: bytes) -> None:
            made.name(key, names[key])
            put(made)

        note(keys[0])
        await made.wait_synced()
        before = (made.directory / "names").stat().st_ino
        note(keys[1])
        disk.failures = 1
        disk.gate.clear()
        waiting = made.wait_synced()
        await settled(lambda: disk.running)
        note(keys[2])
        disk.gate.set()
        await asyncio.wait_for(waiting, 5)
        note(keys[3])
        await made.wait_synced()
        assert (made.directory / "names").stat().st_ino != before
        assert Reader(made.directory).names() == {key: names[key] for key in keys[:4]}
        note(keys[4])
        note(keys[5])

    assert Reader(with_journal(root, body)).names() == names


def test_the_very_first_sync_may_fail(root: Path, disk: Disk) -> None:
    """
    When nothing of a segment was synced yet, the new one takes its very name.
    """

    async def body(made: Journal) -> None:
        before = (made.directory / f"{1:020}.seg").stat().st_ino
        disk.failures = 1
        put(made)
        await asyncio.wait_for(made.wait_synced(), 5)
        assert (made.directory / f"{1:020}.seg").stat().st_ino != before
        put(made)

    assert serials(read_all(with_journal(root, body))) == [1, 2]


@pytest.mark.parametrize("synced", [0, 3, 8, 11])
@pytest.mark.parametrize("unsynced", [1, 8, 30])
def test_a_failed_sync_over_several_segments_loses_nothing(root: Path, disk: Disk, synced: int, unsynced: int) -> None:
    """
    Unsynced records in many segments, more than one holds, are all stored again, also those that come meanwhile.
    """

    async def body(made: Journal) -> None:
        for _ in range(synced):
            put(made)
        await made.wait_synced()
        disk.gate.clear()
        put(made)
        first = made.wait_synced()
        await settled(lambda: disk.running)
        for _ in range(unsynced):
            put(made)
        disk.failures = 1
        disk.gate.set()
        waiting = made.wait_synced()
        while not waiting.done():
            put(made)
            assert serials(read_all(made.directory, made.synced)) == list(range(1, made.synced + 1))
            await asyncio.sleep(0.001)
        await first
        assert made.failure is None
        assert serials(read_all(made.directory)) == list(range(1, made.written + 1))

    directory = with_journal(root, body)
    one = adopt_only(root)
    assert serials(read_all(directory)) == list(range(1, one.last + 1))
    assert one.last >= synced + unsynced + 1
    one.close()


def test_a_reader_behind_a_failed_sync_finds_every_record(root: Path, disk: Disk) -> None:
    """
    A shipper that is far behind, and read the directory before, sees the segment that superseded others.
    """

    async def body(made: Journal) -> None:
        reader = Reader(made.directory)
        for _ in range(14):
            put(made)
        await made.wait_synced()
        got = reader.read(0, made.synced, 4)
        disk.failures = 1
        for _ in range(9):
            put(made)
        await asyncio.wait_for(made.wait_synced(), 5)
        while more := reader.read(got[-1][0], made.synced, 4):
            got += more
        assert serials(got) == list(range(1, 24))

    with_journal(root, body)


def test_a_disk_that_goes_on_failing_is_tried_again(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Sync after sync fails: each time in a fresh segment, after a pause, and meanwhile the journal says so.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)

    async def body(made: Journal) -> None:
        put(made)
        disk.failures = 4
        waiting = made.wait_synced()
        await settled(lambda: made.failure)
        assert not waiting.done()
        put(made)
        impatient = made.wait_synced()  # what failed is not synced for it either
        await asyncio.wait_for(waiting, 5)
        assert await asyncio.wait_for(impatient, 5)
        assert made.failure is None
        assert disk.failures == 0
        assert made.synced == 2

    assert serials(read_all(with_journal(root, body))) == [1, 2]


def test_a_journal_without_room_says_so_until_there_is_some(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It tries again and again by itself, and does not say meanwhile that all is well.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.01)

    async def body(made: Journal) -> None:
        said: list[str | None] = []
        real = made._make_spare

        def full(size: int) -> None:
            said.append(made.failure)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(made, "_make_spare", full)
        for _ in range(8):
            put(made)
        with pytest.raises(JournalUnavailable, match="No space"):
            put(made)
        await settled(lambda: len(said) > 4)
        assert made.failure
        assert all(said[1:])
        monkeypatch.setattr(made, "_make_spare", real)
        await settled(lambda: made.failure is None)
        assert put(made) == 9

    assert serials(read_all(with_journal(root, body))) == list(range(1, 10))


def test_a_close_while_the_disk_hangs_ends_cleanly(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Records stored while a sync hangs are in the file when the journal is closed; nothing is left open.
    """
    open_before = len(os.listdir("/proc/self/fd"))

    async def impatient(made: Journal) -> None:
        """drain, without its two seconds"""

    monkeypatch.setattr(Journal, "drain", impatient)

    async def main() -> Path:
        made = create_journal(root, segment_bytes=SMALL)
        disk.gate.clear()
        put(made)
        made.wait_synced()
        await settled(lambda: disk.running)
        for _ in range(20):
            put(made)
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        disk.failures = 1
        disk.gate.set()
        await closing
        return made.directory

    directory = asyncio.run(main())

    assert serials(read_all(directory)) == list(range(1, 22))
    kept = len(disk.failed)
    until(lambda: len(os.listdir("/proc/self/fd")) <= open_before + kept)
    assert not list(directory.glob("*.spare"))


def test_a_hanging_disk_does_not_hang_the_loop(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When the segment is full and the disk has not answered for a while, events are refused at once, in words.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)
    monkeypatch.setattr(journal, "_HUNG_S", 0.05)

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        waiting = made.wait_synced()
        began = time.monotonic()
        await settled(lambda: time.monotonic() > began + 0.06)
        for _ in range(7):
            put(made)
        with pytest.raises(JournalUnavailable, match="has not answered"):
            put(made)
        assert made.failure
        disk.gate.set()
        await waiting
        await settled(lambda: made.failure is None)
        assert put(made) == 9

    assert serials(read_all(with_journal(root, body))) == list(range(1, 10))


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int fails(void) {
    const char *sign = getenv("FAIL_SYNC");
    return sign && unlink(sign) == 0;
}
int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
long syscall(long n, ...) {
    long a[6];
    va_list list;
    va_start(list, n);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    long done = ((long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"))(n, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (n == SYS_io_getevents && done > 0 && fails()) ((struct io_event *)a[3])->res = -EIO;
    return done;
}
"""

FAILING_CHILD = """
import asyncio, os, sys
from pathlib import Path
from adserver import journal, syncing
from adserver.errors import JournalUnavailable
from adserver.journal import create_journal
from adserver.segments import HEADER, RECORD

if sys.argv[2] == "thread":
    syncing._open_kernel = lambda: None
failed = []

class Kernel(syncing.KernelSync):
    def start(self, fd, tell):
        super().start(fd, lambda error: (failed.append(error) if error else None, tell(error)))

syncing.KernelSync = Kernel

async def main():
    journal._RETRY_S = 0.01
    made = create_journal(Path(sys.argv[1]), segment_bytes=HEADER + 8 * RECORD)
    for n in range(200):
        if n % 7 == 3:
            open(os.environ["FAIL_SYNC"], "w").close()
        for _ in range(n % 12):
            while True:
                try:
                    made.append(3, 0, 20514, 14, b"abcde", made.written + 1, bytes(8), 1.0)
                    break
                except JournalUnavailable:
                    await asyncio.sleep(0.001)
        await made.wait_synced()
        os.write(1, b"%d\\n" % made.synced)
    assert bool(failed) == (sys.argv[2] == "kernel"), failed
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.parametrize("by", ["thread", "kernel"])
def test_a_sync_that_the_kernel_fails_is_ridden_out(root: Path, tmp_path: Path, by: str) -> None:
    """
    A real process whose syncs return EIO now and then acknowledges everything once, and all of it is found.
    """
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    surroundings = {**os.environ, "LD_PRELOAD": str(shim), "FAIL_SYNC": str(tmp_path / "sign")}

    child = subprocess.run(
        [sys.executable, "-c", FAILING_CHILD, root, by], cwd=ROOT, env=surroundings, capture_output=True, check=False
    )

    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert b"storing its unsynced records again" in child.stderr
    one = adopt_only(root)
    assert one.last == int(child.stdout.split()[-1]) == sum(n % 12 for n in range(200))
    assert serials(read_all(one.reader.directory)) == list(range(1, one.last + 1))
    one.close()


def test_what_an_ad_key_stands_for_is_synced_with_the_records(root: Path, disk: Disk) -> None:
    """
    A name is on the disk no later than a record that needs it; a sync without a new name leaves the file alone.
    """

    async def body(made: Journal) -> None:
        names = (made.directory / "names").stat().st_ino
        synced = list[bool]()
        for name in ("889990/a/b", None, "889990/c/d"):
            disk.calls.clear()
            if name:
                made.name(name.encode()[-7:], name)
            put(made)
            await made.wait_synced()
            synced.append(names in [os.fstat(fd).st_ino for fd in disk.calls])
        assert synced == [True, False, True]

    with_journal(root, body)


def test_a_name_that_does_not_fit_takes_no_other_with_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Half a line on a full disk is taken back to where the names ended, however many there are; then it fits.
    """
    real = write_all

    def half(fd: int, data: bytes) -> None:
        real(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def body(made: Journal) -> None:
        made.name(b"1" * 7, "889990/a/b")
        made.name(b"2" * 7, "889990/a/longer")
        monkeypatch.setattr(journal, "write_all", half)
        with pytest.raises(JournalUnavailable, match="No space"):
            made.name(b"3" * 7, "889990/a/c")
        assert b"3" * 7 not in made.names
        monkeypatch.setattr(journal, "write_all", real)
        made.name(b"3" * 7, "889990/a/c")
        assert made.names[b"3" * 7] == "889990/a/c"

    directory = with_journal(root, body)
    assert list(Reader(directory).names().values()) == ["889990/a/b", "889990/a/longer", "889990/a/c"]
